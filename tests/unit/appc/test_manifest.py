"""Every rule of the image manifest, each with what it takes and what it refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.appc.manifest import ImageManifest
from imagetool.errors import InvalidDocument, LimitExceeded
from tests.support.acicheck import check_manifest

#: The example of the spec, aci.md, with its `supplementaryGids`.
EXAMPLE: dict[str, Any] = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/reduce-worker",
    "labels": [
        {"name": "version", "value": "1.0.0"},
        {"name": "arch", "value": "amd64"},
        {"name": "os", "value": "linux"},
    ],
    "app": {
        "exec": ["/usr/bin/reduce-worker", "--quiet"],
        "user": "100",
        "group": "300",
        "supplementaryGids": [400, 500],
        "eventHandlers": [
            {"exec": ["/usr/bin/data-downloader"], "name": "pre-start"},
            {"exec": ["/usr/bin/deregister-worker", "--verbose"], "name": "post-stop"},
        ],
        "workingDirectory": "/opt/work",
        "environment": [{"name": "REDUCE_WORKER_DEBUG", "value": "true"}],
        "isolators": [
            {"name": "resource/cpu", "value": {"request": "250m", "limit": "500m"}},
            {"name": "resource/memory", "value": {"request": "1G", "limit": "2G"}},
            {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_BIND_SERVICE"]}},
        ],
        "mountPoints": [{"name": "work", "path": "/var/lib/work", "readOnly": False}],
        "ports": [
            {"name": "health", "port": 4000, "protocol": "tcp", "socketActivated": True},
            {"name": "ftpdata", "port": 4001, "count": 3, "protocol": "tcp"},
        ],
        "userAnnotations": {"Any key!": "x"},
        "userLabels": {"": "y"},
    },
    "dependencies": [
        {
            "imageName": "example.com/reduce-worker-base",
            "imageID": "sha512-" + "ab" * 32,
            "labels": [{"name": "os", "value": "linux"}],
            "size": 22017258,
        }
    ],
    "pathWhitelist": ["/etc/ca/example.com/crt", "/usr/bin/map-reduce-worker"],
    "annotations": [
        {"name": "authors", "value": "Carly Container <carly@example.com>"},
        {"name": "created", "value": "2014-10-27T19:32:27.67021798Z"},
        {"name": "documentation", "value": "https://example.com/docs"},
        {"name": "homepage", "value": "https://example.com"},
        {"name": "appc.io/executor/supports-systemd-notify", "value": "true"},
    ],
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the example with something put at `path`, dots and numbers as keys and indexes."""
    tree = copy.deepcopy(EXAMPLE)
    at: Any = tree
    *way, last = path.split(".")
    for key in way:
        at = at[int(key) if isinstance(at, list) else key]
    at[int(last) if isinstance(at, list) else last] = value
    return tree


def parse(tree: dict[str, Any], *, strict: bool = True) -> ImageManifest:
    return ImageManifest.parse(json.dumps(tree).encode(), what="m", strict=strict)


def test_the_example_of_the_spec_is_read_in_canonical_spelling() -> None:
    manifest = parse(EXAMPLE)
    assert manifest.name == "example.com/reduce-worker"
    assert manifest.labels == {"version": "1.0.0", "arch": "amd64", "os": "linux"}
    assert manifest.annotations["homepage"] == "https://example.com"
    assert manifest.app is not None
    assert manifest.app["supplementaryGIDs"] == [400, 500]
    assert manifest.tree["app"] == manifest.app
    assert "supplementaryGids" not in manifest.app


def test_keys_are_read_without_regard_to_case_at_every_depth() -> None:
    def shout(value: Any) -> Any:
        if isinstance(value, list):
            return [shout(item) for item in value]
        if isinstance(value, dict):
            return {key.upper(): shout(item) for key, item in value.items()}
        return value

    loud = shout(EXAMPLE)
    loud["APP"]["USERLABELS"], loud["APP"]["USERANNOTATIONS"] = {"": "y"}, {"Any key!": "x"}  # keys of the user's
    quiet = parse(EXAMPLE)
    found = parse(loud)
    assert (found.name, found.labels, found.annotations) == (quiet.name, quiet.labels, quiet.annotations)
    assert found.app is not None
    assert quiet.app is not None
    assert {key: value for key, value in found.app.items() if key != "isolators"} == {
        key: value for key, value in quiet.app.items() if key != "isolators"
    }


