"""The 51 rules of building, one by one: parsing, stages, COPY, RUN, configuration, layers, cache, failures.

The functions are named after the numbers of the rules (docs/reference/dockerfile.md tells where
builders differ). What no container is needed for is built in memory; the RUN rules share one
build on busybox.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from imagetool.api import Workplace, opened
from imagetool.build.worker import Times
from imagetool.dockerfile import parse
from imagetool.errors import BuildError, DockerfileError, ImagetoolError
from imagetool.image.image import Image, load
from imagetool.oci.config import RunConfig
from tests.support.bases import made_once
from tests.support.command import imagetool
from tests.support.workshop import Workshop, file, folder, link, texts, tree


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.base(
        "base",
        folder("etc"),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:101:201::/home/user:/bin/sh\n"),
        file("etc/group", "root:x:0:\nadm:x:4:\nusers:x:201:\n"),
        folder("there", 0o700, 9, 9),
        file("there/old", "old"),
        link("to", "/there"),
        run=RunConfig(cmd=("basecmd",), labels={"base": "1"}, env=("PATH=/bin", "A=1")),
    )
    return made


def config(image: Image) -> RunConfig:
    return image.config.run


def created_by(image: Image) -> list[str]:
    return [entry.created_by for entry in image.config.history]


def refused(shop: Workshop, text: str, match: str | None = None) -> None:
    with pytest.raises(ImagetoolError, match=match):
        shop.build(text)


# Parsing


def test_rule_01_directives_stand_before_all_else(shop: Workshop) -> None:
    found = parse(b"# EsCaPe=`\n# plain\n# escape=\\\nFROM scratch\nENV a=b `\n c=d\n", file="f")
    assert found.directives.escape == "`"
    with pytest.raises(DockerfileError):
        parse(b"# escape=`\n# escape=\\\nFROM scratch\n", file="f")


def test_rule_02_continuations(shop: Workshop) -> None:
    assert config(shop.build("FROM scratch\nENV a=b\\\nc\\ \n  d=e\n")).environment["a"] == "bc"
    assert config(shop.build("FROM scratch\nCMD x \\\\\n")).cmd == ("/bin/sh", "-c", "x \\\\")


def test_rule_03_comments_and_blank_lines_within(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nENV a=1 \\\n# no\n\n  b=2 \\\n")
    assert (config(image).environment["a"], config(image).environment["b"]) == ("1", "2")


def test_rule_04_keywords_and_empty_files(shop: Workshop) -> None:
    assert config(shop.build("from scratch\neNv a=1\n")).environment["a"] == "1"
    for text in ("", "# only\n", "FRM scratch\n", "FROM scratch\nRUN " + "x" * 70_000 + "\n"):
        refused(shop, text)


def test_rule_05_flags(shop: Workshop) -> None:
    shop.write("a")
    for text in ("COPY --chwn=1 a /", "COPY --chown=1 --chown=2 a /", "COPY --link=maybe a /"):
        refused(shop, f"FROM scratch\n{text}\n")
    shop.write("--a", "dashes")
    assert texts(shop.build("FROM scratch\nCOPY -- --a /x\n")) == {"x": "dashes"}


def test_rule_06_json_and_word_forms(shop: Workshop) -> None:
    shop.write("a b", "spaced")
    assert texts(shop.build('FROM scratch\nCOPY ["a b", "/x"]\n')) == {"x": "spaced"}
    assert config(shop.build("FROM scratch\nCMD ['a']\n")).cmd == ("/bin/sh", "-c", "['a']")
    refused(shop, 'FROM scratch\nCOPY "a b" /x\n')


def test_rule_07_env_forms(shop: Workshop) -> None:
    env = config(shop.build("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV old one two\n")).environment
    assert (env["abc"], env["def"], env["old"]) == ("bye", "hello", "one two")
    refused(shop, "FROM scratch\nENV a=1 b\n")
    refused(shop, "FROM scratch\nENV a\n")


def test_rule_08_healthcheck(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nHEALTHCHECK --interval=5s --retries=3 CMD test x\n")
    assert config(image).healthcheck == {"Test": ["CMD-SHELL", "test x"], "Interval": 5 * 10**9, "Retries": 3}
    assert config(shop.build("FROM scratch\nHEALTHCHECK NONE\n")).healthcheck == {"Test": ["NONE"]}
    refused(shop, "FROM scratch\nHEALTHCHECK NONE x\n")
    refused(shop, "FROM scratch\nHEALTHCHECK --interval=1us CMD x\n")


def test_rule_09_heredocs(shop: Workshop) -> None:
    text = "FROM scratch\nENV v=1\nCOPY <<a <<-'b' /d/\n$v\na\n\t$v\n\tb\n"
    assert texts(shop.build(text)) == {"d/a": "1\n", "d/b": "$v\n"}
    refused(shop, "FROM scratch\nCOPY <<a /d/\nx\n")


def test_rule_10_heredocs_of_copy_are_files_of_root(shop: Workshop) -> None:
    made = tree(shop.build('FROM scratch\nUSER 7\nENV v=1\nCOPY <<x /d/\n"$v"\nx\n'))
    entry, data = made["d/x"]
    assert (entry.mode, entry.uid, entry.gid, data) == (0o644, 0, 0, b'"1"\n')


def test_rule_11_expansion(shop: Workshop) -> None:
    text = "FROM scratch\nENV a=1\nENV b=\\$a c='$a' d=\"\\$a\" e=${none:-w} f=x${none}y g=${a:+set}\n"
    env = config(shop.build(text)).environment
    assert [env[name] for name in "bcdefg"] == ["$a", "$a", "$a", "w", "xy", "set"]
    refused(shop, "FROM scratch\nENV a=${}\n")
    refused(shop, 'FROM scratch\nENV a="${none:?is needed}"\n', "is needed")


def test_rule_12_what_is_expanded(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nENV u=7 p=80 s=9\nUSER $u\nEXPOSE $p\nSTOPSIGNAL $s\nCMD $u\nVOLUME /$u\n")
    run = config(image)
    assert (run.user, run.exposed_ports, run.stop_signal, run.volumes) == ("7", ("80/tcp",), "9", ("/7",))
    assert run.cmd == ("/bin/sh", "-c", "$u")


# Stages and ARG


def test_rule_13_global_args(shop: Workshop) -> None:
    text = "ARG B=base\nARG V=$B-1\nFROM $B\nENV one=$V\nARG V\nENV two=$V\nARG W=d\nENV three=$W\n"
    env = config(shop.build(text, build_args={"W": "given"})).environment
    assert (env["one"], env["two"], env["three"]) == ("", "base-1", "given")


def test_rule_14_env_beats_an_earlier_arg(shop: Workshop) -> None:
    env = config(shop.build("FROM scratch\nARG v=arg\nENV v=env\nENV seen=$v\n", build_args={"v": "given"})).environment
    assert (env["v"], env["seen"]) == ("env", "env")


def test_rule_15_proxy_and_platform_args(shop: Workshop) -> None:
    shop.build("FROM base\nRUN x\n", build_args={"HTTP_PROXY": "http://p"})
    assert shop.executor.env["HTTP_PROXY"] == "http://p"
    image = shop.build("FROM base\nRUN x\n", build_args={"HTTP_PROXY": "http://other"})
    assert shop.cached[-1]
    assert "HTTP_PROXY" not in str(created_by(image))
    env = config(
        shop.build(
            "FROM scratch\nENV a=$TARGETARCH\nARG TARGETARCH TARGETVARIANT\nENV b=$TARGETARCH c=$TARGETVARIANT\n"
        )
    )
    assert [env.environment[name] for name in "abc"] == ["", "amd64", ""]


def test_rule_16_names_of_stages(shop: Workshop) -> None:
    text = "FROM base AS Build\nCOPY <<x /x\n1\nx\nFROM scratch\nCOPY --from=BUILD /x /y\nCOPY --from=0 /x /z\n"
    assert texts(shop.build(text)) == {"y": "1\n", "z": "1\n"}
    assert "etc/passwd" in tree(shop.build("FROM base AS base\n"))
    refused(shop, "FROM scratch AS a\nCOPY --from=0 /x /x\n")
    refused(shop, "FROM scratch AS a\nCOPY --from=1 /x /x\nFROM scratch\n")


def test_rule_17_only_what_the_target_needs(shop: Workshop) -> None:
    text = "FROM nowhere AS unused\nFROM scratch AS want\nENV a=1\nFROM nowhere\n"
    assert config(shop.build(text, target="WANT")).environment["a"] == "1"
    refused(shop, 'FROM "${none}"\n')


def test_rule_18_scratch(shop: Workshop) -> None:
    image = shop.build("FROM scratch\n")
    assert (image.layers, config(image).working_dir) == ((), "/")
    assert config(image).environment["PATH"].startswith("/usr/local/sbin:")


def test_rule_19_stages_and_triggers(shop: Workshop) -> None:
    shop.bases["child"] = shop.build("FROM base\nONBUILD ENV t=1\nONBUILD COPY --from=own /x /got\nLABEL a=b\n")
    assert config(shop.bases["child"]).on_build == ("ENV t=1", "COPY --from=own /x /got")
    image = shop.build("FROM scratch AS own\nCOPY <<x /x\n1\nx\nFROM child\n")
    assert config(image).environment["t"] == "1"
    assert config(image).labels == {"base": "1", "a": "b"}
    assert texts(image)["got"] == "1\n"
    assert config(image).on_build == ()
    for trigger in ("ONBUILD ENV a=1", "FROM scratch", "MAINTAINER x"):
        refused(shop, f"FROM scratch\nONBUILD {trigger}\n")


# COPY and ADD


def test_rule_20_sources_stay_in_the_context(shop: Workshop) -> None:
    shop.write("a", "in")
    (shop.place / "a").write_text("out")
    (shop.context / "l").symlink_to("/a")
    assert texts(shop.build("FROM scratch\nCOPY ../a /x\nCOPY l /y\n")) == {"x": "in", "y": "in"}
    refused(shop, "FROM scratch\nCOPY http://h/x /x\n")
    refused(shop, "FROM scratch\nCOPY --checksum=sha256:0 a /x\n")


def test_rule_21_directories_and_files(shop: Workshop) -> None:
    shop.write("d/a", "1")
    for source in ("d", "d/", "d/."):
        assert texts(shop.build(f"FROM scratch\nCOPY {source} /x\n")) == {"x/a": "1"}
    assert set(texts(shop.build("FROM scratch\nCOPY d/a /x\nCOPY d/a /y/\n"))) == {"x", "y/a"}
    assert texts(shop.build("FROM base\nCOPY d/a /there\n"))["there/a"] == "1"


def test_rule_22_destinations(shop: Workshop) -> None:
    shop.write("a", "1")
    made = tree(shop.build("FROM base\nWORKDIR /w\nCOPY a .\nCOPY a p/q/\nCOPY a /to/\n"))
    assert {"w/a", "w/p/q/a", "there/a"} <= set(made)
    assert (made["w/p"][0].mode, made["w/p"][0].uid) == (0o755, 0)


def test_rule_23_what_exists(shop: Workshop) -> None:
    shop.write("d/old", "new")
    made = tree(shop.build("FROM base\nCOPY d /there\n"))
    assert (made["there"][0].mode, made["there"][0].uid, made["there/old"][1]) == (0o700, 9, b"new")
    shop.write("e/passwd/x")
    refused(shop, "FROM base\nCOPY e /etc\n")


def test_rule_24_links(shop: Workshop) -> None:
    shop.write("d/a", "1")
    (shop.context / "d/l").symlink_to("a")
    (shop.context / "top").symlink_to("d/a")
    made = tree(shop.build("FROM scratch\nCOPY d /d\nCOPY top /t\n"))
    assert (made["d/l"][0].linkname, made["t"][1]) == (b"a", b"1")


def test_rule_25_wildcards(shop: Workshop) -> None:
    for name in ("a.x", ".b.x", "c.y", "d/e.x"):
        shop.write(name, name)
    assert set(texts(shop.build("FROM scratch\nCOPY *.x none*.z /\n"))) == {"a.x", ".b.x"}
    assert set(texts(shop.build("FROM scratch\nCOPY [^c]* /\n"))) == {"a.x", ".b.x", "e.x"}
    refused(shop, "FROM scratch\nCOPY none*.z /\n")
    refused(shop, "FROM scratch\nCOPY missing /\n", "missing")


def test_rule_26_owners(shop: Workshop) -> None:
    shop.write("a")
    made = tree(
        shop.build(
            "FROM base\nUSER user\nCOPY a /a\nCOPY --chown=user a /b\nCOPY --chown=1:adm a /c\nCOPY --chown=5 a /d\n"
        )
    )
    assert [made[name][0][3:5] for name in "abcd"] == [(0, 0), (101, 201), (1, 4), (5, 5)]
    text = "FROM base AS s\nCOPY --chown=101:201 a /d/sub/a\nFROM scratch\nCOPY --from=s /d /dir\n"
    made = tree(shop.build(text))
    assert (made["dir"][0][3:5], made["dir/sub"][0][3:5]) == ((0, 0), (101, 201))
    refused(shop, "FROM base\nCOPY --chown=nobody a /\n")


def test_rule_27_modes(shop: Workshop) -> None:
    shop.write("d/a", mode=0o4751)
    made = tree(shop.build("FROM scratch\nCOPY d /d\nCOPY --chmod=640 d /e\nCOPY --chmod=u=rwX,go= d /f\n"))
    assert [made[name][0].mode for name in ("d/a", "e", "e/a", "f", "f/a")] == [0o4751, 0o640, 0o640, 0o700, 0o700]
    refused(shop, "FROM scratch\nCOPY --chmod=99999 d /e\n")


def test_rule_28_archives_and_urls(shop: Workshop) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("in/a")
        member.size, member.uid, member.mode = 1, 7, 0o600
        tar.addfile(member, io.BytesIO(b"1"))
    shop.write("no-suffix", packed.getvalue())
    shop.write("fake.tar.gz", b"not a tar")
    made = tree(shop.build("FROM scratch\nADD no-suffix /d\nADD --unpack=false no-suffix /p\nADD fake.tar.gz /\n"))
    assert (made["d/in/a"][0].uid, made["d/in/a"][0].mode) == (7, 0o600)
    assert (made["p"][1], made["fake.tar.gz"][1]) == (packed.getvalue(), b"not a tar")
    shop.downloads["http://h/p/x.tgz"] = ("", 0, packed.getvalue())
    made = tree(shop.build("FROM scratch\nADD http://h/p/x.tgz /u/\nADD --unpack http://h/p/x.tgz /v/\n"))
    assert made["u/x.tgz"][0].mode == 0o600
    assert "v/in/a" in made


def test_rule_29_ignored_files(shop: Workshop) -> None:
    for name in ("a.txt", "d/b.txt", "d/keep.txt", "e/c"):
        shop.write(name)
    image = shop.build("FROM scratch\nCOPY . /\n", ignore="# no\n/d\n!d/keep.txt\n**/c\n")
    assert set(texts(image)) == {"a.txt", "d/keep.txt"}
    assert set(texts(shop.build("FROM scratch\nCOPY --exclude=*.txt . /\n"))) == {"d/b.txt", "d/keep.txt", "e/c"}
    with pytest.raises(BuildError, match=r"a\.txt"):
        shop.build("FROM scratch\nCOPY a.txt /\n", ignore="a.txt")


def test_rule_30_parents(shop: Workshop) -> None:
    shop.write("a/b/c/f", "1")
    (shop.context / "a/b").chmod(0o711)
    made = tree(
        shop.build("FROM scratch\nCOPY --parents a/b/c/f /x/\nCOPY --parents a/./b/c/f /y/\nCOPY --parents **/f /z/\n")
    )
    assert {"x/a/b/c/f", "y/b/c/f", "z/a/b/c/f"} <= set(made)
    assert made["x/a/b"][0].mode == 0o711


def test_rule_31_linked_layers_do_not_hang_on_the_base(shop: Workshop) -> None:
    shop.write("a")
    one = shop.build("FROM base\nCOPY --link a /to/a\n").layers[-1]
    two = shop.build("FROM scratch\nCOPY --link a /to/a\n").layers[-1]
    assert one.diff_id == two.diff_id
    assert shop.cached[-1]


# RUN and its container: one build for all

RUN_RULES = """\
FROM busybox AS base
RUN echo 'user:x:101:201::/home/user:/bin/sh' >> /etc/passwd && echo 'grp:x:201:' >> /etc/group
RUN echo 32 > /r32 && [ "$(tr '\\000' ' ' < /proc/$$/cmdline | cut -c1-11)" = "/bin/sh -c " ]
ENTRYPOINT ["/never"]
RUN ["/bin/sh", "-c", "echo exec > /r32b"]
ARG V=arg
RUN { echo "$V $HOME $(umask) $(hostname)"; wc -c < /dev/stdin; } > /r33
USER 101
RUN { id -u; id -g; echo $HOME; } > /tmp/r34
USER 4242
RUN { id -u; id -g; echo $HOME; } > /tmp/r34b
USER user:0
RUN id -g > /tmp/r34c
USER root
RUN grep -q . /etc/resolv.conf; grep -q localhost /etc/hosts && echo seen > /r35
WORKDIR /w
RUN --mount=type=bind,source=ctx,target=m,rw echo written > m/new && cat m/file > /r36 && ls / > /r36ls
RUN --mount=type=cache,target=/cache echo 1 >> /cache/f && cat /cache/f > /r36c
RUN --mount=type=cache,target=/cache cat /cache/f > /r36d
VOLUME /vol
RUN mkdir -p /vol && echo kept > /vol/r37
SHELL ["/bin/sh", "-e", "-c"]
RUN echo $- | cat > /shell
RUN <<one
echo first > /heredoc
echo second >> /heredoc
one
RUN <<two
#!/bin/cat
script
two
"""


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Build `RUN_RULES` once; return path -> (entry, content)."""

    def make(root: Path) -> None:
        imagetool("base", "busybox", root=root)
        context = root / "context"
        (context / "ctx").mkdir(parents=True, exist_ok=True)
        (context / "ctx/file").write_text("bound\n")
        (context / "Dockerfile").write_text(RUN_RULES)
        imagetool("build", "-t", "ran", context, root=root)

    root = made_once(tmp_path_factory, "rules", make)
    with opened("ran", Workplace(root)) as (store, descriptor):
        return tree(load(store, descriptor))


