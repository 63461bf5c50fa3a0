"""Where blobs live. Every store verifies digest and size on the way in and on the way out."""
