"""Maps of ids: read, turned around, seen from another namespace, and applied to all that names users."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import UsageError
from imagetool.layer.acl import from_text
from imagetool.layer.entry import Entry
from imagetool.layer.idmap import SAME_IDS, IdMap, OwnerMap, namespace_ids

PLAIN_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ROOTED_CAPABILITY = bytes.fromhex("0100000300200000000000000000000000000000")


@st.composite
def maps(draw: st.DrawFn) -> IdMap:
    """Maps of a few ids, whose rows meet and leave holes on both sides."""
    rows, inside, outside = [], 0, 0
    places = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 5))
        inside += draw(st.integers(0, 3))
        outside += draw(st.integers(0, 3))
        rows.append((inside, size))
        places.append((outside, size))
        inside, outside = inside + size, outside + size
    return IdMap(tuple((place, there, size) for (place, size), (there, _) in zip(rows, places, strict=True)))


IDS = range(40)


@given(ids=maps())
def test_what_is_mapped_is_mapped_back_and_nothing_else(ids: IdMap) -> None:
    there = {number: ids.outside(number) for number in IDS}
    back = {number: ids.inside(number) for number in IDS}
    assert {outside: inside for inside, outside in there.items() if outside is not None} == {
        outside: inside for outside, inside in back.items() if inside is not None
    }
    assert sum(size for _, _, size in ids.rows) == sum(outside is not None for outside in there.values())


@given(ids=maps(), namespace=maps())
def test_a_map_seen_from_a_namespace_is_one_after_the_other(ids: IdMap, namespace: IdMap) -> None:
    seen = ids.within(namespace)
    for number in IDS:
        outside = ids.outside(number)
        assert seen.outside(number) == (None if outside is None else namespace.inside(outside))


@given(ids=maps())
def test_a_map_is_read_as_it_is_said(ids: IdMap) -> None:
    assert IdMap.parse(str(ids).split(",")) == ids
    assert ids.within(SAME_IDS) == ids


def test_a_row_of_one_id_needs_no_size_and_no_rows_change_nothing() -> None:
    assert IdMap.parse(["0:1000"]).rows == ((0, 1000, 1),)
    assert IdMap.parse([]).outside(4294967294) == 4294967294
    assert OwnerMap.parse([], []) is None
    assert OwnerMap.parse([], ["0:5:1"]) == OwnerMap(SAME_IDS, IdMap(((0, 5, 1),)))


@pytest.mark.parametrize(
    "texts",
    [
        *(["0"], ["0:1:2:3"], ["a:1:2"], ["0:-1:2"], ["0:+1:2"], ["0:1:"], ["٠:1:1"], ["0:1:0"], ["0:1:4294967295"]),
        *(["4294967294:0:2"], ["0:99999999999:1"], ["0:1:5", "4:90:1"], ["0:10:5", "20:14:1"], [""]),
    ],
    ids=",".join,
)
def test_what_maps_no_ids_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        IdMap.parse(texts)


def test_the_last_id_there_is_can_be_mapped() -> None:
    assert IdMap.parse(["4294967294:0:1"]).outside(4294967294) == 0


@pytest.mark.parametrize(("users", "groups"), [(["1:5:10"], []), ([], ["1:5:10"])])
def test_root_must_be_somebody(users: list[str], groups: list[str]) -> None:
    with pytest.raises(UsageError, match="root"):
        OwnerMap.parse(users, groups)


def owners() -> OwnerMap:
    found = OwnerMap.parse(["0:100000:1000"], ["0:200000:1000"])
    assert found is not None
    return found


def test_a_namespace_that_has_not_all_the_ids_is_told_by_those_it_has() -> None:
    same = "0 0 4294967295 / 0 0 4294967295"
    assert owners().within(namespace_ids(same)) == owners()
    seen = owners().within(namespace_ids("0 1000 1 1 100000 65536 / 0 1000 1 1 200000 65536"))
    assert (seen.root, seen.users.outside(999)) == ((1, 1), 1000)
    with pytest.raises(UsageError, match=r"groups 1000-1000,200000-200998 only, and --gid-map has others"):
        owners().within(namespace_ids("0 100000 1000 / 0 1000 1 1 200000 999"))
    with pytest.raises(UsageError):
        namespace_ids("0 0 1")


def test_all_that_names_users_is_mapped_and_mapped_back() -> None:
    access, _, _ = from_text(b"user::rw-,user:7:rwx,group::r--,group:8:--x,mask::rwx,other::---", "")
    inner = ROOTED_CAPABILITY + struct.pack("<I", 5)
    for capability, stored in ((PLAIN_CAPABILITY, 100000), (inner, 100005)):
        xattrs = {b"system.posix_acl_access": access, b"security.capability": capability, b"user.x": b"y"}
        entry = Entry(b"f", "file", 0o4755, 3, 4, 5, 6, xattrs=xattrs)
        ((placed, content),) = owners().placed([(entry, (b"12345",))], "t")
        assert (placed.uid, placed.gid, content) == (100003, 200004, (b"12345",))
        assert placed.xattrs == {
            b"system.posix_acl_access": from_text(
                b"user::rw-,user:100007:rwx,group::r--,group:200008:--x,mask::rwx,other::---", ""
            )[0],
            b"security.capability": ROOTED_CAPABILITY + struct.pack("<I", stored),
            b"user.x": b"y",
        }
        assert owners().stated(placed) == entry


@pytest.mark.parametrize(
    "value", [b"", b"\0" * 19, ROOTED_CAPABILITY, b"\0\0\0\x01" + bytes(8), b"\0\0\0\x09" + bytes(20)]
)
def test_capabilities_that_the_kernel_refuses_stay_what_they_are(value: bytes) -> None:
    entry = Entry(b"f", "file", xattrs={b"security.capability": value})
    ((placed, _),) = owners().placed([(entry, ())], "t")
    assert placed.xattrs == entry.xattrs


def test_where_root_stays_root_capabilities_need_no_other() -> None:
    found = OwnerMap.parse(["0:0:1", "1:100000:10"], [])
    assert found is not None
    entry = Entry(b"f", "file", uid=1, xattrs={b"security.capability": PLAIN_CAPABILITY})
    ((placed, _),) = found.placed([(entry, ())], "t")
    assert (placed.uid, placed.xattrs) == (100000, entry.xattrs)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry(b"d/{f}", "file", uid=1000), r"^layer 1: d/\{f\}: user 1000 is in no map of ids; add one, --uid-map"),
        (Entry(b"f", "dir", gid=1000), "^layer 1: f: group 1000 is in no map"),
        (
            Entry(
                b"f",
                "file",
                xattrs={
                    b"system.posix_acl_access": from_text(
                        b"user::---,user:1000:---,group::---,mask::---,other::---", ""
                    )[0]
                },
            ),
            "^layer 1: f: user 1000 is in no map",
        ),
        (
            Entry(b"f", "file", xattrs={b"security.capability": ROOTED_CAPABILITY + struct.pack("<I", 1000)}),
            "^layer 1: f: user 1000 is in no map",
        ),
    ],
)
def test_who_is_in_no_map_is_named_with_the_entry(entry: Entry, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        list(owners().placed([(entry, ())], "layer 1"))
    with pytest.raises(UsageError, match="give it to one who is"):
        owners().stated(entry)


def test_whiteouts_and_hard_links_belong_to_nobody() -> None:
    items = [(Entry(b"a/.wh.b", "file", uid=5000), ()), (Entry(b"l", "link", uid=5000, linkname=b"f"), ())]
    assert list(owners().placed(items, "t")) == items
