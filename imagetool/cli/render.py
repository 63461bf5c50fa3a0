"""Events as text on stderr; results are the only thing on stdout."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, TextIO

from imagetool.errors import DockerfileError, ImagetoolError, UsageError
from imagetool.progress import (
    BlobAdvanced,
    BlobFinished,
    BlobStarted,
    Event,
    Note,
    Observer,
    StepFinished,
    StepOutput,
    StepStarted,
    silent,
)

_LINE_SECONDS: Final = 10.0
_TTY_SECONDS: Final = 0.1


def printable(text: str) -> str:
    """Return untrusted text without anything a terminal would act on."""
    return "".join(char if char.isprintable() or char in "\t\n" else f"\\x{ord(char):02x}" for char in text)


def observer(mode: str) -> Observer:
    """Return the observer for --progress; `auto` is tty on a terminal and plain elsewhere."""
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "plain"
    if mode == "quiet":
        return silent
    if mode == "json":
        return _Json(sys.stderr)
    if mode in ("plain", "tty"):
        return _Lines(sys.stderr, moving=mode == "tty")
    raise UsageError(f"--progress {mode!r}: there are auto, tty, plain, json and quiet")


def report(error: ImagetoolError, stream: TextIO) -> None:
    """Write an error: what, where it stands in the Dockerfile, and what callers knew."""
    stream.write(f"imagetool: {printable(str(error))}\n")
    if isinstance(error, DockerfileError) and error.excerpt:
        stream.write(f"{printable(error.excerpt)}\n")
    for note in getattr(error, "__notes__", ()):
        stream.write(f"{printable(note)}\n")


class _Json:
    """One JSON object a line, with the event's kind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        fields = asdict(event)
        if isinstance(event, StepOutput):
            fields["data"] = event.data.decode("utf-8", "replace")
        with self._lock:
            self._stream.write(json.dumps({"event": type(event).__name__, **fields}) + "\n")
            self._stream.flush()


class _Lines:
    """Lines for logs; on a terminal the last one moves while blobs do."""

    def __init__(self, stream: TextIO, *, moving: bool) -> None:
        self._stream = stream
        self._moving = moving
        self._lock = threading.Lock()
        self._partial = {1: b"", 2: b""}
        self._blobs: dict[str, list[int]] = {}
        self._shown = time.monotonic()
        self._status = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case StepStarted(number=number, total=total, name=name, stage=stage):
                self._line(f"STEP {number}/{total}: [{stage}] {printable(name.splitlines()[0][:200])}")
            case StepOutput(stream=stream, data=data):
                *lines, self._partial[stream] = (self._partial[stream] + data).split(b"\n")
                for line in lines:
                    self._line(f"  {printable(line.decode('utf-8', 'replace'))}")
            case StepFinished(cached=cached, layer=layer, seconds=seconds):
                for stream, rest in self._partial.items():
                    if rest:
                        self._line(f"  {printable(rest.decode('utf-8', 'replace'))}")
                    self._partial[stream] = b""
                if cached:
                    self._line(f"--> Using cache {layer}".rstrip())
                elif layer:
                    self._line(f"--> {layer} ({seconds:.2f}s)")
            case BlobStarted(digest=digest, size=size):
                self._blobs[digest] = [0, size]
            case BlobAdvanced(digest=digest, amount=amount):
                if digest in self._blobs:
                    self._blobs[digest][0] += amount
                    self._advance()
            case BlobFinished(digest=digest, outcome=outcome):
                size = self._blobs.pop(digest, [0, 0])[1]
                self._line(f"{digest[:19]}  {outcome}" + (f"  {amount_of(size)}" if size else ""))
            case Note(text=text, level=level):
                self._line(f"warning: {printable(text)}" if level == "warning" else printable(text))

    def _advance(self) -> None:
        now = time.monotonic()
        if now - self._shown < (_TTY_SECONDS if self._moving else _LINE_SECONDS):
            return
        self._shown = now
        done, total = (sum(blob[at] for blob in self._blobs.values()) for at in (0, 1))
        text = f"{len(self._blobs)} blobs: {amount_of(done)} of {amount_of(total)}"
        if self._moving:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
            self._status = True
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._status else ""
        self._status = False
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()


def amount_of(size: int) -> str:
    """Return a number of bytes for people."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, the first row being the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
