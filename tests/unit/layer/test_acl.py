"""Access control lists of other archives, as text, come to be what `setfacl` would have set."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.acl import ATTRIBUTE_OF, from_text, map_ids, without_users
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from tests.support.command import imagetool
from tests.support.tars import END, chunks, extended, file, header, record
from tests.support.users import NOBODY, as_user, users_folder

ACCESS, DEFAULT = ATTRIBUTE_OF
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")
peer = pytest.mark.skipif(not all(map(shutil.which, ("setfacl", "tar", "bsdtar"))), reason="needs acl and bsdtar")
PLAIN = b"user::rw-,group::r--,other::---"
LIST = b"user::rw-,user:7:rwx,group::r--,mask::rwx,other::---"


def run(*argv: str | Path, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lists(folder: Path) -> str:
    return run("getfacl", "--numeric", "--recursive", ".", cwd=folder)


def said(key: bytes, text: bytes, what: bytes = b"") -> bytes:
    """Return an archive of one entry, a file unless it is said otherwise, with a list."""
    return extended(b"x", record(key, text)) + (what or file(b"f", b"x", mode=0o670)) + END


def entries(tar: bytes) -> list[Entry]:
    return [entry for entry, _ in read(chunks(tar), where="t")]


def unpacked(tar: bytes, folder: Path, ownership: Ownership | None = None) -> list[str]:
    warnings: list[str] = []
    unpack(read(chunks(tar), where="t"), folder, where="t", ownership=ownership or Ownership(), warn=warnings.append)
    return warnings


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with lists for users that this host knows, and for some that it does not."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "f").write_text("x")
    (tree / "closed").write_text("x")
    run("setfacl", "-m", "u:12345:rw,u:54321:---,g:23456:rwx,m::rw", "f", cwd=tree)
    run("setfacl", "-m", "u:0:x,g:0:r", "d", cwd=tree)
    run("setfacl", "-d", "-m", "u:2147483647:rwx,g:34567:r", "d", cwd=tree)
    run("setfacl", "-m", "u::r,u:12345:r,m::r,o::-", "closed", cwd=tree)
    return tree


@root
@peer
@pytest.mark.peer
@pytest.mark.parametrize(
    "command",
    [
        ("tar", "--acls", "--format=posix"),
        ("tar", "--acls", "--xattrs", "--xattrs-include=*", "--format=posix"),
        ("bsdtar", "--acls", "--format=pax"),
        ("bsdtar", "--acls", "--xattrs", "--format=pax"),
    ],
    ids=" ".join,
)
def test_lists_in_archives_of_others_are_set(command: tuple[str, ...], tree: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    run("setfacl", "-m", "u:root:rwx", "f", cwd=tree)  # the one name that means the same everywhere
    run(*command, "-cf", tmp_path / "tar", ".", cwd=tree)
    raw = (tmp_path / "tar").read_bytes()
    assert b"SCHILY.acl.access=user::" in raw
    assert unpacked(raw, tmp_path / "ours") == []
    assert lists(tmp_path / "ours") == lists(tree)
    again = b"".join(write(read(chunks(raw), where="t")))
    assert b"SCHILY.acl" not in again
    (tmp_path / "again").mkdir()
    assert unpacked(again, tmp_path / "again") == []
    assert lists(tmp_path / "again") == lists(tree)
    extracted = tmp_path / "theirs"
    extracted.mkdir()
    (tmp_path / "tar").write_bytes(again)
    run("tar", "--xattrs", "--xattrs-include=*", "-pxf", tmp_path / "tar", cwd=extracted)
    assert lists(extracted) == lists(tree)


permissions = st.integers(0, 7)
identities = st.sampled_from([0, 1, 7, 1000, 65536, 2**31, 2**32 - 2])


@st.composite
def texts(draw: st.DrawFn) -> tuple[bytes, str]:
    """A list as some tar may write it, and as `setfacl --set` takes it."""
    parts = [("user", "", draw(permissions)), ("group", "", draw(permissions)), ("other", "", draw(permissions))]
    parts += [("user", str(who), draw(permissions)) for who in draw(st.lists(identities, unique=True, max_size=4))]
    parts += [("group", str(who), draw(permissions)) for who in draw(st.lists(identities, unique=True, max_size=4))]
    if len(parts) > 3 or draw(st.booleans()):
        parts.append(("mask", "", draw(permissions)))
    parts = draw(st.permutations(parts))
    plain = ",".join(f"{tag}:{who}:{_letters(perm)}" for tag, who, perm in parts)
    words = []
    for tag, who, perm in parts:
        short = draw(st.booleans())
        word = tag[0] if short else tag
        letters = _letters(perm)
        if tag in ("mask", "other") and draw(st.booleans()):
            words.append(f"{word}:{letters}")
        elif who and draw(st.booleans()):
            words.append(f"{word}:a name:{letters}:{who}")
        else:
            words.append(f"{word}:{who}:{letters}" + draw(st.sampled_from(["", "\t#effective:r--", " "])))
    return draw(st.sampled_from([",", "\n", ",\n"])).join(words).encode(), plain


def _letters(perm: int) -> str:
    return "".join(letter if perm & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="acl-") as folder:
        yield Path(folder)


@peer
@pytest.mark.peer
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=texts())
@example(text=(b"user::rwx,group::r-x,other::---,mask::r--", "user::rwx,group::r-x,other::---,mask::r--"))
def test_any_list_comes_to_what_setfacl_sets(place: Path, text: tuple[bytes, str]) -> None:
    theirs = place / "theirs"
    theirs.touch()
    run("setfacl", "--set", text[1], theirs, cwd=place)
    binary, has_names, mode = from_text(text[0], "t: f")
    assert (has_names, mode) == (False, theirs.stat().st_mode & 0o777)
    if text[1].count(",") == 2:  # which is the mode, and no list
        assert os.listxattr(theirs) == []
        assert entries(said(ACCESS, text[0]))[0].xattrs == {}
    else:
        assert binary == os.getxattr(theirs, "system.posix_acl_access")
        (entry,) = entries(said(ACCESS, text[0]))
        assert (entry.xattrs, entry.mode) == ({b"system.posix_acl_access": binary}, mode)


def test_the_list_states_the_mode_and_leaves_the_other_bits() -> None:
    (entry,) = entries(said(ACCESS, b"user::r-x,group::rwx,other::--x", header(b"f", mode=0o4600)))
    assert (entry.mode, entry.xattrs) == (0o4571, {})


def test_where_the_attribute_is_there_too_it_counts(tmp_path: Path) -> None:
    binary, _, _ = from_text(b"user::rwx,user:9:r--,group::r--,mask::r--,other::---", "")
    records = record(ACCESS, LIST) + record(b"SCHILY.xattr.system.posix_acl_access", binary)
    (entry,) = entries(extended(b"x", records) + file(b"f", mode=0o740) + END)
    assert (entry.mode, entry.xattrs) == (0o740, {b"system.posix_acl_access": binary})


@root
def test_who_has_a_name_only_is_left_out_with_a_warning_and_the_rest_is_set(tmp_path: Path) -> None:
    """Without the list the group of the file would have what the mask lets the others have."""
    text = b"user::rw-\nuser:daemon:rwx\nuser:root:r-x\nuser:9:r--\ngroup::r--\ngroup:adm:rwx\nmask::rwx\nother::---"
    one, other = said(ACCESS, text).removesuffix(END), said(ACCESS, text, file(b"g", mode=0o670))
    (tmp_path / "t").mkdir()
    assert unpacked(one + other, tmp_path / "t") == [
        "t: f: its access control list has users by name alone; what a list says of them is left out, here and "
        "wherever else it occurs"
    ]
    wanted, _, _ = from_text(b"user::rw-,user:0:r-x,user:9:r--,group::r--,mask::rwx,other::---", "")
    for name in ("f", "g"):
        assert os.getxattr(tmp_path / "t" / name, "system.posix_acl_access") == wanted
        assert os.stat(tmp_path / "t" / name).st_mode & 0o777 == 0o670


def test_names_stay_in_a_layer_that_is_only_written_again() -> None:
    text = b"user::rw-,user:daemon:rwx,group::r--,mask::rwx,other::---"
    tar = said(ACCESS, text)
    again = b"".join(write(read(chunks(tar), where="t")))
    assert record(ACCESS, text) in again
    assert entries(again) == entries(tar)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"user::rw-",
        b"user::rw-,group::r--,mask::rwx",
        b"user::rw-,user:7:rwx,group::r--,other::---",
        b"user::rw-,user:daemon:rwx,group::r--,other::---",
        PLAIN + b",other::---",
        PLAIN + b",user:7:r--,user:7:r--,mask::r--",
        PLAIN + b",user:x:r--,user:x:r--,mask::r--",
        PLAIN + b",user:x:r--:7,user:7:r--,mask::r--",
        PLAIN + b",user:7",
        PLAIN + b",user:7:r--:8:9,mask::r--",
        PLAIN + b",user:x:r--:y,mask::r--",
        PLAIN + b",user:4294967295:r--,mask::r--",
        PLAIN + b",user:" + b"9" * 5000 + b":r--,mask::r--",
        PLAIN + b",user:x:r--:99999999999,mask::r--",
        PLAIN + b",mask:7:r--",
        PLAIN + b",mask::",
        PLAIN + b",mask::rwxr",
        PLAIN + b",mask::s--",
        PLAIN + b",everyone@:rwx",
        PLAIN + b",:7:rwx",
        PLAIN + b",default",
        b"\0",
        b"\xff\x1b[2J",
    ],
)
@pytest.mark.parametrize("key", [ACCESS, DEFAULT])
def test_a_malformed_list_is_refused_by_the_name_of_its_entry(key: bytes, text: bytes) -> None:
    with pytest.raises(InvalidArchive, match=r"^layer 3: entry f has an access control list") as refused:
        list(read(chunks(said(key, text, header(b"f/", b"5"))), where="layer 3"))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("key", "what"),
    [(DEFAULT, file(b"f")), (ACCESS, header(b"f", b"2", linkname=b"x")), (DEFAULT, header(b"f", b"6"))],
    ids=["default of a file", "access of a symlink", "default of a fifo"],
)
def test_what_can_have_no_such_list_is_refused(key: bytes, what: bytes) -> None:
    with pytest.raises(InvalidArchive, match="cannot have the list"):
        entries(said(key, PLAIN, what))


def attribute(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """Return an attribute of (tag, permissions, number) as they are."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_ID = 0xFFFFFFFF
THREE = ((1, 6, NOBODY_ID), (4, 4, NOBODY_ID), (32, 4, NOBODY_ID))
MALFORMED = {
    "nothing": b"",
    "version 1": attribute(*THREE, version=1),
    "half an entry": attribute(*THREE)[:-1],
    "no owner": attribute(*THREE[1:]),
    "the owner twice": attribute(THREE[0], *THREE),
    "in disorder": attribute(*reversed(THREE)),
    "a user and no mask": attribute(THREE[0], (2, 7, 5), *THREE[1:]),
    "a tag that is none": attribute(*THREE, (64, 4, NOBODY_ID)),
    "permissions that are none": attribute((1, 15, NOBODY_ID), *THREE[1:]),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("key", ATTRIBUTE_OF.values())
def test_an_attribute_that_no_kernel_takes_is_refused_by_the_name_of_its_entry(key: bytes, case: str) -> None:
    tar = said(b"SCHILY.xattr." + key, MALFORMED[case], header(b"f/", b"5"))
    with pytest.raises(InvalidArchive, match=r"^t: entry f has an access control list that"):
        entries(tar)


@root
def test_an_attribute_is_refused_where_the_kernel_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for value in filter(None, MALFORMED.values()):
        with pytest.raises(OSError, match=r"Invalid argument|not supported"):
            os.setxattr(tmp_path / "d", "system.posix_acl_access", value)
    assert entries(said(b"SCHILY.xattr.system.posix_acl_access", attribute()))[0].xattrs  # none at all is taken
    os.setxattr(tmp_path / "d", "system.posix_acl_access", attribute())


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (b"system.posix_acl_default", file(b"f")),
        (b"system.posix_acl_access", header(b"f", b"2", linkname=b"x")),
        (b"system.posix_acl_default", header(b"f", b"6")),
    ],
    ids=["default of a file", "access of a symlink", "default of a fifo"],
)
def test_what_can_have_no_such_attribute_is_refused(key: bytes, what: bytes) -> None:
    with pytest.raises(InvalidArchive, match="cannot have the list"):
        entries(said(b"SCHILY.xattr." + key, attribute(*THREE), what))


