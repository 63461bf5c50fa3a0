"""A repository of a small registry."""

from __future__ import annotations

from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from tests.support.wire import WireRegistry


def opened(wire: WireRegistry, name: str = "team/app") -> Repository:
    return Repository(Registry(wire.host, sleep=lambda _: None), name)
