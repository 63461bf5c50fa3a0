"""Rules 1 to 19: parsing, variables, stages."""

from __future__ import annotations

import pytest

from imagetool.dockerfile import parse
from imagetool.errors import DockerfileError
from tests.integration.build.rules.saying import config, created_by, refused
from tests.support.workshop import Workshop, texts, tree

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
