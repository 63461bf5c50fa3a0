"""Every limit, set for a run of the program: what is as large as it allows passes, what is one larger does not.

A row of the table makes something for the program to read and says how large it is. It is read
twice, with the limit set to that and to one less. A limit without a row fails a test, so this file is as long as
the list of limits.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagetool import limits
from imagetool.config.environment import adjust_limits
from imagetool.content.layout import LayoutStore
from imagetool.content.store import push_bytes
from imagetool.errors import UsageError
from imagetool.layer.annotations import CHUNKED_POSITION
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from tests.support.command import imagetool
from tests.support.tars import END, extended, file, padded, record
from tests.support.wire import WireRegistry, serving, token_server

ROOT = Path(__file__).parents[2]
PLAIN = mediatype.OCI_LAYER_OF["none"]


@dataclass(frozen=True)
class Case:
    """A command line that a limit of `at` lets pass and one of `past`, one less where nothing is said, does not."""

    args: Sequence[str | Path]
    at: int
    past: int = 0
    passes: int = 0  # its exit code at `at`
    says: str = ""  # on stderr at `past`; the limit and how to set it where nothing is said

    def words(self, name: str) -> str:
        said = f"the limit {limits.setting(name)}={self.past or self.at - 1}, which --limit or IMAGETOOL_LIMITS sets"
        return self.says or said


Make = Callable[[Path, ExitStack], Case]
ROWS: dict[str, Make] = {}


def row(make: Make) -> Make:
    """Put a case into the table, by the limit that its function is named after."""
    ROWS[make.__name__.upper()] = make
    return make


# -- documents ----------------------------------------------------------------------------------


class Layout:
    """An OCI layout in the making."""

    def __init__(self, folder: Path) -> None:
        self.store = LayoutStore.create(folder / "layout")

    def config(self, *tars: bytes) -> Descriptor:
        made = ImageConfig.make(
            platform=Platform(), run=RunConfig(), diff_ids=[Digest.of(tar) for tar in tars], history=[], created=""
        )
        return push_bytes(self.store, made.raw, mediatype.OCI_CONFIG)

    def image(self, *tars: bytes, codec: str = "none", **fields: Any) -> Descriptor:
        """Add an image of these layers; `fields` are put into its manifest."""
        kind = mediatype.OCI_LAYER_OF[codec.partition(":")[0]]
        blobs = [push_bytes(self.store, b"".join(Codec.parse(codec).compress([tar])), kind) for tar in tars]
        raw = Manifest.make(self.config(*tars), blobs).raw
        raw = raw[:-1] + b"".join(b",%s:%s" % (dumped(key), dumped(value)) for key, value in fields.items()) + b"}"
        return push_bytes(self.store, raw, mediatype.OCI_MANIFEST)

    def index(self, *children: Descriptor) -> Descriptor:
        entries = [Descriptor(one.media_type, one.digest, one.size, platform=Platform()) for one in children]
        made = Index.make(entries)
        return push_bytes(self.store, made.raw, made.media_type)

    def named(self, root: Descriptor) -> str:
        """Return the place of an image, for a command line."""
        self.store.tag(root, "it")
        return f"oci:{self.store.folder}:it"


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@row
def document_bytes(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    root = layout.image(padding="x" * 5000)
    return Case(["ls", layout.named(root)], root.size)


@row
def document_depth(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    value: Any = "deep"
    for _level in range(8):
        value = [value]
    return Case(["ls", layout.named(layout.image(nested=value))], 9)


@row
def document_int_digits(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    return Case(["ls", layout.named(layout.image(number=-(10**12)))], 13)


@row
def index_manifests(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    return Case(["ls", layout.named(layout.index(*(layout.image(number=number) for number in range(3))))], 3)


@row
def index_depth(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    root = layout.image()
    for _level in range(3):
        root = layout.index(root)
    return Case(["ls", layout.named(root)], 3)


@row
def image_layers(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    return Case(["ls", layout.named(layout.image(*[END] * 5))], 5)


@row
def graph_documents(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    root = layout.index(*(layout.image(number=number) for number in range(3)))
    return Case(["copy", layout.named(root), f"oci:{folder}/copy"], 4)


@row
def graph_bytes(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    images = [layout.image(number=number) for number in range(3)]
    root = layout.index(*images)
    return Case(["copy", layout.named(root), f"oci:{folder}/copy"], root.size + sum(one.size for one in images))


# -- Dockerfiles --------------------------------------------------------------------------------


def dockerfile(folder: Path, text: str) -> list[str | Path]:
    path = folder / "Dockerfile"
    path.write_text(text)
    return ["lint", path]


@row
def dockerfile_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(dockerfile(folder, "FROM scratch\n" + "#\n" * 500), 1013)


@row
def dockerfile_line_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(dockerfile(folder, f"FROM scratch\n#{'x' * 299}\n"), 300)


@row
def dockerfile_word_depth(folder: Path, _: ExitStack) -> Case:
    word = "${a:-" * 6 + "x" + "}" * 6
    return Case(dockerfile(folder, f"FROM scratch\nARG a\nENV b={word}\n"), 6)


@row
def dockerfile_checked(folder: Path, _: ExitStack) -> Case:
    return Case(dockerfile(folder, "FROM scratch\n" + "WORKDIR /a\n" * 9), 10)


@row
def dockerfile_pattern(folder: Path, _: ExitStack) -> Case:
    return Case(dockerfile(folder, f"FROM scratch\nARG a=b\nENV b=${{a#{'?' * 40}}}\n"), 40)


# -- layers -------------------------------------------------------------------------------------


def layer(folder: Path, tar: bytes, *, codec: str = "none") -> list[str | Path]:
    layout = Layout(folder)
    return ["ls", layout.named(layout.image(tar + END, codec=codec))]


@row
def tar_entries(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, b"".join(file(b"f%d" % number) for number in range(7))), 7)


@row
def tar_name_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, extended(b"x", record(b"path", b"n" * 150)) + file(b"f")), 150)


@row
def tar_pax_bytes(folder: Path, _: ExitStack) -> Case:
    body = record(b"comment", b"x" * 600)
    return Case(layer(folder, extended(b"x", body) + file(b"f")), len(body))


@row
def tar_xattr_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, extended(b"x", record(b"SCHILY.xattr.user.x", b"v" * 90)) + file(b"f")), 90)


@row
def tar_sparse_regions(folder: Path, _: ExitStack) -> Case:
    lines = b"50\n" + b"".join(b"%d\n1\n" % (2 * at) for at in range(50))
    fields = {b"major": b"1", b"minor": b"0", b"realsize": b"1000", b"name": b"s"}
    header = extended(b"x", b"".join(record(b"GNU.sparse." + key, value) for key, value in fields.items()))
    return Case(layer(folder, header + file(b"s", padded(lines) + b"x" * 50)), 50)


@row
def tar_trailing_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, file(b"f") + END + bytes(3 << 20)), (3 << 20) + len(END))


@row
def layer_bytes(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, file(b"f", bytes(5000)), codec="gzip"), 512 + 5120 + len(END))


def squeezed(folder: Path, codec: str) -> tuple[list[str | Path], int]:
    """Return how to read a layer, and how many times as large as its blob it is, rounded up."""
    tar = file(b"f", b"".join(b"%07d\n" % number * 4096 for number in range(64))) + END
    blob = b"".join(Codec.parse(codec).compress([tar]))
    return ["--limit", "layer-ratio-floor=1", *layer(folder, tar[: -len(END)], codec=codec)], -(-len(tar) // len(blob))


@row
def layer_ratio(folder: Path, _: ExitStack) -> Case:
    return Case(*squeezed(folder, "gzip:1"))


@row
def zstd_ratio(folder: Path, _: ExitStack) -> Case:
    return Case(*squeezed(folder, "zstd"))


@row
def layer_ratio_floor(folder: Path, _: ExitStack) -> Case:
    args = layer(folder, file(b"f", bytes(3 << 20)), codec="gzip:1")
    return Case(["--limit", "layer-ratio=2", *args], 512 + (3 << 20) + len(END), says="the limit layer-ratio=2, which")


@row
def zstd_window_log(folder: Path, _: ExitStack) -> Case:
    return Case(layer(folder, file(b"f", bytes(5 << 20)), codec="zstd:1:long=22"), 22)


@row
def toc_bytes(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    source = layout.named(layout.image(b"".join(file(b"f%d" % number, b"text") for number in range(50)) + END))
    place = f"oci:{folder}/chunked:it"
    imagetool("copy", "--compression", "zstd:chunked", source, place, root=folder / "root")
    store = LayoutStore.open(folder / "chunked")
    with store.fetch(store.resolve("it")) as chunks:
        described = Manifest.parse(b"".join(chunks)).layers[0]
    _, length, size, _ = map(int, described.annotations[CHUNKED_POSITION].split(":"))
    assert length < size
    return Case(["verify", place], size)


@row
def xz_memory(folder: Path, _: ExitStack) -> Case:
    packed = lzma.compress(file(b"f", b"text") + END, preset=1)
    (folder / "a.tar.xz").write_bytes(packed)
    (folder / "Dockerfile").write_text("FROM scratch\nADD a.tar.xz /\n")
    too_little, enough = 1, 1 << 30
    while enough - too_little > 1:
        tried = (enough + too_little) // 2
        try:
            lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=tried).decompress(packed)
        except lzma.LZMAError:
            too_little = tried
        else:
            enough = tried
    return Case(["build", "--no-cache", folder], enough)


@row
def scan_bytes(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    source = layout.named(layout.image(file(b"f", b"text") + END))
    imagetool("unpack", source, folder / "edited", root=folder / "root")
    return Case(
        ["repack", folder / "edited", f"oci:{folder}/new:it"], (folder / "edited/imagetool.scan").stat().st_size
    )


@row
def passwd_bytes(folder: Path, _: ExitStack) -> Case:
    layout = Layout(folder)
    users = b"root:x:0:0::/:/bin/sh\napp:x:7:7::/:/bin/sh\n"
    imagetool("copy", layout.named(layout.image(file(b"etc/passwd", users) + END)), "base", root=folder / "root")
    (folder / "Dockerfile").write_text("FROM base\nCOPY --chown=app Dockerfile /\n")
    return Case(["build", "--no-cache", folder], len(users))


@row
def archive_entries(folder: Path, _: ExitStack) -> Case:
    place = f"oci-archive:{folder}/it.tar"
    layout = Layout(folder)
    imagetool("copy", layout.named(layout.image(END)), place, root=folder / "root")
    with tarfile.open(folder / "it.tar") as tar:
        return Case(["ls", place], len(tar.getmembers()))


@row
def archive_link_bytes(folder: Path, _: ExitStack) -> Case:
    place = f"oci-archive:{folder}/it.tar"
    layout = Layout(folder)
    imagetool("copy", layout.named(layout.image(END)), place, root=folder / "root")
    with tarfile.open(folder / "it.tar", "a") as tar:
        for name, target in (("first", "index.json"), ("second", "oci-layout")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return Case(["ls", place], len("first" + "index.json" + "second" + "oci-layout"))


@row
def tree_bytes(folder: Path, _: ExitStack) -> Case:
    """A file is 192 bytes and its name, a directory 256 more; what is the same but for these, 512 once."""
    return Case(layer(folder, file(b"d/one") + file(b"two")), 3 * 192 + 256 + len(b"d" + b"one" + b"two") + 512)


@row
def archive_bytes(folder: Path, _: ExitStack) -> Case:
    place = f"oci-archive:{folder}/it.tar"
    layout = Layout(folder)
    imagetool("copy", layout.named(layout.image(file(b"f", bytes(50_000)) + END)), place, root=folder / "root")
    with tarfile.open(folder / "it.tar") as tar:
        return Case(["ls", place], sum(member.size for member in tar.getmembers()))


@row
def env_file_bytes(folder: Path, _: ExitStack) -> Case:
    """No container has to start: where the file is read, what is missed next is the image."""
    (folder / "env").write_text("A=1\nB=2\n")
    return Case(["run", "--env-file", folder / "env", f"oci:{folder}/none:it"], 8, passes=3)


# -- the wire -----------------------------------------------------------------------------------


@row
def error_body_bytes(_: Path, running: ExitStack) -> Case:
    """No error, but what is said of one: of an answer that is longer nothing can be told."""
    registry = running.enter_context(serving())
    body = dumped({"errors": [{"code": "DENIED", "message": "closed for lunch"}]})
    registry.on("GET", "/manifests/", lambda exchange: exchange.answer(403, body), times=99)
    return Case(["--tls-verify=false", "inspect", f"docker://{registry.host}/app:it"], len(body))


@row
def header_bytes(_: Path, running: ExitStack) -> Case:
    registry = running.enter_context(serving(WireRegistry(tokens={"t" * 3000})))
    registry.realm = f"{registry.url}/token"
    token_server(registry, lambda _: "t" * 3000)
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[], history=[], created="")
    registry.add_blob(config.raw)
    made = Manifest.make(config.descriptor, [])
    registry.add_manifest("app", made.raw, made.media_type, "it")
    return Case(["--tls-verify=false", "inspect", f"docker://{registry.host}/app:it"], 3000)


def dripped(folder: Path, *settings: str, seconds: float) -> bytes:
    """Send our registry a body, a byte every tenth of a second; return how its answer begins."""
    words = [word for setting in settings for word in ("--limit", setting)]
    command = [sys.executable, "-m", "imagetool", *words, "registry", "serve", "--root", str(folder)]
    with (
        open(folder.with_suffix(".log"), "w+") as log,
        subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=log, stderr=log) as process,
    ):
        try:
            while not (match := re.search(r"listening on http://127.0.0.1:(\d+)\n", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.05)
            with socket.create_connection(("127.0.0.1", int(match[1])), 60) as connection:
                connection.sendall(b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                place = re.search(rb"location: (\S+)\r\n", connection.recv(4096), re.IGNORECASE)
                assert place
                count = int(seconds * 10)
                head = b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (place[1], count)
                connection.sendall(head)
                with contextlib.suppress(OSError):  # it hangs up on who is too slow
                    for _ in range(count):
                        connection.sendall(b"x")
                        time.sleep(0.1)
                return connection.recv(12)
        finally:
            process.terminate()


@pytest.mark.timeout(120)
def test_our_registry_waits_as_long_for_a_body_as_its_limits_say(tmp_path: Path) -> None:
    """BODY_SECONDS and BODY_BYTES_PER_SECOND: a rate counts once the seconds are over."""
    rate = "body-bytes-per-second=1GiB"
    assert dripped(tmp_path / "fast", "body-seconds=1", rate, seconds=3) == b"HTTP/1.1 408"
    assert dripped(tmp_path / "patient", "body-seconds=60", rate, seconds=3) == b"HTTP/1.1 202"
    slow = "body-bytes-per-second=1"
    assert dripped(tmp_path / "slow", "body-seconds=2", slow, seconds=3) == b"HTTP/1.1 202"


#: Limits of time, which no row can be at: the test above is theirs.
TIMED = {"BODY_SECONDS", "BODY_BYTES_PER_SECOND"}


@pytest.mark.parametrize("name", ROWS)
def test_a_limit_holds_at_its_value_and_not_one_past_it(name: str, tmp_path: Path) -> None:
    with ExitStack() as running:
        case = ROWS[name](tmp_path, running)
        at = run(name, case.at, case, tmp_path)
        past = run(name, case.past or case.at - 1, case, tmp_path)
    if name == "ERROR_BODY_BYTES":
        assert "closed for lunch" in at.stderr
        assert "closed for lunch" not in past.stderr
        return
    assert at.returncode == case.passes, at.stderr
    assert past.returncode in (1, 2, 6), past.stderr
    lines = [line for line in (past.stdout + past.stderr).splitlines() if case.words(name) in line]
    assert len(lines) == 1, past.stderr
    assert "Traceback" not in past.stderr


def run(name: str, value: int, case: Case, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["--limit", f"{limits.setting(name)}={value}", *case.args]
    return imagetool(*words, root=folder / "root", check=False)


# -- the table ----------------------------------------------------------------------------------


def constants() -> set[str]:
    """Every number of `limits` that is no unit."""
    found = {name for name, value in vars(limits).items() if name.isupper() and isinstance(value, int | float)}
    return {name for name in found if not name.startswith("_")} - {"KIB", "MIB", "GIB", "CHUNK"}


def test_no_limit_is_without_its_words_and_its_test() -> None:
    assert constants() == set(limits.BOUNDED) == set(ROWS) | TIMED


def test_limits_are_documented_with_the_values_they_have() -> None:
    text = (ROOT / "docs/reference/limits.md").read_text()
    table = dict(re.findall(r"^\| `([a-z-]+)` \| ([0-9]+(?: [KMG]iB)?) \|", text, re.MULTILINE))
    units = {"KiB": limits.KIB, "MiB": limits.MIB, "GiB": limits.GIB}
    values = {}
    for name, written in table.items():
        number, _, unit = written.partition(" ")
        values[name] = int(number) * units.get(unit, 1)
    assert values == {limits.setting(name): getattr(limits, name) for name in limits.BOUNDED}


def test_limits_are_read_where_they_are_used() -> None:
    """A name bound at import would keep the value from before they were set."""
    bound = re.compile(rf"from imagetool\.limits import .*\b({'|'.join(limits.BOUNDED)})\b")
    default = re.compile(r"^ *(?:async )?def .*= limits\.(?!KIB|MIB|GIB|CHUNK)[A-Z]", re.MULTILINE)
    for package in ("imagetool", "registry_server"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert not bound.search(text), path
            assert not default.search(text), path


def test_the_flag_counts_more_than_the_environment(tmp_path: Path) -> None:
    env = {"IMAGETOOL_LIMITS": "layer-bytes=1TiB, tar-entries=5,scan-bytes=3k"}
    words = ["--limit", "tar-entries=6", "limits", "--json", "--limit=toc-bytes=7,xz-memory=1MiB"]
    shown = json.loads(imagetool(*words, root=tmp_path, env=env).stdout)
    assert set(shown) == {limits.setting(name) for name in limits.BOUNDED}
    assert (shown["layer-bytes"], shown["tar-entries"], shown["scan-bytes"]) == (1 << 40, 6, 3072)
    assert (shown["toc-bytes"], shown["xz-memory"]) == (7, 1 << 20)
    assert shown["tar-pax-bytes"] == limits.TAR_PAX_BYTES


WRONG = ["x=1", "layer-bytes", "layer-bytes=", "layer-bytes=-1", "layer-bytes=0", "layer-bytes=1x", "chunk=1", "kib=1"]
WRONG += [
    "zstd-window-log=9",
    "zstd-window-log=32",
    "document-depth=401",
    "document-bytes=2GiB",
    "layer-bytes=9999999TiB",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_setting_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^IMAGETOOL_LIMITS: "):
        adjust_limits(environment={"IMAGETOOL_LIMITS": text})
    with pytest.raises(UsageError, match=r"^--limit: "):
        adjust_limits([text], environment={})


@pytest.mark.parametrize("words", [["--limit", "x=1", "registry", "serve"], ["--limit", "", "limits"]])
def test_a_wrong_setting_ends_every_command(words: list[str], tmp_path: Path) -> None:
    done = imagetool(*words, root=tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--limit: there is no limit" in done.stderr


@pytest.mark.parametrize("name", limits.BOUNDED)
def test_a_limit_at_its_highest_breaks_nothing(name: str, tmp_path: Path) -> None:
    """Neither what is read at once, nor what recurses, nor what counts in C."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    setting = f"{limits.setting(name)}={limits.range_of(name)[1]}"
    words = ["--limit", setting, "build", "--tag", "it", tmp_path]
    imagetool(*words, root=tmp_path / "root")
    imagetool("--limit", setting, "ls", "it", root=tmp_path / "root")


