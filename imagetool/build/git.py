"""Git repositories as build contexts and as sources of ADD, fetched by the system's git.

A repository is somebody else's: nothing of its configuration runs (no hooks, filters, helpers of
the user's), only protocols of the network are spoken, submodules never reach files of this
machine, and no text from outside can become an option.

Source: Dockerfile reference, "ADD", "Adding files from a Git repository"; git-config(1), "protocol.allow".
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from imagetool.errors import BuildError, HostError, NetworkError, UsageError
from imagetool.safefs.openat2 import open_in_root
from imagetool.values import dataclass

_PROTOCOLS: Final = "https:http:ssh:git"
_URL: Final = re.compile(r"(?:(?:https?|git|ssh)://|git@)[^\s\x00-\x1f]+\Z")
_HTTP: Final = re.compile(r"https?://", re.IGNORECASE)
_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*\Z")
#: The least of a commit's name that tells it.
LEAST_COMMIT: Final = 7
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_SAFE: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.protectNTFS=true",
    "core.autocrlf=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=never",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "credential.helper=",
    "filter.lfs.smudge=",
    "filter.lfs.required=false",
)
#: What of the user's environment git may see: how to reach the network and the SSH agent.
_PASSED: Final = ("PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository's URL, and what of it: a branch, tag or commit ("" for HEAD) and a directory ("" for all)."""

    url: str
    ref: str = ""
    subdir: str = ""

    @classmethod
    def parse(cls, text: str) -> GitSource | None:
        """Read `URL[#REF[:SUBDIR]]`; None for what does not mean a Git repository.

        That is git@…, git:// and ssh:// URLs, http(s) URLs whose path ends in .git, and github.com/….
        Raises UsageError for a reference that could not be one.
        """
        url, _, fragment = text.partition("#")
        if url.startswith("github.com/"):
            url = f"https://{url}"
        elif _HTTP.match(url):
            if not url.partition("?")[0].endswith(".git"):
                return None
        elif not url.startswith(("git@", "git://", "ssh://")):
            return None
        ref, _, subdir = fragment.partition(":")
        if not _URL.match(url) or "@-" in url or "://-" in url:
            raise UsageError(f"{text[:200]!r} is no URL of a Git repository")
        if ref and (not _REF.match(ref) or ".." in ref):
            raise UsageError(f"{text[:200]!r}: {ref[:80]!r} cannot be a branch, tag or commit")
        return cls(url, ref, subdir)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A work tree: its directory, the commit, and when that was made, in seconds."""

    folder: Path
    commit: str
    time: int


def fetch(source: GitSource, folder: Path, *, token: bytes = b"", keep_git_dir: bool = False) -> Checkout:
    """Fetch a repository into a folder that does not exist yet, submodules included, as shallow as can be.

    Args:
        token: sent to the repository's own host over https, as a password.
        keep_git_dir: leave .git in the work tree.

    Raises HostError without git, NetworkError when the repository or the reference cannot be had,
    BuildError for a directory that is not in it.
    """
    if not shutil.which("git"):
        raise HostError("git is not installed, and the build has a Git repository as its source")
    git = _Git(folder, _environment(source, token))
    folder.mkdir(parents=True, mode=0o700)
    git.run("init", "--quiet", "--template=")
    wanted = source.ref or "HEAD"
    what = f"{source.url}#{source.ref}" if source.ref else source.url
    arguments = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
    refspec = f"{wanted}:refs/imagetool/wanted"
    if not git.works(*arguments, "--depth=1", "--", source.url, refspec):
        # A server that does not do shallow clones, or does not give commits by their name.
        everything = ("+refs/heads/*:refs/imagetool/heads/*", "+refs/tags/*:refs/tags/*")
        if _COMMIT.match(wanted):
            git.run(*arguments, "--", source.url, *everything, what=what)
            git.run("update-ref", "refs/imagetool/wanted", wanted, what=what)
        else:
            git.run(*arguments, "--", source.url, refspec, what=what)
    commit = git.run("rev-parse", "--verify", "--end-of-options", "refs/imagetool/wanted^{commit}", what=what)
    git.run("checkout", "--quiet", "--detach", commit, "--", what=what)
    if (folder / ".gitmodules").is_file() and not (folder / ".gitmodules").is_symlink():
        git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", what=f"submodules of {what}")
    time = int(git.run("log", "-1", "--format=%ct", commit, "--"))
    if not keep_git_dir:
        _remove_git_dirs(folder)
    return Checkout(_inside(folder, source), commit, time)


class _Git:
    """Runs git in one folder with a fixed environment."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._command = ["git", "--no-pager", "-C", str(folder)]
        for setting in _SAFE:
            self._command += ["-c", setting]
        self._environment = dict(environment)

    def works(self, *arguments: str) -> bool:
        return self._done(arguments).returncode == 0

    def run(self, *arguments: str, what: str = "the repository") -> str:
        """Return what git prints; raises NetworkError with what it complains about."""
        done = self._done(arguments)
        if done.returncode != 0:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise NetworkError(f"{what}: git {arguments[0]}: {said[-1][:300] if said else done.returncode}")
        return done.stdout.decode(errors="replace").strip()

    def _done(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            env=self._environment,
            umask=0o022,
        )


def _environment(source: GitSource, token: bytes) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.lower().endswith("_proxy")}
    settings = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -F /dev/null",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
    }
    if token and (host := re.match(r"https://([^/]*@)?([^/]+)/", source.url)):
        pair = base64.b64encode(b"x-access-token:" + token.strip()).decode()
        # Through the environment: arguments are in the list of processes. Where a redirect leads is not
        # followed: git goes on at the new place with the same headers, whoever that is.
        settings |= {
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"http.https://{host[2]}/.extraheader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {pair}",
            "GIT_CONFIG_KEY_1": "http.followRedirects",
            "GIT_CONFIG_VALUE_1": "false",
        }
    return {**passed, **settings}


def _remove_git_dirs(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    for place, folders, files in os.walk(folder):
        if ".git" in files:  # what a submodule has
            os.unlink(os.path.join(place, ".git"))
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]


def _inside(folder: Path, source: GitSource) -> Path:
    """Return the directory of the work tree that is meant; links are followed inside it only."""
    if not source.subdir.strip("/"):
        return folder
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = open_in_root(root, os.fsencode(source.subdir), os.O_PATH | os.O_DIRECTORY)
        try:
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)
    except OSError as error:
        raise BuildError(f"{source.url}: no directory {source.subdir!r} in it: {error.strerror}") from None
    finally:
        os.close(root)
