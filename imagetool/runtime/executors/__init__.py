"""Executors of the one container description, by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from imagetool.runtime.executors.embedded import EmbeddedExecutor
from imagetool.runtime.executors.protocol import Executor, ExitStatus, Output, Usage
from imagetool.runtime.executors.runc import RuncExecutor

__all__ = ["EXECUTORS", "EmbeddedExecutor", "Executor", "ExitStatus", "Output", "RuncExecutor", "Usage"]

EXECUTORS: Final[dict[str, Callable[[], AbstractContextManager[Executor]]]] = {
    "embedded": EmbeddedExecutor,
    "runc": RuncExecutor,
}
