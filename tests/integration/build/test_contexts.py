"""What a build context may be, and that nothing outside it is ever reached."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import io
import lzma
import os
import socketserver
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from imagetool.layer.merge import flatten
from tests.support.command import imagetool

MARK = "outside the context"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text(MARK)
    return tmp_path / "store"


def files_of(root: Path, name: str = "x") -> dict[str, str]:
    with opened(name, Workplace(root)) as (store, descriptor):
        return {
            entry.name.decode(): b"".join(content).decode(errors="replace")
            for entry, content in flatten(load(store, descriptor).openers())
            if entry.kind == "file"
        }


def build(root: Path, *args: str | Path, data: bytes | None = None, fails: bool = False) -> str:
    """Build as image `x`; return what was shown. With `data`, that is stdin."""
    command = [sys.executable, "-m", "imagetool", "--root", str(root), "build", "-t", "x", *map(str, args)]
    done = subprocess.run(command, input=data or b"", capture_output=True, check=False, timeout=110)
    shown = done.stderr.decode()
    assert (done.returncode != 0) == fails, shown
    assert "Traceback" not in shown
    return shown


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


# URLs


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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


# Git

_AUTHOR = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_DATE": "1000000000 +0000",
    "GIT_COMMITTER_DATE": "1000000000 +0000",
}


def git(folder: Path, *args: str) -> str:
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *settings, "-c", "protocol.file.allow=always", "-C", str(folder), *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **_AUTHOR})
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    work = tmp_path / "git/work"
    (work / "sub").mkdir(parents=True)
    git(work, "init", "-q")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    (work / "a").write_text("first")
    (work / "sub/Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (work / "sub/.dockerignore").write_text("D*\n.d*\nlink\n")
    (work / "sub/inner").write_text("inner")
    (work / "sub/link").symlink_to("/etc/hostname")
    (work / "out").symlink_to("../../..")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "first")
    git(work, "tag", "v1")
    (work / "a").write_text("second")
    git(work, "commit", "-qam", "second")
    git(work.parent, "clone", "-q", "--bare", str(work), "repo.git")
    git(work.parent / "repo.git", "update-server-info")
    return work.parent


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """Run git's own server, one for each connection: it cannot say which free port it takes."""
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={folder}"]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(command, stdin=self.request, stdout=self.request, stderr=subprocess.DEVNULL, check=False)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"git://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_git_url_is_a_context_at_a_branch_tag_or_commit_and_a_directory_of_it(root: Path, repository: Path) -> None:
    first = git(repository / "work", "rev-parse", "v1")
    with served(repository) as web, daemon(repository) as own:
        for url in (f"{web}/repo.git", f"{own}/repo.git"):
            build(root, url)
            assert files_of(root) == {"a": "second"}
            for ref in ("v1", first, "refs/tags/v1"):
                build(root, f"{url}#{ref}")
                assert files_of(root) == {"a": "first"}, ref
            build(root, f"{url}#main:sub")
            assert files_of(root) == {"inner": "inner"}
    assert '"created":"2001-09-09T01:46:40Z"' in imagetool("inspect", "--config", "x", root=root).stdout


def test_the_history_of_a_git_context_is_there_when_asked_for(root: Path, repository: Path) -> None:
    git(repository / "work", "checkout", "-qb", "whole")
    (repository / "work/Dockerfile").write_text("FROM scratch\nCOPY .git/HEAD /\n")
    git(repository / "work", "commit", "-qam", "whole")
    git(repository / "work", "push", "-q", str(repository / "repo.git"), "whole")
    git(repository / "repo.git", "update-server-info")
    with served(repository) as web:
        url = f"{web}/repo.git#whole"
        assert "not found" in build(root, url, fails=True)
        build(root, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", url)
    assert [*files_of(root)] == ["HEAD"]


@pytest.mark.parametrize("subdir", ["../work", "out/work", "/../../work", "sub/link", "a", "none"])
def test_a_directory_of_a_repository_does_not_lead_out_of_it(root: Path, repository: Path, subdir: str) -> None:
    with served(repository) as web:
        assert "no directory" in build(root, f"{web}/repo.git#main:{subdir}", fails=True)
        build(root, f"{web}/repo.git#main:out")
        assert files_of(root) == {"a": "second"}  # what is above the root is the root


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% {tmp}/pwned",
        "--upload-pack=touch {tmp}/pwned;x.git",
        "git://-oProxyCommand=touch%20{tmp}%2Fpwned/x.git",
        "ssh://-oProxyCommand=touch%20{tmp}%2Fpwned/x.git",
        "git@-oProxyCommand=touch:x.git",
        "http://127.0.0.1:1/x.git#--upload-pack=touch {tmp}/pwned",
        "http://127.0.0.1:1/x.git#-c",
        "file://{tmp}/git/repo.git",
    ],
)
def test_no_url_runs_a_program_or_reaches_files(root: Path, tmp_path: Path, repository: Path, url: str) -> None:
    build(root, url.format(tmp=tmp_path), fails=True)
    assert not (tmp_path / "pwned").exists()


def test_a_submodule_never_comes_from_this_machine(root: Path, repository: Path, tmp_path: Path) -> None:
    work = repository / "work"
    git(work, "submodule", "add", "-q", str(repository / "repo.git"), "module")
    git(work, "commit", "-qm", "module")
    git(work, "push", "-q", "../repo.git", "main")
    git(repository / "repo.git", "update-server-info")
    with served(repository) as web:
        assert "submodules" in build(root, f"{web}/repo.git", fails=True)


def test_hooks_and_filters_of_a_repository_do_not_run(root: Path, repository: Path, tmp_path: Path) -> None:
    work = repository / "work"
    (work / ".gitattributes").write_text("a filter=evil\n")
    (work / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {tmp_path}/pwned\n')
    git(work, "add", "-A")
    git(work, "commit", "-qm", "evil")
    git(work, "push", "-q", "../repo.git", "main")
    git(repository / "repo.git", "update-server-info")
    with served(repository) as web:
        build(root, f"{web}/repo.git")
    assert not (tmp_path / "pwned").exists()


def test_add_takes_a_repository(root: Path, repository: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    commit = git(repository / "work", "rev-parse", "v1")
    with served(repository) as web:
        url = f"{web}/repo.git"
        (context / "Dockerfile").write_text(
            f"FROM scratch\nADD {url}#v1 /all\nADD --checksum={commit} {url}#v1:sub /sub/\n"
            f"ADD --keep-git-dir {url} /kept\n"
        )
        build(root, context)
        files = files_of(root)
        assert files["all/a"] == "first"
        assert files["sub/inner"] == "inner"
        assert not [name for name in files if name.startswith(("all/.git/", "sub/.git/"))]
        assert "kept/.git/HEAD" in files
        assert build(root, context).count("Using cache") == 3
        (context / "Dockerfile").write_text(f"FROM scratch\nADD --checksum={'0' * 40} {url} /\n")
        assert commit[:4] not in build(root, context, fails=True).partition("expected")[2]


def test_a_password_goes_nowhere_but_to_its_host() -> None:
    """Git would repeat the header at the place that a redirect leads to."""
    from imagetool.build.git import GitSource, _environment

    source = GitSource("https://git.example.org/a.git")
    given = _environment(source, b"secret")
    settings = {given[f"GIT_CONFIG_KEY_{n}"]: given[f"GIT_CONFIG_VALUE_{n}"] for n in range(2)}
    assert settings["http.followRedirects"] == "false"
    assert [key for key, value in settings.items() if "Basic" in value] == ["http.https://git.example.org/.extraheader"]
    assert "GIT_CONFIG_COUNT" not in _environment(source, b"")
