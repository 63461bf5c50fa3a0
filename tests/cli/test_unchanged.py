"""A build that nothing has changed for is answered from a record; any change, and it is carried out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagetool.build import copystep, solver, unchanged
from imagetool.cli.app import run

_DOCKERFILE = "FROM scratch\nARG V\nENV V=$V\nCOPY one *.txt /files/\nCOPY tree /tree\nLABEL a=b\n"


class Builder:
    """A context and a store; counts the builds that are carried out."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.root = folder / "root"
        self._patched = patched
        self._capture = capture
        self.built = self.fresh = 0
        real = solver.solve

        def counting(*args: object, **kwargs: object) -> object:
            self.built += 1
            return real(*args, **kwargs)  # type: ignore[arg-type]

        patched.setattr(solver, "solve", counting)
        for tick in ("_FINE_TICK", "_COARSE_TICK"):
            patched.setattr(unchanged, tick, -(10**18))  # the tests change files faster than people do
        patched.setenv("SOURCE_DATE_EPOCH", "")
        self.args: list[str] = ["-t", "app:1"]
        (self.context / "tree/sub").mkdir(parents=True)
        for name in ("one", "a.txt", "other.md", "tree/x", "tree/sub/y"):
            (self.context / name).write_text(f"this is {name}\n")
        (self.context / "tree/link").symlink_to("x")
        (self.context / "Dockerfile").write_text(_DOCKERFILE)
        (self.context / ".dockerignore").write_text("ignored*\n**/*.log\n")

    def build(self, *more: str, root: Path | None = None, progress: str = "plain") -> str:
        """Build; return the image ID. What was shown on stderr is in `shown`."""
        place = ["--root", str(root or self.root)]
        code = run(["build", *place, "--progress", progress, *self.args, *more, str(self.context)])
        out, self.shown = self._capture.readouterr()
        assert code == 0, self.shown
        return out.strip()

    def answered(self, *more: str) -> bool:
        """Build once more; say whether that was answered from the record, and check that the image is the right one."""
        before = self.built
        given = self.build(*more)
        carried_out = self.built > before
        self.fresh += 1
        fresh = self.folder / f"fresh{self.fresh}"
        assert self.build(*more, root=fresh) == given
        return not carried_out


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Builder:
    made = Builder(tmp_path, monkeypatch, capsys)
    made.build()
    assert made.built == 1
    return made


