"""Statements to typed instructions: rules 4 to 8, 13, 16, 19, 20, 32, 38 and 40 of the build reference."""

from __future__ import annotations

import pytest

from imagetool.dockerfile import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    ExecutableHeredoc,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    RunDevice,
    Shell,
    ShellForm,
    Stopsignal,
    User,
    Volume,
    Workdir,
    parse,
    parse_trigger,
    script_of,
)
from imagetool.errors import DockerfileError


def only(text: str) -> Instruction:
    """Parse one instruction in a stage."""
    (instruction,) = parse(f"FROM base\n{text}\n").stages[0].instructions
    return instruction


def refusal(text: str) -> str:
    with pytest.raises(DockerfileError) as refused:
        parse(f"FROM base\n{text}\n")
    assert refused.value.line == 2
    assert f">>> {text.splitlines()[0]}"[:100] in refused.value.excerpt
    return refused.value.message


S = ShellForm
E = ExecForm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN echo $v  'a b'", Run(command=S("echo $v  'a b'"))),
        ('RUN ["echo", "a b", "\\"\\u00e9"]', Run(command=E(("echo", "a b", '"é')))),
        ('RUN [ "a" , "b" ] ', Run(command=E(("a", "b")))),
        ("RUN ['a', 'b']", Run(command=S("['a', 'b']"))),
        ('RUN ["a"', Run(command=S('["a"'))),
        ('RUN ["a"] b', Run(command=S('["a"] b'))),
        ('RUN ["a",]', Run(command=S('["a",]'))),
        ("RUN [NaN]", Run(command=S("[NaN]"))),
        ('RUN "a"', Run(command=S('"a"'))),
        ('RUN ["\\ud800"]', Run(command=E(("\ufffd",)))),
        ("RUN --network=none --security=insecure x", Run(command=S("x"), network="none", security="insecure")),
        (
            "RUN --device=vendor.com/gpu=all,required x",
            Run(command=S("x"), devices=(RunDevice("vendor.com/gpu=all", True),)),
        ),
        ("RUN -- --x", Run(command=S("--x"))),
        ("RUN x --y", Run(command=S("x --y"))),
        ("CMD x $y", Cmd(command=S("x $y"))),
        ("CMD []", Cmd(command=E(()))),
        ("CMD", Cmd(command=S(""))),
        ('ENTRYPOINT ["x"]', Entrypoint(command=E(("x",)))),
        ("ENTRYPOINT []", Entrypoint(command=E(()))),
        ('SHELL ["/bin/bash", "-c"]', Shell(argv=("/bin/bash", "-c"))),
        (
            "ENV a=1 b='2 3' c=\"4 5\" d=6\\ 7 e=",
            Env(pairs=(("a", "1"), ("b", "'2 3'"), ("c", '"4 5"'), ("d", "6\\ 7"), ("e", ""))),
        ),
        ("ENV a b  c=d", Env(pairs=(("a", "b  c=d"),))),
        ("ENV a=b=c", Env(pairs=(("a", "b=c"),))),
        ("ENV a='b\\' c=d", Env(pairs=(("a", "'b\\'"), ("c", "d")))),
        ('ENV a="b c', Env(pairs=(("a", '"b c'),))),
        ("ENV a=b \\ c=d", Env(pairs=(("a", "b"), ("\\ c", "d")))),
        ('LABEL "a b"=c d.e="f=g"', Label(pairs=(('"a b"', "c"), ("d.e", '"f=g"')))),
        ("LABEL a some text", Label(pairs=(("a", "some text"),))),
        ("ARG a b= c=d e='f g'", Arg(pairs=(("a", None), ("b", ""), ("c", "d"), ("e", "'f g'")))),
        ("MAINTAINER A Name <a@b>", Maintainer(name="A Name <a@b>")),
        ("USER a:b", User(user="a:b")),
        ("WORKDIR /a b/$c", Workdir(path="/a b/$c")),
        ("STOPSIGNAL $s", Stopsignal(signal="$s")),
        ("EXPOSE 90 80/udp\t7000-7002", Expose(ports=("7000-7002", "80/udp", "90"))),
        ("VOLUME /a /b", Volume(paths=("/a", "/b"))),
        ('VOLUME ["/a b"]', Volume(paths=("/a b",))),
        ('VOLUME "/a b"', Volume(paths=('"/a', 'b"'))),
        ("COPY a b /c/", Copy(sources=("a", "b"), dest="/c/")),
        ('COPY ["a b", "/c d"]', Copy(sources=("a b",), dest="/c d")),
        ('COPY "a b" /c', Copy(sources=('"a', 'b"'), dest="/c")),
        (
            "COPY --from=0 --chown=a:b --chmod=u=rwX,go=rX --link --parents=false --exclude=*.o --exclude=d a /",
            Copy(
                sources=("a",), dest="/", from_="0", chown="a:b", chmod="u=rwX,go=rX", link=True, exclude=("*.o", "d")
            ),
        ),
        ("COPY --parents=TRUE a /", Copy(sources=("a",), dest="/", parents=True)),
        ("COPY --from= --chown='a b' x /", Copy(sources=("x",), dest="/", chown="a b")),
        ("COPY --chown=\"a\\\"b\"c'd\\'e' x /", Copy(sources=("x",), dest="/", chown="a\"bcd'e")),
        ("COPY --chown=é\xa0x /", Copy(sources=("x",), dest="/", chown="é")),
        (
            "ADD --checksum=sha256:x --keep-git-dir --unpack=false --link=true https://x/y /",
            Add(sources=("https://x/y",), dest="/", checksum="sha256:x", keep_git_dir=True, unpack=False, link=True),
        ),
        ("HEALTHCHECK NONE", Healthcheck(command=None)),
        ("HEALTHCHECK none", Healthcheck(command=None)),
        ("HEALTHCHECK CMD a  b", Healthcheck(command=S("a  b"))),
        (
            'HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=1ms --start-interval=0 --retries=3 cmd ["a"]',
            Healthcheck(command=E(("a",)), interval=90 * 10**9, timeout=15 * 10**8, start_period=10**6, retries=3),
        ),
        ("ONBUILD run a  b", Onbuild(trigger="run a  b")),
        ("ONBUILD COPY --from=x a /", Onbuild(trigger="COPY --from=x a /")),
    ],
)
def test_an_instruction_is_read(text: str, expected: Instruction) -> None:
    assert only(text) == expected
    assert type(only(text)) is type(expected)
    keyword = text.split()[0]
    assert only(text.replace(keyword, keyword.lower(), 1)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUNN x", "unknown instruction: RUNN (did you mean RUN?)"),
        ("XYZZY", "unknown instruction: XYZZY"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a is b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", "invalid name for a build stage: '1b'"),
        ("FROM a AS b/c", "invalid name for a build stage"),
        ("FROM --plaform=x a", "unknown flag --plaform (did you mean platform?)"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN []", "RUN requires at least one argument"),
        ("RUN --network=none", "RUN requires at least one argument"),
        ("RUN --network=bridge x", "--network is default, none or host, not 'bridge'"),
        ("RUN --security=x x", "--security is sandbox or insecure"),
        ("RUN --privileged x", "unknown flag --privileged"),
        # what only podman and buildah know is no less an error
        ("FROM --after=x a", "unknown flag --after"),
        ("COPY --no-follow-symlinks a /", "unknown flag --no-follow-symlinks"),
        ("COPY --timestamp=1 a /", "unknown flag --timestamp"),
        ("RUN --mount=type=bind,target=/x,bind-propagation=rslave x", "unknown mount option 'bind-propagation'"),
        ("RUN --mount=type=tmpfs,target=/x,tmpcopyup x", "unknown mount option 'tmpcopyup'"),
        ("RUN --mount=type=cache,target=/x,U=true x", "unknown mount option 'U'"),
        ("RUN [1]", "only strings"),
        ('RUN ["a", ["b"]]', "only strings"),
        ('RUN ["a", null]', "only strings"),
        ("CMD [{}]", "only strings"),
        ("CMD --x a", "unknown flag --x"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL /bin/sh -c", "SHELL must be in JSON form"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "can't find = in 'c'"),
        ("ENV =b", "ENV names can not be blank"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("ARG --x y", "unknown flag --x"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME ["a", " "]', "VOLUME can not be an empty string"),
        ("COPY a", "COPY requires at least two arguments"),
        ('COPY ["a"]', "COPY requires at least two arguments"),
        ("COPY --checksum=sha256:x a /", "unknown flag --checksum"),
        ("COPY --form=x a /", "unknown flag --form (did you mean from?)"),
        ("COPY --from=a --from=b c /", "--from is given twice"),
        ("COPY --from a /", "--from needs a value"),
        ("COPY --link= a /", "--link needs a value"),
        ("COPY --link=maybe a /", "--link is true or false, not 'maybe'"),
        ("COPY --from=$x a /", "--from cannot hold a variable"),
        ("COPY https://x/y /", "COPY cannot fetch 'https://x/y': use ADD"),
        ("COPY git@host:x/y.git /", "COPY cannot fetch"),
        ("ADD --from=x a /", "unknown flag --from"),
        ("ADD a", "ADD requires at least two arguments"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK curl x", "unknown type 'curl' in HEALTHCHECK"),
        ("HEALTHCHECK --interval=1us CMD x", "--interval cannot be less than 1ms"),
        ("HEALTHCHECK --interval=-1s CMD x", "--interval cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=5 CMD x", "not a duration: '5'"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD x", "--retries is a number"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "ONBUILD isn't allowed as an ONBUILD trigger"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUNN x", "unknown instruction: RUNN"),
        ("ONBUILD COPY --nope a /", "unknown flag --nope"),
    ],
)
def test_a_wrong_instruction_says_what_and_where(text: str, message: str) -> None:
    assert message in refusal(text)


def test_a_file_is_global_arguments_and_stages() -> None:
    found = parse(
        "ARG a=1\nARG b\nFROM x:$a AS One\nRUN r\nFROM --platform=$b one\nUSER u\nWORKDIR w\n", file="my/File"
    )
    assert found.file == "my/File"
    assert [arg.pairs for arg in found.global_args] == [(("a", "1"),), (("b", None),)]
    assert [stage.base for stage in found.stages] == [From(image="x:$a", name="one"), From(image="one", platform="$b")]
    assert [stage.name for stage in found.stages] == ["one", None]
    assert found.stages[1].instructions == (User(user="u"), Workdir(path="w"))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "the Dockerfile cannot be empty"),
        ("\n \t\n", 0, "file with no instructions"),
        ("# only a comment\n", 0, "file with no instructions"),
        ("ARG a\n", 0, "there is no FROM"),
        ("ARG a\nRUN x\nFROM y\n", 2, "only ARG may stand before the first FROM"),
    ],
)
def test_a_file_without_a_stage_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as refused:
        parse(text)
    assert refused.value.line == line


def test_the_source_of_an_instruction_holds_its_text_as_written_and_joined() -> None:
    text = "FROM a\n  RUN x \\\n  # why\n  y <<E  \nbody\nE\nUSER u\n"
    run = parse(text, file="F").stages[0].instructions[0]
    assert (run.source.file, run.source.first_line, run.source.last_line) == ("F", 2, 6)
    assert run.source.text == "RUN x   y <<E"
    assert run.source.original == "  RUN x \\\n  # why\n  y <<E  \nbody\nE"


def test_an_error_shows_its_lines_with_two_around_them() -> None:
    with pytest.raises(DockerfileError) as refused:
        parse("FROM a\nRUN b\nRUN c\nNOPE d\nRUN e\nRUN f\nRUN g\n")
    assert str(refused.value).startswith("Dockerfile:4: unknown instruction: NOPE")
    assert refused.value.excerpt == "\n".join(
        [
            "--------------------",
            "   2 |     RUN b",
            "   3 |     RUN c",
            "   4 | >>> NOPE d",
            "     |     ^^^^",
            "   5 |     RUN e",
            "   6 |     RUN f",
            "--------------------",
            "hint: if it belongs to the instruction above, the line before it must end in \\",
        ]
    )


def test_a_long_instruction_is_shown_shortened_and_without_control_characters() -> None:
    with pytest.raises(DockerfileError) as refused:
        parse("FROM a\nNOPE \x1b[2J \\\n" + "x \\\n" * 100 + "y" * 1000 + "\n")
    shown = refused.value.excerpt
    assert len(shown.splitlines()) == 23
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_a_copy_takes_its_heredocs_in_order() -> None:
    copy = only("COPY a <<x <<-'y' /d/\n$1\nx\n\t$2\n\ty")
    assert copy == Copy(
        sources=("a",),
        dest="/d/",
        heredocs=(Heredoc("x", "$1\n"), Heredoc("y", "\t$2\n", expand=False, chomp=True)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY a <<x\nx", "cannot have a heredoc as its destination"),
        ("COPY << x /d\nx", "without white space"),
        ('COPY <<"a b" /d\na b', "without white space"),
    ],
)
def test_a_copy_refuses_heredocs_that_it_cannot_place(text: str, message: str) -> None:
    assert message in refusal(text)


def test_a_marker_in_json_form_is_a_file_name() -> None:
    assert only('COPY ["<<x", "/d"]') == Copy(sources=("<<x",), dest="/d")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("RUN <<X\na\nb\nX", ShellForm("a\nb\n")),
        ("RUN <<-X\n\ta\n\tX", ShellForm("a\n")),
        ("RUN <<'X'\n$a\nX", ShellForm("$a\n")),
        ("RUN <<X\n#!/bin/python\nx\nX", ExecutableHeredoc("X", "#!/bin/python\nx\n")),
        ("RUN <<-X\n\t#!/bin/sh\n\tx\nX", ExecutableHeredoc("X", "#!/bin/sh\nx\n")),
        ("RUN python <<X\n#!p\nX", ShellForm("python <<X\n#!p\nX")),
        ("RUN cat <<-X\n\ta\n\tX", ShellForm("cat <<-X\n\ta\nX")),
        ("RUN cat <<X <<Y\na\nX\nb\nY", ShellForm("cat <<X <<Y\na\nX\nb\nY")),
        ("RUN a", ShellForm("a")),
        ('RUN ["a"]', ExecForm(("a",))),
    ],
)
def test_a_run_executes_its_heredoc_or_hands_it_to_the_shell(text: str, script: object) -> None:
    run = only(text)
    assert isinstance(run, Run)
    assert script_of(run) == script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN a", Run(command=ShellForm("a"))),
        ("RUN <<E\n$x\nE", Run(command=ShellForm("<<E"), heredocs=(Heredoc("E", "$x\n"),))),
        ("copy --from=s a b", Copy(sources=("a",), dest="b", from_="s")),
    ],
)
def test_a_trigger_is_parsed_in_the_child(text: str, expected: Instruction) -> None:
    assert parse_trigger(text) == expected
    onbuild = only(f"ONBUILD {text}")
    assert isinstance(onbuild, Onbuild)
    assert parse_trigger(onbuild.trigger) == expected


@pytest.mark.parametrize("text", ["", "RUN a\nRUN b", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "NOPE"])
def test_a_text_that_is_no_trigger_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        parse_trigger(text, file="image base:1")
    assert refused.value.file == "image base:1"


def test_the_test_of_a_health_check_is_what_the_image_config_holds() -> None:
    checks = ["HEALTHCHECK NONE", "HEALTHCHECK CMD a b", 'HEALTHCHECK CMD ["a", "b"]']
    found = [only(check) for check in checks]
    tests = [check.test for check in found if isinstance(check, Healthcheck)]
    assert tests == [("NONE",), ("CMD-SHELL", "a b"), ("CMD", "a", "b")]
