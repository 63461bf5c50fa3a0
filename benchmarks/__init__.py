"""Side-by-side measurements against the tools of other projects; see `measure` for how to add one."""
