"""Which fields are expanded: rules 7, 10, 11, 12, 17, 20 and 40 of the build reference."""

from __future__ import annotations

import pytest

from imagetool.dockerfile import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    Heredoc,
    Instruction,
    Label,
    Run,
    RunMount,
    ShellForm,
    Stopsignal,
    User,
    Volume,
    Workdir,
    expand_instruction,
    parse,
)
from imagetool.errors import DockerfileError

SUM = "0123456789abcdef" * 4
DIGEST = f"sha256:{SUM}"
ENV = {"sum": SUM, "a": "1", "dir": "/d", "sig": "KILL", "ports": "80 443/UDP", "kind": "cache", "empty": ""}


def expanded(text: str) -> Instruction:
    stage = parse(f"FROM base\n{text}\n").stages[-1]
    return expand_instruction(stage.instructions[0] if stage.instructions else stage.base, ENV)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM --platform=${p:-linux/arm64} i:$a AS s", From(image="i:1", platform="linux/arm64", name="s")),
        ("FROM --platform=$p i", From(image="i")),
        ("ENV a=2 b=$a \"c$a\"='$a'", Env(pairs=(("a", "2"), ("b", "1"), ("c1", "$a")))),
        ('ENV x "$a  2"', Env(pairs=(("x", "1  2"),))),
        ('LABEL l$a="$a $dir"', Label(pairs=(("l1", "1 /d"),))),
        ("ARG $a=x b=$a c", Arg(pairs=(("$a", "x"), ("b", "1"), ("c", None)))),
        ("EXPOSE $ports 90", Expose(ports=("80/tcp", "443/udp", "90/tcp"))),
        ("EXPOSE 8000-8002/udp", Expose(ports=("8000/udp", "8001/udp", "8002/udp"))),
        ("STOPSIGNAL SIG$sig", Stopsignal(signal="SIGKILL")),
        ("USER $a:$a", User(user="1:1")),
        ('VOLUME $dir "$dir"/x', Volume(paths=("/d", "/d/x"))),
        ('VOLUME ["$dir/a b"]', Volume(paths=("/d/a b",))),
        ('WORKDIR $dir/"x y"', Workdir(path="/d/x y")),
        (
            "COPY --from=s --chown=$a:$a --chmod=0$a --exclude=$a f$a $dir/",
            Copy(sources=("f1",), dest="/d/", from_="s", chown="1:1", chmod="01", exclude=("$a",)),
        ),
        ("COPY f\\$a g\\ h /", Copy(sources=("f$a", "g", "h"), dest="/")),
        (
            "ADD --checksum=sha256:$sum https://x/$a /",
            Add(sources=("https://x/1",), dest="/", checksum=f"sha256:{SUM}"),
        ),
        ("ADD --checksum=0123abc git://x/$a /", Add(sources=("git://x/1",), dest="/", checksum="0123abc")),
        (
            "COPY <<x <<'y' /\n$a \"q\" \\$a \\n\nx\n$a\ny",
            Copy(
                sources=(),
                dest="/",
                heredocs=(Heredoc("x", '1 "q" $a n\n', expand=False), Heredoc("y", "$a\n", expand=False)),
            ),
        ),
        ("COPY <<-x /\n\t$a\nx", Copy(sources=(), dest="/", heredocs=(Heredoc("x", "1\n", expand=False),))),
        (
            "RUN --mount=type=$kind,target=$dir,uid=$a,id=x$a echo $a",
            Run(
                command=ShellForm("echo $a"),
                mounts=(RunMount(type="cache", target="/d", uid=1, id="x1", readonly=False),),
            ),
        ),
    ],
)
def test_the_fields_that_buildkit_expands_are_expanded(text: str, expected: Instruction) -> None:
    assert expanded(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "RUN echo $a",
        "RUN <<X\n$a\nX",
        "CMD echo $a",
        'CMD ["$a"]',
        "ENTRYPOINT echo $a",
        "HEALTHCHECK CMD echo $a",
        'SHELL ["$a"]',
        "MAINTAINER $a",
        "ONBUILD RUN $a",
        "ONBUILD COPY <<x /\n$a\nx",
    ],
)
def test_everything_else_is_left_as_it_is(text: str) -> None:
    assert expanded(text) == parse(f"FROM base\n{text}\n").stages[0].instructions[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM $empty", "base name should not be blank"),
        ('ENV x="${no?must be set}"', "no: must be set"),
        ("ENV $empty=x", "names can not be blank"),
        ("LABEL x=${", "missing '}'"),
        ("EXPOSE $dir", "invalid"),
        ("EXPOSE 0-65535 0-65535 0-65535 1-2", "more than"),
        ("STOPSIGNAL $a$a$a", "invalid signal"),
        ("VOLUME $empty", "VOLUME can not be an empty string"),
        ("COPY ${no:-https://x}/y /", "COPY cannot fetch"),
        ("ADD --checksum=$a a b /", "--checksum needs exactly one source"),
        ("ADD --checksum=$a local /", "--checksum needs exactly one source"),
        ("ADD --checksum=$a https://x/y /", "--checksum is a digest such as sha256:… or a Git commit, not '1'"),
        ("ADD --checksum=md5:1 https://x/y /", "--checksum is a digest"),
        ("RUN --mount=type=$dir,target=/x y", "unsupported mount type"),
        ("RUN --mount=type=secret,id=$empty y", "a secret mount needs an id"),
        ("WORKDIR 'x", "single quote"),
    ],
)
def test_an_error_of_expansion_has_the_place_of_its_instruction(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        expanded(text)
    assert message in refused.value.message
    assert refused.value.line == 2
    assert f">>> {text}" in refused.value.excerpt


def test_the_escape_character_of_the_file_is_honoured() -> None:
    (workdir,) = parse("# escape=`\nFROM a\nWORKDIR C:\\$a`$a\n").stages[0].instructions
    assert expand_instruction(workdir, ENV, "`") == Workdir(path="C:\\1$a")


def test_what_is_expanded_keeps_its_source() -> None:
    (workdir,) = parse("FROM a\nWORKDIR $a\n").stages[0].instructions
    assert expand_instruction(workdir, ENV).source == workdir.source