def said(ran: dict[str, Any], name: str) -> str:
    text: bytes = ran[name][1]
    return text.decode().strip()


pytest_root = pytest.mark.root


@pytest_root
def test_rule_32_shell_and_exec_form(ran: dict[str, Any]) -> None:
    assert said(ran, "r32").startswith("32")
    assert said(ran, "r32b") == "exec"
    assert said(ran, "heredoc") == "first\nsecond"
    assert "e" in said(ran, "shell")


@pytest_root
def test_rule_33_environment(ran: dict[str, Any]) -> None:
    first, size = said(ran, "r33").splitlines()
    assert first == "arg /root 0022 buildkitsandbox"
    assert size == "0"


@pytest_root
def test_rule_34_users(ran: dict[str, Any]) -> None:
    assert said(ran, "tmp/r34").split() == ["101", "201", "/home/user"]
    assert said(ran, "tmp/r34b").split() == ["4242", "0", "/"]
    assert said(ran, "tmp/r34c") == "0"


@pytest_root
def test_rule_35_files_of_the_network_are_not_committed(ran: dict[str, Any]) -> None:
    assert said(ran, "r35") == "seen"
    assert not {"etc/hosts", "etc/resolv.conf", "etc/hostname"} & set(ran)


@pytest_root
def test_rule_36_mounts(ran: dict[str, Any]) -> None:
    assert said(ran, "r36") == "bound"
    assert not [name for name in ran if name.startswith(("w/m", "cache"))]
    assert said(ran, "r36c") == said(ran, "r36d") == "1"