def test_what_is_as_deep_as_can_be_allowed_is_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    deepest = limits.range_of("DOCUMENT_DEPTH")[1]
    value: Any = "é\\u0020"
    for _ in range(deepest - 1):
        value = [value]
    place = layout.named(layout.image(nested=value, number=10 ** (limits.range_of("DOCUMENT_INT_DIGITS")[1] - 1)))
    words = ["--limit", f"document-depth={deepest},document-int-digits=4000"]
    imagetool(*words, "copy", place, f"oci:{tmp_path}/copy", root=tmp_path / "root")
    depth = limits.range_of("DOCKERFILE_WORD_DEPTH")[1]
    lint = dockerfile(tmp_path, f"FROM scratch\nARG a\nENV b={'${a:-' * depth}x{'}' * depth}\n")
    imagetool("--limit", f"dockerfile-word-depth={depth}", *lint, root=tmp_path / "root")


def test_a_limit_that_was_set_holds_in_modules_that_were_imported_before() -> None:
    script = (
        "from imagetool.streams.decompress import decompress\n"
        "from imagetool.config.environment import adjust_limits\nadjust_limits()\n"
        "print(sum(map(len, decompress([bytes(100)], where='l'))))"
    )
    for value, code in (("100", 0), ("99", 1)):
        env = {**os.environ, "IMAGETOOL_LIMITS": f"layer-bytes={value}"}
        done = subprocess.run([sys.executable, "-c", script], env=env, check=False, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


def test_the_table_names_every_limit(tmp_path: Path) -> None:
    table = imagetool("limits", root=tmp_path).stdout
    assert re.findall(r"^([a-z-]+) ", table, re.MULTILINE) == list(map(limits.setting, limits.BOUNDED))
