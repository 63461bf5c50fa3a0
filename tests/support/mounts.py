"""An overlay seen from a mount namespace of its own: nothing is ever mounted where the tests run."""

from __future__ import annotations

import ctypes
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_NEW_NAMESPACE = 0x00020000
_PRIVATE = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC


def in_overlay(lowers: Sequence[Path], at: Path, look: Callable[[Path], T], *, upper: Path | None = None) -> T:
    """Mount lowers (topmost first) at a directory in a child process, and return what `look` returns there.

    upper: a directory that has fs and work in it, for changes.
    """
    options = f"lowerdir={':'.join(map(str, lowers))},redirect_dir=off,metacopy=off,index=off"
    if upper is not None:
        options += f",upperdir={upper / 'fs'},workdir={upper / 'work'}"

    def mounted() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        for done in (
            libc.unshare(_NEW_NAMESPACE),
            libc.mount(b"none", b"/", None, _PRIVATE, None),
            libc.mount(b"overlay", os.fsencode(at), b"overlay", 0, os.fsencode(options)),
        ):
            if done:
                raise OSError(ctypes.get_errno(), f"cannot mount an overlay: {options}")
        return look(at)

    return _in_child(mounted)


def _in_child(work: Callable[[], T]) -> T:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            try:
                answer = pickle.dumps((work(), ""))
            except BaseException:  # noqa: BLE001 - told to the parent
                answer = pickle.dumps((None, traceback.format_exc()))
            with os.fdopen(writer, "wb") as out:
                out.write(answer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        result, error = pickle.loads(answers.read())
    os.waitpid(child, 0)
    assert not error, error
    return result  # type: ignore[no-any-return]
