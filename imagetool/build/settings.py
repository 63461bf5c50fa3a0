"""What a user sets on a working container by hand, in the manner of `buildah config`; pure.

Where an instruction of a Dockerfile says the same, that instruction is carried out, so that the
image is the same. What no instruction says — to unset, to be for another platform — is done here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from imagetool.build.state import ConfigInstruction, StageState
from imagetool.dockerfile import expand, instructions, parse_ports, parse_signal, parse_trigger
from imagetool.dockerfile.values import parse_duration, parse_number
from imagetool.errors import DockerfileError, UsageError
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field, replace

_UNSET: Final = "-"
_CHECK_TIMES: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is to be set; None and () leave things as they are, "" unsets.

    env, label, annotation: KEY=VALUE, or KEY- to unset one, or - for all. port, volume: a value, or with a - behind it.
    cmd, shell: words as for a shell, or a JSON array. entrypoint: a JSON array, or a line for the shell.
    healthcheck: CMD …, CMD-SHELL …, NONE, or "" for none at all; its times and retries by the image config's names.
    """

    env: Sequence[str] = ()
    label: Sequence[str] = ()
    port: Sequence[str] = ()
    volume: Sequence[str] = ()
    onbuild: Sequence[str] = ()
    author: str | None = None
    cmd: str | None = None
    entrypoint: str | None = None
    shell: str | None = None
    stop_signal: str | None = None
    user: str | None = None
    healthcheck: str | None = None
    check: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    os_feature: Sequence[str] = ()


Change = ConfigInstruction | Callable[[StageState], StageState]


def changes(settings: Settings, state: StageState) -> Iterator[tuple[Change, str]]:
    """Yield what is to be done to a stage, one thing after the other, each with its line of history, "" for none.

    `state` is the stage before all of it. A variable's value is expanded as it and the earlier variables have it.
    Raises UsageError for what cannot be.
    """
    if settings.platform or settings.os_feature:
        yield _on_platform(settings), ""
    if settings.author is not None:
        yield instructions.Maintainer(name=settings.author), f"MAINTAINER {settings.author}"
    if settings.shell is not None:
        argv = _words(settings.shell, "--shell")
        yield (instructions.Shell(argv=argv), f"SHELL {json.dumps(argv)}") if argv else (_run(shell=None), "")
    if settings.user is not None:
        yield instructions.User(user=settings.user), f"USER {settings.user}".rstrip()
    yield from _pairs(settings, state)
    yield from _lists(settings)
    if settings.stop_signal is not None:
        yield _stop_signal(settings.stop_signal)
    if settings.healthcheck is not None or settings.check:
        yield _healthcheck(settings, state)
    if settings.entrypoint is not None:
        yield _entrypoint(settings.entrypoint)
    if settings.cmd is not None:
        argv = _words(settings.cmd, "--cmd")
        yield (
            (instructions.Cmd(command=instructions.ExecForm(argv)), f"CMD {json.dumps(argv)}")
            if argv
            else (_run(cmd=None), "")
        )


def _run(**fields: Any) -> Change:
    """Return the change that replaces fields of the configuration."""
    return lambda state: replace(state, run=replace(state.run, **fields))


def _of_run(change: Callable[[RunConfig], RunConfig]) -> Change:
    return lambda state: replace(state, run=change(state.run))


def _pairs(settings: Settings, state: StageState) -> Iterator[tuple[Change, str]]:
    variables = dict(state.variables)
    for name, value in pairs_of(settings.env, "--env"):
        if value is None:
            variables = without(variables, name)
            yield _unset_variable(name), ""
        else:
            try:
                expanded = expand(value, variables, quotes=False)
            except DockerfileError as error:
                raise UsageError(f"--env {name}={value[:80]}: {error.message}") from None
            variables[name] = expanded
            yield instructions.Env(pairs=((name, expanded),)), f"ENV {name}={_quoted(expanded)}"
    for name, value in pairs_of(settings.label, "--label"):
        if value is None:
            yield _of_run(lambda run, name=name: replace(run, labels=without(run.labels, name))), ""  # type: ignore[misc]
        else:
            yield instructions.Label(pairs=((name, value),)), f"LABEL {name}={_quoted(value)}"


def _quoted(value: str) -> str:
    """Return a value as a Dockerfile would have it."""
    if not set(value) & set(" \t\n\"'\\$"):
        return value
    return '"' + "".join(f"\\{char}" if char in '"\\$' else char for char in value) + '"'


def _unset_variable(name: str) -> Change:
    def change(state: StageState) -> StageState:
        env = tuple(entry for entry in state.run.env if name and entry.partition("=")[0] != name)
        return replace(state, run=replace(state.run, env=env), variables=without(state.variables, name))

    return change


def without(known: Mapping[str, str], name: str) -> dict[str, str]:
    """Return a mapping without one key, or empty for ""."""
    return {key: value for key, value in known.items() if name and key != name}


def pairs_of(texts: Sequence[str], option: str) -> Iterator[tuple[str, str | None]]:
    """Read KEY=VALUE, KEY- and -: yield the key, "" for all, and the value, None to unset. Raises UsageError."""
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name:
            yield name, value
        elif not equals and text.endswith(_UNSET):
            yield text.removesuffix(_UNSET), None
        else:
            raise UsageError(f"{option} {text[:80]!r}: write KEY=VALUE, KEY- to unset one, or - to unset all")


