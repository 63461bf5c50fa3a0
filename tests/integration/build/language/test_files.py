"""What COPY and ADD may say."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from imagetool.errors import DigestMismatch
from tests.integration.build.language.rows import refused, row
from tests.support.workshop import Workshop, file, texts, tree


@row("COPY/ADD --chown")
@pytest.mark.parametrize("keyword", ["COPY", "ADD"])
def test_chown(shop: Workshop, keyword: str) -> None:
    shop.write("f")
    owners = {"user": (101, 201), "user:adm": (101, 4), "5": (5, 5), "5:6": (5, 6), "7:adm": (7, 4), "$u": (101, 201)}
    lines = [f"{keyword} --chown={owner} f /{number}" for number, owner in enumerate(owners)]
    made = tree(shop.build("\n".join(["FROM base", "ENV u=user", *lines, ""])))
    assert [made[str(number)][0][3:5] for number in range(len(owners))] == list(owners.values())
    refused(shop, f"FROM base\n{keyword} --chown=nobody f /\n", "nobody")


@row("COPY/ADD --chmod")
@pytest.mark.parametrize("keyword", ["COPY", "ADD"])
def test_chmod(shop: Workshop, keyword: str) -> None:
    shop.write("d/f", mode=0o640)
    shop.write("d/x", mode=0o750)
    modes = {"4711": (0o4711, 0o4711), "u=rwX,go=rX": (0o644, 0o755), "a+w": (0o662, 0o772), "g-r,o=": (0o600, 0o710)}
    lines = [f"{keyword} --chmod={mode} d /{number}/" for number, mode in enumerate(modes)]
    made = tree(shop.build("\n".join(["FROM scratch", *lines, ""])))
    assert [(made[f"{n}/f"][0].mode, made[f"{n}/x"][0].mode) for n in range(len(modes))] == list(modes.values())
    for bad in ("9", "77777", "u*x", "q=r"):
        refused(shop, f"FROM scratch\n{keyword} --chmod={bad} d /\n", "chmod|octal|mode")


@row("COPY/ADD --link")
@pytest.mark.parametrize("line", ["COPY --link f /to/f", "ADD --link f /to/f", "COPY --link --from=s /s /to/f"])
def test_linked_layers_are_taken_from_the_cache_whatever_is_below(shop: Workshop, line: str) -> None:
    shop.write("f", "1")
    stage = "FROM scratch AS s\nCOPY f /s\n"
    one = shop.build(f"{stage}FROM base\n{line}\n").layers[-1]
    two = shop.build(f"{stage}FROM base\nRUN x\n{line}\n").layers[-1]
    assert (shop.cached[-1], two) == (True, one)
    assert tree(shop.build(f"{stage}FROM base\n{line}\n"), layers=[-1])["to"][0].mode == 0o755
    plain = line.replace("--link ", "--link=false ")
    shop.build(f"{stage}FROM base\n{plain}\n")
    shop.build(f"{stage}FROM base\nRUN y\n{plain}\n")
    assert shop.cached[-1] is False


@row("COPY/ADD --exclude")
@pytest.mark.parametrize("keyword", ["COPY", "ADD", "COPY --from=s"])
def test_exclude(shop: Workshop, keyword: str) -> None:
    for name in ("a.txt", "a.md", "d/b.txt", "d/c"):
        shop.write(name)
    stage = "FROM scratch AS s\nCOPY . /\nFROM scratch\n" if "from" in keyword else "FROM scratch\n"
    made = texts(shop.build(f"{stage}{keyword} --exclude=*.txt --exclude=d/* --exclude=!d/c . /to/\n"))
    assert set(made) == {"to/a.md", "to/d/c"}


@row("COPY --parents")
def test_parents(shop: Workshop) -> None:
    shop.write("a/b/c/f")
    shop.write("a/x/f")
    text = "FROM scratch\nCOPY --parents a/b/c/f /1/\nCOPY --parents a/./b/c/f /2/\nCOPY --parents a/**/f /3/\n"
    text += "COPY --parents ./a/*/./c /4/\nCOPY --parents a/x /5/\nCOPY --parents a/./x/* a/b/./c /6/\n"
    made = texts(shop.build(text))
    assert set(made) == {
        "1/a/b/c/f", "2/b/c/f", "3/a/b/c/f", "3/a/x/f", "4/c/f", "5/a/x/f", "6/x/f", "6/c/f",
    }  # fmt: skip
    refused(shop, "FROM scratch\nCOPY --parents a/none /1/\n", "not found")
    refused(shop, "FROM scratch\nADD --parents a /1/\n", "unknown flag --parents")


@row("COPY --from")
def test_where_copy_takes_from(shop: Workshop) -> None:
    shop.base("image", file("i", "image"))
    shop.write("named/n", "named")
    text = (
        "FROM scratch AS s\nCOPY <<x /x\nstage\nx\nFROM scratch\n"
        "COPY --from=s /x /1\nCOPY --from=0 /x /2\nCOPY --from=image i /3\nCOPY --from=ctx i /4\n"
    )
    assert texts(shop.build(text, named={"ctx": "image"})) == {
        "1": "stage\n", "2": "stage\n", "3": "image", "4": "image",
    }  # fmt: skip
    refused(shop, "FROM scratch\nCOPY --from=0 /x /x\n", "does not come before")
    refused(shop, "FROM scratch AS later\nCOPY --from=nowhere /x /x\n", "nowhere")
    refused(shop, "FROM scratch\nARG s\nCOPY --from=$s /x /x\n", "variable")


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("in")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"1"))
    return packed.getvalue()


@row("ADD of URL, Git repository, archive; --checksum, --keep-git-dir")
def test_what_add_takes(shop: Workshop) -> None:
    data = archive()
    shop.write("a.bin", data)
    shop.downloads["https://h/p/f"] = ("", 0, b"fetched")
    digest = f"sha256:{hashlib.sha256(b'fetched').hexdigest()}"
    image = shop.build(f"FROM scratch\nADD a.bin /a\nADD --checksum={digest} https://h/p/f /u/\n")
    assert texts(image) == {"a/in": "1", "u/f": "fetched"}
    with pytest.raises(DigestMismatch):
        shop.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} https://h/p/f /u/\n")
    for text in (
        f"ADD --checksum={digest} a.bin /",
        f"ADD --checksum={digest} https://h/p/f https://h/p/g /",
        "ADD --checksum=md5:x https://h/p/f /",
        "ADD --checksum=sha256:0 https://h/p/f /",
    ):
        refused(shop, f"FROM scratch\n{text}\n", "checksum")

    # Git, with --keep-git-dir and --checksum of a commit: test_contexts.py, test_add_takes_a_repository.


@row("ADD --unpack")
def test_unpack(shop: Workshop) -> None:
    data = archive()
    shop.write("a.bin", data)
    shop.write("plain", "plain")
    shop.downloads["https://h/a"] = ("", 0, data)
    shop.downloads["https://h/plain"] = ("", 0, b"plain")
    lines = [
        "ADD a.bin /1",
        "ADD --unpack=false a.bin /2",
        "ADD --unpack a.bin /3",
        "ADD https://h/a /4",
        "ADD --unpack=true https://h/a /5",
        "ADD --unpack plain /6",
        "ADD --unpack https://h/plain /7/",
    ]
    made = tree(shop.build("\n".join(["FROM scratch", *lines, ""])))
    assert [made[name][1] for name in ("1/in", "2", "3/in", "4", "5/in", "6", "7/plain")] == [
        b"1", data, b"1", data, b"1", b"plain", b"plain",
    ]  # fmt: skip
