"""imagetool builds, moves, converts and verifies container images without a daemon.

`imagetool.api` holds the verbs as plain functions for programs; `imagetool.cli` is the
command line over them. This module stays empty of imports so that `imagetool --version`
costs nothing.
"""

__version__ = "0.1.0"
