"""Build an image from a Dockerfile, layer by layer, from a cache addressed by content."""
