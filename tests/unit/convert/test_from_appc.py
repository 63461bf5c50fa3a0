"""ACIs to OCI configs: those of other tools, and ours that somebody edited."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from imagetool.appc.manifest import ImageManifest
from imagetool.convert.appc import CARRIER, from_aci, owning_paths, to_aci
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from tests.unit.convert.there_and_back import DIFF_ID, WHEN, back, config, foreign


def app_with(**changes: Any) -> dict[str, Any]:
    return foreign(app=foreign()["app"] | changes)


def test_an_aci_of_another_tool_becomes_a_config() -> None:
    found, lost = back(foreign())
    assert lost == []
    assert found.platform == Platform("linux", "arm64")
    assert (found.created, found.author) == ("2015-05-05T05:05:05Z", "Somebody")
    assert found.run == RunConfig(
        user="100:0",
        env=("A=b=c", "EMPTY="),
        entrypoint=("/bin/app", "-v"),
        working_dir="/srv",
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        labels={"k": "v"},
    )
    assert found.diff_ids == (DIFF_ID,)
    assert [step.created_by for step in found.history] == ["imagetool convert aci:example.com/my--app"]


def test_an_aci_without_an_app_or_labels_or_a_time() -> None:
    tree = foreign()
    del tree["app"], tree["labels"], tree["annotations"]
    found, lost = back(tree)
    assert found.run == RunConfig()
    assert found.platform == Platform("linux", "amd64")
    assert found.created == WHEN
    assert [line.partition(";")[0] for line in lost] == [
        "the ACI does not say its os",
        "the ACI does not say its arch",
    ]


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        (app_with(isolators=[{"name": "resource/cpu", "value": {"limit": "1"}}]), "app.isolators has no place"),
        (app_with(eventHandlers=[{"name": "pre-start", "exec": ["/x"]}]), "app.eventHandlers has no place"),
        (app_with(supplementaryGids=[5]), "app.supplementaryGIDs has no place"),
        (app_with(userAnnotations={"a": "b"}), "app.userAnnotations has no place"),
        (app_with(mountPoints=[{"name": "d", "path": "/d", "readOnly": True}]), "mount point d's readOnly"),
        (app_with(ports=[{"name": "w", "protocol": "tcp", "port": 1, "socketActivated": True}]), "port w's socket"),
        (app_with(ports=[{"name": "w", "protocol": "icmp", "port": 1}]), "port w is of protocol 'icmp'"),
        (app_with(ports=[{"name": "w", "protocol": "tcp", "port": 1, "count": 1025}]), "port w: of 1025 ports"),
        (app_with(user="/bin/app"), "app.user is the owner of /bin/app"),
        (app_with(group="/bin/app"), "app.group is the owner of /bin/app"),
        (foreign(labels=[*foreign()["labels"], {"name": "channel", "value": "x"}]), "label channel has no place"),
        (foreign(annotations=[{"name": "homepage", "value": "http://x"}]), "annotation homepage has no place"),
        (foreign(dependencies=[{"imageName": "example.com/base"}]), "dependencies are not fetched"),
        (foreign(pathWhitelist=["/bin"]), "pathWhitelist is not applied"),
    ],
)
def test_what_an_oci_config_cannot_say_is_reported(tree: dict[str, Any], line: str) -> None:
    found, lost = back(tree)
    assert len(lost) == 1
    assert lost[0].startswith(line)
    assert len(found.run.exposed_ports) <= 1024
    assert "/bin/app" not in found.run.user


@pytest.mark.parametrize(
    ("user", "group", "wanted"),
    [
        ("/bin/app", "/bin/other", "5:60"),
        ("/bin/app", "staff", "5:staff"),
        ("web", "/bin/app", "web:6"),
        ("/no", "0", ""),
    ],
)
def test_who_a_file_belongs_to_is_looked_up(user: str, group: str, wanted: str) -> None:
    manifest = ImageManifest.parse(json.dumps(app_with(user=user, group=group)).encode())
    assert owning_paths(manifest) == {text for text in (user, group) if text.startswith("/")}
    owners = {"/bin/app": (5, 6), "/bin/other": (50, 60)}
    found, lost = from_aci(manifest, diff_id=DIFF_ID, created=WHEN, owners=owners)
    assert found.run.user == wanted
    assert [line.partition(",")[0] for line in lost] == ([] if wanted else ["app.user is the owner of /no"])


# -- a carrier that does not fit ---------------------------------------------------------------

BORN = RunConfig(
    user="web", env=("A=1", "A=2", "X"), entrypoint=("/e",), cmd=("c",), working_dir="/w", volumes=("/v",),
    exposed_ports=("80",), labels={"l": "1"}, stop_signal="9",
)  # fmt: skip


def born() -> dict[str, Any]:
    """Return the manifest of an image that was OCI's before."""
    platform = Platform("linux", "amd64", "v2")
    tree: dict[str, Any] = json.loads(to_aci(config(BORN, platform, author="Me"), name="a", version="1")[0].raw)
    return tree


