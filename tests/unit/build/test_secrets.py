"""Redaction of streams that come in pieces, and the search of new layers."""

from __future__ import annotations

import base64
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagetool.build.secrets import Secrets
from imagetool.errors import BuildError
from imagetool.layer.entry import Entry


def redacted(secret: bytes, pieces: list[bytes]) -> bytes:
    redactor = Secrets({"id": secret}).redactor()
    return b"".join(redactor.feed(piece) for piece in pieces) + redactor.end()


@given(
    secret=st.binary(min_size=6, max_size=30).filter(lambda text: len(text.strip()) >= 6),
    around=st.tuples(st.binary(max_size=20), st.binary(max_size=20)),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    form=st.sampled_from(["raw", "base64", "urlsafe", "quoted", "plus"]),
)
@example(secret=b"redact", around=(b"", b""), cuts=[], form="raw")
@example(secret=b"x[redac", around=(b"x", b""), cuts=[], form="raw")
@example(secret=b"ted]***", around=(b"", b"***"), cuts=[3], form="raw")
def test_no_form_of_a_secret_passes_however_it_is_cut(
    secret: bytes, around: tuple[bytes, bytes], cuts: list[int], form: str
) -> None:
    whole = len(secret) // 3 * 4
    written = {
        "raw": secret.strip(),
        "base64": base64.b64encode(secret)[:whole],
        "urlsafe": base64.urlsafe_b64encode(secret)[:whole],
        "quoted": urllib.parse.quote(secret, safe="").encode(),
        "plus": urllib.parse.quote_plus(secret).encode(),
    }[form]
    text = around[0] + written + around[1]
    at = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[left:right] for left, right in zip([0, *at], [*at, len(text)], strict=True)]
    assert written not in redacted(secret, pieces)


@given(text=st.lists(st.binary(max_size=30), max_size=6))
def test_what_holds_no_secret_passes_unchanged(text: list[bytes]) -> None:
    secret = b"\x00never in short text\x00"
    assert redacted(secret, text) == b"".join(text)


def test_what_cannot_be_the_beginning_of_a_secret_is_shown_at_once() -> None:
    redactor = Secrets({"id": b"secret"}).redactor()
    assert redactor.feed(b"progress 10%\r") == b"progress 10%\r"
    assert redactor.feed(b"a secr") == b"a "
    assert redactor.feed(b"etary") == b"[redacted]ary"
    assert redactor.end() == b""


def test_each_line_of_a_key_is_a_secret() -> None:
    shown = redacted(b"-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ\n", [b"x MIIEvQIBADANBg y"])
    assert shown == b"x [redacted] y"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_secret_is_found_across_chunks(cut: int) -> None:
    content = b"ab the secret z"
    item = Entry(b"f", "file", size=len(content)), [content[:cut], content[cut:]]
    with pytest.raises(BuildError, match="the secret 'id' into the image: f holds it"):
        [b"".join(chunks) for _, chunks in Secrets({"id": b"the secret"}).checked([item], "RUN")]


def test_names_and_attributes_are_searched_as_well() -> None:
    for entry in (
        Entry(b"the secret", "dir"),
        Entry(b"l", "symlink", linkname=b"x the secret"),
        Entry(b"f", "file", xattrs={b"user.x": b"the secret"}),
    ):
        with pytest.raises(BuildError):
            list(Secrets({"id": b"the secret\n"}).checked([(entry, ())], "RUN"))


def test_secrets_do_not_show_in_their_representation() -> None:
    assert "hidden" not in repr(Secrets({"id": b"hidden"}))
