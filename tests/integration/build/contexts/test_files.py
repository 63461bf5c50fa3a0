"""Build contexts that are no plain directory: stdin, tars, URLs, named contexts."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.build.contexts.building import MARK, build, files_of, served
from tests.support.command import imagetool


def tar_of(files: Mapping[str, str | tuple[str, str]], mode: str = "w") -> bytes:
    """Return a tar; a tuple is the kind ("link" or "symlink") and the target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type = tarfile.SYMTYPE if content[0] == "symlink" else tarfile.LNKTYPE
                member.linkname = content[1]
                tar.addfile(member)
            else:
                member.size = len(content.encode())
                tar.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


SIMPLE = {"Dockerfile": "FROM scratch\nCOPY a b /\n", "a": "1", "b": "2"}


@pytest.mark.parametrize("packed", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_a_tar_on_stdin_or_in_a_file_is_a_context(root: Path, tmp_path: Path, packed: object) -> None:
    data = packed(tar_of(SIMPLE))  # type: ignore[operator]
    build(root, "-", data=data)
    assert files_of(root) == {"a": "1", "b": "2"}
    (tmp_path / "context.tar").write_bytes(data)
    build(root, tmp_path / "context.tar")
    assert files_of(root) == {"a": "1", "b": "2"}
    assert not list((root / "scratch").glob("context-*"))


def test_a_dockerfile_on_stdin_alone_has_no_context(root: Path) -> None:
    build(root, "-", data=b"FROM scratch\nCOPY <<x /y\nhello\nx\n")
    assert files_of(root) == {"y": "hello\n"}
    assert "not found" in build(root, "-", data=b"FROM scratch\nCOPY a /\n", fails=True)


def test_a_dockerfile_on_stdin_may_have_a_directory(root: Path, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/a").write_text("1")
    build(root, "-f", "-", tmp_path / "context", data=b"FROM scratch\nCOPY a /\n")
    assert files_of(root) == {"a": "1"}
    assert "cannot both be stdin" in build(root, "-f", "-", "-", data=b"FROM scratch\n", fails=True)


def test_another_file_of_a_tar_may_be_the_dockerfile_with_its_own_ignore_rules(root: Path) -> None:
    files = {
        "sub/Other": "FROM scratch\nCOPY . /\n",
        "sub/Other.dockerignore": "b\nsub\n.dockerignore\n",
        ".dockerignore": "*",
        "a": "1",
        "b": "2",
    }
    build(root, "-f", "sub/Other", "-", data=tar_of(files))
    assert files_of(root) == {"a": "1"}


def test_a_containerignore_counts_when_there_is_no_dockerignore(root: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name, text in (("Dockerfile", "FROM scratch\nCOPY . /\n"), (".containerignore", "b\nDockerfile\n"), ("a", "1")):
        (context / name).write_text(text)
    (context / "b").write_text("2")
    build(root, context)
    assert set(files_of(root)) == {"a", ".containerignore"}
    (context / ".dockerignore").write_text("*\n!b")
    build(root, context)
    assert set(files_of(root)) == {"b"}


@pytest.mark.parametrize(
    "data", [b"", b"  \n", b"\0\1\2 no tar", gzip.compress(b"no tar at all", mtime=0), tar_of(SIMPLE)[:700]]
)
def test_what_is_neither_a_tar_nor_a_dockerfile_is_refused(root: Path, data: bytes) -> None:
    assert "imagetool: " in build(root, "-", data=data, fails=True)


# What leads out of a context


@pytest.mark.parametrize(
    "files",
    [
        {"Dockerfile": "FROM scratch\nCOPY out /\n", "out": ("symlink", "{outside}")},
        {"Dockerfile": "FROM scratch\nCOPY out/outside /\n", "out": ("symlink", "{above}")},
        {"Dockerfile": "FROM scratch\nCOPY ../outside ../../outside /\n"},
        {"Dockerfile": "FROM scratch\nCOPY out /\n", "out": ("link", "../../../outside")},
        {"Dockerfile": ("symlink", "{outside}")},
        {"Dockerfile": "FROM scratch\nCOPY a /\n", "../a": "escaped"},
    ],
)
def test_no_link_name_or_path_of_a_tar_leads_out_of_it(
    root: Path, tmp_path: Path, files: dict[str, str | tuple[str, str]]
) -> None:
    def filled(content: str | tuple[str, str]) -> str | tuple[str, str]:
        if isinstance(content, str):
            return content
        return content[0], content[1].format(outside=tmp_path / "outside", above=tmp_path)

    shown = build(root, "-", data=tar_of({name: filled(content) for name, content in files.items()}), fails=True)
    assert MARK not in shown
    assert (tmp_path / "outside").read_text() == MARK
    assert not (tmp_path / "a").exists()


def test_a_link_to_above_the_context_means_its_root(root: Path) -> None:
    build(root, "-", data=tar_of({**SIMPLE, "Dockerfile": "FROM scratch\nADD out/* /\n", "out": ("symlink", "../..")}))
    assert set(files_of(root)) == {"a", "b", "Dockerfile"}


def test_an_ignore_file_that_leads_out_is_none(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("a\n")
    files = {**SIMPLE, ".dockerignore": ("symlink", str(tmp_path / "outside"))}
    build(root, "-", data=tar_of(files))
    assert files_of(root) == {"a": "1", "b": "2"}


def test_links_in_a_directory_do_not_lead_out_either(root: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "out").symlink_to(tmp_path / "outside")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY out /\n")
    assert MARK not in build(root, context, fails=True)


# Named contexts


def test_a_named_context_is_a_directory_with_its_own_ignore_rules(root: Path, tmp_path: Path) -> None:
    context, other = tmp_path / "context", tmp_path / "other"
    context.mkdir()
    other.mkdir()
    (context / "Dockerfile").write_text(
        "FROM scratch AS stage\nCOPY <<x /wrong\nx\nFROM scratch\nCOPY --from=Stage . /\nCOPY --from=stage a /again\n"
    )
    (other / ".dockerignore").write_text("secret\n.dockerignore\n")
    (other / "a").write_text("1")
    (other / "secret").write_text("s")
    (other / "out").symlink_to(tmp_path / "outside")
    build(root, "--build-context", f"stage={other}", context)
    assert files_of(root) == {"a": "1", "again": "1"}
    (other / "a").write_text("2")
    build(root, "--build-context", f"stage={other}", context)
    assert files_of(root) == {"a": "2", "again": "2"}
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=stage out /\n")
    assert MARK not in build(root, "--build-context", f"stage={other}", context, fails=True)
    (context / "Dockerfile").write_text("FROM stage\n")
    assert "is a directory" in build(root, "--build-context", f"stage={other}", context, fails=True)


def test_a_named_context_may_be_an_image(root: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY <<x /y\nhello\nx\n")
    build(root, context)
    imagetool("copy", "x", f"oci:{tmp_path}/layout:tagged", root=root)
    imagetool("tag", "x", "local", root=root)
    (context / "Dockerfile").write_text("FROM nowhere.invalid/base AS b\nFROM scratch\nCOPY --from=b /y /z\n")
    for value in (f"oci-layout://{tmp_path}/layout:tagged", "docker-image://local"):
        build(root, "--build-context", f"nowhere.invalid/base={value}", context)
        assert files_of(root) == {"z": "hello\n"}
        build(root, "--build-context", f"nowhere.invalid/base={value}", "--target", "b", context)
        assert files_of(root) == {"y": "hello\n"}


def test_pull_never_says_so(root: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM 127.0.0.1:1/none\n")
    assert "--pull never" in build(root, "--pull", "never", context, fails=True)


def test_a_url_is_a_tar_or_a_dockerfile(root: Path, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/c.tgz").write_bytes(gzip.compress(tar_of(SIMPLE)))
    (tmp_path / "web/Dockerfile").write_text("FROM scratch\nCOPY <<x /y\nhello\nx\n")
    with served(tmp_path / "web") as url:
        build(root, f"{url}/c.tgz")
        assert files_of(root) == {"a": "1", "b": "2"}
        build(root, f"{url}/Dockerfile")
        assert files_of(root) == {"y": "hello\n"}
        assert "404" in build(root, f"{url}/none", fails=True)
