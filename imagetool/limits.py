"""The bounds imagetool puts on untrusted input, each named once.

Every constant is a number of bytes unless its name says otherwise. Reaching one raises
`imagetool.errors.LimitExceeded`, or `InvalidDocument` where the document is at fault.

Every one but the units can be set for a run of the program: `--limit layer-bytes=1TiB`, or
IMAGETOOL_LIMITS=layer-bytes=1TiB,… (`config.environment`); `imagetool limits` prints them and
docs/reference/limits.md explains them. So they are read where they are used, as `limits.NAME`,
and never bound to another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

#: The unit in which blobs move: reads, writes, hashing and compression are re-blocked to it.
CHUNK: Final = MIB

#: A manifest, index or config. Registries (distribution, zot) and containers/image agree on it.
DOCUMENT_BYTES: Final = 4 * MIB
DOCUMENT_DEPTH: Final = 64  # nesting levels of objects and arrays
DOCUMENT_INT_DIGITS: Final = 19  # digits of an integer: all of int64

#: A Dockerfile, and one of its physical lines (BuildKit's scanner refuses longer ones).
DOCKERFILE_BYTES: Final = 4 * MIB
DOCKERFILE_LINE_BYTES: Final = 65535
DOCKERFILE_WORD_DEPTH: Final = 100  # substitutions within substitutions, ${a:-${b:-…}}
DOCKERFILE_CHECKED: Final = 5000  # instructions, and variables, of a file that the lint looks at
DOCKERFILE_PATTERN: Final = 4096  # characters of the pattern in ${v#p}, ${v%p} or ${v/p/r}

#: Layer archives.
TAR_ENTRIES: Final = 10_000_000  # entries in one layer
TAR_NAME_BYTES: Final = 4096  # PATH_MAX; a longer name cannot be created by one system call
TAR_PAX_BYTES: Final = MIB  # one extended header, all records together
TAR_SPARSE_REGIONS: Final = 100_000  # stretches of data in one sparse file
TAR_XATTR_BYTES: Final = 64 * KIB  # one extended attribute's value (XATTR_SIZE_MAX)
TAR_TRAILING_BYTES: Final = GIB  # what may follow the end-of-archive marker: padding, or tars that readers ignore
SCAN_BYTES: Final = 2 * GIB  # the saved scan of an unpacked image
LAYER_BYTES: Final = 256 * GIB  # one layer, uncompressed
ARCHIVE_BYTES: Final = 256 * GIB  # an archive of images, unpacked
ARCHIVE_ENTRIES: Final = 100_000  # entries of one: blobs, tags and directories
ARCHIVE_LINK_BYTES: Final = 16 * MIB  # names and targets of the links in one, which are held in memory
TREE_BYTES: Final = 2 * GIB  # memory of the tree that layers are merged to
LAYER_RATIO: Final = 1100  # uncompressed : compressed; deflate itself cannot pass 1032, bzip2 and xz can
ZSTD_RATIO: Final = 33_000  # the same for zstd, which stores 128 KiB of one byte in four: LAYER_BYTES is its bound
LAYER_RATIO_FLOOR: Final = GIB  # the ratio is not looked at below this much output
ZSTD_WINDOW_LOG: Final = 27  # 128 MiB, the decoder memory a frame may ask for
TOC_BYTES: Final = 64 * MIB  # the JSON of a table of contents (zstd:chunked, eStargz)
XZ_MEMORY: Final = 256 * MIB  # the decoder memory an xz stream may ask for

#: Graph walks.
INDEX_MANIFESTS: Final = 1000  # entries of one image index
INDEX_DEPTH: Final = 4  # indexes within indexes
IMAGE_LAYERS: Final = 1000  # layers of one image
GRAPH_DOCUMENTS: Final = 2000  # manifests and indexes that one copy moves
GRAPH_BYTES: Final = 64 * MIB  # all of them together

#: Wire.
ERROR_BODY_BYTES: Final = 64 * KIB  # how much of an error answer is read
HEADER_BYTES: Final = 32 * KIB  # one header value that is parsed
BODY_SECONDS: Final = 60  # seconds between two pieces of a request body, and before its rate counts
BODY_BYTES_PER_SECOND: Final = KIB  # the least rate at which our server takes a body
PASSWD_BYTES: Final = MIB  # /etc/passwd or /etc/group of an image
ENV_FILE_BYTES: Final = 4 * MIB  # what --env-file names; the kernel takes less for one program

#: What each limit bounds, as `imagetool limits` prints it.
BOUNDED: Final = {
    "DOCUMENT_BYTES": "bytes of a manifest, index, config or other JSON document",
    "DOCUMENT_DEPTH": "levels of objects and arrays in a document",
    "DOCUMENT_INT_DIGITS": "digits of an integer in a document",
    "DOCKERFILE_BYTES": "bytes of a Dockerfile or ignore file, and of what a word's variables expand to",
    "DOCKERFILE_LINE_BYTES": "bytes of one line of a Dockerfile",
    "DOCKERFILE_WORD_DEPTH": "substitutions within substitutions in a word of a Dockerfile",
    "DOCKERFILE_CHECKED": "instructions, and variables, of a Dockerfile that the lint looks at",
    "DOCKERFILE_PATTERN": "characters of the pattern in ${v#p}, ${v%p} or ${v/p/r}",
    "TAR_ENTRIES": "entries in one layer, extended headers among them",
    "TAR_NAME_BYTES": "bytes of an entry's name or link target",
    "TAR_PAX_BYTES": "bytes of one extended header",
    "TAR_XATTR_BYTES": "bytes of one extended attribute",
    "TAR_SPARSE_REGIONS": "stretches of data in one sparse file",
    "TAR_TRAILING_BYTES": "bytes that follow the end of an archive",
    "ARCHIVE_BYTES": "bytes of an archive of images, unpacked",
    "ARCHIVE_ENTRIES": "entries in an archive of images",
    "ARCHIVE_LINK_BYTES": "bytes of the names and targets of links in an archive of images",
    "TREE_BYTES": "bytes of memory, by estimate, for the layers of an image that are merged",
    "LAYER_BYTES": "bytes of one layer, uncompressed, of its sparse files, and of a download",
    "LAYER_RATIO": "uncompressed to compressed bytes of a layer in gzip, xz or bzip2",
    "ZSTD_RATIO": "uncompressed to compressed bytes of a layer in zstd",
    "LAYER_RATIO_FLOOR": "bytes of a layer before the ratio counts",
    "ZSTD_WINDOW_LOG": "power of two of the memory that a zstd frame may ask for",
    "TOC_BYTES": "bytes of the table of contents of a layer in zstd:chunked or eStargz",
    "XZ_MEMORY": "bytes of memory that an xz stream may ask for",
    "SCAN_BYTES": "bytes of the saved scan of an unpacked image",
    "INDEX_MANIFESTS": "entries of one image index",
    "INDEX_DEPTH": "indexes within indexes",
    "IMAGE_LAYERS": "layers of one image",
    "GRAPH_DOCUMENTS": "manifests and indexes that one copy moves",
    "GRAPH_BYTES": "bytes of these together",
    "ERROR_BODY_BYTES": "bytes of a registry's error that are read",
    "HEADER_BYTES": "bytes of a header that are read, and of a token",
    "BODY_SECONDS": "seconds that our registry waits for a piece of a request's body",
    "BODY_BYTES_PER_SECOND": "bytes a second at which our registry wants a body",
    "PASSWD_BYTES": "bytes of /etc/passwd or /etc/group of an image",
    "ENV_FILE_BYTES": "bytes of what --env-file names",
}

#: The least and the most to which a limit can be set, where that is not 1 and `_MOST`: beyond, the
#: interpreter's stack or libzstd gives up, or what is read at once does not fit into memory.
_RANGES: Final = {
    "DOCUMENT_DEPTH": (1, 400),
    "DOCUMENT_INT_DIGITS": (1, 4000),
    "DOCKERFILE_WORD_DEPTH": (1, 200),
    "INDEX_DEPTH": (1, 100),
    "ZSTD_WINDOW_LOG": (10, 31),
    "BODY_SECONDS": (1, 86400),
} | dict.fromkeys(
    (
        "DOCUMENT_BYTES",
        "DOCKERFILE_BYTES",
        "TAR_PAX_BYTES",
        "TOC_BYTES",
        "ERROR_BODY_BYTES",
        "PASSWD_BYTES",
        "ENV_FILE_BYTES",
    ),
    (1, GIB),
)
_MOST: Final = 1 << 60


def setting(name: str) -> str:
    """Return how a limit is written outside: "layer-bytes" for LAYER_BYTES."""
    return name.lower().replace("_", "-")


def named(name: str) -> str:
    """Return a limit for an error: what it is called, its value, and what sets it."""
    return f"the limit {setting(name)}={globals()[name]:.0f}, which --limit or IMAGETOOL_LIMITS sets"


def range_of(name: str) -> tuple[int, int]:
    """Return the least and the most to which a limit can be set."""
    return _RANGES.get(name, (1, _MOST))


def adjust(values: Mapping[str, int]) -> None:
    """Set limits for this process, by the names of `BOUNDED`; call it before anything is read."""
    for name, value in values.items():
        least, most = range_of(name)
        if name not in BOUNDED or not least <= value <= most:
            raise ValueError(f"{name}={value}")
        globals()[name] = value
