"""The root filesystem below the next step, known from the layers' headers; nothing is unpacked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from imagetool.build.files import LayerFiles, Trees
from imagetool.content.memory import MemoryStore
from imagetool.errors import BuildError
from imagetool.image.image import Layer
from imagetool.layer.entry import Kind
from imagetool.runtime.users import User, resolve_user


class Root:
    """Answers questions about a stack of layers, and remembers the answers as facts.

    A step that is looked up in the cache asks the same as when it was recorded, so with the
    recorded facts at hand the layers need not be read.
    """

    def __init__(self, trees: Trees, layers: tuple[Layer, ...], facts: Mapping[str, Any] | None = None) -> None:
        self._trees = trees
        self._layers = layers
        self._known = dict(facts or {})
        self._files: LayerFiles | None = None
        self.facts: dict[str, Any] = {}

    @classmethod
    def empty(cls) -> Root:
        """Return the root of no layers at all."""
        return cls(Trees(MemoryStore()), ())

    @property
    def files(self) -> LayerFiles:
        """The merged files of the layers."""
        if self._files is None:
            self._files = self._trees.files(self._layers)
        return self._files

    def kind(self, path: bytes, *, follow: bool) -> tuple[bytes, Kind | None]:
        """Resolve a path; see `copying.Base`."""
        if not self._layers:
            return b"/".join(part for part in path.split(b"/") if part not in (b"", b".")) or b".", (
                "dir" if not path.strip(b"/.") else None
            )

        def ask() -> list[str | None]:
            name, entry = self.files.lookup(path, follow=follow)
            return [name.hex(), entry.kind if entry else None]

        name, kind = self._fact(f"{'follow' if follow else 'at'}:{path.hex()}", ask)
        return bytes.fromhex(name), cast("Kind | None", kind)

    def user(self, text: str) -> tuple[User, str]:
        """Return the user that `text` names in the root's /etc/passwd and /etc/group, and its home."""
        passwd = self.files.read(b"etc/passwd", "PASSWD_BYTES") or b""
        group = self.files.read(b"etc/group", "PASSWD_BYTES") or b""
        return resolve_user(text, passwd, group)

    def owner(self, text: str) -> tuple[int, int]:
        """Return the numbers that a --chown means; a user without a group has its own group, a bare number itself."""
        name, colon, group = text.partition(":")
        if text.isascii() and name.isdigit() and (not colon or group.isdigit()):
            return _number(name, text), _number(group or name, text)

        def ask() -> list[int]:
            user, _ = self.user(text)
            return [user.uid, user.gid]

        uid, gid = self._fact(f"owner:{text}", ask)
        return uid, gid

    def _fact(self, key: str, ask: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = ask()
        self.facts[key] = self._known[key]
        return self._known[key]


def _number(text: str, whole: str) -> int:
    value = int(text)
    if value > 0xFFFFFFFE:
        raise BuildError(f"--chown={whole[:80]}: {text[:20]} is not a user or group number", about=whole)
    return value
