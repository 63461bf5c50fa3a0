"""The nouns of the OCI image specification as immutable values. Nothing here does I/O."""
