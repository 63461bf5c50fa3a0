"""Root filesystems for RUN steps. See `overlay`."""
