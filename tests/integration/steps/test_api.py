"""Building by hand from a program: the verbs of `imagetool.api` make what a Dockerfile makes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.steps.conftest import Shop

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox
COPY hello.txt /srv/
RUN ["/bin/sh", "-c", "echo $A > /ran"]
ENV A=1
"""
PROGRAM = """
import json, sys
from pathlib import Path
from imagetool import api

place = api.Workplace(Path(sys.argv[1]))
name, _ = api.begin("busybox", api.Beginning(epoch=1700000000), place)
api.copy_into(name, api.Copying(["hello.txt"], "/srv/", context="."), place)
wishes = api.Wishes(args=["/bin/sh", "-c", "echo $A > /ran"])
seen = []
status = api.run_in(name, api.HandRun(api.RunOptions(wishes=wishes)), place, output=seen.append, session=None)
api.configure(name, api.Configuration(api.Settings(env=["A=1"])), place)
(known,) = api.containers(place)
image = api.commit(name, api.Committing("app:2", remove=True), place)
print(json.dumps([status.code, known["containername"], str(image.config.descriptor.digest), api.containers(place)]))
"""


def test_a_program_builds_by_hand_what_a_dockerfile_says(shop: Shop) -> None:
    (shop.folder / "Dockerfile").write_text(DOCKERFILE)
    built = shop.do("build", "-q", "--timestamp", "1700000000", "-t", "app:1", ".")
    command = [sys.executable, "-c", PROGRAM, str(shop.root)]
    done = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, "busybox-working-container", built, []]
    assert "app:2" in shop.do("images")


KEPT = """
import json, sys
from pathlib import Path
from imagetool import api

place = api.Workplace(Path(sys.argv[1]))
runs = {"network": "none", "ulimit": ["nofile=77"], "hostname": "box", "volume": [f"{Path.cwd()}:/v:ro"]}
name, _ = api.begin("busybox", api.Beginning(runs=runs), place)
wishes = api.Wishes(args=["/bin/sh", "-c", "ls /sys/class/net; ulimit -n; hostname; cat /v/hello.txt"])
seen = []
def take(stream, data):
    seen.append(data.decode())
for options, kept in ((api.RunOptions(wishes=wishes), True), (api.RunOptions(wishes=wishes, hostname="other"), True),
                      (api.RunOptions(wishes=wishes, network="host"), False)):
    api.run_in(name, api.HandRun(options, kept=kept), place, output=take, session=None)
    seen.append("|")
print(json.dumps("".join(seen).split("|")))
"""


def test_a_programs_commands_begin_with_what_the_container_keeps(shop: Shop) -> None:
    command = [sys.executable, "-c", KEPT, str(shop.root)]
    done = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    kept, changed, alone, _ = json.loads(done.stdout)
    assert kept.split() == ["lo", "77", "box", "hello"]
    assert changed.split() == ["lo", "77", "other", "hello"]
    assert "No such file" in alone
    assert "77" not in alone.split()
