"""login and logout: what is asked, checked, kept and told."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.cli.app import run
from tests.support.wire import WireRegistry, serving


@pytest.fixture
def registry() -> Iterator[WireRegistry]:
    """A registry that takes me with my secret."""
    with serving(WireRegistry(user=("me", "s3cret"))) as running:
        yield running


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_password_from_stdin_is_checked_and_kept_for_nobody_else_to_read(
    registry: WireRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"s3cret\n")
    auth = tmp_path / "auth.json"
    args = ["--authfile", str(auth), "-u", "me", "--password-stdin", registry.host]
    assert run(["login", *args]) == 0
    out, told = capsys.readouterr()
    assert (out, told) == ("", f"logged in to {registry.host}; kept in {auth}\n")
    assert json.loads(auth.read_text()) == {"auths": {registry.host: {"auth": "bWU6czNjcmV0"}}}
    assert auth.stat().st_mode & 0o777 == 0o600
    assert run(["logout", registry.host, "--authfile", str(auth)]) == 0
    assert json.loads(auth.read_text()) == {"auths": {}}
    assert run(["logout", registry.host, "--authfile", str(auth)]) == 0
    assert "not logged in" in capsys.readouterr().err


def test_a_wrong_password_is_not_kept(
    registry: WireRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"guess")
    auth = tmp_path / "auth.json"
    assert run(["login", "--authfile", str(auth), "-u", "me", "--password-stdin", registry.host]) == 4
    told = capsys.readouterr().err
    assert "guess" not in told
    assert not auth.exists()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--password-stdin", "r.example"], "needs --username"),
        (["-u", "me", "-p", "x", "--password-stdin", "r.example"], "exclude each other"),
        (["-u", "me", "r.example"], "there is no terminal"),
        (["-u", "me", "--password-stdin", "r.example"], "the password is empty"),
    ],
)
def test_what_cannot_be_right_is_told(
    args: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"\n")
    assert run(["login", *args]) == 2
    assert told in capsys.readouterr().err


def test_images_are_pulled_with_what_the_authfile_has(
    registry: WireRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    store, auth = ["--root", str(tmp_path / "root")], str(tmp_path / "auth.json")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", os.devnull)
    _stdin(monkeypatch, b"s3cret")
    assert run(["login", "--authfile", auth, "-u", "me", "--password-stdin", registry.host]) == 0
    assert run(["build", *store, "-q", "-t", "app:1", str(tmp_path)]) == 0
    assert run(["push", *store, "app:1", f"docker://{registry.host}/app:1"]) == 4
    assert run(["push", *store, "--authfile", auth, "app:1", f"docker://{registry.host}/app:1"]) == 0
    assert run(["pull", *store, f"{registry.host}/app:1", "--authfile", auth]) == 0
    capsys.readouterr()
