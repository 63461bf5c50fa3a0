"""Where credentials are found and kept: the files and helpers that other tools use too."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from imagetool.config.credentials import Found, find, login, logout, trusted_realms
from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError, ImagetoolError, InvalidDocument, InvalidReference, StorageError, UsageError

ME = Credentials("me", "s3:cret")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def entry(user: str) -> dict[str, str]:
    return {"auth": b64(f"{user}:pw")}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment of which every place is below tmp_path."""
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def write(path: Path, tree: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path


def user(found: Found | None) -> str:
    return found.credentials.username if found else ""


def in_file(tmp_path: Path, auths: dict[str, Any], registry: str, repository: str) -> str:
    path = write(tmp_path / "auth.json", {"auths": auths})
    return user(find(registry, repository, authfile=path))


def test_nothing_anywhere_is_nothing(home: dict[str, str]) -> None:
    assert find("reg.io", "a/b", environment=home) is None


def test_files_are_searched_in_the_order_that_the_tools_share(home: dict[str, str], tmp_path: Path) -> None:
    places = [".dockercfg", ".docker/config.json", ".config/containers/auth.json", "run/containers/auth.json"]
    for place in places:
        tree = {"reg.io": entry(place)} if place == ".dockercfg" else {"auths": {"reg.io": entry(place)}}
        path = write(tmp_path / place, tree)
        found = find("reg.io", "a/b", environment=home)
        assert user(found) == place
        assert found is not None
        assert found.place == f"{path}: reg.io"


def test_other_directories_may_be_named(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "docker/config.json", {"auths": {"reg.io": entry("docker")}})
    assert user(find("reg.io", "a", environment=home | {"DOCKER_CONFIG": str(tmp_path / "docker")})) == "docker"
    write(tmp_path / "xdg/containers/auth.json", {"auths": {"reg.io": entry("xdg")}})
    assert user(find("reg.io", "a", environment=home | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})) == "xdg"


def test_a_named_file_is_the_only_one(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".docker/config.json", {"auths": {"reg.io": entry("docker")}})
    one = write(tmp_path / "one.json", {"auths": {"other.io": entry("one")}})
    assert find("reg.io", "a", environment=home | {"REGISTRY_AUTH_FILE": str(one)}) is None
    assert find("reg.io", "a", authfile=one, environment=home) is None
    assert user(find("other.io", "a", authfile=one, environment=home)) == "one"


def test_the_longest_key_wins_and_ends_at_a_slash(tmp_path: Path) -> None:
    auths = {"reg.io": entry("all"), "reg.io/team": entry("team"), "reg.io/team/app": entry("app")}
    assert in_file(tmp_path, auths, "reg.io", "team/app") == "app"
    assert in_file(tmp_path, auths, "reg.io", "team/app/sub") == "app"
    assert in_file(tmp_path, auths, "reg.io", "team/application") == "team"
    assert in_file(tmp_path, auths, "reg.io", "teammate/app") == "all"
    assert in_file(tmp_path, auths, "reg.io", "") == "all"
    assert in_file(tmp_path, auths, "reg.io:5000", "team/app") == ""
    assert in_file(tmp_path, auths, "reg.io.evil.com", "team/app") == ""
    assert in_file(tmp_path, auths, "evil.com", "reg.io/team") == ""


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://registry-1.docker.io"]
)
def test_docker_hub_is_found_under_all_its_names(tmp_path: Path, key: str) -> None:
    assert in_file(tmp_path, {key: entry("hub")}, "docker.io", "library/debian") == "hub"


@pytest.mark.parametrize("key", ["https://reg.io:5000", "https://reg.io:5000/v1/", "http://reg.io:5000/v2/"])
def test_keys_in_dockers_style_are_hosts(tmp_path: Path, key: str) -> None:
    assert in_file(tmp_path, {key: entry("x")}, "reg.io:5000", "a/b") == "x"
    assert in_file(tmp_path, {key: entry("x")}, "reg.io", "a/b") == ""


def test_every_form_of_an_entry(tmp_path: Path) -> None:
    auths = {
        "a.io": {"auth": b64("me:pass:word")},
        "b.io": {"auth": b64("00000000-0000:"), "identitytoken": "refresh"},
        "c.io": {"registrytoken": "ready"},
        "d.io": {"username": "me", "password": "pw"},
        "e.io": {},
        "f.io": {"auth": base64.b64encode(b"me:pw\0\0").decode()},
    }
    path = write(tmp_path / "auth.json", {"auths": auths})
    found = {name: find(name, "r", authfile=path) for name in auths}
    assert {name: hit.credentials if hit else None for name, hit in found.items()} == {
        "a.io": Credentials("me", "pass:word"),
        "b.io": Credentials("00000000-0000", "", "refresh"),
        "c.io": Credentials(registry_token="ready"),
        "d.io": Credentials("me", "pw"),
        "e.io": None,
        "f.io": Credentials("me", "pw"),
    }


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths":[]}', '{"auths":{"reg.io":7}}', '{"auths":{"reg.io":{"auth":7}}}', '{"credHelpers":{"a":1}}'],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "auth.json", text)
    with pytest.raises(InvalidDocument, match=str(path)):
        find("reg.io", "a", authfile=path)


