"""The instructions that only change the configuration, ARG scopes, stages and history: rules 11 to 19 and 37 to 43."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagetool.build.finish import Finish
from imagetool.errors import BuildError, DockerfileError, UsageError
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from tests.support.workshop import Workshop, texts, tree

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def config_of(shop: Workshop, *lines: str, **request: Any) -> dict[str, Any]:
    """Return the `config` object of what a Dockerfile builds."""
    image = shop.build("\n".join([*lines, ""]), **request)
    config: dict[str, Any] = json.loads(image.config.raw)["config"]
    return config


@pytest.mark.parametrize(
    ("lines", "key", "expected"),
    [
        (["ENV a=1 b=$a"], "Env", [PATH, "a=1", "b="]),
        (["ENV a=1", "ENV b=$a a=2 c=$a"], "Env", [PATH, "a=2", "b=1", "c=1"]),
        (["ENV a some words  here"], "Env", [PATH, "a=some words  here"]),
        (['ENV a="x y" b=\'$z\' c=\\$d'], "Env", [PATH, "a=x y", "b=$z", "c=$d"]),
        (["ENV PATH=/x:$PATH"], "Env", ["PATH=/x:" + PATH.removeprefix("PATH=")]),
        (["LABEL a=1 b=2", "LABEL b=3"], "Labels", {"a": "1", "b": "3"}),
        (["EXPOSE 80 53/udp 8000-8002", "EXPOSE 80/tcp"], "ExposedPorts",
            {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}),
        (['VOLUME /a /b', 'VOLUME ["/c d"]'], "Volumes", {"/a": {}, "/b": {}, "/c d": {}}),
        (["USER a", "USER b:c"], "User", "b:c"),
        (["WORKDIR /a", "WORKDIR b", "WORKDIR ../c/"], "WorkingDir", "/a/c"),
        (["STOPSIGNAL SIGKILL"], "StopSignal", "SIGKILL"),
        (['SHELL ["/bin/ash", "-ec"]', "CMD x y"], "Cmd", ["/bin/ash", "-ec", "x y"]),
        (['SHELL ["/bin/ash", "-ec"]'], "Shell", ["/bin/ash", "-ec"]),
        (['CMD ["a", "b"]'], "Cmd", ["a", "b"]),
        (["CMD a b"], "Cmd", ["/bin/sh", "-c", "a b"]),
        (['CMD ["a"]', "CMD b"], "Cmd", ["/bin/sh", "-c", "b"]),
        (["CMD []"], "Cmd", None),
        (['ENTRYPOINT ["e"]'], "Entrypoint", ["e"]),
        (['CMD ["mine"]', 'ENTRYPOINT ["e"]'], "Cmd", ["mine"]),
        (["HEALTHCHECK --interval=5s --timeout=1m --retries=3 CMD a b"], "Healthcheck",
            {"Test": ["CMD-SHELL", "a b"], "Interval": 5 * 10**9, "Timeout": 60 * 10**9, "Retries": 3}),
        (['HEALTHCHECK CMD ["a", "b"]'], "Healthcheck", {"Test": ["CMD", "a", "b"]}),
        (["HEALTHCHECK NONE"], "Healthcheck", {"Test": ["NONE"]}),
        (["ONBUILD RUN x", "ONBUILD COPY . ."], "OnBuild", ["RUN x", "COPY . ."]),
    ],
)  # fmt: skip
def test_instructions_that_configure(shop: Workshop, lines: list[str], key: str, expected: object) -> None:
    assert config_of(shop, "FROM scratch", *lines).get(key) == expected


def test_scratch_starts_with_a_path_and_the_root(shop: Workshop) -> None:
    assert config_of(shop, "FROM scratch") == {"Env": [PATH], "WorkingDir": "/"}


@pytest.fixture
def configured(shop: Workshop) -> Workshop:
    shop.base(
        "configured",
        run=RunConfig(
            env=("PATH=/base", "b=base"),
            cmd=("base-cmd",),
            entrypoint=("base-entry",),
            labels={"l": "base"},
            user="11",
            working_dir="/base",
            stop_signal="SIGINT",
            volumes=("/v",),
            exposed_ports=("1/tcp",),
        ),
    )
    return shop


def test_what_a_base_says_is_inherited(configured: Workshop) -> None:
    config = config_of(configured, "FROM configured", "LABEL m=new", "ENV c=$b", "WORKDIR sub")
    assert config == {
        "User": "11",
        "ExposedPorts": {"1/tcp": {}},
        "Env": ["PATH=/base", "b=base", "c=base"],
        "Entrypoint": ["base-entry"],
        "Cmd": ["base-cmd"],
        "Volumes": {"/v": {}},
        "WorkingDir": "/base/sub",
        "Labels": {"l": "base", "m": "new"},
        "StopSignal": "SIGINT",
    }


@pytest.mark.parametrize(
    ("lines", "entrypoint", "cmd"),
    [
        (['ENTRYPOINT ["e"]'], ["e"], None),
        (['CMD ["c"]', 'ENTRYPOINT ["e"]'], ["e"], ["c"]),
        (['ENTRYPOINT ["e"]', 'CMD ["c"]'], ["e"], ["c"]),
        (["ENTRYPOINT []"], None, None),
        (['CMD ["c"]'], ["base-entry"], ["c"]),
    ],
)
def test_an_entrypoint_clears_the_command_of_the_base(
    configured: Workshop, lines: list[str], entrypoint: object, cmd: object
) -> None:
    config = config_of(configured, "FROM configured", *lines)
    assert (config.get("Entrypoint"), config.get("Cmd")) == (entrypoint, cmd)


# -- ARG -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "args", "expected"),
    [
        (["FROM scratch", "ARG a=1", "LABEL v=$a"], {}, "1"),
        (["FROM scratch", "ARG a=1", "LABEL v=$a"], {"a": "2"}, "2"),
        (["FROM scratch", "ARG a", "LABEL v=${a-unset}"], {}, "unset"),
        (["FROM scratch", "ARG a", "LABEL v=${a-unset}"], {"a": ""}, ""),
        (["FROM scratch", "LABEL v=${a-unset}"], {"a": "2"}, "unset"),
        (["ARG a=g", "FROM scratch", "LABEL v=${a-unset}"], {}, "unset"),
        (["ARG a=g", "FROM scratch", "ARG a", "LABEL v=$a"], {}, "g"),
        (["ARG a=g", "FROM scratch", "ARG a=s", "LABEL v=$a"], {}, "s"),
        (["ARG a=g", "FROM scratch", "ARG a=s", "LABEL v=$a"], {"a": "c"}, "c"),
        (["ARG a=g", "ARG b=$a-h", "FROM scratch", "ARG b", "LABEL v=$b"], {}, "g-h"),
        (["FROM scratch", "ARG a=1 b=$a", "LABEL v=$b"], {}, "1"),
        (["FROM scratch", "ARG a=1", "ENV a=2", "LABEL v=$a"], {}, "2"),
        (["FROM scratch AS x", "ARG a=1", "FROM x", "LABEL v=${a-unset}"], {}, "1"),
        (["FROM scratch AS x", "ARG a=1", "FROM scratch", "LABEL v=${a-unset}"], {}, "unset"),
        (["FROM scratch", "LABEL v=${TARGETARCH-unset}"], {}, "unset"),
        (["FROM scratch", "ARG TARGETPLATFORM", "LABEL v=$TARGETPLATFORM"], {}, "linux/arm64"),
        (["FROM scratch", "ARG BUILDARCH", "LABEL v=$BUILDARCH"], {}, "amd64"),
        (["FROM --platform=$BUILDPLATFORM scratch", "ARG TARGETARCH", "LABEL v=$TARGETARCH"], {}, "arm64"),
        (["FROM scratch", "ARG a=x.tar.gz", "LABEL v=${a%.gz}-${a#*.}-${a/tar/zip}"], {}, "x.tar-tar.gz-x.zip.gz"),
    ],
)
def test_the_scope_of_arguments(shop: Workshop, lines: list[str], args: dict[str, str], expected: str) -> None:
    config = config_of(
        shop, *lines, build_args=args, platform=Platform("linux", "arm64"), host=Platform("linux", "amd64")
    )
    assert config["Labels"]["v"] == expected


def test_arguments_never_reach_the_environment_of_the_image(shop: Workshop) -> None:
    assert config_of(shop, "FROM scratch", "ARG a=1", "ARG b=2")["Env"] == [PATH]


def test_an_argument_chooses_the_base(shop: Workshop) -> None:
    shop.base("other:2", run=RunConfig(user="other"))
    assert config_of(shop, "ARG n=base v=1", "FROM ${n}:$v", build_args={"n": "other", "v": "2"})["User"] == "other"


def test_arguments_that_nobody_declares_are_told(shop: Workshop) -> None:
    config_of(shop, "FROM scratch", build_args={"no": "1", "HTTP_PROXY": "p", "SOURCE_DATE_EPOCH": "1"})
    assert shop.notes == ["build arguments that no ARG declares: no"]


# -- stages ----------------------------------------------------------------------------------------


def test_only_the_stages_that_are_needed_are_built(shop: Workshop) -> None:
    shop.write("f", "f")
    text = "FROM absent AS no\nRUN x\nFROM scratch AS yes\nCOPY f /y\nFROM absent AS last\nCOPY --from=yes /y /z\n"
    image = shop.build(text, target="YES")
    assert texts(image) == {"y": "f"}
    with pytest.raises(UsageError, match="nosuch"):
        shop.build(text, target="nosuch")


def test_a_stage_may_start_from_an_earlier_one(shop: Workshop) -> None:
    shop.write("f", "f")
    text = "FROM scratch AS one\nENV a=1\nUSER u\nCOPY f /1\nFROM one AS two\nENV b=$a\nCOPY f /2\n"
    image = shop.build(text)
    assert texts(image) == {"1": "f", "2": "f"}
    assert (image.config.run.environment["b"], image.config.run.user) == ("1", "u")


def test_a_stage_named_like_its_base_is_the_image(shop: Workshop) -> None:
    shop.base("same", run=RunConfig(user="image"))
    assert config_of(shop, "FROM same AS same", "FROM same")["User"] == "image"


@pytest.mark.parametrize("name", ["1", "2"])
def test_a_number_means_an_earlier_stage_only(shop: Workshop, name: str) -> None:
    with pytest.raises(DockerfileError, match="does not come before"):
        shop.build(f"FROM scratch\nFROM scratch\nCOPY --from={name} / /\nFROM scratch\n", target="1")


def test_triggers_of_a_base_run_once(shop: Workshop) -> None:
    shop.write("f", "f")
    shop.bases["trigger"] = shop.build(
        "FROM scratch\nARG w=here\nONBUILD COPY f /$w/\nONBUILD ENV done=$w\nONBUILD WORKDIR /$done\n"
    )
    child = shop.build("FROM trigger\nLABEL x=1\n")
    # Variables of a trigger are those of the child, which has no argument w.
    assert texts(child) == {"f": "f"}
    assert child.config.run.on_build == ()
    shop.bases["child"] = child
    assert len(shop.build("FROM child\n").layers) == len(child.layers)


# -- history and layers ----------------------------------------------------------------------------


def test_history_matches_the_layers(shop: Workshop) -> None:
    shop.write("f", "f")
    text = "FROM base\nARG a=1\nENV b=2\nCOPY f /n\nWORKDIR /new\nWORKDIR /new\nWORKDIR /\nRUN x\nUSER u\nCMD c\n"
    image = shop.build(text)
    history = json.loads(image.config.raw)["history"]
    assert sum(not entry.get("empty_layer", False) for entry in history) == len(image.layers) == 4
    assert [entry["created_by"] for entry in history] == [
        "base base",
        "ARG a=1",
        "ENV b=2",
        "COPY f /n",
        "WORKDIR /new",
        "WORKDIR /new",
        "WORKDIR /",
        "RUN |1 a=1 /bin/sh -c x",
        "USER u",
        "CMD c",
    ]
    assert {entry["created"] for entry in history[1:]} == {"1980-01-01T00:00:00Z"}
    assert history[0]["created"] == "1970-01-01T00:00:00Z"


def test_maintainer_is_the_author(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nMAINTAINER Some One <s@example.com>\n")
    assert json.loads(image.config.raw)["author"] == "Some One <s@example.com>"


def test_a_directory_of_workdir_belongs_to_the_user(shop: Workshop) -> None:
    found = tree(shop.build("FROM base\nUSER user\nWORKDIR /w/x\nWORKDIR /there\nWORKDIR /etc/link/y\n"))
    assert [
        (found[name][0].mode, found[name][0].uid, found[name][0].gid) for name in ("w", "w/x", "there", "there/y")
    ] == [
        (0o755, 101, 201),
        (0o755, 101, 201),
        (0o700, 9, 9),
        (0o755, 101, 201),
    ]


def test_labels_of_the_command_line_come_last(shop: Workshop) -> None:
    assert config_of(shop, "FROM scratch", "LABEL a=1 b=2", finish=Finish(labels={"b": "3"}))["Labels"] == {
        "a": "1",
        "b": "3",
    }


def test_a_base_for_another_platform_is_told(shop: Workshop) -> None:
    shop.build("FROM --platform=linux/s390x base\n")
    assert shop.notes == ["base is an image for linux/amd64, not for linux/s390x"]


def test_a_platform_of_a_base_that_is_none_is_the_dockerfiles_mistake(shop: Workshop) -> None:
    with pytest.raises(DockerfileError, match="--platform is not a platform: 'linux/'") as refused:
        shop.build("ARG none\nFROM --platform=linux/$none base\n")
    assert (refused.value.line, refused.value.exit_code) == (2, 1)


@pytest.mark.parametrize(
    "text",
    ["FROM scratch\nONBUILD ONBUILD RUN x\n", "FROM scratch\nONBUILD FROM x\n", "FROM scratch\nVOLUME\n", "FROM ''\n"],
)
def test_what_cannot_be(shop: Workshop, text: str) -> None:
    with pytest.raises(BuildError):
        shop.build(text)


def test_the_name_after_from_is_not_expanded(shop: Workshop) -> None:
    with pytest.raises(DockerfileError):
        shop.build("FROM scratch AS x\nFROM scratch\nARG n=x\nCOPY --from=$n / /\n")


def test_a_syntax_directive_is_accepted(shop: Workshop) -> None:
    assert config_of(shop, "# syntax=docker/dockerfile:1", "FROM scratch", "USER u")["User"] == "u"


def test_what_is_put_below_a_volume_stays(shop: Workshop) -> None:
    shop.write("f", "f")
    assert texts(shop.build("FROM scratch\nVOLUME /v\nCOPY f /v/f\n")) == {"v/f": "f"}


def test_an_argument_behind_a_variable_is_in_force(shop: Workshop) -> None:
    config = config_of(shop, "FROM scratch", "ENV a=env", "ARG a=arg", "LABEL v=$a")
    assert (config["Labels"]["v"], config["Env"]) == ("arg", [PATH, "a=env"])
