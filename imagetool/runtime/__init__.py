"""Ephemeral containers: `spec` describes one, `rootfs` says over which files, `executors` run it.

`zygote`, `container` and what they import run inside the helper process that forks a container
per request, so they import nothing that is slow to load.
"""
