"""The language apart from its files and steps: directives, forms of text, FROM, configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagetool.dockerfile import parse
from imagetool.errors import DockerfileError, ImagetoolError, UsageError
from imagetool.oci.platform import Platform
from tests.integration.build.language.rows import ROWS, TESTED, config, refused, row
from tests.support.command import imagetool
from tests.support.workshop import Workshop, texts


def test_every_row_has_a_test() -> None:
    from tests.integration.build.language import test_files, test_run  # which note their rows

    for module in (test_files, test_run):
        assert module.row is row
    assert sorted(TESTED) == sorted(ROWS)


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