@pytest_root
def test_rule_37_volumes_keep_what_is_written(ran: dict[str, Any]) -> None:
    assert said(ran, "vol/r37") == "kept"


# Configuration


def test_rule_38_cmd_and_entrypoint(shop: Workshop) -> None:
    assert config(shop.build('FROM base\nENTRYPOINT ["e"]\n')).cmd is None
    assert config(shop.build('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]\n')).cmd == ("c",)
    assert not config(shop.build("FROM base\nCMD []\n")).cmd
    assert config(shop.build('FROM base\nSHELL ["/s"]\nCMD x\n')).cmd == ("/s", "x")


def test_rule_39_workdir(shop: Workshop) -> None:
    image = shop.build("FROM base\nWORKDIR /\nWORKDIR a\nUSER 101:201\nWORKDIR b/\n")
    made = tree(image)
    assert (config(image).working_dir, made["a"][0].uid, made["a/b"][0].uid) == ("/a/b", 0, 101)
    assert len(image.layers) == 3
    assert tree(shop.build("FROM base\nWORKDIR /there\n"))["there"][0].mode == 0o700


def test_rule_40_other_instructions(shop: Workshop) -> None:
    image = shop.build(
        "FROM base\nEXPOSE 80 53/UDP 7000-7001\nLABEL base=2 x=y\nSTOPSIGNAL SIGKILL\nMAINTAINER me\nENV A=2 B=3\n"
    )
    run = config(image)
    assert set(run.exposed_ports) == {"80/tcp", "53/udp", "7000/tcp", "7001/tcp"}
    assert (run.labels, run.stop_signal, image.config.author) == ({"base": "2", "x": "y"}, "SIGKILL", "me")
    assert run.env == ("PATH=/bin", "A=2", "B=3")


