"""Rules 38 to 51: configuration, layers, cache, failures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.build.worker import Times
from imagetool.errors import BuildError
from imagetool.image.image import load
from tests.integration.build.rules import test_files, test_run, test_text
from tests.integration.build.rules.saying import config, created_by, refused
from tests.support.command import imagetool
from tests.support.workshop import Workshop, folder, link, tree

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
    modules = (test_text, test_files, test_run, sys.modules[__name__])
    names = [name for module in modules for name in vars(module)]
    numbers = [int(found[1]) for name in names if (found := re.match(r"test_rule_(\d\d)_", name))]
    assert sorted(numbers) == list(range(1, 52))
