"""The rules of the wire between registry clients and servers, without I/O and shared by both."""