def test_rule_41_metadata_makes_no_layers(shop: Workshop) -> None:
    image = shop.build("FROM base\nENV a=b\nUSER x\nLABEL l=1\n")
    assert len(image.layers) == 1
    assert [entry.empty_layer for entry in image.config.history] == [False, True, True, True]


# Layers, history, time


def test_rule_42_history(shop: Workshop) -> None:
    shop.write("a")
    image = shop.build("FROM base\nARG x=1\nRUN y\nCOPY a /a\nENV k=v\n")
    said = created_by(image)[1:]
    assert said[1].startswith("RUN |1 x=1 /bin/sh -c y")
    assert said[2].startswith("COPY a /a")
    assert "ENV k=v" in said[3]
    assert sum(not entry.empty_layer for entry in image.config.history) == len(image.config.diff_ids)


def test_rule_43_times(shop: Workshop) -> None:
    shop.write("a")
    image = shop.build("FROM base\nCOPY a /a\nENV a=b\n", times=Times(1_000_000_000))
    assert image.config.created == "2001-09-09T01:46:40Z"
    assert {entry.created for entry in image.config.history[1:]} == {"2001-09-09T01:46:40Z"}
    assert image.config.history[0].created == "1970-01-01T00:00:00Z"
    assert image.layers[0] == shop.bases["base"].layers[0]
    assert tree(image)["a"][0].mtime <= 10**18


