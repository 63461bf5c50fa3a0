"""Secrets are taken out of all that a build tells: its events, and its error.

A step's output is redacted where it comes in pieces, in `run`; here is everything else, in which a secret
may have got by a way that nobody foresaw: a URL with a variable in it, what another program says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imagetool.build.secrets import Secrets
from imagetool.errors import ImagetoolError
from imagetool.progress import Event, Observer, StepOutput
from imagetool.values import replace


@contextmanager
def redaction(secrets: Secrets | None, observer: Observer) -> Iterator[Observer]:
    """Yield an observer that hears no secret, and take secrets out of the error that the block raises."""
    if secrets is None or not secrets.values:
        yield observer
        return

    def told(event: Event) -> None:
        observer(event if isinstance(event, StepOutput) else _redacted(event, secrets))

    try:
        yield told
    except ImagetoolError as error:
        _redact(error, secrets)
        raise


def _redacted(value: Any, secrets: Secrets) -> Any:
    """Return an event, or what it is made of, without secrets."""
    if isinstance(value, str):
        return secrets.redacted(value)
    if isinstance(value, tuple):
        return tuple(_redacted(one, secrets) for one in value)
    if not hasattr(value, "__dataclass_fields__"):
        return value
    known = {name: getattr(value, name) for name in value.__slots__}
    changed = {name: new for name, old in known.items() if (new := _redacted(old, secrets)) != old}
    return replace(value, **changed) if changed else value


def _redact(error: ImagetoolError, secrets: Secrets) -> None:
    error.args = tuple(_redacted(one, secrets) for one in error.args)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, secrets.redacted(value))
    notes = getattr(error, "__notes__", [])
    notes[:] = [secrets.redacted(note) for note in notes]
