"""The nouns of the appc specification as immutable values. Nothing here does I/O."""