def test_a_carrier_that_fits_gives_back_everything() -> None:
    found, lost = back(born())
    assert (found.run, lost, found.author) == (BORN, [], "Me")
    assert found.platform == Platform("linux", "amd64", "v2")


EDITS: list[tuple[str, Any, dict[str, Any]]] = [
    ("user", "root", {"user": "root:web"}),
    ("group", "staff", {"user": "web:staff"}),
    ("exec", ["/other"], {"entrypoint": ("/other",), "cmd": None}),
    ("environment", [{"name": "B", "value": "3"}], {"env": ("B=3",)}),
    ("workingDirectory", "/x", {"working_dir": "/x"}),
    ("mountPoints", None, {"volumes": ()}),
    ("ports", [{"name": "u", "protocol": "udp", "port": 5}], {"exposed_ports": ("5/udp",)}),
    ("userLabels", {"l": "2"}, {"labels": {"l": "2"}}),
]


@pytest.mark.parametrize(("key", "value", "wanted"), EDITS)
def test_a_field_that_was_changed_in_the_aci_changes_and_no_other(
    key: str, value: object, wanted: dict[str, Any]
) -> None:
    tree = born()
    tree["app"][key] = value
    found, lost = back(tree)
    assert found.run == replace(BORN, **wanted)
    assert lost == []


def test_labels_and_annotations_of_the_aci_count_before_the_carrier() -> None:
    tree = born()
    tree["labels"] = [{"name": "os", "value": "linux"}, {"name": "arch", "value": "aarch64"}]
    for annotation in tree["annotations"]:
        annotation["value"] = {"authors": "You", "created": WHEN}.get(annotation["name"], annotation["value"])
    found, _ = back(tree)
    assert found.platform == Platform("linux", "arm64")
    assert (found.author, found.created, found.run) == ("You", WHEN, BORN)


def test_an_app_that_was_taken_away_is_not_brought_back() -> None:
    tree = born()
    del tree["app"]
    assert back(tree)[0].run == RunConfig()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"rootfs":{"type":"layers","diff_ids":["x"]}}', "\u0000", '{"a":1,"a":2}', "[" * 100_000,
     '{"os":"linux","architecture":"riscv64","rootfs":{"type":"layers","diff_ids":[]}}',
     '{"os":"linux","architecture":"amd64","config":{"Env":3},"rootfs":{"type":"layers","diff_ids":[]}}'],
    ids=range(10),
)  # fmt: skip
def test_a_carrier_that_cannot_be_used_is_reported_and_the_aci_read_without_it(text: str) -> None:
    tree = copy.deepcopy(foreign())
    tree["annotations"].append({"name": CARRIER, "value": text})
    found, lost = back(tree)
    assert found.run == back(foreign())[0].run
    assert len(lost) == 1
    assert lost[0].startswith(f"annotation {CARRIER} is not used: ")
