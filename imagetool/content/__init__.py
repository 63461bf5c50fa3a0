"""Where blobs live, and folders in the making. Stores verify digest and size on the way in and on the way out."""
