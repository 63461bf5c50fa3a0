"""What `config` sets, unsets and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from imagetool.build.settings import Settings, changes, pairs_of
from imagetool.build.state import StageState, apply
from imagetool.errors import UsageError
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from imagetool.values import replace

RUN = RunConfig(
    env=("PATH=/bin", "A=1"),
    labels={"l": "v"},
    exposed_ports=("80/tcp", "90/udp"),
    volumes=("/data",),
    cmd=("old",),
    entrypoint=("/entry",),
    user="app",
    stop_signal="SIGINT",
    shell=("/bin/bash", "-c"),
    on_build=("RUN x",),
    healthcheck={"Test": ["CMD", "/check"], "Retries": 2},
)


def configured(run: RunConfig = RUN, **settings: Any) -> tuple[StageState, list[str]]:
    state = StageState(Platform(), run, variables=run.environment)
    lines = []
    for change, text in changes(Settings(**settings), state):
        state = change(state) if callable(change) else apply(state, change)
        lines += [text] if text else []
    return state, lines


@pytest.mark.parametrize(
    ("settings", "field", "value", "line"),
    [
        ({"env": ["B=$A/${A}x"]}, "env", ("PATH=/bin", "A=1", "B=1/1x"), "ENV B=1/1x"),
        ({"env": ["A=2", "B=$A"]}, "env", ("PATH=/bin", "A=2", "B=2"), "ENV A=2 | ENV B=2"),
        ({"env": ["B=a b$"]}, "env", ("PATH=/bin", "A=1", "B=a b$"), 'ENV B="a b\\$"'),
        ({"env": ['B="x"']}, "env", ("PATH=/bin", "A=1", 'B="x"'), 'ENV B="\\"x\\""'),
        ({"env": ["A-"]}, "env", ("PATH=/bin",), ""),
        ({"env": ["-"]}, "env", (), ""),
        ({"label": ["l-", "m=a=b"]}, "labels", {"m": "a=b"}, "LABEL m=a=b"),
        ({"label": ["-"]}, "labels", {}, ""),
        (
            {"port": ["8000-8001"]},
            "exposed_ports",
            ("80/tcp", "90/udp", "8000/tcp", "8001/tcp"),
            "EXPOSE 8000/tcp 8001/tcp",
        ),
        ({"port": ["80-"]}, "exposed_ports", ("90/udp",), ""),
        ({"port": ["90/udp-"]}, "exposed_ports", ("80/tcp",), ""),
        ({"port": ["-"]}, "exposed_ports", (), ""),
        ({"volume": ["/more", "/data-"]}, "volumes", ("/more",), "VOLUME /more"),
        ({"cmd": "a 'b c'"}, "cmd", ("a", "b c"), 'CMD ["a", "b c"]'),
        ({"cmd": '["a", "b c"]'}, "cmd", ("a", "b c"), 'CMD ["a", "b c"]'),
        ({"cmd": ""}, "cmd", None, ""),
        ({"entrypoint": '["/a", "b"]'}, "entrypoint", ("/a", "b"), 'ENTRYPOINT ["/a", "b"]'),
        ({"entrypoint": "a b"}, "entrypoint", ("/bin/bash", "-c", "a b"), "ENTRYPOINT a b"),
        ({"entrypoint": "[not json"}, "entrypoint", ("/bin/bash", "-c", "[not json"), "ENTRYPOINT [not json"),
        ({"entrypoint": ""}, "entrypoint", None, ""),
        ({"shell": "/bin/ash -c"}, "shell", ("/bin/ash", "-c"), 'SHELL ["/bin/ash", "-c"]'),
        ({"shell": ""}, "shell", None, ""),
        ({"user": "a:b"}, "user", "a:b", "USER a:b"),
        ({"user": ""}, "user", "", "USER"),
        ({"stop_signal": "9"}, "stop_signal", "9", "STOPSIGNAL 9"),
        ({"stop_signal": ""}, "stop_signal", "", ""),
        ({"onbuild": ["-", "RUN y"]}, "on_build", ("RUN y",), "ONBUILD RUN y"),
        ({"healthcheck": ""}, "healthcheck", None, ""),
        ({"healthcheck": "NONE"}, "healthcheck", {"Test": ["NONE"]}, "HEALTHCHECK NONE"),
        (
            {"healthcheck": "CMD-SHELL curl x | grep y", "check": {"interval": "30s", "retries": "5"}},
            "healthcheck",
            {"Test": ["CMD-SHELL", "curl x | grep y"], "Retries": 5, "Interval": 30_000_000_000},
            "HEALTHCHECK CMD-SHELL curl x | grep y",
        ),
        (
            {"check": {"timeout": "1m30s"}},
            "healthcheck",
            {"Test": ["CMD", "/check"], "Retries": 2, "Timeout": 90_000_000_000},
            "HEALTHCHECK CMD /check",
        ),
    ],
)
def test_a_setting_is_the_configuration_and_a_line_of_history(
    settings: dict[str, Any], field: str, value: object, line: str
) -> None:
    state, lines = configured(**settings)
    assert getattr(state.run, field) == value
    assert " | ".join(lines) == line


def test_a_variable_that_is_unset_is_not_seen_by_later_steps() -> None:
    state, _ = configured(env=["A-", "B=<$A>"])
    assert state.run.env == ("PATH=/bin", "B=<>")
    assert "A" not in state.variables


def test_an_entry_point_takes_the_inherited_command_away_but_not_one_that_is_set_with_it() -> None:
    assert configured(entrypoint='["/a"]')[0].run.cmd is None
    assert configured(entrypoint='["/a"]', cmd="b")[0].run.cmd == ("b",)


def test_a_platform_is_set_part_by_part() -> None:
    state, lines = configured(platform={"architecture": "arm", "os_version": "1.2"}, os_feature=["a", "b"])
    assert state.platform == Platform("linux", "arm", "v7", "1.2", ("a", "b"))
    assert lines == []
    assert configured(replace(RUN), os_feature=["-"])[0].platform.os_features == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env": ["=x"]}, "--env '=x'"),
        ({"env": ["A"]}, "KEY=VALUE"),
        ({"env": ["A=${B"]}, "--env A="),
        ({"label": ["x"]}, "--label 'x'"),
        ({"port": ["http"]}, "--port 'http'"),
        ({"port": ["99999"]}, "--port"),
        ({"cmd": "'open"}, "--cmd"),
        ({"stop_signal": "NEVER"}, "--stop-signal 'NEVER'"),
        ({"onbuild": ["FROM x"]}, "--onbuild 'FROM x'"),
        ({"onbuild": ["RUN x\nRUN y"]}, "--onbuild"),
        ({"healthcheck": "CMD"}, "--healthcheck 'CMD'"),
        ({"check": {"interval": "fast"}}, "--healthcheck-interval"),
        ({"check": {"start_period": "10us"}}, "--healthcheck-start-period"),
        ({"check": {"retries": "-1"}}, "--healthcheck-retries"),
    ],
)
def test_what_cannot_be_is_refused_by_the_options_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        configured(**settings)
    assert said in str(refused.value)


def test_times_of_a_check_need_a_check() -> None:
    with pytest.raises(UsageError, match="no health check"):
        configured(RunConfig(), check={"interval": "1s"})


def test_pairs_tell_a_value_from_what_is_to_be_unset() -> None:
    assert list(pairs_of(["a=b-", "a-", "-", "a="], "--x")) == [("a", "b-"), ("a", None), ("", None), ("a", "")]
