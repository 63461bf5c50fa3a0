"""Chunks of bytes on their way: verified, re-blocked, compressed. Knows digests, not images.

A stream is an iterator of non-empty `bytes`; chunk sizes carry no meaning.
"""
