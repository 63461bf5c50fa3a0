"""The whole language, row by row: every instruction, directive, form of expansion and flag that builders have.

`ROWS` is the table of what a Dockerfile may say to BuildKit or buildah, and each row has a test that
says `@row`; a row without one fails. What builders differ in is in docs/reference/dockerfile.md. Rows
that are buildah's alone are refused by name, and the test shows how.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from imagetool.api import Workplace, opened
from imagetool.dockerfile import parse
from imagetool.errors import DigestMismatch, DockerfileError, ImagetoolError, UsageError
from imagetool.image.image import Image, load
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from tests.support.bases import made_once
from tests.support.command import imagetool
from tests.support.workshop import Workshop, file, folder, texts, tree

ROWS = (
    # The language
    "18 instructions",
    "# syntax=",
    "# escape=",
    "# check=",
    "shebang, byte order mark, CRLF",
    "heredocs",
    "expansion with defaults",
    "expansion with removed prefixes and suffixes",
    "expansion with replacement",
    "comments and blank lines in continuations",
    "Containerfile.in and several files",
    # Flags
    "FROM --platform, AS, number, stage, named context",
    "FROM --after, FROM oci-archive:",
    "RUN --mount=type=bind",
    "RUN --mount=type=cache",
    "RUN --mount=type=tmpfs",
    "RUN --mount=type=secret",
    "RUN --mount=type=ssh",
    "RUN --network",
    "RUN --security",
    "RUN --device",
    "COPY/ADD --chown",
    "COPY/ADD --chmod",
    "COPY/ADD --link",
    "COPY/ADD --exclude",
    "COPY --parents",
    "COPY --from",
    "ADD of URL, Git repository, archive; --checksum, --keep-git-dir",
    "ADD --unpack",
    "HEALTHCHECK flags",
    "ARG: several, proxies, platforms, TARGETSTAGE",
)
_OF_RUN = tuple(name for name in ROWS if name.startswith("RUN "))
_TESTED: set[str] = set()
F = TypeVar("F", bound=Callable[..., None])


def row(*names: str) -> Callable[[F], F]:
    def note(function: F) -> F:
        assert set(names) <= set(ROWS), names
        _TESTED.update(names)
        return function

    return note


def test_every_row_has_a_test() -> None:
    assert sorted(_TESTED) == sorted(ROWS)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.base(
        "base",
        folder("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:101:201::/home/user:/bin/sh\n"),
        file("etc/group", "root:x:0:\nadm:x:4:\n"),
        run=RunConfig(cmd=("basecmd",), env=("PATH=/bin",)),
    )
    return made


def config(image: Image) -> RunConfig:
    return image.config.run


def refused(shop: Workshop, text: str, match: str, **request: Any) -> None:
    """See that a build fails for the last line, and says where that is."""
    with pytest.raises(ImagetoolError, match=match) as error:
        shop.build(text, **request)
    said = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert f"Dockerfile:{len(text.splitlines())}" in said


# The language


@row("18 instructions")
def test_all_instructions_end_in_the_config(shop: Workshop) -> None:
    shop.write("f", "copied")
    lines = [
        "ARG TAG=base",
        "FROM $TAG",
        "MAINTAINER me",
        "ARG v=1",
        "ENV e=$v",
        "LABEL l=$e",
        "WORKDIR /w",
        "COPY f c",
        "ADD f a",
        'SHELL ["/s", "-c"]',
        "RUN x",
        "USER user",
        "EXPOSE 80/UDP 90-91",
        "VOLUME /v",
        "STOPSIGNAL SIGQUIT",
        "HEALTHCHECK CMD x",
        "ONBUILD RUN y",
        'ENTRYPOINT ["e"]',
        "CMD c",
    ]
    keywords = {line.split()[0] for line in lines}
    assert len(keywords) == 18
    image = shop.build("\n".join([*lines, ""]))
    tree_of_config = json.loads(image.config.raw)
    assert tree_of_config["author"] == "me"
    assert tree_of_config["config"] == {
        "User": "user",
        "ExposedPorts": {"80/udp": {}, "90/tcp": {}, "91/tcp": {}},
        "Env": ["PATH=/bin", "e=1"],
        "Entrypoint": ["e"],
        "Cmd": ["/s", "-c", "c"],
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Labels": {"l": "1"},
        "StopSignal": "SIGQUIT",
        "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD-SHELL", "x"]},
        "OnBuild": ["RUN y"],
        "Shell": ["/s", "-c"],
    }
    assert {"w/a", "w/c"} <= set(texts(image))


@row("# syntax=")
@pytest.mark.parametrize(
    "name",
    [
        "docker/dockerfile:1",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile-upstream:master",
        "h:5/x/dockerfile@sha256:1",
    ],
)
def test_a_syntax_that_is_dockerfiles_is_recorded_and_never_fetched(shop: Workshop, name: str) -> None:
    text = f"# syntax = {name}\nFROM scratch\nENV a=1\n"
    assert parse(text.encode(), file="f").directives.syntax == name
    assert config(shop.build(text)).environment["a"] == "1"


@row("# syntax=")
def test_a_syntax_of_another_language_is_refused(shop: Workshop) -> None:
    for text, build_args in (
        ("# syntax=example.com/mocker:1\nFROM scratch\n", {}),
        ("FROM scratch\n", {"BUILDKIT_SYNTAX": "example.com/mocker:1"}),
    ):
        with pytest.raises(UsageError, match=r"mocker:1 is another language"):
            shop.build(text, build_args=build_args)


@row("# escape=")
def test_the_escape_character(shop: Workshop) -> None:
    image = shop.build("# escape=`\nFROM scratch\nENV a=b\\c d=`\n`$x\n")
    assert (config(image).environment["a"], config(image).environment["d"]) == ("b\\c", "$x")
    for text in ("# escape=x\nFROM scratch\n", "# escape=`\n# escape=`\nFROM scratch\n"):
        with pytest.raises(DockerfileError, match="escape"):
            shop.build(text)


@row("# check=")
def test_checks_are_skipped_or_are_errors(tmp_path: Path) -> None:
    def lint(text: str) -> int:
        (tmp_path / "Dockerfile").write_text(text)
        return imagetool("build", "--check", tmp_path, root=tmp_path / "store", check=False).returncode

    assert lint("FROM scratch\nworkdir x\n") == 7
    assert lint("# check=skip=WorkdirRelativePath,ConsistentInstructionCasing\nFROM scratch\nworkdir x\n") == 0
    assert lint("# check=skip=all\nFROM scratch\nworkdir x\n") == 0
    (tmp_path / "Dockerfile").write_text("# check=error=true\nFROM scratch\nworkdir x\n")
    done = imagetool("build", tmp_path, root=tmp_path / "store", check=False)
    assert done.returncode == 7
    assert "WorkdirRelativePath (line 3)" in done.stderr


@row("shebang, byte order mark, CRLF")
def test_how_files_may_begin_and_lines_end(shop: Workshop) -> None:
    for text in (
        "#!/usr/bin/env x\n# syntax=docker/dockerfile:1\nFROM scratch\nENV a=\\\n1\n",  # escape is not looked for
        "\ufeff# escape=`\nFROM scratch\nENV a=`\n1\n",
        "# escape=`\r\nFROM scratch\r\nENV a=`\r\n1\r\n",
    ):
        assert config(shop.build(text)).environment["a"] == "1"


@row("heredocs")
def test_every_form_of_heredoc(shop: Workshop) -> None:
    text = "FROM scratch\nENV v=1\nCOPY <<a <<-'b' <<\"c\" 3<<d /d/\n$v\na\n\t$v\n\tb\n$v\nc\nd\n"
    assert texts(shop.build(text)) == {"d/a": "1\n", "d/b": "$v\n", "d/c": "$v\n", "d/d": ""}
    assert texts(shop.build("FROM scratch\nADD <<a /x\nadded\na\n")) == {"x": "added\n"}
    shop.build("FROM base\nRUN <<E\none $v\nE\n")
    assert shop.executor.process["args"] == ["/bin/sh", "-c", "one $v\n"]
    shop.build("FROM base\nRUN cat <<A - 3<<-B\na\nA\n\tb\n\tB\n")
    assert shop.executor.process["args"][2].startswith("cat <<A - 3<<-B\na\nA\n")
    shop.bases["child"] = shop.build("FROM base\nONBUILD COPY <<a /t\nfrom trigger\na\n")
    assert texts(shop.build("FROM child\n"))["t"] == "from trigger\n"


EXPANSIONS = {
    "expansion with defaults": {
        "$v": "val", "${v}": "val", "${v:-w}": "val", "${e:-w}": "w", "${e-w}": "", "${n-w}": "w",
        "${v:+w}": "w", "${e:+w}": "", "${e+w}": "w", "${n+w}": "", "${v:?m}": "val", "${v?m}": "val",
        "${n:-${v}x}": "valx",
    },
    "expansion with removed prefixes and suffixes": {
        "${p#*/}": "b/c.d.e", "${p##*/}": "c.d.e", "${p%.*}": "a/b/c.d", "${p%%.*}": "a/b/c", "${v#?}": "al",
        "${v%[l]}": "val",
    },
    "expansion with replacement": {"${p/b/x}": "a/x/c.d.e", "${p//./-}": "a/b/c-d-e", "${v/a*/}": "v"},
}  # fmt: skip


@row("expansion with defaults")
@row("expansion with removed prefixes and suffixes")
@row("expansion with replacement")
@pytest.mark.parametrize("kind", EXPANSIONS)
def test_expansion(shop: Workshop, kind: str) -> None:
    cases = EXPANSIONS[kind]
    names = " ".join(f'x{number}="{written}"' for number, written in enumerate(cases))
    env = config(shop.build(f'FROM scratch\nENV v=val e="" p=a/b/c.d.e\nENV {names}\n')).environment
    assert {written: env[f"x{number}"] for number, written in enumerate(cases)} == cases


@row("expansion with defaults")
@pytest.mark.parametrize("written", ["${n:?is needed}", "${n?is needed}", "${}", "${v", "${v:x}", "${v:=x}"])
def test_expansions_that_cannot_be(shop: Workshop, written: str) -> None:
    refused(shop, f'FROM scratch\nENV x="{written}"\n', "is needed" if "needed" in written else ".")


@row("comments and blank lines in continuations")
def test_comments_and_blank_lines_within(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nENV a=1 \\\n# no \\\n\n\n   # no\n b=2\n")
    assert (config(image).environment["a"], config(image).environment["b"]) == ("1", "2")


@row("Containerfile.in and several files")
def test_preprocessing_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "Containerfile.in").write_text('#include "x"\nFROM scratch\n')
    done = imagetool("build", "-f", tmp_path / "Containerfile.in", tmp_path, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert "cpp" in done.stderr
    (tmp_path / "a").write_text("FROM scratch\n")
    done = imagetool(
        "build", "-f", tmp_path / "a", "-f", tmp_path / "a", tmp_path, root=tmp_path / "store", check=False
    )
    assert done.returncode == 2
    assert "--file is given twice" in done.stderr


# Flags


@row("FROM --platform, AS, number, stage, named context")
def test_what_from_may_say(shop: Workshop) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM scratch AS One\nCOPY <<x /x\n1\nx\n"
        "FROM one AS two\nENV two=2\nFROM 1\n"
    )  # fmt: skip
    with pytest.raises(ImagetoolError, match="no image 1"):
        shop.build(text)
    arm = Platform("linux", "arm64")
    image = shop.build(text.replace("FROM 1\n", "FROM two\n"), platform=arm)
    assert (image.config.platform.architecture, texts(image)) == ("amd64", {"x": "1\n"})
    shop.bases["other"] = shop.build("FROM scratch\nENV named=1\n")
    image = shop.build("FROM scratch AS ctx\nFROM ctx\n", named={"ctx": "other"})
    assert config(image).environment["named"] == "1"


@row("FROM --after, FROM oci-archive:")
def test_what_only_buildah_has_is_refused_by_name(shop: Workshop) -> None:
    refused(shop, "FROM --after=x scratch\n", "unknown flag --after")
    refused(shop, "FROM oci-archive:x.tar\n", "oci-archive:x.tar")


@row("COPY/ADD --chown")
@pytest.mark.parametrize("keyword", ["COPY", "ADD"])
def test_chown(shop: Workshop, keyword: str) -> None:
    shop.write("f")
    owners = {"user": (101, 201), "user:adm": (101, 4), "5": (5, 5), "5:6": (5, 6), "7:adm": (7, 4), "$u": (101, 201)}
    lines = [f"{keyword} --chown={owner} f /{number}" for number, owner in enumerate(owners)]
    made = tree(shop.build("\n".join(["FROM base", "ENV u=user", *lines, ""])))
    assert [made[str(number)][0][3:5] for number in range(len(owners))] == list(owners.values())
    refused(shop, f"FROM base\n{keyword} --chown=nobody f /\n", "nobody")


@row("COPY/ADD --chmod")
@pytest.mark.parametrize("keyword", ["COPY", "ADD"])
def test_chmod(shop: Workshop, keyword: str) -> None:
    shop.write("d/f", mode=0o640)
    shop.write("d/x", mode=0o750)
    modes = {"4711": (0o4711, 0o4711), "u=rwX,go=rX": (0o644, 0o755), "a+w": (0o662, 0o772), "g-r,o=": (0o600, 0o710)}
    lines = [f"{keyword} --chmod={mode} d /{number}/" for number, mode in enumerate(modes)]
    made = tree(shop.build("\n".join(["FROM scratch", *lines, ""])))
    assert [(made[f"{n}/f"][0].mode, made[f"{n}/x"][0].mode) for n in range(len(modes))] == list(modes.values())
    for bad in ("9", "77777", "u*x", "q=r"):
        refused(shop, f"FROM scratch\n{keyword} --chmod={bad} d /\n", "chmod|octal|mode")


@row("COPY/ADD --link")
@pytest.mark.parametrize("line", ["COPY --link f /to/f", "ADD --link f /to/f", "COPY --link --from=s /s /to/f"])
def test_linked_layers_are_taken_from_the_cache_whatever_is_below(shop: Workshop, line: str) -> None:
    shop.write("f", "1")
    stage = "FROM scratch AS s\nCOPY f /s\n"
    one = shop.build(f"{stage}FROM base\n{line}\n").layers[-1]
    two = shop.build(f"{stage}FROM base\nRUN x\n{line}\n").layers[-1]
    assert (shop.cached[-1], two) == (True, one)
    assert tree(shop.build(f"{stage}FROM base\n{line}\n"), layers=[-1])["to"][0].mode == 0o755
    plain = line.replace("--link ", "--link=false ")
    shop.build(f"{stage}FROM base\n{plain}\n")
    shop.build(f"{stage}FROM base\nRUN y\n{plain}\n")
    assert shop.cached[-1] is False


@row("COPY/ADD --exclude")
@pytest.mark.parametrize("keyword", ["COPY", "ADD", "COPY --from=s"])
def test_exclude(shop: Workshop, keyword: str) -> None:
    for name in ("a.txt", "a.md", "d/b.txt", "d/c"):
        shop.write(name)
    stage = "FROM scratch AS s\nCOPY . /\nFROM scratch\n" if "from" in keyword else "FROM scratch\n"
    made = texts(shop.build(f"{stage}{keyword} --exclude=*.txt --exclude=d/* --exclude=!d/c . /to/\n"))
    assert set(made) == {"to/a.md", "to/d/c"}


@row("COPY --parents")
def test_parents(shop: Workshop) -> None:
    shop.write("a/b/c/f")
    shop.write("a/x/f")
    text = "FROM scratch\nCOPY --parents a/b/c/f /1/\nCOPY --parents a/./b/c/f /2/\nCOPY --parents a/**/f /3/\n"
    text += "COPY --parents ./a/*/./c /4/\nCOPY --parents a/x /5/\nCOPY --parents a/./x/* a/b/./c /6/\n"
    made = texts(shop.build(text))
    assert set(made) == {
        "1/a/b/c/f", "2/b/c/f", "3/a/b/c/f", "3/a/x/f", "4/c/f", "5/a/x/f", "6/x/f", "6/c/f",
    }  # fmt: skip
    refused(shop, "FROM scratch\nCOPY --parents a/none /1/\n", "not found")
    refused(shop, "FROM scratch\nADD --parents a /1/\n", "unknown flag --parents")


@row("COPY --from")
def test_where_copy_takes_from(shop: Workshop) -> None:
    shop.base("image", file("i", "image"))
    shop.write("named/n", "named")
    text = (
        "FROM scratch AS s\nCOPY <<x /x\nstage\nx\nFROM scratch\n"
        "COPY --from=s /x /1\nCOPY --from=0 /x /2\nCOPY --from=image i /3\nCOPY --from=ctx i /4\n"
    )
    assert texts(shop.build(text, named={"ctx": "image"})) == {
        "1": "stage\n", "2": "stage\n", "3": "image", "4": "image",
    }  # fmt: skip
    refused(shop, "FROM scratch\nCOPY --from=0 /x /x\n", "does not come before")
    refused(shop, "FROM scratch AS later\nCOPY --from=nowhere /x /x\n", "nowhere")
    refused(shop, "FROM scratch\nARG s\nCOPY --from=$s /x /x\n", "variable")


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("in")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"1"))
    return packed.getvalue()


@row("ADD of URL, Git repository, archive; --checksum, --keep-git-dir")
def test_what_add_takes(shop: Workshop) -> None:
    data = archive()
    shop.write("a.bin", data)
    shop.downloads["https://h/p/f"] = ("", 0, b"fetched")
    digest = f"sha256:{hashlib.sha256(b'fetched').hexdigest()}"
    image = shop.build(f"FROM scratch\nADD a.bin /a\nADD --checksum={digest} https://h/p/f /u/\n")
    assert texts(image) == {"a/in": "1", "u/f": "fetched"}
    with pytest.raises(DigestMismatch):
        shop.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} https://h/p/f /u/\n")
    for text in (
        f"ADD --checksum={digest} a.bin /",
        f"ADD --checksum={digest} https://h/p/f https://h/p/g /",
        "ADD --checksum=md5:x https://h/p/f /",
        "ADD --checksum=sha256:0 https://h/p/f /",
    ):
        refused(shop, f"FROM scratch\n{text}\n", "checksum")
    # Git, with --keep-git-dir and --checksum of a commit: test_contexts.py, test_add_takes_a_repository.


@row("ADD --unpack")
def test_unpack(shop: Workshop) -> None:
    data = archive()
    shop.write("a.bin", data)
    shop.write("plain", "plain")
    shop.downloads["https://h/a"] = ("", 0, data)
    shop.downloads["https://h/plain"] = ("", 0, b"plain")
    lines = [
        "ADD a.bin /1",
        "ADD --unpack=false a.bin /2",
        "ADD --unpack a.bin /3",
        "ADD https://h/a /4",
        "ADD --unpack=true https://h/a /5",
        "ADD --unpack plain /6",
        "ADD --unpack https://h/plain /7/",
    ]
    made = tree(shop.build("\n".join(["FROM scratch", *lines, ""])))
    assert [made[name][1] for name in ("1/in", "2", "3/in", "4", "5/in", "6", "7/plain")] == [
        b"1", data, b"1", data, b"1", b"plain", b"plain",
    ]  # fmt: skip


@row("HEALTHCHECK flags")
def test_healthcheck(shop: Workshop) -> None:
    flags = "--interval=1m --timeout=2s --start-period=1.5h --start-interval=10ms --retries=4"
    made = config(shop.build(f'FROM scratch\nHEALTHCHECK {flags} CMD ["a", "b"]\n')).healthcheck
    assert made == {
        "Test": ["CMD", "a", "b"],
        "Interval": 60 * 10**9,
        "Timeout": 2 * 10**9,
        "StartPeriod": 5400 * 10**9,
        "StartInterval": 10**7,
        "Retries": 4,
    }
    assert config(shop.build("FROM scratch\nHEALTHCHECK NONE\n")).healthcheck == {"Test": ["NONE"]}
    for bad in ("--interval=1us CMD x", "--retries=-1 CMD x", "--every=1s CMD x", "NONE x", "CMD", "x"):
        refused(shop, f"FROM scratch\nHEALTHCHECK {bad}\n", ".")


@row("ARG: several, proxies, platforms, TARGETSTAGE")
def test_arguments(shop: Workshop) -> None:
    names = ["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "TARGETOSVERSION", "TARGETSTAGE"]
    names += ["BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT", "BUILDOSVERSION"]
    env = " ".join(f'{name}="${name}"' for name in names)
    text = f"FROM scratch AS Last\nARG a=1 b c=$a\nENV a=$a b=$b c=$c\nARG {' '.join(names)}\nENV {env}\n"
    made = config(shop.build(text, platform=Platform("linux", "arm", "v7"), build_args={"b": "2"})).environment
    assert [made[name] for name in "abc"] == ["1", "2", "1"]
    assert [made[name] for name in names] == [
        "linux/arm/v7", "linux", "arm", "v7", "", "default", "linux/amd64", "linux", "amd64", "", "",
    ]  # fmt: skip
    made = config(shop.build(text, target="last")).environment
    assert (made["TARGETSTAGE"], made["TARGETVARIANT"]) == ("last", "")
    proxies = {name: "p" for lower in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
               for name in (lower, lower.upper())}  # fmt: skip
    image = shop.build("FROM base\nRUN x\n", build_args=proxies)
    assert proxies.items() <= shop.executor.env.items()
    assert "proxy" not in image.config.raw.decode().lower()


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


@row(*_OF_RUN)
@pytest.mark.root
@pytest.mark.parametrize("name", WANTED)
def test_run(ran: dict[str, str], name: str) -> None:
    assert ran[name] == WANTED[name]


@row(*_OF_RUN)
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