@pytest.mark.parametrize("auth", ["%%%", b64("nocolon"), base64.b64encode(b"\xff:\xfe").decode()])
def test_an_entry_that_cannot_be_read_says_where_and_shows_nothing(tmp_path: Path, auth: str) -> None:
    path = write(tmp_path / "auth.json", {"auths": {"reg.io": {"auth": auth}}})
    with pytest.raises(AuthError, match=r"auth\.json: reg\.io") as refused:
        find("reg.io", "a", authfile=path)
    assert auth not in str(refused.value)


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    assert find("reg.io", "a", authfile=write(tmp_path / "auth.json", "\n")) is None


def test_a_directory_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        find("reg.io", "a", authfile=tmp_path)


def test_the_real_environment_is_asked_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "auth.json", {"auths": {"reg.io": entry("me")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    found = find("reg.io", "a")
    assert found is not None
    assert found.credentials == Credentials("me", "pw")
    assert find("other.io", "a") is None


# -- login and logout --------------------------------------------------------------------------


def test_a_login_is_found_again_in_a_private_file(home: dict[str, str], tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        where = login("reg.io:5000", ME, environment=home)
    finally:
        os.umask(old)
    assert where == str(tmp_path / "run/containers/auth.json")
    assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(Path(where).parent).st_mode) == 0o700
    found = find("reg.io:5000", "a", environment=home)
    assert found is not None
    assert found.credentials == ME
    assert [path.name for path in Path(where).parent.iterdir()] == ["auth.json"]


def test_a_login_leaves_everything_else_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", {"psFormat": "x", "auths": {"a.io": entry("a"), "b.io": entry("old")}})
    path.chmod(0o644)
    login("b.io", ME, authfile=path)
    tree = json.loads(path.read_text())
    assert tree == {"psFormat": "x", "auths": {"a.io": entry("a"), "b.io": {"auth": b64("me:s3:cret")}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_docker_finds_its_hub_login_and_podman_its_own(tmp_path: Path) -> None:
    login("docker.io", ME, authfile=tmp_path / "config.json")
    assert list(json.loads((tmp_path / "config.json").read_text())["auths"]) == ["https://index.docker.io/v1/"]
    login("docker.io", ME, authfile=tmp_path / "auth.json")
    assert list(json.loads((tmp_path / "auth.json").read_text())["auths"]) == ["docker.io"]


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "real.json", {})
    link = tmp_path / "auth.json"
    link.symlink_to(real)
    login("reg.io", ME, authfile=link)
    assert link.is_symlink()
    assert "reg.io" in real.read_text()


def test_logins_at_the_same_time_do_not_lose_each_other(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    threads = [threading.Thread(target=login, args=(f"r{n}.io", ME), kwargs={"authfile": path}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["auths"]) == 8


def test_a_logout_forgets_the_registry_only(tmp_path: Path) -> None:
    auths = {"https://reg.io/v1/": entry("a"), "reg.io": entry("b"), "reg.io/team": entry("c"), "x.io": entry("d")}
    path = write(tmp_path / "auth.json", {"auths": auths})
    assert logout("reg.io", authfile=path)
    assert set(json.loads(path.read_text())["auths"]) == {"reg.io/team", "x.io"}
    assert not logout("reg.io", authfile=path)
    assert not logout("reg.io", authfile=tmp_path / "none.json")


@pytest.mark.parametrize("name", ["", "a:b", "a\nb"])
def test_names_that_cannot_be_kept_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="user name"):
        login("reg.io", Credentials(name, "pw"), authfile=tmp_path / "auth.json")
    with pytest.raises(InvalidReference):
        login("reg.io/x\n", ME, authfile=tmp_path / "auth.json")


def test_a_malformed_file_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "auth.json", "{")
    with pytest.raises(InvalidDocument):
        login("reg.io", ME, authfile=path)
    assert path.read_text() == "{"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    with pytest.raises(StorageError, match="cannot write"):
        login("reg.io", ME, authfile=tmp_path / "file/auth.json")


def test_trusted_realms_are_a_list() -> None:
    assert trusted_realms({}) == frozenset()
    assert trusted_realms({"IMAGETOOL_TRUSTED_REALMS": "a.io, B.io  c.io"}) == {"a.io", "b.io", "c.io"}


# -- helpers -----------------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper `docker-credential-test` that keeps one JSON file per server, as a shell script."""
    folder = tmp_path / "bin"
    script = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
get) read -r server; name=$(echo "$server" | tr -c 'a-z0-9.\\n' _)
     [ -f "$name" ] && cat "$name" || { echo "credentials not found in native keychain"; exit 1; } ;;
store) cat > stored ;;
erase) cat > erased ;;
esac
"""
    path = write(folder / "docker-credential-test", script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def keep(helper: Path, server: str, username: str, kept: str = "pw") -> None:
    write(helper / server, {"ServerURL": server, "Username": username, "Secret": kept})


def test_a_helper_of_the_registry_goes_before_the_store_and_the_file(tmp_path: Path, helper: Path) -> None:
    tree = {"credHelpers": {"a.io": "test"}, "auths": {"a.io": entry("file"), "b.io": entry("file")}}
    path = write(tmp_path / "config.json", tree)
    assert user(find("a.io", "r", authfile=path)) == "file"  # the helper has nothing
    keep(helper, "a.io", "helper")
    keep(helper, "b.io", "helper")
    found = find("a.io", "r", authfile=path)
    assert user(found) == "helper"
    assert found is not None
    assert found.place == f"docker-credential-test, named by {path}"
    assert user(find("b.io", "r", authfile=path)) == "file"
    write(path, {**tree, "credsStore": "test"})
    assert user(find("b.io", "r", authfile=path)) == "helper"


def test_a_helpers_token_is_an_identity_token_and_hub_has_its_old_name(tmp_path: Path, helper: Path) -> None:
    path = write(tmp_path / "config.json", {"credsStore": "test"})
    keep(helper, "https___index.docker.io_v1_", "<token>", "refresh")
    found = find("docker.io", "library/debian", authfile=path)
    assert found is not None
    assert found.credentials == Credentials(identity_token="refresh")


def test_login_and_logout_go_through_the_helper(tmp_path: Path, helper: Path) -> None:
    path = write(tmp_path / "config.json", {"credsStore": "test"})
    assert login("reg.io", ME, authfile=path) == "docker-credential-test"
    assert json.loads((helper / "stored").read_text()) == {"ServerURL": "reg.io", "Username": "me", "Secret": "s3:cret"}
    assert "s3" not in path.read_text()
    assert logout("reg.io", authfile=path)
    assert (helper / "erased").read_text() == "reg.io"


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "A", "x" * 65, "-x", "a\n", "$(id)"])
def test_a_helper_name_that_is_none_is_never_run(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "config.json", {"credHelpers": {"reg.io": name}})
    if name == "":
        assert find("reg.io", "r", authfile=path) is None
        return
    with pytest.raises(AuthError, match="not the name of a credential helper") as refused:
        find("reg.io", "r", authfile=path)
    assert str(path) in refused.value.__notes__[0]


def test_a_server_with_a_line_break_is_never_sent(tmp_path: Path, helper: Path) -> None:
    path = write(tmp_path / "config.json", {"credsStore": "test"})
    with pytest.raises(AuthError, match="not a server name"):
        find("reg.io\nother.io", "r", authfile=path)


def test_a_helper_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", {"credsStore": "nowhere"})
    with pytest.raises(AuthError, match="docker-credential-nowhere is not installed"):
        find("reg.io", "r", authfile=path)


@pytest.mark.parametrize(
    ("body", "message", "patience"),
    [
        ("echo 'vault \033[31mlocked'; exit 3", r"failed: vault \[31mlocked", 10),
        ("exit 3", "status 3", 10),
        ("echo not json", "get reg.io", 10),
        ("echo '{\"Username\":7}'", "Username", 10),
        ("yes", "more than 65536 bytes", 10),
        ("sleep 60", "no answer within", 0.5),
        ("exec >&-; sleep 60", "does not end", 0.5),
    ],
)
def test_a_helper_that_misbehaves_is_one_error(
    tmp_path: Path, helper: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str, patience: float
) -> None:
    monkeypatch.setattr("imagetool.config.credential_helper._SECONDS", patience)
    write(helper / "docker-credential-test", f"#!/bin/sh\n{body}\n")
    path = write(tmp_path / "config.json", {"credsStore": "test"})
    start = time.monotonic()
    with pytest.raises(ImagetoolError, match=message) as refused:
        find("reg.io", "r", authfile=path)
    assert time.monotonic() - start < 5
    assert str(refused.value).isprintable()
