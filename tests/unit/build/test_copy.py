"""COPY: rules 20 to 31 of the build reference, without a container."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from imagetool.errors import BuildError
from imagetool.layer.tarreader import read
from imagetool.oci.descriptor import Descriptor
from imagetool.streams.codecs import decompress
from tests.support.changes import ACL
from tests.support.workshop import EPOCH, Workshop, file, folder, link, texts, tree


@pytest.fixture
def full(shop: Workshop) -> Workshop:
    """A context with directories, dot files, links and modes."""
    shop.write("a.txt", "a")
    shop.write("b.txt", "b")
    shop.write("run.sh", "run", 0o755)
    shop.write("d/one", "1")
    shop.write("d/.hidden", "h")
    shop.write("d/sub/two", "2", 0o600)
    shop.write("e/x.txt", "x")
    shop.write("e/sub/y.txt", "y")
    (shop.context / "d/link").symlink_to("one")
    (shop.context / "to-d").symlink_to("d")
    (shop.context / "to-a").symlink_to("a.txt")
    (shop.context / "out").symlink_to("/etc")
    os.link(shop.context / "a.txt", shop.context / "d/hard")
    os.link(shop.context / "a.txt", shop.context / "d/hard2")
    return shop


def copied(shop: Workshop, *lines: str, **request: object) -> dict[str, str]:
    """Return the texts that instructions add to the base."""
    image = shop.build("\n".join(["FROM base", *lines, ""]), **request)
    return texts(image, layers=range(1, len(image.layers)))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["COPY a.txt /new"], {"new": "a"}),
        (["COPY a.txt /new/"], {"new/a.txt": "a"}),
        (["COPY a.txt /there"], {"there/a.txt": "a"}),
        (["COPY a.txt /p/q/r"], {"p/q/r": "a"}),
        (["COPY a.txt b.txt /m/"], {"m/a.txt": "a", "m/b.txt": "b"}),
        (["COPY a.txt b.txt /m"], {"m/a.txt": "a", "m/b.txt": "b"}),
        (["COPY d /n"], {"n/one": "1", "n/.hidden": "h", "n/sub/two": "2", "n/hard": "a", "n/hard2": ""}),
        (["COPY d/. /n/"], {"n/one": "1", "n/.hidden": "h", "n/sub/two": "2", "n/hard": "a", "n/hard2": ""}),
        (["COPY e d/sub /n"], {"n/x.txt": "x", "n/sub/y.txt": "y", "n/two": "2"}),
        (["COPY ../../a.txt /n"], {"n": "a"}),
        (["COPY /a.txt /n"], {"n": "a"}),
        (["COPY to-a /n"], {"n": "a"}),
        (["COPY to-d/sub /n"], {"n/two": "2"}),
        (["COPY *.txt /g/"], {"g/a.txt": "a", "g/b.txt": "b"}),
        (["COPY ?.txt [a]* /g/"], {"g/a.txt": "a", "g/b.txt": "b"}),
        (["COPY d/s* /g/"], {"g/two": "2"}),
        (["COPY d/* /g/"], {"g/one": "1", "g/.hidden": "h", "g/two": "2", "g/hard": "a", "g/hard2": "a",
            "g/link": "1"}),
        (["COPY */x.txt /g/"], {"g/x.txt": "x"}),
        (["COPY nope* a.txt /g/"], {"g/a.txt": "a"}),
        (['COPY ["a.txt", "/with space"]'], {"with space": "a"}),
        (["WORKDIR /w", "COPY a.txt ."], {"w/a.txt": "a"}),
        (["WORKDIR /w", "COPY a.txt sub/"], {"w/sub/a.txt": "a"}),
        (["WORKDIR /w", "COPY a.txt ../n"], {"n": "a"}),
        (["ENV to=/env from=a", "COPY ${from}.txt $to/"], {"env/a.txt": "a"}),
        (["COPY a.txt /bin/tool"], {"usr/bin/tool": "a"}),
        (["COPY a.txt /bin/"], {"usr/bin/a.txt": "a"}),
        (["COPY a.txt /etc/link/n"], {"there/n": "a"}),
        (["COPY a.txt /dangling/"], {"made/through/a.txt": "a"}),
        (["COPY --exclude=*.txt . /n/"], {"n/run.sh": "run", "n/d/one": "1", "n/d/.hidden": "h", "n/d/sub/two": "2",
            "n/d/hard": "a", "n/d/hard2": "", "n/e/x.txt": "x", "n/e/sub/y.txt": "y"}),
        (["COPY --exclude=**/*.txt --exclude=d e /n/"], {}),
        (["COPY --exclude=**/*.txt --exclude=!e/sub/y.txt --exclude=d . /n/"],
            {"n/run.sh": "run", "n/e/sub/y.txt": "y"}),
        (["COPY --parents e/sub/y.txt /n/"], {"n/e/sub/y.txt": "y"}),
        (["COPY --parents e/./sub/y.txt d/./one /n/"], {"n/sub/y.txt": "y", "n/one": "1"}),
        (["COPY --parents **/*.txt /n/"], {"n/a.txt": "a", "n/b.txt": "b", "n/e/x.txt": "x", "n/e/sub/y.txt": "y"}),
        (["COPY --parents nope* a.txt /n/"], {"n/a.txt": "a"}),
    ],
)  # fmt: skip
def test_what_lands_where(full: Workshop, lines: list[str], expected: dict[str, str]) -> None:
    assert copied(full, *lines) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY nope /n", "'nope' not found"),
        ("COPY out/passwd /n", "not found"),
        ("COPY nope* /n", "nope*"),
        ("COPY --parents nope /n/", "'nope' not found"),
        ("COPY a.txt /there/old/", "/there/old"),
        ("COPY a.txt b.txt /there/old", "/there/old"),
        ("COPY a.txt /there/old/n", "there/old"),
        ("COPY e/sub /there/old", "there/old"),
        ("COPY d/sub/two /there/below/../below/x/../../below", "below"),
        ("COPY --chmod=98 a.txt /n", "98"),
        ("COPY --chmod=u=rwz a.txt /n", "u=rwz"),
        ("COPY --chown=ghost a.txt /n", "ghost"),
        ("COPY --chown=user:ghosts a.txt /n", "ghosts"),
        ("COPY --from=base /nothing /n", "not found"),
    ],
)
def test_what_cannot_be_copied(full: Workshop, line: str, message: str) -> None:
    if message == "below":
        assert copied(full, line) == {"there/below/two": "2"}  # a path is cleaned before it is looked at
        return
    with pytest.raises(BuildError) as refused:
        copied(full, line)
    assert message in str(refused.value)
    assert "Dockerfile:2" in str(refused.value) + "".join(refused.value.__notes__)


def entry_of(shop: Workshop, name: str, *lines: str) -> tuple[int, int, int]:
    """Return mode, owner and group of a path."""
    entry = tree(shop.build("\n".join(["FROM base", *lines, ""])))[name][0]
    return entry.mode, entry.uid, entry.gid


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("n", "USER user\nCOPY a.txt /n", (0o644, 0, 0)),
        ("n", "COPY run.sh /n", (0o755, 0, 0)),
        ("n/sub/two", "COPY d /n", (0o600, 0, 0)),
        ("n", "COPY --chown=7:8 a.txt /n", (0o644, 7, 8)),
        ("n", "COPY --chown=7 a.txt /n", (0o644, 7, 7)),
        ("n", "COPY --chown=user a.txt /n", (0o644, 101, 201)),
        ("n", "COPY --chown=user:staff a.txt /n", (0o644, 101, 50)),
        ("n", "COPY --chown=1:staff a.txt /n", (0o644, 1, 50)),
        ("p/q", "COPY --chown=7:8 a.txt /p/q/r", (0o755, 7, 8)),
        ("p/q", "COPY a.txt /p/q/r", (0o755, 0, 0)),
        ("there", "COPY --chown=7:8 d /there", (0o700, 9, 9)),
        ("there/sub", "COPY --chown=7:8 d /there", (0o755, 7, 8)),
        ("n", "COPY --chmod=4711 a.txt /n", (0o4711, 0, 0)),
        ("n/sub", "COPY --chmod=700 d /n", (0o700, 0, 0)),
        ("n/sub", "COPY --chmod=u=rwX,go=rX d /n", (0o755, 0, 0)),
        ("n/sub/two", "COPY --chmod=u=rwX,go=rX d /n", (0o644, 0, 0)),
        ("n/run.sh", "COPY --chmod=a-x,g+w run.sh /n/", (0o664, 0, 0)),
        ("n/run.sh", "COPY --chmod=u+s,+t run.sh /n/", (0o5755, 0, 0)),
        ("n", "COPY <<n /\ntext\nn", (0o644, 0, 0)),
        ("n", "COPY --chown=7:8 --chmod=755 <<n /\ntext\nn", (0o755, 7, 8)),
    ],
)
def test_owner_and_mode(full: Workshop, name: str, line: str, expected: tuple[int, int, int]) -> None:
    assert entry_of(full, name, line) == expected


@pytest.mark.parametrize("origin", ["", "--from=other "])
def test_what_a_later_source_has_stands_in_an_earlier_one_s_place(shop: Workshop, origin: str) -> None:
    """However many files the directories that meet hold, a path is in the layer once."""
    for name in ("1/a", "1/b", "1/both/a", "1/both/b", "1/both/c", "1/own/x", "2/b", "2/both/b", "2/both/d", "b", "z"):
        shop.write(name, name)
    text = f"FROM scratch AS other\nCOPY . /\nFROM scratch\nCOPY {origin}1 2 b z /n/\n"
    image = shop.build(text)
    with image.content.fetch(image.layers[-1].descriptor) as chunks:
        entries = [
            (entry.name.decode(), b"".join(data)) for entry, data in read(decompress(chunks, where="t"), where="t")
        ]
    expected = {"n/b": b"b", "n/both/b": b"2/both/b", "n/both/d": b"2/both/d", "n/z": b"z"}
    expected |= {f"n/{name}": f"1/{name}".encode() for name in ("a", "both/a", "both/c", "own/x")}
    assert {name: data for name, data in entries if data} == expected
    assert len({name for name, _ in entries}) == len(entries)
    if not origin:  # the order is that of the sources
        files = ["n/a", "n/b", "n/both/a", "n/both/b", "n/both/c", "n/own/x", "n/both/d", "n/z"]
        assert [name for name, data in entries if data] == files


def test_links_in_a_directory_stay_links(full: Workshop) -> None:
    found = tree(full.build("FROM base\nCOPY d /n\n"))
    assert (found["n/link"][0].kind, found["n/link"][0].linkname) == ("symlink", b"one")
    assert (found["n/hard2"][0].kind, found["n/hard2"][0].linkname) == ("link", b"n/hard")


def test_files_of_another_stage_keep_their_owner(shop: Workshop) -> None:
    shop.base("other", folder("src", 0o711, 5, 6), folder("src/in", 0o750, 5, 6), file("src/in/f", "f", 0o6755, 5, 6),
              link("src/to", "in"), file("src/cap", "c", 0o755))  # fmt: skip
    image = shop.build("FROM other AS one\nFROM base\nCOPY --from=one /src /n\nCOPY --from=other /src/to/f /m\n")
    found = tree(image)
    assert [(found[name][0].mode, found[name][0].uid, found[name][0].gid) for name in ("n", "n/in", "n/in/f", "m")] == [
        (0o755, 0, 0),
        (0o750, 5, 6),
        (0o6755, 5, 6),
        (0o6755, 5, 6),
    ]
    assert found["n/to"][0].linkname == b"in"


def test_stages_are_named_by_number_and_in_any_case(shop: Workshop) -> None:
    shop.write("a", "a")
    text = "FROM scratch AS First\nCOPY a /a\nFROM scratch\nCOPY --from=0 /a /0\nCOPY --from=FIRST /a /1\n"
    assert texts(shop.build(text)) == {"0": "a", "1": "a"}


def test_link_makes_the_same_layer_whatever_is_below(shop: Workshop) -> None:
    shop.write("f", "f")
    one = shop.build("FROM base\nCOPY --link f /etc/link/x/\n")
    two = shop.build("FROM scratch\nCOPY --link f /etc/link/x/\n")
    assert one.layers[-1] == two.layers[-1]
    assert texts(two) == {"etc/link/x/f": "f"}


def test_times_of_the_context_do_not_count(shop: Workshop) -> None:
    path = shop.write("d/f", "f")
    os.utime(path, (10**9, 10**9))
    found = tree(shop.build("FROM scratch\nCOPY . /n\n"))
    assert {entry.mtime for entry, _ in found.values()} == {EPOCH}


@pytest.mark.parametrize(
    ("marker", "body", "expected"),
    [
        ("<<E", "a $name ${name:-x} ${no:-y} \"q\" 'r' \\$name", "a val val y \"q\" 'r' $name\n"),
        ("<<'E'", "a $name ${name}", "a $name ${name}\n"),
        ('<<"E"', "a $name", "a $name\n"),
        ("<<-E", "\t\ttabs\n\t go", "tabs\n go\n"),
        ("<<E", "RUN not an instruction\nFROM evil", "RUN not an instruction\nFROM evil\n"),
    ],
)
def test_heredocs(shop: Workshop, marker: str, body: str, expected: str) -> None:
    assert copied(shop, "ENV name=val", f"COPY {marker} /n", body, "E") == {"n": expected}


def test_two_heredocs_and_a_file(shop: Workshop) -> None:
    shop.write("f", "f")
    assert copied(shop, "COPY <<one f <<two /n/", "1", "one", "2", "two") == {
        "n/one": "1\n",
        "n/two": "2\n",
        "n/f": "f",
    }


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("", {"a", "b.log", "d/a", "d/b.log", "d/e/c"}),
        ("*.log", {"a", "d/a", "d/b.log", "d/e/c"}),
        ("**/*.log", {"a", "d/a", "d/e/c"}),
        ("d", {"a", "b.log"}),
        ("d/*\n!d/e", {"a", "b.log", "d/e/c"}),
        ("*\n!d/a", {"d/a"}),
        ("# no\n\n  d/e  \n/a", {"b.log", "d/a", "d/b.log"}),
    ],
)
def test_dockerignore(shop: Workshop, rules: str, expected: set[str]) -> None:
    for name in ("a", "b.log", "d/a", "d/b.log", "d/e/c"):
        shop.write(name, name)
    assert copied(shop, "COPY . /n", ignore=rules).keys() == {f"n/{name}" for name in expected}


@pytest.mark.parametrize(
    ("rules", "lines", "expected"),
    [
        ("**\n!d/a", ["COPY d /n"], {"n/a"}),
        ("*\n!d/e/c", ["COPY d /n", "COPY d/e /m"], {"n/e/c", "m/c"}),
        ("d\n!*/e", ["COPY d/ /n/", "COPY d/e/c /m"], {"n/e/c", "n/e/f/g", "m"}),
        ("**\n!**/c", ["COPY d* /n/"], {"n/e/c"}),
        ("*\n!d/a", ["COPY d* /n/"], {"n/a"}),
        ("*\n!d/a", ["COPY --parents d /n/"], {"n/d/a"}),
        ("*\n!d/a\n!g", ["COPY --parents **/a /n/"], {"n/d/a", "n/g/a"}),
        ("d\n!d/e\nd/e/f\n!d/e/f/g", ["COPY d /n", "COPY d/e/f /m"], {"n/e/c", "n/e/f/g", "m/g"}),
    ],
)
def test_an_ignored_directory_is_there_for_what_is_taken_back_in(
    shop: Workshop, rules: str, lines: list[str], expected: set[str]
) -> None:
    for name in ("a", "b.log", "d/a", "d/b.log", "d/e/c", "d/e/f/g", "d2/x", "g/a"):
        shop.write(name, name)
    assert copied(shop, *lines, ignore=rules).keys() == expected


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("*\n!d/none", "COPY d /n"),
        ("**\n!**/none", "COPY d /n"),
        ("*\n!d/a", "COPY d/e /n"),
        ("*\n!d/a", "COPY g /n"),
        ("*\n!g", "COPY d* /n/"),
    ],
)
def test_an_ignored_directory_is_not_there_when_nothing_of_it_is(shop: Workshop, rules: str, line: str) -> None:
    for name in ("d/a", "d/e/c", "g/a"):
        shop.write(name, name)
    with pytest.raises(BuildError, match=r"dockerignore|no file matches"):
        copied(shop, line, ignore=rules)


def test_what_is_ignored_is_not_there(shop: Workshop) -> None:
    shop.write("secret", "s")
    with pytest.raises(BuildError, match="dockerignore"):
        copied(shop, "COPY secret /", ignore="secret")


def test_layers_are_read_once_whatever_the_number_of_steps(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("f", "f")
    fetched: list[str] = []
    fetch = shop.store.fetch

    def counted(descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        fetched.append(str(descriptor.digest))
        return fetch(descriptor)

    monkeypatch.setattr(shop.store, "fetch", counted)
    image = shop.build("FROM base\nCOPY f /there/1\nCOPY f /there/2\nWORKDIR /there/3\nCOPY --chown=user f 4\n")
    assert fetched.count(str(image.layers[0].descriptor.digest)) == 3  # the tree, /etc/passwd, /etc/group
    assert texts(image)["there/3/4"] == "f"
    # What was learnt of a stack is not changed by what another one has on top.
    branches = (
        "FROM base AS x\nCOPY f /x/f\nFROM base AS y\nCOPY f /y/f\nFROM base\nCOPY --from=x /x /x\nCOPY --from=y / /a\n"
    )
    assert "a/x/f" not in texts(shop.build(branches))


def test_a_socket_is_left_out_with_one_warning(shop: Workshop) -> None:
    shop.write("d/file", "x")
    shop.write(".git", "x")
    os.mknod(shop.context / "d/agent", stat.S_IFSOCK | 0o600)
    os.mknod(shop.context / "d/ignored", stat.S_IFSOCK | 0o600)
    image = shop.build("FROM scratch\nCOPY . /\nCOPY d /again\n", ignore="d/ignored\n")
    assert {"d/file", "again/file"} <= set(texts(image))
    assert not [name for name in tree(image) if "agent" in name]
    said = "build context: d/agent is a socket, which no layer can hold; it is left out"
    assert [note for note in shop.notes if "socket" in note] == [said, said]  # one for each COPY


def test_lists_of_who_has_access_are_copied_unless_chmod_says_another_mode(shop: Workshop) -> None:
    access, default = "system.posix_acl_access", "system.posix_acl_default"
    for name in ("one", "d/two"):
        shop.write(name, "x", 0o664)
    os.setxattr(shop.context / "one", access, ACL)
    os.setxattr(shop.context / "d/two", access, ACL)
    os.setxattr(shop.context / "d", default, ACL)
    os.setxattr(shop.context / "one", "user.note", b"n")
    mode = stat.S_IMODE((shop.context / "one").stat().st_mode)
    image = shop.build(f"FROM base\nCOPY . /a/\nCOPY --chmod=600 . /b/\nCOPY --chmod={mode:o} one /c\n")
    found = {name: entry for name, (entry, _) in tree(image).items()}
    user = {b"user.note": b"n"}
    assert found["a/one"].xattrs == found["c"].xattrs == {access.encode(): ACL} | user
    assert (found["a/one"].mode, found["a/d/two"].xattrs) == (mode, {access.encode(): ACL})
    assert found["a/d"].xattrs == found["b/d"].xattrs == {default.encode(): ACL}
    assert (found["b/one"].mode, found["b/one"].xattrs, found["b/d/two"].xattrs) == (0o600, user, {})