def test_rule_44_whiteouts(shop: Workshop) -> None:
    def act(upper: Path) -> int:
        (upper / "there").symlink_to("etc")  # a directory becomes a link
        return 0

    shop.executor.act = act
    made = tree(shop.build("FROM base\nRUN x\n"))
    assert made["there"][0].kind == "symlink"
    assert "there/old" not in made


def test_rule_45_hard_links(shop: Workshop) -> None:
    shop.write("d/a", "1")
    (shop.context / "d/b").hardlink_to(shop.context / "d/a")
    made = tree(shop.build("FROM scratch\nCOPY d /d\n"))
    assert (made["d/b"][0].kind, made["d/b"][0].linkname) == ("link", b"d/a")


def test_rule_46_diff_ids_do_not_hang_on_compression(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text("FROM scratch\nCOPY <<x /x\n1\nx\n")
    found = []
    for compression in ("gzip", "zstd", "none"):
        imagetool("build", "-t", "x", "--compression", compression, tmp_path / "c", root=tmp_path / "s")
        with opened("x", Workplace(tmp_path / "s")) as (store, descriptor):
            image = load(store, descriptor)
            found.append((image.layers[0].diff_id, image.layers[0].descriptor.digest))
    assert len({diff_id for diff_id, _ in found}) == 1
    assert len({digest for _, digest in found}) == 3


# Cache


def test_rule_47_content_counts_and_time_does_not(shop: Workshop) -> None:
    shop.write("a1", "x")
    build = "FROM scratch\nCOPY a* /d/\n"
    shop.build(build)
    shop.write("a1", "x")
    shop.build(build)
    assert shop.cached[-1]
    (shop.context / "a1").rename(shop.context / "a2")
    shop.build(build)
    assert not shop.cached[-1]
    (shop.context / "a2").chmod(0o755)
    shop.build(build)
    assert not shop.cached[-1]


def test_rule_48_what_a_run_depends_on(shop: Workshop) -> None:
    def cached(body: str = "one", value: str = "1") -> bool:
        shop.build(f"FROM base\nARG V\nRUN <<E\n{body}\nE\n", build_args={"V": value})
        return shop.cached[-1]

    assert [cached(), cached(), cached("two"), cached("two", "2"), cached("two", "2")] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_rule_49_env_that_says_the_same_hits(shop: Workshop) -> None:
    shop.build("FROM base\nENV a=b\nRUN x\n")
    shop.build("FROM base\nENV a=b\nENV a=b\nRUN x\n")
    assert shop.cached[-1]
    shop.build("FROM base\nENV a=b\nRUN x\n", use_cache=False)
    assert not shop.cached[-1]


# Failures and security


def test_rule_50_failures_name_the_place_and_leave_nothing(shop: Workshop) -> None:
    shop.executor.act = lambda _: 7
    with pytest.raises(BuildError, match="exit code 7") as failed:
        shop.build("FROM base\n\nRUN false\n")
    assert any("Dockerfile:3" in note for note in failed.value.__notes__)
    left = [path.name for path in (shop.place / "snapshots").iterdir() if path.name.startswith(("new-", "staged"))]
    assert left == []


def test_rule_51_nothing_of_the_host_gets_in(shop: Workshop) -> None:
    (shop.place / "secret").write_text("host")
    (shop.context / "up").symlink_to("..")
    (shop.context / "abs").symlink_to(shop.place / "secret")
    for source in ("up/secret", "abs", "../secret", "up/../../secret"):
        refused(shop, f"FROM scratch\nCOPY {source} /x\n", "not found")
        refused(shop, f"FROM base\nRUN --mount=type=bind,source={source},target=/m x\n", "not found")
        refused(shop, f"FROM scratch\nADD {source} /x\n", "not found")
    # Links of an image are followed inside the image.
    shop.base("evil", link("up", "../../../.."), link("abs", str(shop.place)), folder("d"))
    for source in ("/up/secret", "/abs/secret"):
        refused(shop, f"FROM scratch\nCOPY --from=evil {source} /x\n", "not found")


def test_every_rule_has_a_case() -> None:
    numbers = {int(found[1]) for name in globals() if (found := re.match(r"test_rule_(\d\d)_", name))}
    assert numbers == set(range(1, 52))