def test_the_long_s_is_an_s_as_it_is_for_go() -> None:
    tree = copy.deepcopy(EXAMPLE)
    del tree["labels"]
    tree["labelſ"] = [{"name": "version", "value": "1"}]
    assert parse(tree).labels == {"version": "1"}


def test_two_spellings_of_one_key_are_refused() -> None:
    for path, value in (("Name", "other"), ("app.USER", "0"), ("labels.0.Value", "2"), ("app.ports.0.PORT", 1)):
        with pytest.raises(InvalidDocument, match="is there twice"):
            parse(changed(path, value))


def test_unknown_fields_survive() -> None:
    tree = changed("example", {"Deep": [1, None]})
    tree["app"]["Later"] = 1.5
    tree["app"]["ports"][0]["hint"] = "x"
    manifest = parse(tree)
    assert manifest.tree["example"] == {"Deep": [1, None]}
    assert manifest.app is not None
    assert manifest.app["Later"] == 1.5
    assert manifest.app["ports"][0]["hint"] == "x"
    assert json.loads(manifest.raw) == tree


REFUSED: list[tuple[str, object, str]] = [
    ("acKind", "PodManifest", "$.acKind"),
    ("acKind", "imagemanifest", "$.acKind"),
    ("acKind", None, "$.acKind"),
    ("acVersion", "v0.8.11", "$.acVersion"),
    ("acVersion", "0.0.0", "$.acVersion"),
    ("acVersion", "0.8", "$.acVersion"),
    ("acVersion", "00.8.11", "$.acVersion"),
    ("acVersion", "0.8.11-", "$.acVersion"),
    ("acVersion", "0.8.11-01", "$.acVersion"),
    ("acVersion", "0.8.11-+", "$.acVersion"),
    ("acVersion", "0.8.1١", "$.acVersion"),
    ("acVersion", "0.8.11\n", "$.acVersion"),
    ("name", "Upper", "$.name"),
    ("name", "127.0.0.1:5000/x", "$.name"),
    ("name", None, "$.name"),
    ("name", 3, "$.name is an integer"),
    ("labels", {}, "$.labels is an object"),
    ("labels.0", "version", "$.labels[0] is a string"),
    ("labels.0.name", "name", "label called name"),
    ("labels.0.name", "os", "$.labels[2].name"),
    ("labels.0.name", "Version", "$.labels[0].name"),
    ("labels.0.value", 1, "$.labels[0].value is an integer"),
    ("labels.1.value", "riscv64", "label arch"),
    ("labels.1.value", "arm64", "label arch"),
    ("labels.2.value", "windows", "label os"),
    ("app", [], "$.app is an array"),
    ("app.exec", "/bin/sh", "$.app.exec is a string"),
    ("app.exec.0", 1, "$.app.exec[0]"),
    ("app.user", "", "$.app.user"),
    ("app.user", None, "$.app.user"),
    ("app.user", 0, "$.app.user is an integer"),
    ("app.group", "", "$.app.group"),
    ("app.workingDirectory", "opt", "$.app.workingDirectory"),
    ("app.supplementaryGids.0", -1, "$.app.supplementaryGIDs[0]"),
    ("app.supplementaryGids.1", "wheel", "$.app.supplementaryGIDs[1]"),
    ("app.supplementaryGids.0", True, "$.app.supplementaryGIDs[0]"),
    ("app.supplementaryGids.0", 2**32, "$.app.supplementaryGIDs[0]"),
    ("app.eventHandlers.0.name", "pre-stop", "$.app.eventHandlers[0].name"),
    ("app.eventHandlers.0.name", "post-stop", "$.app.eventHandlers[1].name"),
    ("app.eventHandlers.0.exec", [1], "$.app.eventHandlers[0].exec[0]"),
    ("app.environment.0.name", "1A", "$.app.environment[0].name"),
    ("app.environment.0.name", "A B", "$.app.environment[0].name"),
    ("app.environment.0.name", "", "$.app.environment[0].name"),
    ("app.environment.0.name", "Ä", "$.app.environment[0].name"),
    ("app.environment.0.value", 1, "$.app.environment[0].value"),
    ("app.environment", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], "$.app.environment[1].name"),
    ("app.mountPoints.0.name", "Work", "$.app.mountPoints[0].name"),
    ("app.mountPoints.0.name", "a.b", "$.app.mountPoints[0].name"),
    ("app.mountPoints.0.path", "var", "$.app.mountPoints[0].path"),
    ("app.mountPoints.0.path", None, "$.app.mountPoints[0].path"),
    ("app.mountPoints.0.readOnly", "false", "$.app.mountPoints[0].readOnly"),
    ("app.mountPoints", [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}], "$.app.mountPoints[1].name"),
    ("app.ports.0.name", "a_b", "$.app.ports[0].name"),
    ("app.ports.0.name", "ftpdata", "$.app.ports[1].name"),
    ("app.ports.0.protocol", None, "$.app.ports[0].protocol"),
    ("app.ports.0.protocol", "", "$.app.ports[0].protocol"),
    ("app.ports.0.port", 0, "$.app.ports[0]"),
    ("app.ports.0.port", -1, "$.app.ports[0]"),
    ("app.ports.0.port", 65536, "$.app.ports[0]"),
    ("app.ports.0.port", "80", "$.app.ports[0].port"),
    ("app.ports.0.port", None, "$.app.ports[0].port"),
    ("app.ports.1.count", 0, "$.app.ports[1]"),
    ("app.ports.1.count", 65535 - 4001 + 2, "$.app.ports[1]"),
    ("app.ports.0.socketActivated", 1, "$.app.ports[0].socketActivated"),
    ("app.userLabels", {"a": 1}, "$.app.userLabels.a"),
    ("app.userAnnotations", ["a"], "$.app.userAnnotations"),
    ("dependencies.0.imageName", None, "$.dependencies[0].imageName"),
    ("dependencies.0.imageName", "A", "$.dependencies[0].imageName"),
    ("dependencies.0.imageID", "sha256-" + "ab" * 32, "$.dependencies[0].imageID"),
    ("dependencies.0.imageID", "sha512-zz", "$.dependencies[0].imageID"),
    ("dependencies.0.labels.0.name", "name", "$.dependencies[0].labels"),
    ("dependencies.0.size", -1, "$.dependencies[0].size"),
    ("pathWhitelist.1", "usr/bin", "$.pathWhitelist[1]"),
    ("pathWhitelist", "/usr", "$.pathWhitelist"),
    ("annotations.0.name", "created", "$.annotations[1].name"),
    ("annotations.0.name", "a b", "$.annotations[0].name"),
    ("annotations.1.value", "2014-10-27 19:32:27Z", "$.annotations.created"),
    ("annotations.1.value", "2014-10-27t19:32:27z", "$.annotations.created"),
    ("annotations.1.value", "2014-02-30T19:32:27Z", "$.annotations.created"),
    ("annotations.1.value", "2014-12-31T23:59:60Z", "$.annotations.created"),
    ("annotations.2.value", "ftp://example.com", "$.annotations.documentation"),
    ("annotations.3.value", "example.com", "$.annotations.homepage"),
    ("annotations.4.value", "yes", "supports-systemd-notify"),
]