def _lists(settings: Settings) -> Iterator[tuple[Change, str]]:
    for text in settings.port:
        if text.endswith(_UNSET):
            gone = _ports(text.removesuffix(_UNSET)) if text != _UNSET else None
            yield _of_run(lambda run, gone=gone: replace(run, exposed_ports=_left(run.exposed_ports, gone))), ""  # type: ignore[misc]
        else:
            ports = _ports(text)
            yield instructions.Expose(ports=ports), f"EXPOSE {' '.join(ports)}"
    for text in settings.volume:
        if text.endswith(_UNSET):
            path = (text.removesuffix(_UNSET),) if text != _UNSET else None
            yield _of_run(lambda run, path=path: replace(run, volumes=_left(run.volumes, path))), ""  # type: ignore[misc]
        else:
            yield instructions.Volume(paths=(text,)), f"VOLUME {text}"
    for text in settings.onbuild:
        if text == _UNSET:
            yield _run(on_build=()), ""
            continue
        try:
            parse_trigger(text, file="--onbuild")
        except DockerfileError as error:
            raise UsageError(f"--onbuild {text[:80]!r}: {error.message}") from None
        yield instructions.Onbuild(trigger=text), f"ONBUILD {text}"


def _left(known: tuple[str, ...], gone: tuple[str, ...] | None) -> tuple[str, ...]:
    return () if gone is None else tuple(one for one in known if one not in gone)


def _ports(text: str) -> tuple[str, ...]:
    try:
        return parse_ports([text])
    except DockerfileError as error:
        raise UsageError(f"--port {text[:80]!r}: {error.message}") from None


def _stop_signal(text: str) -> tuple[Change, str]:
    if not text:
        return _run(stop_signal=""), ""
    try:
        parse_signal(text)
    except DockerfileError as error:
        raise UsageError(f"--stop-signal {text[:80]!r}: {error.message}") from None
    return instructions.Stopsignal(signal=text), f"STOPSIGNAL {text}"


def _entrypoint(text: str) -> tuple[Change, str]:
    if not text.strip():
        return _run(entrypoint=None), ""
    argv = _json_words(text)
    if argv is None:
        return instructions.Entrypoint(command=instructions.ShellForm(text)), f"ENTRYPOINT {text}"
    return instructions.Entrypoint(command=instructions.ExecForm(argv)), f"ENTRYPOINT {json.dumps(argv)}"


def _words(text: str, option: str) -> tuple[str, ...]:
    """Read the words of a command: a JSON array of strings, else split as a shell would."""
    argv = _json_words(text)
    if argv is not None:
        return argv
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{option} {text[:80]!r}: {error}") from None


def _json_words(text: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array, None for what is none."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        return None
    return tuple(found)


def _healthcheck(settings: Settings, state: StageState) -> tuple[Change, str]:
    if settings.healthcheck == "":
        return _run(healthcheck=None), ""
    known = dict(state.run.healthcheck or {})
    check = _check_command(settings.healthcheck) if settings.healthcheck is not None else None
    if check is not None and check.test == ("NONE",):
        return check, "HEALTHCHECK NONE"
    if check is None and "Test" not in known:
        raise UsageError("--healthcheck-…: there is no health check; name its command with --healthcheck")
    wanted = {**known, **({"Test": list(check.test)} if check else {}), **dict(_check_times(settings.check))}
    return _run(healthcheck=wanted), f"HEALTHCHECK {' '.join(wanted['Test'])}"


def _check_command(text: str) -> instructions.Healthcheck:
    kind, _, rest = text.strip().partition(" ")
    if kind == "NONE" and not rest:
        return instructions.Healthcheck(command=None)
    if kind == "CMD-SHELL" and rest.strip():
        return instructions.Healthcheck(command=instructions.ShellForm(rest.strip()))
    argv = _words(rest if kind == "CMD" else text, "--healthcheck")
    if not argv:
        raise UsageError(f"--healthcheck {text[:80]!r}: write CMD command, CMD-SHELL line, or NONE")
    return instructions.Healthcheck(command=instructions.ExecForm(argv))


def _check_times(given: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name, text in given.items():
        option = f"--healthcheck-{name.replace('_', '-')}"
        if name == "retries":
            count = parse_number(text)
            if count is None:
                raise UsageError(f"{option} {text[:40]!r} is not a number")
            yield "Retries", count
            continue
        try:
            duration = parse_duration(text)
        except DockerfileError as error:
            raise UsageError(f"{option}: {error.message}") from None
        if duration < 0 or 0 < duration < 1_000_000:
            raise UsageError(f"{option} {text[:40]!r} is less than 1ms")
        yield _CHECK_TIMES[name], duration


def _on_platform(settings: Settings) -> Change:
    def change(state: StageState) -> StageState:
        platform: Platform = replace(state.platform, **dict[str, Any](settings.platform))
        features = tuple(text for text in settings.os_feature if text != _UNSET)
        if settings.os_feature:
            kept = () if _UNSET in settings.os_feature else platform.os_features
            platform = replace(platform, os_features=tuple(dict.fromkeys((*kept, *features))))
        return replace(state, platform=platform.normal())

    return change
