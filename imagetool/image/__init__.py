"""Images as immutable values over a store, and the ways to make, choose and check one."""
