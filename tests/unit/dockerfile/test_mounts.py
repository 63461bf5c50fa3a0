"""RUN --mount and RUN --device: rule 36 of the build reference."""

from __future__ import annotations

import pytest

from imagetool.dockerfile import Run, RunDevice, RunMount, parse
from imagetool.errors import DockerfileError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("type=bind,target=/t", RunMount(type="bind", target="/t")),
        ("target=/t,source=a,from=b,rw", RunMount(target="/t", source="a", from_="b", readonly=False)),
        ("dst=/t,src=a,readwrite=false", RunMount(target="/t", source="a", readonly=True)),
        ("type=cache,destination=/t", RunMount(type="cache", target="/t", readonly=False)),
        (
            "TYPE=Cache,target=/t,id=i,sharing=Locked,mode=0750,uid=1,gid=2,ro",
            RunMount(type="cache", target="/t", id="i", sharing="locked", mode=0o750, uid=1, gid=2, readonly=True),
        ),
        ("type=tmpfs,target=/t,size=64m", RunMount(type="tmpfs", target="/t", size=64 << 20, readonly=False)),
        ("type=cache,target=/t,z", RunMount(type="cache", target="/t", readonly=False)),
        ("Z,target=/t,source=a,relabel=private", RunMount(target="/t", source="a")),
        (
            "relabel=shared,type=tmpfs,target=/t,tmpfs-size=1k",
            RunMount(type="tmpfs", target="/t", size=1024, readonly=False),
        ),
        ("size=1g,type=tmpfs,target=/t", RunMount(type="tmpfs", target="/t", size=1 << 30, readonly=False)),
        ("type=secret,id=i", RunMount(type="secret", id="i")),
        ("type=secret,id=i,env=,required=true", RunMount(type="secret", id="i", env="", required=True)),
        ("type=ssh,required", RunMount(type="ssh", required=True)),
        ('type=bind,\\"target=/a,b\\"', RunMount(target="/a,b")),
        ("type=cache,target=/t,uid=$u", RunMount(type="cache", target="/t", readonly=False)),
        ("type=$t,target=/t,size=1k", RunMount(target="/t", size=1024)),
    ],
)
def test_a_mount_is_read(options: str, expected: RunMount) -> None:
    (run,) = parse(f"FROM base\nRUN --mount={options} x\n").stages[0].instructions
    assert isinstance(run, Run)
    assert run.mounts == (expected,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("type=bnd,target=/t", "unsupported mount type 'bnd' (did you mean bind?)"),
        ("type=volume", "unsupported mount type 'volume'"),
        ("targt=/t", "unknown mount option 'targt' (did you mean target?)"),
        ("type=bind,z=1,target=/t", "unknown mount option 'z'"),
        ("type=bind,relabel,target=/t", "unknown mount option 'relabel'"),
        ("type=bind,relabel=x,target=/t", "unknown mount option 'relabel'"),
        ("type=cache,tmpfs-size=1m,target=/t", "a cache mount has no size"),
        ("target", "mount option target needs a value"),
        ("from=$x,target=/t", "from cannot hold a variable"),
        ("type=cache,target=/t,sharing=x", "unsupported sharing 'x'"),
        ("type=cache,target=/t,mode=8", "invalid value '8' for the mount option mode"),
        ("type=cache,target=/t,uid=-1", "invalid value '-1'"),
        ("type=cache,target=/t,uid=4294967296", "invalid value"),
        ("target=/t,ro=maybe", "invalid value 'maybe' for the mount option ro"),
        ("type=tmpfs,target=/t,size=x", "not a size"),
        ("target=/t,size=1", "a bind mount has no size"),
        ("target=/t,mode=0700", "a bind mount has no mode"),
        ("type=cache,target=/t,required", "a cache mount has no required"),
        ("type=secret,id=a,sharing=shared", "a secret mount has no sharing"),
        ("type=secret,id=a,from=b", "a secret mount has no from"),
        ("type=secret", "a secret mount needs an id or a target"),
        ("type=secret,id=a,source=b", "either source or id"),
        ("", "the value is empty"),
        ('a\\"b=c', "out of place"),
    ],
)
def test_a_wrong_mount_is_refused(options: str, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        parse(f"FROM base\nRUN --mount={options} x\n")
    assert message in refused.value.message
    assert refused.value.line == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor.com/gpu=all", RunDevice("vendor.com/gpu=all")),
        ("name=vendor.com/gpu,required", RunDevice("vendor.com/gpu", required=True)),
        ("gpu,required=false", RunDevice("gpu")),
    ],
)
def test_a_device_is_read(text: str, expected: RunDevice) -> None:
    (run,) = parse(f"FROM base\nRUN --device={text} x\n").stages[0].instructions
    assert isinstance(run, Run)
    assert run.devices == (expected,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("required", "a device needs a name"),
        ("a,b", "the device is already 'a'"),
        ("a,required=maybe", "invalid value 'maybe'"),
    ],
)
def test_a_wrong_device_is_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        parse(f"FROM base\nRUN --device={text} x\n")
    assert message in refused.value.message
