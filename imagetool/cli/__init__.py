"""The command line: `commands` says what there is, `app` calls it, and only `typed` has typer, for help and errors."""
