"""What the environment and the files of the user say. The only readers of `os.environ`."""