@pytest.mark.parametrize("key", [ACCESS, DEFAULT])
def test_nobody_says_a_list_for_all_entries_or_as_an_attribute(key: bytes) -> None:
    with pytest.raises(InvalidArchive, match="global header"):
        entries(extended(b"g", record(key, PLAIN)) + file(b"f") + END)
    with pytest.raises(InvalidArchive, match="no such name"):
        entries(said(b"SCHILY.xattr." + key, PLAIN))


def test_a_hard_link_repeats_the_list_of_its_file() -> None:
    tar = said(ACCESS, LIST).removesuffix(END) + said(ACCESS, LIST, header(b"g", b"1", linkname=b"f"))
    one, other = entries(tar)
    assert (len(one.xattrs), other.xattrs) == (1, {})


def test_a_list_is_bounded_as_the_attribute_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAR_XATTR_BYTES", 4 + 8 * 40)
    fits = PLAIN + b",mask::rwx" + b"".join(b",user:%d:r--" % number for number in range(36))
    assert len(entries(said(ACCESS, fits))[0].xattrs[b"system.posix_acl_access"]) == 324
    with pytest.raises(LimitExceeded, match="entry f has an access control list of 332 bytes"):
        entries(said(ACCESS, fits + b",user:99:r--"))


def test_numbers_are_mapped_and_the_rest_stays() -> None:
    binary, _, _ = from_text(b"user::rw-,user:7:rwx,user:9:r--,group::r--,group:7:--x,mask::rwx,other::---", "")
    mapped = map_ids(binary, lambda uid: 1009 - uid, lambda gid: gid + 5)
    assert (
        mapped == from_text(b"user::rw-,user:1000:r--,user:1002:rwx,group::r--,group:12:--x,mask::rwx,other::-", "")[0]
    )
    assert without_users(binary) == from_text(b"user::rw-,group::r--,mask::rwx,other::---", "")[0]
    for broken in (b"", b"\x01\0\0\0", binary + b"x"):
        assert map_ids(broken, lambda _: 0, lambda _: 0) == broken


