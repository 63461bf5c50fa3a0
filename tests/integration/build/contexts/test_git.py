"""Build contexts in Git repositories: which commit, which directory, and nothing that runs or leads out."""

from __future__ import annotations

import contextlib
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.build.contexts.building import build, files_of, served
from tests.support.command import imagetool

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
