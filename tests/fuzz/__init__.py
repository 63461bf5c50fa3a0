"""Fuzz targets, their corpora in fixtures/fuzz, and the program that runs them (`make fuzz`)."""
