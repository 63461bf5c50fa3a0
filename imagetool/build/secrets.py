"""Secrets of a build: what steps may see and nothing else may: no layer, history, cache key, log or metadata.

They are kept out by construction: keys and history hold how a mount is written, never what is in
it. What a step itself does with a secret is watched: its output is redacted, and a new layer
that holds a secret fails the build.

Source: Dockerfile reference, "RUN --mount=type=secret".
"""

from __future__ import annotations

import base64
import os
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from imagetool.errors import BuildError, NotFound, UsageError
from imagetool.layer.entry import Entry, Item, display
from imagetool.values import dataclass, field

SECRET_BYTES: Final = 500 << 10  # BuildKit's bound
#: What stands for a secret: the first that has nothing in common with one.
_MARKS: Final = (b"[redacted]", b"***", b"###", b"???")
#: What is shorter is everywhere: it would make output unreadable and fail builds for nothing.
_LEAST_REDACTED: Final = 4
_LEAST_SEARCHED: Final = 6


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the user gave to the build.

    values: content by id, at most `SECRET_BYTES` each.
    agents: sockets of SSH agents, by id.
    """

    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    agents: Mapping[str, Path] = field(default_factory=dict)

    @property
    def git_token(self) -> bytes:
        """The password for Git repositories, b"" for none; the secret has the name that BuildKit gives it."""
        return self.values.get("GIT_AUTH_TOKEN", b"")

    def redactor(self) -> Redactor:
        """Return a redactor for one stream."""
        texts = {form for value in self.values.values() for form in _forms(value, _LEAST_REDACTED)}
        return Redactor(tuple(sorted(texts, key=lambda text: (-len(text), text))))

    def redacted(self, text: str) -> str:
        """Return a whole text without secrets."""
        redactor = self.redactor()
        data = text.encode(errors="surrogateescape")
        return (redactor.feed(data) + redactor.end()).decode(errors="surrogateescape")

    def refuse_in(self, texts: Iterable[str], what: str) -> None:
        """Refuse texts that go into the image's configuration: raises BuildError for one that holds a secret.

        what: where they are.
        """
        searched = [(form, id) for id, value in self.values.items() for form in _forms(value, _LEAST_SEARCHED)]
        for text in texts if searched else ():
            data = text.encode(errors="surrogateescape")
            for form, id in searched:
                if form in data:
                    raise BuildError(f"the secret {id!r} would be in the image: {what} holds it; no image was made")

    def checked(self, items: Iterable[Item], what: str) -> Iterator[Item]:
        """Pass entries of a new layer on; raises BuildError at one whose content, name or link holds a secret."""
        searched = [(form, id) for id, value in self.values.items() for form in _forms(value, _LEAST_SEARCHED)]
        if not searched:
            yield from items
            return
        for entry, content in items:
            about = b"\0".join((entry.name, entry.linkname, *(entry.xattrs or {}).values()))
            _refuse(about, searched, entry, what)
            yield entry, _searched(content, searched, entry, what) if entry.kind == "file" else content


class Redactor:
    """Replaces secrets in a stream that comes in pieces.

    A piece's end that may be the beginning of a secret is held back until the next tells.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts
        self._mark = next((mark for mark in _MARKS if not any(_may_show(mark, text) for text in texts)), _MARKS[0])
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take a piece; return what can be shown by now."""
        if not self._texts:
            return data
        data = self._replaced(self._held + data)
        keep = max(_overlap(data, text) for text in self._texts)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def end(self) -> bytes:
        """Return what is still held, when nothing comes any more."""
        rest, self._held = self._held, b""
        return rest

    def _replaced(self, data: bytes) -> bytes:
        for text in self._texts:
            data = data.replace(text, self._mark)
        return data


def _may_show(mark: bytes, text: bytes) -> bool:
    """Whether a text may be read where the mark is put: as a part of it, or of it and of what is beside it."""
    return text in mark or mark in text or bool(_overlap(mark, text) or _overlap(text, mark))


def _overlap(data: bytes, text: bytes) -> int:
    """Return the length of the longest proper beginning of `text` that `data` ends with."""
    tail = data[-(len(text) - 1) :] if len(text) > 1 else b""
    at = tail.find(text[:1])
    while at >= 0:
        if text.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(text[:1], at + 1)
    return 0


def _forms(value: bytes, least: int) -> Iterator[bytes]:
    """Yield how a secret may be written: as it is, each line of it, in base64, and for a URL."""
    bare = value.strip()
    lines = [line for line in (line.strip() for line in bare.splitlines()) if len(line) >= 2 * least]
    for text in dict.fromkeys((bare, *(lines if len(lines) > 1 else ()))):
        if len(text) >= least:
            yield text
    for text in dict.fromkeys((bare, value)):
        if len(text) >= max(least, _LEAST_SEARCHED):
            # Without the last characters, which hang on what follows: the secret may be the beginning of more.
            whole = len(text) // 3 * 4
            yield base64.b64encode(text)[:whole]
            yield base64.urlsafe_b64encode(text)[:whole]
            yield urllib.parse.quote(text, safe="").encode()
            yield urllib.parse.quote_plus(text).encode()


def _searched(
    content: Iterable[bytes], searched: Sequence[tuple[bytes, str]], entry: Entry, what: str
) -> Iterator[bytes]:
    longest = max(len(form) for form, _ in searched)
    before = b""
    for chunk in content:
        window = before + bytes(chunk)
        _refuse(window, searched, entry, what)
        before = window[-(longest - 1) :]
        yield chunk


def _refuse(data: bytes, searched: Sequence[tuple[bytes, str]], entry: Entry, what: str) -> None:
    for form, id in searched:
        if form in data:
            raise BuildError(
                f"{what} would put the secret {id!r} into the image: {display(entry.name)} holds it; "
                "nothing was kept of the step"
            )


def parse_secret(text: str, environment: Mapping[str, str]) -> tuple[str, bytes]:
    """Read `id=ID[,src=FILE|,env=NAME][,type=file|env]`; return the id and what the secret is.

    Without src and env it is the variable ID, or the file ID when there is no such variable.
    Raises UsageError for anything else, NotFound for a file that is not there.
    """
    fields = dict(_field(part, text) for part in text.split(","))
    kind, id = fields.pop("type", ""), fields.pop("id", "")
    source = fields.pop("src", "") or fields.pop("source", "")
    name = fields.pop("env", "")
    if fields or not id or kind not in ("", "file", "env") or (source and name):
        raise UsageError(f"--secret {text!r}: write id=ID,src=FILE or id=ID,env=NAME")
    if kind == "env" and not name:
        name, source = source or id, ""
    if not name and not source:
        name, source = (id, "") if kind != "file" and id in environment else ("", id)
    if name:
        if name not in environment:
            raise UsageError(f"--secret {text!r}: the environment has no {name}")
        value = os.fsencode(environment[name])
    else:
        value = _read(Path(source), text)
    if len(value) > SECRET_BYTES:
        raise UsageError(f"--secret {text!r}: a secret may have {SECRET_BYTES} bytes")
    return id, value


def parse_agent(text: str, environment: Mapping[str, str]) -> tuple[str, Path]:
    """Read `ID[=SOCKET]`; without a socket SSH_AUTH_SOCK says where the agent is.

    Raises UsageError for what is no socket.
    """
    id, _, path = text.partition("=")
    path = path or environment.get("SSH_AUTH_SOCK", "")
    if not id or not path:
        raise UsageError(f"--ssh {text!r}: write default[=SOCKET]; without a socket SSH_AUTH_SOCK must be set")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise NotFound(f"--ssh {text!r}: {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"--ssh {text!r}: {path} is no socket; for a key file start ssh-agent and ssh-add it")
    return id, Path(os.path.abspath(path))


def _field(part: str, text: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise UsageError(f"--secret {text!r}: {part!r} is not KEY=VALUE")
    return name.strip().lower(), value


def _read(path: Path, text: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise NotFound(f"--secret {text!r}: {path}: {error.strerror}") from None