@pytest.mark.parametrize(("path", "value", "named"), REFUSED)
def test_what_breaks_a_rule_is_refused_by_its_path(path: str, value: object, named: str) -> None:
    for strict in (True, False):
        with pytest.raises(InvalidDocument) as refused:
            parse(changed(path, value), strict=strict)
        assert str(refused.value).startswith("m: ")
        assert named in str(refused.value)
        assert "\n" not in str(refused.value)


ACCEPTED: list[tuple[str, object]] = [
    ("acVersion", "0.8.11+git"),
    ("acVersion", "1.0.0-rc.1+build.5"),
    ("acVersion", "9.0.0"),
    ("labels", None),
    ("labels.1.value", "aarch64_be"),
    ("labels.2.name", "kernel"),
    ("app", None),
    ("app.exec", None),
    ("app.exec", ["sh"]),
    ("app.user", "/bin/owner"),
    ("app.workingDirectory", ""),
    ("app.environment.0.name", "a.b-C_1"),
    ("app.environment.0.value", ""),
    ("app.environment.0.value", "$PATH=\u0000\n"),
    ("app.ports.0.count", None),
    ("app.ports.1", {"name": "all", "port": 1, "count": 65535, "protocol": "sctp"}),
    ("pathWhitelist", []),
    ("annotations.1.value", "2014-10-27T19:32:27+02:00"),
    ("dependencies.0.imageID", None),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_what_keeps_the_rules_is_accepted(path: str, value: object) -> None:
    parse(changed(path, value), strict=True)


@pytest.mark.parametrize(("system", "arch"), [("linux", "x86_64"), ("freebsd", "aarch64"), ("darwin", "amd64")])
def test_an_architecture_belongs_to_its_system(system: str, arch: str) -> None:
    tree = changed("labels.2.value", system)
    tree["labels"][1]["value"] = arch
    with pytest.raises(InvalidDocument, match="label arch"):
        parse(tree)
    del tree["labels"][2]  # without an operating system it says nothing that can be wrong
    parse(tree)


#: What the spec forbids, actool accepts, and images in use have.
LOOSE: list[tuple[str, object, str]] = [
    ("name", "example.com/a--b", "$.name"),
    ("labels.0.name", "a//b", "$.labels[0].name"),
    ("annotations.0.name", "a._b", "$.annotations[0].name"),
    ("app.mountPoints.0.name", "a--b", "$.app.mountPoints[0].name"),
    ("app.ports.0.name", "a---b", "$.app.ports[0].name"),
    ("dependencies.0.imageName", "a__b", "$.dependencies[0].imageName"),
    ("app.isolators.0", {"name": "os/linux/later", "value": 1}, "$.app.isolators[0].name"),
    (
        "app.isolators.0",
        {"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}},
        "capabilities",
    ),
]


@pytest.mark.parametrize(("path", "value", "named"), LOOSE)
def test_what_only_the_letter_of_the_spec_forbids_is_read_and_never_written(
    path: str, value: object, named: str
) -> None:
    assert parse(changed(path, value), strict=False).tree
    with pytest.raises(InvalidDocument) as refused:
        parse(changed(path, value), strict=True)
    assert named in str(refused.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff{}", b'{"acKind":"ImageManifest"}x', b"{}{}", b"{}"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidDocument, match=r"^m: "):
        ImageManifest.parse(raw, what="m")


def test_a_duplicate_key_and_a_huge_document_are_refused() -> None:
    raw = json.dumps(EXAMPLE).encode()
    with pytest.raises(InvalidDocument, match=r"\$\.name is there twice"):
        ImageManifest.parse(raw[:-1] + b',"name":"other"}', what="m")
    with pytest.raises(LimitExceeded):
        ImageManifest.parse(raw + b" " * (4 << 20), what="m")


_words = st.text(alphabet="abc-./A1ü ", max_size=6)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 70000) | st.floats(allow_nan=False, allow_infinity=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)
_paths = st.sampled_from(sorted({path for path, *_ in REFUSED} | {"app.isolators.0.value", "app.isolators", "zz"}))


@settings(deadline=None)
@given(_paths, _json)
def test_whatever_stands_anywhere_is_refused_or_really_valid(path: str, value: object) -> None:
    tree = changed(path, value)
    try:
        manifest = parse(tree, strict=True)
    except InvalidDocument:
        return
    found = _without_nulls(manifest.tree)
    found.get("app", {}).pop("isolators", None)  # the checker is for what we write, which has none
    check_manifest(found)


def _without_nulls(value: Any) -> Any:
    """Leave out what Go reads as if it were not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def test_what_is_made_is_held_to_the_letter() -> None:
    made = ImageManifest.make(
        name="a", labels={"os": "linux", "arch": "amd64"}, app={"user": "0", "group": "0"}, annotations={"b": "c"}
    )
    check_manifest(json.loads(made.raw))
    assert ImageManifest.parse(made.raw, strict=True) == made
    with pytest.raises(InvalidDocument):
        ImageManifest.make(name="a--b", labels={}, app=None, annotations={})
    with pytest.raises(InvalidDocument):
        ImageManifest.make(
            name="a", labels={}, annotations={}, app={"user": "0", "group": "0", "isolators": [{"name": "x"}]}
        )
