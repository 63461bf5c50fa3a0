"""What the environment and the files of the user say. Elsewhere the environment is only handed on to programs."""
