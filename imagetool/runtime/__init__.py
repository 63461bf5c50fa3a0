"""Run a command in an ephemeral container described by an OCI runtime-spec config."""
