"""`RUN apt-get install` in a real Debian, through the default network, from an archive that the host serves.

What apt and dpkg ask of a container: to become another user, other owners, set-id bits, a service that is not started,
alternatives, the cache of the loader, triggers. Nothing comes from outside: the one package is made here.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.networks import OUTSIDE, WARNING
from tests.support.users import NOBODY, as_user, users_folder

#: The base of these may have to be made first.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CONTROL = """\
Package: greeting
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: says hello
"""
#: `adduser` is what most packages call; groupadd is what it does.
SCRIPT = """\
#!/bin/sh
set -e
groupadd --system greeters
useradd --system --gid greeters --no-create-home greeter
chown greeter:greeters /usr/bin/greet
chmod 2755 /usr/bin/greet
install -d -o greeter -g greeters -m 750 /var/lib/greeting
update-alternatives --install /usr/bin/hello hello /usr/bin/greet 50
ldconfig
if command -v invoke-rc.d > /dev/null; then invoke-rc.d greeting start || exit $?; fi
"""
SERVICE = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: greeting
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop:
### END INIT INFO
touch /started
"""
#: Asks apt for its own filter too, which it puts on top of ours.
DOCKERFILE = """\
FROM debian
RUN rm -f /etc/apt/sources.list.d/* && echo "deb [trusted=yes] http://{address}/ ./" > /etc/apt/sources.list \
 && echo 'APT::Sandbox::Seccomp "true";' > /etc/apt/apt.conf.d/filter
RUN apt-get update && apt-get install -y greeting && hello && ! test -e /started
RUN dpkg --verify greeting && apt-get remove -y greeting && ! test -e /usr/bin/hello
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a package and the index of it."""
    folder = tmp_path_factory.mktemp("archive")
    tree = folder / "tree"
    for name, text, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", SCRIPT, 0o755),
        ("usr/bin/greet", "#!/bin/sh\necho hello from the package\n", 0o755),
        ("etc/init.d/greeting", SERVICE, 0o755),
    ):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    package = folder / "greeting.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, package], check=True, capture_output=True)
    shutil.rmtree(tree)
    raw = package.read_bytes()
    entry = f"{CONTROL}Filename: ./greeting.deb\nSize: {len(raw)}\nSHA256: {hashlib.sha256(raw).hexdigest()}\n"
    (folder / "Packages.gz").write_bytes(gzip.compress(entry.encode()))
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep still."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a directory at an address of this network namespace that is not its loopback; yield HOST:PORT."""
    with http.server.ThreadingHTTPServer((OUTSIDE, 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"{OUTSIDE}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def assert_installed(root: Path, *, pretended: bool) -> None:
    """Look at what the step that installed has in its layer, and at what the next one took away."""
    layer, after = ({entry["path"]: entry for entry in listed(root, number)} for number in (3, 4))
    assert layer["etc/alternatives/hello"]["target"] == "/usr/bin/greet"
    assert layer["usr/bin/hello"]["target"] == "/etc/alternatives/hello"
    assert "etc/rc2.d/S01greeting" in layer or "etc/init.d/greeting" in layer
    assert "started" not in layer
    assert not {"etc/resolv.conf", "etc/hosts", "dev/apt.conf", "etc/apt/apt.conf"} & layer.keys()
    program, state = layer["usr/bin/greet"], layer["var/lib/greeting"]
    assert (state["mode"], state["uid"] == 0, state["gid"] == 0) == ("0750", pretended, pretended)
    # With one id the bit would give whoever starts it root's group.
    assert (program["mode"], program["gid"] == 0) == (("0755", True) if pretended else ("2755", False))
    assert "usr/bin/.wh.greet" in after


def listed(root: Path, layer: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(imagetool("ls", "--json", "--layer", str(layer), "x:1", root=root).stdout)
    return found


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_root_installs_a_package(userns: str, archive: Path, debian_base: Path, tmp_path: Path, host: None) -> None:
    root, context = store_with(debian_base, tmp_path), tmp_path / "context"
    context.mkdir()
    with served(archive) as address:
        (context / "Dockerfile").write_text(DOCKERFILE.format(address=address))
        done = imagetool("build", "-t", "x:1", "--progress", "plain", "--userns", userns, context, root=root)
    assert "hello from the package" in done.stderr
    assert WARNING not in done.stderr
    assert_installed(root, pretended=False)


@pytest.mark.parametrize("ids", ["range", "one id"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_user_installs_a_package(ids: str, nested: bool, archive: Path, debian_base: Path, host: None) -> None:
    with users_folder() as folder, served(archive) as address:
        root, context = store_with(debian_base, folder), folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE.format(address=address))
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)
        command = [sys.executable, "-m", "imagetool", "--root", root, "build", "-t", "x:1", "--progress", "plain"]
        done = as_user(
            [*command, context], folder=folder, subordinate=ids == "range", masked_proc=nested, tunnel=not nested
        )
        assert done.returncode == 0, done.stderr
        assert "hello from the package" in done.stderr
        assert ("all files will belong to root" in done.stderr) == (ids == "one id")
        assert ("set-group-id for a group that could not be set" in done.stderr) == (ids == "one id")
        assert (WARNING in done.stderr) == nested  # for want of /dev/net/tun, as in a container
        assert_installed(root, pretended=ids == "one id")
