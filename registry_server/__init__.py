"""A container registry: the OCI distribution API over a blob store and a metadata store."""
