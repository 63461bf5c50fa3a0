"""Which system calls a container may make: profiles as JSON, and their compiler to the kernel's BPF.

`profile` reads both dialects of profiles and resolves one for a container; `default` is our own;
`compiler` turns the resolved form, which is `linux.seccomp` of the OCI config, into a filter.
"""
