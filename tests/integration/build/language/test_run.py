"""What RUN may say; all of it in one build on busybox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from tests.integration.build.language.rows import ROWS, refused, row
from tests.support.bases import made_once
from tests.support.command import imagetool
from tests.support.workshop import Workshop, tree

OF_RUN = tuple(name for name in ROWS if name.startswith("RUN "))


# RUN: one build in real containers

RUNS = """\
FROM busybox AS s
RUN mkdir -p /from && echo stage > /from/f
FROM busybox
WORKDIR /w
RUN --mount=source=ctx,target=b1 cat b1/f > bind1 && ! echo > b1/new
RUN --mount=type=bind,src=ctx,dst=/b2,rw echo > /b2/new && ls /b2 | tr '\\n' ' ' > bind2
RUN --mount=from=s,source=/from,destination=/b3,readonly=false echo > /b3/new && cat /b3/f > bind3
RUN --mount=from=busybox,target=/b4,ro test -x /b4/bin/busybox && echo image > bind4
RUN --mount=from=named,target=/b5 cat /b5/n > bind5
RUN --mount=type=cache,target=/c,id=rows,mode=0750,uid=7,gid=8 stat -c '%a %u %g' /c > cache1 && echo kept > /c/f
RUN --mount=type=cache,target=/c,id=rows,ro cat /c/f > cache2 && ! echo > /c/g
RUN --mount=type=cache,target=/c,id=rows,sharing=locked test -e /c/f && echo locked > cache3
RUN --mount=type=cache,target=/c,id=rows,sharing=private test -e /c/f && echo private > cache4
RUN --mount=type=cache,target=/c,id=filled,from=s,source=/from cat /c/f > cache5
RUN --mount=type=tmpfs,target=/t,size=1m echo > /t/x && ! dd if=/dev/zero of=/t/big bs=1M count=2 2> /dev/null && \\
    awk '$2=="/t" {print $3}' /proc/mounts > tmpfs
RUN --mount=type=secret,id=tok cat /run/secrets/tok | tr a-z A-Z > secret1 && \\
    stat -c '%a %u %g' /run/secrets/tok >> secret1
RUN --mount=type=secret,id=tok,target=/k,mode=0444,uid=1,gid=2 stat -c '%a %u %g' /k > secret2
RUN --mount=type=secret,id=tok,env=TOK test ! -e /run/secrets/tok && echo "$TOK" | tr a-z A-Z > secret3
RUN --mount=type=secret,id=other,required=false test ! -e /run/secrets/other && echo none > secret4
RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && stat -c '%a %u %g' $SSH_AUTH_SOCK > ssh1
RUN --mount=type=ssh,id=second,target=/agent,mode=0666,uid=3,gid=4,required stat -c '%a %u %g' /agent > ssh2
RUN --network=none ls /sys/class/net | tr '\\n' ' ' > net-none
RUN --network=default test -e /etc/resolv.conf && echo default > net-default
RUN --network=host test -e /etc/hosts && echo host > net-host
RUN --security=sandbox ! mount -t tmpfs none /mnt 2> /dev/null && echo sandbox > security1
RUN --security=insecure mkdir -p /m && mount -t tmpfs none /m && echo insecure > security2 && umount /m
RUN --device=rows.example/d=one,required echo $ONE > device1
RUN --device=rows.example/d=none echo "none $ONE" > device2
"""


WANTED = {
    "bind1": "f", "bind2": "f new", "bind3": "stage", "bind4": "image", "bind5": "named",
    "cache1": "750 7 8", "cache2": "kept", "cache3": "locked", "cache4": "private", "cache5": "stage",
    "tmpfs": "tmpfs", "secret1": "VALUE OF A SECRET\n400 0 0", "secret2": "444 1 2", "secret3": "VALUE OF A SECRET",
    "secret4": "none", "ssh1": "600 0 0", "ssh2": "666 3 4", "net-none": "lo", "net-default": "default",
    "net-host": "host", "security1": "sandbox", "security2": "insecure", "device1": "1", "device2": "none",
}  # fmt: skip


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build `RUNS` once; return what its steps wrote."""

    def make(root: Path) -> None:
        import socket

        imagetool("base", "busybox", root=root)
        for name in ("context/ctx", "named", "cdi"):
            (root / name).mkdir(parents=True)
        (root / "context/ctx/f").write_text("f\n")
        (root / "named/n").write_text("named\n")
        (root / "secret").write_text("value of a secret\n")
        devices = [{"name": "one", "containerEdits": {"env": ["ONE=1"]}}]
        spec = {"cdiVersion": "0.6.0", "kind": "rows.example/d", "devices": devices}
        (root / "cdi/spec.json").write_text(json.dumps(spec))
        (root / "context/Dockerfile").write_text(RUNS)
        options = ["--secret", f"id=tok,src={root}/secret", "--build-context", f"named={root}/named"]
        options += ["--allow", "network.host,security.insecure", "--allow", "device=rows.example/d"]
        with socket.socket(socket.AF_UNIX) as agent:
            agent.bind(f"{root}/agent")
            agent.listen()
            for name in ("default", "second"):
                options += ["--ssh", f"{name}={root}/agent"]
            env = {"IMAGETOOL_CDI_DIRS": str(root / "cdi")}
            imagetool("build", "-t", "rows", *options, root / "context", root=root, env=env)

    root = made_once(tmp_path_factory, "rows", make)
    with opened("rows", Workplace(root)) as (store, descriptor):
        made = tree(load(store, descriptor))
    assert not {"b2", "b3", "c", "t", "run", "agent", "k", "w/b1"} & set(made), "mount points are not committed"
    return {name.removeprefix("w/"): data.decode().strip() for name, (_, data) in made.items() if name.startswith("w/")}


@row(*OF_RUN)
@pytest.mark.root
@pytest.mark.parametrize("name", WANTED)
def test_run(ran: dict[str, str], name: str) -> None:
    assert ran[name] == WANTED[name]


@row(*OF_RUN)
@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("--mount=type=bnd,target=/x", "unsupported mount type .*did you mean bind"),
        ("--mount=target=/", "cannot be /"),
        ("--mount=target=/x,y", "mount option .*y"),
        ("--mount=type=bind,target=/x,bind-propagation=rslave", "bind-propagation"),
        ("--mount=type=cache,target=/x,sharing=often", "often"),
        ("--mount=type=cache,target=/x,size=1m", "a cache mount has no size"),
        ("--mount=type=bind,target=/x,tmpfs-size=1m", "a bind mount has no size"),
        ("--mount=target=/x,relabel=most", "mount option .*relabel"),
        ("--mount=type=tmpfs,target=/x,size=many", "many"),
        ("--mount=type=secret", "needs an id or a target"),
        ("--mount=type=secret,id=none,required", "none"),
        ("--mount=type=secret,id=x,mode=9", "mode"),
        ("--mount=type=ssh,required", "ssh"),
        ("--network=bridge", "--network is"),
        ("--security=maximal", "--security is"),
        ("--device=", "the value is empty"),
        ("--device=v/c=d,required=perhaps", "required"),
        ("--userns=host", "unknown flag"),
    ],
)
def test_what_run_refuses(shop: Workshop, flag: str, problem: str) -> None:
    shop.write("f")
    refused(shop, f"FROM base\nRUN {flag} x\n", problem)
