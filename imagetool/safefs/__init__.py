"""File operations below a directory whose contents are not trusted. See `root`."""