@root
@peer
@pytest.mark.peer
def test_the_mode_of_an_entry_counts_more_than_the_attribute(tmp_path: Path) -> None:
    """As after chmod(2), which `--chmod` stands for."""
    binary, _, _ = from_text(LIST, "")
    attribute = record(b"SCHILY.xattr.system.posix_acl_access", binary)
    for number, what in enumerate(
        (file(b"f", mode=0o640), header(b"f/", b"5", mode=0o640), header(b"f", b"6", mode=0o640))
    ):
        (tmp_path / str(number)).mkdir()
        assert unpacked(extended(b"x", attribute) + what + END, tmp_path / str(number)) == []
        assert os.stat(tmp_path / str(number) / "f").st_mode & 0o777 == 0o640
        shown = run("getfacl", "--numeric", "--omit-header", f"{number}/f", cwd=tmp_path)
        assert "user:7:rwx\t#effective:r--" in shown


@root
@pytest.mark.parametrize("is_text", [True, False])
def test_files_that_stay_the_callers_are_opened_to_nobody_of_the_image(tmp_path: Path, is_text: bool) -> None:
    binary, _, _ = from_text(LIST, "")
    tar = said(ACCESS, LIST) if is_text else said(b"SCHILY.xattr.system.posix_acl_access", binary)
    for name in ("callers", "recorded"):
        (tmp_path / name).mkdir()
    (warning,) = unpacked(tar, tmp_path / "callers", Ownership(owners=False, lenient=True))
    assert "users of the image" in warning
    assert os.getxattr(tmp_path / "callers/f", "system.posix_acl_access") == without_users(binary)
    assert unpacked(tar, tmp_path / "recorded", Ownership(owners=False, lenient=True, recorded=True)) == []
    assert os.getxattr(tmp_path / "recorded/f", "system.posix_acl_access") == binary


