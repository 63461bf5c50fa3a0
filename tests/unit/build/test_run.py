"""RUN: what the container is asked to do (rules 32 to 36), and what the cache keeps (47 to 49)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.build.worker import Times
from imagetool.errors import BuildError, LimitExceeded, StepFailed, UsageError
from tests.support.workshop import Workshop, file, folder, link, texts


@pytest.mark.parametrize(
    ("lines", "argv"),
    [
        (["RUN a  b"], ["/bin/sh", "-c", "a  b"]),
        (['RUN ["a", "b c"]'], ["a", "b c"]),
        (['RUN ["a", b]'], ["/bin/sh", "-c", '["a", b]']),
        (['SHELL ["/bin/ash", "-x"]', "RUN a"], ["/bin/ash", "-x", "a"]),
        (["RUN a \\", "# comment", "  b"], ["/bin/sh", "-c", "a   b"]),
        (["RUN <<E", "one $x", "two", "E"], ["/bin/sh", "-c", "one $x\ntwo\n"]),
        (["RUN <<E", "#!/bin/x", "body", "E"], ["/dev/pipes/E"]),
        (["RUN cat <<A - <<B", "a", "A", "b", "B"], ["/bin/sh", "-c", "cat <<A - <<B\na\nA\nb\nB\n"]),
        (["ARG v=1", "RUN echo $v"], ["/bin/sh", "-c", "echo $v"]),
        (['ENTRYPOINT ["e"]', "RUN a"], ["/bin/sh", "-c", "a"]),
    ],
)
def test_what_is_run(shop: Workshop, lines: list[str], argv: list[str]) -> None:
    shop.build("\n".join(["FROM base", *lines, ""]))
    assert [text.rstrip("\n") for text in shop.executor.process["args"]] == [text.rstrip("\n") for text in argv]


def test_the_environment(shop: Workshop) -> None:
    lines = ["FROM base", "ENV e=env", "ARG a=arg", "ARG e=over", "ARG none", "RUN x", ""]
    image = shop.build("\n".join(lines), build_args={"HTTP_PROXY": "proxy", "other": "no"}, times=Times(7))
    env = shop.executor.env
    assert (env["a"], env["e"], env["HOME"], env["HTTP_PROXY"]) == ("arg", "over", "/root", "proxy")
    assert env["SOURCE_DATE_EPOCH"] == "7"
    assert not {"none", "other"} & env.keys()
    assert image.config.run.environment["e"] == "env"
    assert not {"a", "HOME", "HTTP_PROXY", "SOURCE_DATE_EPOCH"} & image.config.run.environment.keys()
    assert "proxy" not in image.config.raw.decode()


@pytest.mark.parametrize(
    ("user", "expected", "home"),
    [
        ("root", (0, 0, []), "/root"),
        ("user", (101, 201, [300]), "/home/user"),
        ("user:staff", (101, 50, []), "/home/user"),
        ("101", (101, 201, [300]), "/home/user"),
        ("101:7", (101, 7, []), "/home/user"),
        ("555", (555, 0, []), "/"),
        ("1000", (7, 8, []), "/odd"),
    ],
)
def test_the_user(shop: Workshop, user: str, expected: tuple[int, int, list[int]], home: str) -> None:
    shop.build(f"FROM base\nUSER {user}\nWORKDIR /etc\nRUN x\n")
    process = shop.executor.process
    found = process["user"]
    assert (found["uid"], found["gid"], found["additionalGids"]) == expected
    assert (process["cwd"], shop.executor.env["HOME"]) == ("/etc", home)


def test_home_may_be_set(shop: Workshop) -> None:
    shop.build("FROM base\nENV HOME=/mine\nRUN x\n")
    assert shop.executor.env["HOME"] == "/mine"


def test_a_user_that_is_not_there_fails_where_it_is_used(shop: Workshop) -> None:
    shop.build("FROM base\nUSER ghost\n")
    with pytest.raises(BuildError, match="ghost"):
        shop.build("FROM base\nUSER ghost\nRUN x\n")


def test_what_a_step_changes_becomes_a_layer(shop: Workshop) -> None:
    def act(upper: Path) -> int:
        (upper / "new").write_text("new")
        return 0

    shop.executor.act = act
    image = shop.build("FROM base\nRUN x\n")
    assert texts(image, layers=[1]) == {"new": "new"}
    shop.executor.act = lambda _: 0
    assert len(shop.build("FROM base\nRUN nothing\n").layers) == 2, "a step that changes nothing has a layer too"


@pytest.mark.parametrize(("status", "text"), [(3, "exit code 3"), (137, "signal 9")])
def test_a_step_that_fails(shop: Workshop, status: int, text: str) -> None:
    shop.executor.act = lambda _: status
    with pytest.raises(StepFailed, match=text) as failed:
        shop.build("FROM base\nRUN x\n")
    assert failed.value.status == status
    shop.executor.act = lambda _: 0
    shop.build("FROM base\nRUN x\n")
    assert len(shop.executor.seen) == 2, "a failure is not cached"


def mounts(shop: Workshop) -> dict[str, dict[str, object]]:
    return {mount["destination"]: mount for mount in shop.executor.seen[-1]["mounts"]}


def test_mounts(shop: Workshop) -> None:
    shop.write("d/f", "bound")
    found: dict[str, str] = {}

    def act(upper: Path) -> int:
        for mount in shop.executor.seen[-1]["mounts"]:
            if mount["destination"] in ("/b", "/f"):
                path = Path(mount["source"])
                found[mount["destination"]] = (path / "f" if path.is_dir() else path).read_text()
        return 0

    shop.executor.act = act
    shop.build(
        "FROM base\nWORKDIR /w\n"
        "RUN --mount=target=/b,source=d --mount=type=bind,source=d/f,target=/f,rw "
        "--mount=type=cache,target=c,uid=5,mode=0700 --mount=type=tmpfs,target=/t,size=1m "
        "--mount=type=secret,id=optional x\n"
    )
    assert found == {"/b": "bound", "/f": "bound"}
    made = mounts(shop)
    assert made["/b"]["options"] == ["bind", "ro"]
    assert made["/f"]["options"] == ["bind", "rw"]
    assert made["/w/c"]["options"] == ["bind", "rw"]
    assert "size=1048576" in made["/t"]["options"]  # type: ignore[operator]
    assert "/run/secrets/optional" not in made
    cache = Path(str(made["/w/c"]["source"]))
    assert cache.is_relative_to(shop.place / "caches")
    assert cache.stat().st_mode & 0o7777 == 0o700
    (cache / "kept").write_text("k")
    shop.build("FROM base\nWORKDIR /elsewhere\nRUN --mount=type=cache,target=/x,id=/w/c y\n")
    assert (Path(str(mounts(shop)["/x"]["source"])) / "kept").exists(), "the id names the cache"


def test_name_servers_and_hosts_are_mounted(shop: Workshop) -> None:
    shop.build("FROM base\nRUN x\n")
    assert {"/etc/resolv.conf", "/etc/hosts"} <= mounts(shop).keys()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("RUN --mount=type=secret,id=s,required x", UsageError),
        ("RUN --mount=type=bind,target=/ x", BuildError),
        ("RUN --mount=type=bind,source=nope,target=/x x", BuildError),
        ("RUN --mount=type=cache,target=/ x", BuildError),
    ],
)
def test_mounts_that_cannot_be(shop: Workshop, line: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        shop.build(f"FROM base\n{line}\n")


# -- the cache -------------------------------------------------------------------------------------


def again(shop: Workshop, first: str, second: str, **request: object) -> list[bool]:
    """Build two Dockerfiles; return which steps of the second came from the cache, FROM left out."""
    shop.build(first)
    shop.build(second, **request)
    return shop.cached[1:]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("RUN a", "RUN a", [True]),
        ("RUN a", "RUN b", [False]),
        ("RUN a\nRUN b", "RUN a\nRUN c", [True, False]),
        ("RUN <<E\na\nE", "RUN <<E\nb\nE", [False]),
        ("RUN <<E\n#!/x\na\nE", "RUN <<E\n#!/x\nb\nE", [False]),
        ("ENV a=1\nRUN x", "ENV a=1\nRUN x", [False, True]),
        ("ENV a=1\nRUN x", "ENV a=2\nRUN x", [False, False]),
        ("RUN x\nENV a=1", "RUN x\nENV a=2", [True, False]),
        ("ARG a=1\nRUN x", "ARG a=2\nRUN x", [False, False]),
        ("RUN x\nARG a=1", "RUN x\nARG a=2", [True, False]),
        ("LABEL a=1\nRUN x", "LABEL a=2\nRUN x", [False, True]),
        ("USER 1\nRUN x", "USER 2\nRUN x", [False, False]),
        ("WORKDIR /a\nRUN x", "WORKDIR /a\nRUN x", [True, True]),
        ("RUN --network=none x", "RUN x", [False]),
        ("RUN --mount=type=bind,source=f,target=/f x", "RUN --mount=type=bind,source=f,target=/f x", [True]),
        ("RUN --mount=type=bind,source=f,target=/f x", "RUN --mount=type=bind,source=g,target=/f x", [False]),
        ("COPY f /", "COPY f /", [True]),
        ("COPY f /", "COPY f /other", [False]),
        ("COPY f /n", "COPY --chmod=600 f /n", [False]),
        ("COPY f /n", "COPY --chown=1 f /n", [False]),
        ("COPY <<E /n\na\nE", "COPY <<E /n\nb\nE", [False]),
    ],
)
def test_what_hits(shop: Workshop, first: str, second: str, expected: list[bool]) -> None:
    shop.write("f", "f")
    shop.write("g", "g")
    assert again(shop, f"FROM base\n{first}\n", f"FROM base\n{second}\n") == expected


def test_touching_a_file_hits_and_changing_it_misses(shop: Workshop) -> None:
    path = shop.write("d/f", "f")
    text = "FROM base\nCOPY d /d\nRUN --mount=target=/c,source=d x\n"
    shop.build(text)
    os.utime(path, (1, 1))
    assert again(shop, text, text) == [True, True]
    path.chmod(0o600)
    shop.build(text)
    assert shop.cached[1:] == [False, False]
    path.write_text("g")
    shop.build(text)
    assert shop.cached[1:] == [False, False]


def test_renaming_what_a_wildcard_matches_misses(shop: Workshop) -> None:
    path = shop.write("a.txt", "same")
    text = "FROM base\nCOPY *.txt /d/\n"
    shop.build(text)
    path.rename(shop.context / "b.txt")
    shop.build(text)
    assert shop.cached[1:] == [False]


def test_proxies_do_not_count(shop: Workshop) -> None:
    text = "FROM base\nRUN x\n"
    shop.build(text, build_args={"http_proxy": "one"})
    shop.build(text, build_args={"http_proxy": "two"})
    assert shop.cached[1:] == [True]


def test_the_cache_can_be_left_alone(shop: Workshop) -> None:
    text = "FROM base\nRUN x\n"
    assert again(shop, text, text, use_cache=False) == [False]


def test_a_layer_that_is_gone_is_made_again(shop: Workshop) -> None:
    text = "FROM base\nRUN x\n"
    image = shop.build(text)
    del shop.store.blobs[image.layers[-1].descriptor.digest]
    assert shop.build(text).descriptor == image.descriptor
    assert shop.cached[1:] == [False]


def test_arguments_for_the_builder(shop: Workshop) -> None:
    """BuildKit's names; those that are not known are told like any argument without an ARG."""
    shop.build("FROM base\nRUN x\n")
    args = {"BUILDKIT_SANDBOX_HOSTNAME": "other", "BUILDKIT_MULTI_PLATFORM": "1", "BUILDKIT_INLINE_CACHE": "0"}
    shop.build("FROM base\nRUN x\n", build_args=args)
    assert (shop.cached[-1], shop.executor.seen[-1]["hostname"]) == (False, "other")
    assert [note for note in shop.notes if "BUILDKIT" in note] == [
        "build arguments that no ARG declares: BUILDKIT_MULTI_PLATFORM"
    ]


