"""A root filesystem and its changes: layer tars written, read, merged and unpacked.

Names of files are bytes end to end; the tar codec is our own, because the stdlib's costs ten
times as much on small files and its extraction can be led outside its target.
"""
