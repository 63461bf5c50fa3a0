"""Unpacked root filesystems: under an `overlay` or in one `directory` for steps, a `bundle` for people to edit."""
