"""What other systems run an image from: directories and files that they take as their own.

Each module writes for one family of systems, from a `BundleSource` into an empty directory. What is
written is checked before, key by key (`shape`, `keyed`): a key that the system does not know is an error.
"""
