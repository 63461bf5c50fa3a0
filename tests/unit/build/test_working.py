"""Records of working containers: what is written is read, what is damaged is refused, names are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagetool.build.containers import RECORD, Containers
from imagetool.build.state import StageState
from imagetool.build.working import FailedStep, WorkingContainer, new_identity
from imagetool.content.memory import MemoryStore
from imagetool.errors import InvalidDocument, NotFound, UsageError
from imagetool.image.image import Layer
from imagetool.image.write import write_layer
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, RunConfig
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.values import replace


def layer(name: str) -> Layer:
    return write_layer(write([(Entry(name.encode(), "dir"), ())]), MemoryStore(), Codec())


def container(**fields: object) -> WorkingContainer:
    run = RunConfig(env=("PATH=/bin", "A=1"), cmd=("x",), labels={"ä": "ö"}, healthcheck={"Test": ["NONE"]})
    state = StageState(
        Platform("linux", "arm64"),
        run,
        layers=(layer("a"), layer("b")),
        history=(History("1970-01-01T00:00:00Z", "one"), History(created_by="two"), History(empty_layer=True)),
        author="me",
        variables={"PATH": "/bin", "A": "2", "B": "3"},
        args={"A": "2", "B": "3"},
        cmd_set=True,
        base_layers=1,
    )
    made = WorkingContainer(new_identity(), "app:1", "sha256:x", state, "2020-01-01T00:00:00Z", 5, base_history=1)
    return replace(made, **fields)


FULL = {
    "preserve": True,
    "compression": "zstd",
    "annotations": {"a": "b"},
    "created_by": "hand",
    "comment": "text",
    "edit": "edit-1",
    "runs": {"memory": "64m", "volume": ["/a:/b:ro"], "stats": True},
    "failed": FailedStep(
        "RUN x",
        "Dockerfile:3",
        ("/bin/sh", "-c", "x"),
        7,
        script=("/dev/pipes/E", "#!/bin/sh\n"),
        network="none",
        mounts=("type=cache,target=/c",),
        context="/ctx",
        sources={"stage": (layer("c"),)},
        proxies={"http_proxy": "p"},
    ),
}


def test_a_record_is_read_as_it_was_written() -> None:
    for made in (container(), container(**FULL)):
        assert WorkingContainer.parse(made.render(), what="record") == made
    assert len(list(container(**FULL).layers)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"layers": []},
        {"config": None},
        {"epoch": "soon"},
        {"runs": []},
        {"runs": {"memory": 64}},
        {"runs": {"volume": ["/a:/b", 1]}},
        {"edit": "../../etc"},
        {"failed": {"text": 1}},
        {"annotations": [1]},
    ],
)
def test_a_damaged_record_is_refused(damage: dict[str, object], tmp_path: Path) -> None:
    raw = json.dumps(json.loads(container().render()) | damage).encode()
    with pytest.raises(InvalidDocument):
        WorkingContainer.parse(raw, what="record")
    known = Containers(tmp_path / "containers")
    name = known.make(container(), stem="box")
    (tmp_path / "containers" / name / RECORD).write_bytes(raw[:-3])
    with pytest.raises(InvalidDocument):
        list(known.records())  # whoever collects what nobody needs must not take it for nothing


def test_names_are_given_found_and_guessed(tmp_path: Path) -> None:
    known = Containers(tmp_path / "containers")
    assert (known.names(), known.find("box")) == ([], None)
    first, second = container(identity="abcd" * 16), container(identity="abce" * 16)
    assert known.make(first, stem="we/ird näme") == "we-ird-n-me"
    assert known.make(second, stem="we/ird näme") == "we-ird-n-me-1"
    assert known.find("abcd") == "we-ird-n-me"
    assert known.find("abc") is None, "too short"
    assert known.find("abce" * 16) == "we-ird-n-me-1"
    with pytest.raises(UsageError, match="already"):
        known.make(container(), name="we-ird-n-me")
    for wrong in ("", "../x", ".new", "-x", "a/b", "x" * 129):
        if wrong:
            with pytest.raises(UsageError):
                known.make(container(), name=wrong)
        with pytest.raises(NotFound):
            known.named(wrong)
    with pytest.raises(NotFound, match=r"did you mean we-ird-n-me\?"):
        known.named("we-ird-n-mee")
    assert known.names() == ["we-ird-n-me", "we-ird-n-me-1"]


def test_what_is_held_is_changed_as_a_whole_and_removed_as_a_whole(tmp_path: Path) -> None:
    known = Containers(tmp_path / "containers")
    name = known.make(container(), name="box")
    with known.held("box", waiting=str) as held:
        held.save(comment="changed")
        (held.folder / "edit-1").mkdir()
    assert known.read(name).comment == "changed"
    with known.held(name, waiting=str) as held:
        known.remove(held)
    assert known.names() == []
    assert [path.name for path in (tmp_path / "containers").rglob("*")] == [".new"]
    with pytest.raises(NotFound), known.held(name, waiting=str):
        pass
