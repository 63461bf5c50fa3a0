"""USER, resolved in the image's own files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import BuildError
from imagetool.runtime.users import User, resolve_user

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:The \xe9 App:/home/app:/bin/sh\n42:x:7:7::/seven:\nbroken\n"
GROUP = b"root:x:0:\nusers:x:100:app\naudio:x:29:other,app\nvideo:x:44:app\nwheel:x:10:root\n"


@pytest.mark.parametrize(
    ("text", "user", "home"),
    [
        ("", User(0, 0), "/root"),
        ("root", User(0, 0, (10,)), "/root"),
        ("app", User(1000, 100, (29, 44)), "/home/app"),
        ("1000", User(1000, 100, (29, 44)), "/home/app"),
        ("app:audio", User(1000, 29), "/home/app"),
        ("app:5", User(1000, 5), "/home/app"),
        ("1000:2000", User(1000, 2000), "/home/app"),
        ("5555", User(5555, 0), "/"),
        ("5555:6666", User(5555, 6666), "/"),
        ("42", User(7, 7), "/seven"),
        (":audio", User(0, 29), "/root"),
    ],
)
def test_names_and_numbers_are_looked_up_as_the_specification_says(text: str, user: User, home: str) -> None:
    assert resolve_user(text, PASSWD, GROUP) == (user, home)


def test_numbers_need_no_files() -> None:
    assert resolve_user("0", b"", b"") == (User(0, 0), "/root")
    assert resolve_user("12:34", b"", b"") == (User(12, 34), "/")


@pytest.mark.parametrize("text", ["ghost", "app:ghosts", "4294967295", "-1", "٣", "app\n", "99999999999"])
def test_what_the_image_does_not_know_is_one_clear_error(text: str) -> None:
    with pytest.raises(BuildError, match=r"is not in /etc/(passwd|group) of the image"):
        resolve_user(text, PASSWD, GROUP)


def test_a_home_that_could_break_a_line_is_not_taken() -> None:
    assert resolve_user("evil", b"evil:x:5:5::/a\rb:\n", b"") == (User(5, 5), "/")


@given(st.text(), st.binary(), st.binary())
def test_no_input_gives_anything_but_a_user_or_a_build_error(text: str, passwd: bytes, group: bytes) -> None:
    try:
        user, home = resolve_user(text, passwd, group)
    except BuildError:
        return
    assert 0 <= user.uid < 2**32 - 1
    assert home.startswith("/")
