"""What the larger commands do, each in a module of its own; `api` offers them under one name."""