def _same_size_and_time(context: Path) -> None:
    path = context / "tree/x"
    before = path.stat()
    path.write_text(path.read_text().swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(context: Path) -> None:
    (context / "new").write_text("this is another\n")
    (context / "new").rename(context / "one")


def _retargeted(context: Path) -> None:
    (context / "tree/link").unlink()
    (context / "tree/link").symlink_to("y")


def _to_symlink(context: Path) -> None:
    (context / "tree").rename(context / "real")
    (context / "real/x").write_text("changed")
    (context / "tree").symlink_to("real")


def _containerfile(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY one /\n")


_CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda context: (context / "one").write_text("changed"),
    "content, not size or mtime": _same_size_and_time,
    "replaced by rename": _replaced,
    "mode": lambda context: (context / "tree/sub/y").chmod(0o755),
    "mode of a directory": lambda context: (context / "tree/sub").chmod(0o700),
    "attribute": lambda context: os.setxattr(context / "one", "user.a", b"b"),
    "new file": lambda context: (context / "tree/sub/z").write_text("new"),
    "new match of a pattern": lambda context: (context / "b.txt").write_text("new"),
    "file gone": lambda context: (context / "tree/x").unlink(),
    "renamed": lambda context: (context / "tree/x").rename(context / "tree/xx"),
    "link": _retargeted,
    "directory to link": _to_symlink,
    "Dockerfile": lambda context: (context / "Dockerfile").write_text(_DOCKERFILE + "LABEL c=d\n"),
    ".dockerignore": lambda context: (context / ".dockerignore").write_text("tree/x\n"),
    "Dockerfile.dockerignore": lambda context: (context / "Dockerfile.dockerignore").write_text("tree/sub\n"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_change_of_what_is_copied_is_built(builder: Builder, change: str) -> None:
    assert builder.answered()
    _CHANGES[change](builder.context)
    assert not builder.answered()


@pytest.mark.parametrize(
    "path", ["other.md", "ignored1", "tree/sub/not.log", ".git-like/file", "one.txt.d/file"], ids=str
)
def test_files_that_nothing_copies_may_change(builder: Builder, path: str) -> None:
    target = builder.context / path
    target.parent.mkdir(exist_ok=True)
    target.write_text("first")
    builder.build()  # a new name in a directory that was listed
    assert builder.answered()
    target.write_text("second, and longer")
    assert builder.answered()


@pytest.mark.parametrize(
    "more",
    [
        ["--build-arg", "V=2"],
        ["--label", "x=y"],
        ["--timestamps", "preserve"],
        ["--compression", "none"],
        ["--reproducible-compression"],
        ["--platform", "linux/arm64"],
        ["-t", "second:1"],
        ["--no-cache"],
    ],
    ids=" ".join,
)
def test_another_request_is_built(builder: Builder, more: list[str]) -> None:
    before = builder.built
    builder.build(*more)
    assert builder.built == before + 1


def test_a_build_argument_of_the_environment_counts(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.args += ["--build-arg", "V"]
    monkeypatch.setenv("V", "1")
    builder.build()
    assert builder.answered()
    monkeypatch.setenv("V", "2")
    assert not builder.answered()


def test_the_epoch_counts(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builder.answered()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert not builder.answered()
    assert builder.answered()


def test_the_commit_counts(builder: Builder) -> None:
    git = ["git", "-C", str(builder.context), "-c", "user.name=n", "-c", "user.email=e@x.org"]
    when = {**os.environ, "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
    subprocess.run([*git, "init", "-q"], check=True)
    for number in (1, 2):
        when["GIT_COMMITTER_DATE"] = f"{1700000000 + number} +0000"
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True, env=when)
        assert not builder.answered()
        assert builder.answered()
    subprocess.run([*git, "pack-refs", "--all"], check=True)
    assert builder.answered()
    subprocess.run([*git, "checkout", "-q", "--detach"], check=True)
    assert builder.answered()


def test_a_dockerfile_that_takes_the_place_of_a_containerfile_is_built(builder: Builder) -> None:
    (builder.context / "Dockerfile").rename(builder.context / "Containerfile")
    builder.build()
    assert builder.answered()
    _containerfile(builder.context)
    assert not builder.answered()


def test_a_name_that_was_given_to_another_image_is_given_back(builder: Builder) -> None:
    (builder.folder / "other").mkdir()
    (builder.folder / "other/Dockerfile").write_text("FROM scratch\nLABEL other=1\n")
    assert run(["build", "-q", "--root", str(builder.root), "-t", "app:1", str(builder.folder / "other")]) == 0
    builder._capture.readouterr()
    assert not builder.answered()


def test_a_base_image_that_changed_is_built_on(builder: Builder) -> None:
    (builder.context / "Dockerfile").write_text("FROM base:1\nCOPY one /\n")
    places = [builder.root, *(builder.folder / f"fresh{number}" for number in range(1, 5))]
    for text in ("first", "second"):
        (builder.folder / "base").mkdir(exist_ok=True)
        (builder.folder / "base/file").write_text(text)
        for place in places:
            assert run(["base", "--root", str(place), "-t", "base:1", str(builder.folder / "base")]) == 0
        builder._capture.readouterr()
        assert not builder.answered()
        assert builder.answered()


def test_an_image_whose_blobs_are_gone_is_built(builder: Builder) -> None:
    for path in (builder.root / "layout/blobs/sha256").iterdir():
        path.unlink()
    assert not builder.answered()


def test_a_record_that_was_cut_or_altered_is_no_record(builder: Builder) -> None:
    (record,) = (builder.root / "cache").glob(f"*{unchanged.SUFFIX}")
    whole = record.read_bytes()
    for raw in (b"", whole[: len(whole) // 2], b"[]", b"{}", json.dumps({**json.loads(whole), "blobs": 1}).encode()):
        record.write_bytes(raw)
        assert not builder.answered()


def test_a_file_that_changed_just_before_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Builder(tmp_path, monkeypatch, capsys)
    for tick in ("_FINE_TICK", "_COARSE_TICK"):
        monkeypatch.setattr(unchanged, tick, 10**12)
    made.build()
    assert not made.answered()


def test_a_file_that_changed_during_the_build_is_not_trusted_whatever_the_clock_says(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file server's clock is behind, so that nothing looks young: stages that read one file twice tell."""
    text = "FROM scratch AS one\nCOPY one /\nFROM scratch\nCOPY --from=one /one /first\nCOPY one /\n"
    (builder.context / "Dockerfile").write_text(text)
    real = copystep.store

    def late(*args: object, **kwargs: object) -> object:
        made = real(*args, **kwargs)  # type: ignore[arg-type]
        if "meanwhile" not in (builder.context / "one").read_text():
            (builder.context / "one").write_text("saved meanwhile\n")
        return made

    monkeypatch.setattr(copystep, "store", late)
    builder.build("--jobs", "1")
    monkeypatch.setattr(copystep, "store", real)
    assert not builder.answered("--jobs", "1")


def test_stdin_is_no_directory_of_that_name() -> None:
    assert unchanged.request("-") is None
    assert unchanged.request("./-", epoch="1") is not None


def test_sources_reached_through_links_are_always_built(builder: Builder) -> None:
    (builder.context / "way").symlink_to("tree")
    (builder.context / "Dockerfile").write_text("FROM scratch\nCOPY way/x /\n")
    builder.build()
    assert not builder.answered()


def test_a_dockerfile_on_stdin_and_outputs_are_always_built(builder: Builder, tmp_path: Path) -> None:
    before = builder.built
    builder.build("-o", f"type=oci,dest={tmp_path / 'out'}")
    assert builder.built == before + 1
    assert (tmp_path / "out/index.json").exists()


def _written(folder: Path) -> tuple[str, Any]:
    """Return what --iidfile and --metadata-file got, without how long the steps took."""
    metadata = json.loads((folder / "meta").read_text())
    assert metadata["imagetool.steps"]
    for step in metadata["imagetool.steps"]:
        step.pop("seconds")
    return (folder / "iid").read_text(), metadata


def test_what_is_shown_and_written_is_the_same_as_from_the_cache(builder: Builder, tmp_path: Path) -> None:
    written = ["--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "meta")]
    builder.build("--build-arg", "NOBODY=1", "--no-cache")
    builder.build("--build-arg", "NOBODY=1", "-o", f"type=oci,dest={tmp_path / 'out'}", *written)  # from the cache
    lines, files = builder.shown, _written(tmp_path)
    before = builder.built
    builder.build("--build-arg", "NOBODY=1", *written)
    assert builder.built == before
    without_copy = [line for line in lines.splitlines() if not line.startswith("sha256:")]
    assert builder.shown.splitlines() == without_copy
    assert "STEP 1/6: [stage-0] FROM scratch" in lines
    assert "warning: build arguments that no ARG declares: NOBODY" in lines
    assert _written(tmp_path) == files
    events = builder.build("--build-arg", "NOBODY=1", progress="json")
    assert events
    assert [json.loads(line)["event"] for line in builder.shown.splitlines()].count("StepFinished") == 6


@pytest.mark.parametrize("package", ["isal", "zlib_ng", "zstandard"])
def test_another_installation_of_a_compressor_is_another_request(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """It is not imported here: the modules are loaded already."""
    assert builder.answered()
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert builder.answered()
    module = tmp_path / "site" / package / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text("__version__ = '1'\n")
    assert not builder.answered()
    assert builder.answered()
    module.write_text("__version__ = '2'\n")  # an update in its place
    assert not builder.answered()


def test_an_answered_build_loads_next_to_nothing(builder: Builder) -> None:
    args = ["build", "--root", str(builder.root), "--progress", "plain", *builder.args, str(builder.context)]
    code = (
        "import sys; before = set(sys.modules); from imagetool.cli.app import run;"
        f"code = run({args}); print(*sorted(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-S", "-c", code]  # no modules that an installation loads by itself
    env = {**os.environ, "PYTHONPATH": sysconfig.get_path("platlib")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=env, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "imagetool.build.unchanged" in loaded
    heavy = {"typer", "click", "rich", "requests", "dataclasses", "typing", "pathlib", "subprocess", "imagetool.api"}
    assert not loaded & heavy
    assert len([name for name in loaded if name.startswith("imagetool")]) <= 12, sorted(loaded)