@root
@peer
@pytest.mark.peer
@pytest.mark.root
def test_in_a_user_namespace_lists_have_the_ids_that_owners_have(tree: Path, tmp_path: Path) -> None:
    for name in ("f", "closed"):
        os.chown(tree / name, 12345, 23456)
    run("setfacl", "-b", "-k", "d", cwd=tree)
    run("setfacl", "-b", "-m", "u:12345:rw,g:23456:r", "f", cwd=tree)
    context = tmp_path / "context"
    context.mkdir()
    run("tar", "--acls", "--format=posix", "-cf", context / "a.tar", ".", cwd=tree)
    (context / "Dockerfile").write_text("FROM scratch\nADD a.tar /\n")
    imagetool("build", "-t", "app", context, root=tmp_path / "store")
    with users_folder() as folder:
        imagetool("copy", "app", f"oci:{folder}/layout:a", root=tmp_path / "store")
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)

        def user(*args: str | Path) -> subprocess.CompletedProcess[str]:
            command = ["python", "-m", "imagetool", "--root", folder / "store", *args]
            done = as_user(command, folder=folder, subordinate=True)
            assert done.returncode == 0, done.stderr
            return done

        user("unpack", f"oci:{folder}/layout:a", folder / "b")
        found = folder / "b/rootfs/f"
        owner = found.stat().st_uid
        shown = run("getfacl", "--numeric", "--omit-header", found, cwd=folder).split()
        assert f"user:{owner}:rw-" in shown
        assert f"group:{found.stat().st_gid}:r--" in shown
        assert owner not in (12345, 0, NOBODY)
        assert "nothing was changed" in user("repack", folder / "b", f"oci:{folder}/layout:b").stderr
        run("setfacl", "-m", f"u:{owner + 6}:x", found, cwd=folder)
        user("repack", folder / "b", f"oci:{folder}/layout:b")
        imagetool("unpack", f"oci:{folder}/layout:b", tmp_path / "again", root=tmp_path / "store")
        shown = run("getfacl", "--numeric", "--omit-header", tmp_path / "again/rootfs/f", cwd=folder).split()
        assert {"user:12345:rw-", "user:12351:--x", "group:23456:r--"} <= set(shown)