def test_cache_mounts_have_a_namespace(shop: Workshop) -> None:
    def source(**args: str) -> str:
        shop.build("FROM base\nRUN --mount=type=cache,target=/c x\n", build_args=args, use_cache=False)
        mounts = {mount["destination"]: mount["source"] for mount in shop.executor.seen[-1]["mounts"]}
        return str(mounts["/c"])

    plain, own = source(), source(BUILDKIT_CACHE_MOUNT_NS="team")
    assert plain != own == source(BUILDKIT_CACHE_MOUNT_NS="team")
    assert Path(own + ".id").read_text() == "team//c"


@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
def test_a_file_of_users_without_end_is_refused(shop: Workshop, name: str) -> None:
    """CVE-2026-47262: it is read whole to find a name."""
    shop.base("evil", folder("etc"), file(name, "x" * (limits.PASSWD_BYTES + 1)))
    for text in ("USER who\nRUN x\n", "COPY --chown=who f /\n", "USER who\nWORKDIR /made\n"):
        shop.write("f")
        with pytest.raises(LimitExceeded, match=name):
            shop.build(f"FROM evil\n{text}")


@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
def test_a_file_of_users_that_leads_out_is_none(shop: Workshop, name: str) -> None:
    (shop.place / "outside").write_text("who:x:7:7::/:/bin/sh\n")
    shop.base("evil", folder("etc"), link(name, f"../../../../../../../../../{shop.place}/outside"))
    with pytest.raises(BuildError, match="who"):
        shop.build("FROM evil\nUSER who\nRUN x\n")
