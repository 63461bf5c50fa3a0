"""Every error imagetool raises on purpose, in one tree; anything else is a bug.

    ImagetoolError                 125  unexpected; the base class is never raised itself
    ├── UsageError                   2  the command line or an argument cannot be right
    │   ├── InvalidReference            a name outside the reference grammar
    │   └── Unsupported                 a valid request that imagetool does not offer
    ├── BuildError                   1  the build itself failed
    │   ├── DockerfileError             the Dockerfile is wrong; knows file, line, column and excerpt
    │   └── StepFailed                  a RUN step ended with a non-zero status
    ├── NotFound                     3  an image, tag, blob or file that was named is not there
    ├── AuthError                    4  credentials missing, wrong or not sufficient
    ├── NetworkError                 5  no usable answer, after retries
    ├── VerificationError            6  bytes that are not what they claim to be
    │   ├── DigestMismatch
    │   ├── SizeMismatch
    │   ├── InvalidDocument             JSON that breaks its schema or our safety limits
    │   ├── InvalidArchive              a tar or compressed stream that is malformed or hostile
    │   └── LimitExceeded               a named limit of imagetool.limits was reached
    ├── ChecksFailed                 7  the lint found something
    ├── StorageError                 8  the local disk or store refused (full, read-only, damaged)
    └── HostError                    9  this machine lacks something a RUN step needs

`exit_code` is the process status the CLI ends with (docs/exit-codes.md); a subclass that
does not set it inherits its parent's. Context that only a caller knows ("while pushing
layer 3 of 5") is attached with `add_note` and rendered once, by `imagetool.cli.app`.
"""

from __future__ import annotations


class ImagetoolError(Exception):
    """Base of the tree. `str(error)` is one line: what, where, and what to do about it."""

    exit_code = 125


class UsageError(ImagetoolError):
    """The request cannot be right as written, whatever the state of the world."""

    exit_code = 2


class InvalidReference(UsageError):
    """A name outside the reference grammar."""


class Unsupported(UsageError):
    """A request that is well formed but that imagetool does not offer."""


class BuildError(ImagetoolError):
    """The build failed because of what the Dockerfile asks for.

    `about` is the text of the instruction that asks for it; whoever knows the place finds it there.
    """

    exit_code = 1

    def __init__(self, message: str, *, about: str = "") -> None:
        super().__init__(message)
        self.about = about


class DockerfileError(BuildError):
    """The Dockerfile is wrong at a known place.

    Args:
        message: what is wrong, without the place.
        file: the Dockerfile's name as the user gave it.
        line: 1-based first line of the instruction; 0 when the file as a whole is meant.
        column: 1-based column of the word that is wrong, in characters, in the line the excerpt marks; 0 for none.
        excerpt: lines around the place, ready to print; empty when there are none.
        about: the text that is wrong, as it is written; whoever knows the place finds it there.
        hint: what to do about it, where the message does not say so; the excerpt ends with it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str = "Dockerfile",
        line: int = 0,
        column: int = 0,
        excerpt: str = "",
        about: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, about=about)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.excerpt = excerpt
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class StepFailed(BuildError):
    """A RUN step ended with a non-zero status; `status` is 128+n when signal n ended it.

    `remains` is what the step left, where that was to be kept (`build.working.Remains`), else None.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.remains: object = None


class NotFound(ImagetoolError):
    """Something that was named does not exist where it was looked for."""

    exit_code = 3


class AuthError(ImagetoolError):
    """Credentials are missing, wrong, or do not allow the request."""

    exit_code = 4


class NetworkError(ImagetoolError):
    """A registry gave no usable answer, after the retries the policy allows."""

    exit_code = 5


class VerificationError(ImagetoolError):
    """Bytes are not what they claim to be; nothing of them was made visible."""

    exit_code = 6


class DigestMismatch(VerificationError):
    """Content hashes to another digest than its descriptor or address says."""

    def __init__(self, where: str, *, expected: str, got: str) -> None:
        super().__init__(f"{where}: content has digest {got}, expected {expected}")
        self.expected = expected
        self.got = got


class SizeMismatch(VerificationError):
    """Content is longer or shorter than its descriptor says; `got` is what was seen so far."""

    def __init__(self, where: str, *, expected: int, got: int) -> None:
        relation = "longer" if got > expected else "shorter"
        super().__init__(f"{where}: content is {relation} than the {expected} bytes promised (saw {got})")
        self.expected = expected
        self.got = got


class InvalidDocument(VerificationError):
    """A JSON document that breaks its schema or a safety limit; the message has the JSON path."""


class InvalidArchive(VerificationError):
    """A tar or compressed stream that is malformed or hostile; the message names the entry."""


class LimitExceeded(VerificationError):
    """A limit of `imagetool.limits` was reached; the message names it and its value."""


class ChecksFailed(ImagetoolError):
    """The lint found something; what it found is printed already."""

    exit_code = 7


class StorageError(ImagetoolError):
    """The local disk or store refused: full, read-only, or damaged."""

    exit_code = 8


class HostError(ImagetoolError):
    """This machine lacks something that is needed; the message says how to get it."""

    exit_code = 9
