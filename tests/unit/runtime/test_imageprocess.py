"""An image's config in the words of the runtime-spec: conversion.md, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from imagetool.errors import BuildError, InvalidDocument, UsageError
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.runtime.imageprocess import DEFAULT_PATH, Wishes, annotations_of, process_of, volumes_of
from imagetool.runtime.users import User

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:8:\nextra:x:9:app\n"


def config(*, author: str = "", platform: Platform | None = None, **run: Any) -> ImageConfig:
    return ImageConfig.make(
        platform=platform or Platform(),
        run=RunConfig(**run),
        diff_ids=[],
        history=[],
        created="2020-01-01T00:00:00Z",
        author=author,
    )


def process(run: ImageConfig, **wishes: Any):  # type: ignore[no-untyped-def]
    return process_of(run, passwd=PASSWD, group=GROUP, wishes=Wishes(**wishes))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "wishes", "args"),
    [
        (("e", "1"), ("c",), {}, ("e", "1", "c")),
        (None, ("c",), {}, ("c",)),
        (("e",), None, {}, ("e",)),
        (("e",), ("c",), {"args": ("x", "y")}, ("e", "x", "y")),
        (("e",), ("c",), {"args": ()}, ("e",)),
        (("e",), ("c",), {"entrypoint": ("n",)}, ("n",)),
        (("e",), ("c",), {"entrypoint": ("n",), "args": ("x",)}, ("n", "x")),
        (("e",), ("c",), {"entrypoint": (), "args": ("x",)}, ("x",)),
    ],
)
def test_the_command_is_entrypoint_and_cmd_unless_the_caller_wants_another(
    entrypoint: Any, cmd: Any, wishes: Any, args: tuple[str, ...]
) -> None:
    assert process(config(entrypoint=entrypoint, cmd=cmd), **wishes).args == args


def test_without_any_command_there_is_nothing_to_run() -> None:
    with pytest.raises(UsageError, match="names no command"):
        process(config(entrypoint=("e",)), entrypoint=())


def test_the_environment_is_the_images_with_path_and_home_where_nothing_sets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    made = process(config(cmd=("c",), env=("A=1", "SECRET", "B=x=y", "EMPTY="), user="app"), env={"A": "2"})
    assert made.env == {"PATH": DEFAULT_PATH, "A": "2", "B": "x=y", "EMPTY": "", "HOME": "/home/app"}
    assert process(config(cmd=("c",), env=("PATH=/p", "HOME=/h"))).env == {"PATH": "/p", "HOME": "/h"}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0)),
        ("app", User(7, 8, (9,))),
        ("app:root", User(7, 0)),
        ("1234", User(1234, 0)),
        ("1234:5", User(1234, 5)),
    ],
)
def test_the_user_is_looked_up_in_the_image(user: str, expected: User) -> None:
    assert process(config(cmd=("c",), user=user)).user == expected
    assert process(config(cmd=("c",)), user=user).user == expected


def test_a_user_who_is_not_in_the_image_is_an_error() -> None:
    with pytest.raises(BuildError, match="nobody"):
        process(config(cmd=("c",), user="nobody"))


def test_the_working_directory_is_absolute() -> None:
    assert process(config(cmd=("c",))).cwd == "/"
    assert process(config(cmd=("c",), working_dir="srv/app")).cwd == "/srv/app"
    assert process(config(cmd=("c",), working_dir="/srv"), cwd="/tmp").cwd == "/tmp"


def test_annotations_say_what_the_fields_imply_and_labels_win() -> None:
    platform = Platform("linux", "arm", "v7", "1.2", ("a", "b"))
    made = annotations_of(
        config(
            author="me",
            platform=platform,
            stop_signal="SIGINT",
            exposed_ports=("80/tcp", "53/udp"),
            labels={"org.opencontainers.image.author": "label", "x": "y"},
        )
    )
    assert made == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "arm",
        "org.opencontainers.image.variant": "v7",
        "org.opencontainers.image.os.version": "1.2",
        "org.opencontainers.image.os.features": "a,b",
        "org.opencontainers.image.author": "label",
        "org.opencontainers.image.created": "2020-01-01T00:00:00Z",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
        "x": "y",
    }


@pytest.mark.parametrize("name", ["org.freebsd.jail.allow.mount", "run.oci.handler", "IO.KataContainers.config.x"])
def test_labels_that_a_runtime_would_obey_are_no_annotations(name: str) -> None:
    assert set(annotations_of(config(labels={name: "x", "org.example.x": "y"}))).isdisjoint({name})


def test_volumes_come_in_normal_form_parents_first() -> None:
    assert volumes_of(config(volumes=("/b/c/", "/b", "a//x", "/b/./c"))) == ("/a/x", "/b", "/b/c")


@pytest.mark.parametrize("path", ["/", "", "/a/../../etc", "/a\0b"])
def test_a_volume_that_could_not_be_mounted_is_refused(path: str) -> None:
    with pytest.raises(InvalidDocument, match="volume"):
        volumes_of(config(volumes=(path,)))
