"""Rules 20 to 31: COPY and ADD."""

from __future__ import annotations

import io
import tarfile

import pytest

from imagetool.errors import BuildError
from tests.integration.build.rules.saying import refused
from tests.support.workshop import Workshop, texts, tree

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
