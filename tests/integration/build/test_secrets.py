"""Secrets reach the step that mounts them, and nothing else: no layer, history, key, log, record or disk."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.build.secretmounts import agent_socket
from imagetool.image.image import load
from imagetool.layer.merge import flatten
from tests.support.command import imagetool

pytestmark = pytest.mark.root

SECRET = "s3cr3t/väl+ue?&42"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    imagetool("base", "busybox", root=tmp_path / "store")
    (tmp_path / "secret").write_text(SECRET + "\n")
    return tmp_path / "store"


def build(
    root: Path, run: str, *options: str, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    context = root.parent / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(f"FROM busybox\n{run}\n")
    return imagetool("build", "-t", "x", "--progress", "plain", *options, context, root=root, check=check, env=env)


def given(root: Path) -> str:
    return f"id=token,src={root.parent}/secret"


def text_of(root: Path, name: str) -> str:
    with opened("x", Workplace(root)) as (store, descriptor):
        for entry, content in flatten(load(store, descriptor).openers()):
            if entry.name == name.encode():
                return b"".join(content).decode()
    raise AssertionError(f"no {name}")


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_secret_is_a_file_in_memory_for_its_user_alone(root: Path) -> None:
    run = (
        "RUN --mount=type=secret,id=token set -e; cd /run/secrets; wc -c < token > /size;"
        " stat -c '%a %u %g' token > /about; grep -c ' /run/secrets/token tmpfs ' /proc/mounts > /kind"
    )
    build(root, run, "--secret", given(root))
    assert text_of(root, "size").strip() == str(len(SECRET.encode()) + 1)
    assert text_of(root, "about") == "400 0 0\n"
    assert text_of(root, "kind") == "1\n"


def test_target_mode_and_owner_are_as_asked(root: Path) -> None:
    run = "RUN --mount=type=secret,id=token,target=/etc/key,mode=0440,uid=5,gid=6 stat -c '%a %u %g' /etc/key > /about"
    build(root, run, "--secret", given(root))
    assert text_of(root, "about") == "440 5 6\n"
    with pytest.raises(AssertionError, match="no etc/key"):
        text_of(root, "etc/key")


def test_a_secret_may_be_a_variable_and_come_from_one(root: Path) -> None:
    run = 'RUN --mount=type=secret,id=token,env=TOKEN test "$TOKEN" = "$(printf %s "$TOKEN")" && echo ${#TOKEN} > /n'
    build(root, run, "--secret", "id=token,env=MINE", env={"MINE": "abcdefgh"})
    assert text_of(root, "n") == "8\n"
    build(root, run, "--no-cache", "--secret", "id=token", env={"token": "abcdefghi"})
    assert text_of(root, "n") == "9\n"


def test_output_never_shows_a_secret_in_any_form(root: Path) -> None:
    run = (
        "RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=T cat /run/secrets/token; echo raw $T;"
        ' printf %s "$T" | base64; echo b64 $(echo "$T" | base64); printf s3cr3t; sleep 0.2; printf %s "${T#s3cr3t}";'
        " echo; echo s3cr3t%2Fv%C3%A4l%2Bue%3F%2642; echo unharmed s3cr; exit 3"
    )
    done = build(root, run, "--secret", given(root), check=False)
    assert done.returncode == 1
    assert "unharmed s3cr\n" in done.stderr
    lines = done.stderr.partition("imagetool: ")[0].splitlines()
    shown = "\n".join(line for line in lines if line.startswith("  "))
    for form in (SECRET, base64.b64encode(SECRET.encode()).decode()[:20], "v%C3%A4l%2Bue"):
        assert form not in shown
    assert shown.count("[redacted]") >= 5


def test_a_secret_is_nowhere_on_disk_or_in_the_image(root: Path, tmp_path: Path) -> None:
    mounts = "--mount=type=secret,id=token,env=T --mount=type=secret,id=token,target=/k"
    run = f'RUN {mounts} test -n "$T" && echo $T && echo > /a'
    secret = f"{SECRET}{secrets.token_hex(8)}"  # other tests have theirs in the same memory meanwhile
    (root.parent / "secret").write_text(f"{secret}\n")
    build(root, run, "--secret", given(root), "--metadata-file", str(tmp_path / "metadata"))
    assert secret.encode() not in everything_in(root)
    assert secret.encode() not in (tmp_path / "metadata").read_bytes()
    assert secret not in imagetool("inspect", "--config", "x", root=root).stdout
    kept = [name for name in os.listdir("/dev/shm") if name.startswith("imagetool-secret-")]
    assert not [name for name in kept if _holds(name, secret)]


def _holds(name: str, secret: str) -> bool:
    """Say whether a folder in memory holds a secret; other builds may run on this machine."""
    folder = Path("/dev/shm") / name
    try:
        return any(secret in path.read_text(errors="replace") for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:  # that of another, which has ended
        return False


@pytest.mark.parametrize(
    "command",
    [
        "cp /run/secrets/token /leak",
        "base64 < /run/secrets/token > /leak",
        'ln -s "$(cat /run/secrets/token | tr / _)$T" /leak',
    ],
)
def test_a_layer_that_holds_a_secret_fails_the_build(root: Path, command: str) -> None:
    run = f"RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=T {command}"
    done = build(root, run, "--secret", given(root), check=False)
    assert done.returncode == 1
    assert "would put the secret 'token' into the image: leak" in done.stderr
    assert SECRET.encode() not in everything_in(root)
    again = build(root, run, "--secret", given(root), check=False)
    assert again.returncode == 1


def test_a_changed_secret_does_not_change_the_key(root: Path) -> None:
    run = "RUN --mount=type=secret,id=token test -s /run/secrets/token"
    build(root, run, "--secret", given(root))
    (root.parent / "secret").write_text("another")
    assert "Using cache" in build(root, run, "--secret", given(root)).stderr


def test_a_missing_secret_is_no_file_unless_it_is_required(root: Path) -> None:
    build(root, "RUN --mount=type=secret,id=token test ! -e /run/secrets/token")
    done = build(root, "RUN --mount=type=secret,id=tokn,required true", "--secret", given(root), check=False)
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    assert "Dockerfile:2" in done.stderr


@pytest.mark.parametrize("text", ["token", "id=", "id=a,src=/x,env=Y", "id=a,colour=red", "id=a,env=NOT_THERE_AT_ALL"])
def test_secrets_that_cannot_be_are_refused(root: Path, text: str) -> None:
    done = build(root, "RUN true", "--secret", text, check=False)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A socket that answers with what it got, backwards."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(connection.recv(100).strip()[::-1] + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_an_agent_has_a_socket_in_the_step_with_owner_and_mode(root: Path, agent: Path) -> None:
    run = (
        "RUN --mount=type=ssh,uid=7,mode=0660 test -S $SSH_AUTH_SOCK && stat -c '%a %u' $SSH_AUTH_SOCK > /about &&"
        " echo $SSH_AUTH_SOCK > /name"
    )
    build(root, run, "--ssh", f"default={agent}")
    assert text_of(root, "about") == "660 7\n"
    assert text_of(root, "name") == "/run/buildkit/ssh_agent.0\n"


def test_what_is_said_to_the_socket_goes_to_the_agent(agent: Path, tmp_path: Path) -> None:
    with agent_socket(tmp_path / "inside", agent):
        for text in (b"hello", b"again"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(tmp_path / "inside"))
                client.sendall(text + b"\n")
                assert client.recv(100) == text[::-1] + b"\n"
                assert client.recv(100) == b""


def test_an_agent_that_is_none_is_refused(root: Path) -> None:
    done = build(root, "RUN true", "--ssh", f"default={root.parent}/secret", check=False)
    assert done.returncode == 2
    assert "is no socket" in done.stderr


def test_the_end_of_a_failed_steps_output_is_redacted_too(root: Path) -> None:
    run = "RUN --mount=type=secret,id=token for i in $(seq 30); do echo line $i; done; cat /run/secrets/token; exit 127"
    done = build(root, run, "--secret", given(root), "--progress", "quiet", check=False)
    assert "  line 30\n  [redacted]\n" in done.stderr
    assert "hint: 127 says" in done.stderr


FORMS = {
    "raw": SECRET,
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "URL": "s3cr3t%2Fv%C3%A4l%2Bue%3F%2642",
}


def shown_of(text: str) -> list[str]:
    """Return which forms of the secret a text has."""
    return [form for form, written in FORMS.items() if written.rstrip("=")[:20] in text]


def test_progress_for_programs_never_has_a_secret(root: Path) -> None:
    """Nor has what is kept to be shown again."""
    run = (
        "RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=T cat /run/secrets/token;"
        ' printf %s "$T" | base64; printf %s "$T" | base64 | tr + -; echo s3cr3t"%2Fv%C3%A4l%2Bue%3F%2642"'
    )
    for flags in ((), ("--no-cache",), ("--explain-cache",)):
        done = build(root, run, "--progress", "json", "--secret", given(root), *flags)
        assert shown_of(done.stderr) == []
        assert ("[redacted]" in done.stderr) == (flags != ("--explain-cache",))
    assert shown_of(everything_in(root / "cache").decode(errors="replace")) == []


@pytest.mark.parametrize("form", FORMS)
def test_an_error_never_has_a_secret(root: Path, form: str) -> None:
    for progress in ("plain", "json", "quiet"):
        flags = ("--progress", progress, "--secret", given(root), "--build-arg", f"V={FORMS[form]}")
        done = build(root, "ARG V\nCOPY a$V /file", *flags, check=False)
        assert done.returncode == 1, done.stderr
        assert shown_of(done.stderr) == []
        assert "[redacted]" in done.stderr


@pytest.mark.parametrize(
    ("form", "line"),
    [
        *((form, "ENV A=$V") for form in FORMS),
        ("raw", 'LABEL A="$V"'),
        ("raw", "RUN true"),
        ("raw", "EXPOSE 1\nUSER $V"),
    ],
)
def test_a_configuration_that_holds_a_secret_fails_the_build(root: Path, form: str, line: str) -> None:
    """It comes there by an ARG that was given the secret, which is what nobody should do."""
    flags = ("--secret", given(root), "--build-arg", f"V={FORMS[form]}", "--iidfile", str(root.parent / "iid"))
    done = build(root, f"ARG V\n{line}", *flags, check=False)
    assert done.returncode == 1, done.stderr
    assert "the secret 'token' would be in the image: its " in done.stderr
    assert shown_of(done.stderr) == []
    assert not (root.parent / "iid").exists()
    assert shown_of(everything_in(root / "cache").decode(errors="replace")) == []
    assert "\nx:latest" not in imagetool("images", root=root).stdout


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_that_holds_a_secret_in_any_form_fails_the_build(root: Path, form: str) -> None:
    context = root.parent / "context"
    context.mkdir()
    (context / "leak").write_text(f"before {FORMS[form]} after")
    for line in ("COPY leak /leak", "ADD leak /leak", "COPY <<leak /leak\n" + FORMS[form] + "\nleak"):
        done = build(root, line, "--secret", given(root), check=False)
        assert done.returncode == 1, line
        assert "would put the secret 'token' into the image: leak holds it" in done.stderr


def test_metadata_and_timeline_never_have_a_secret(root: Path, tmp_path: Path) -> None:
    run = f"# {SECRET}\nRUN --mount=type=secret,id=token cat /run/secrets/token # {SECRET}\nFROM busybox\nRUN true"
    files = [tmp_path / "metadata", tmp_path / "timeline"]
    options = ["--target", "0", "--metadata-file", str(files[0])]
    if "--timeline" in imagetool("build", "--help", root=root).stdout:
        options += ["--timeline", str(files[1])]
    done = build(root, run, *options, "--secret", given(root), check=False)
    assert done.returncode == 1, "the command is in the history, with the comment that it ends with"
    build(root, run.replace(f" # {SECRET}", ""), *options, "--secret", given(root))
    for file in files[: len(options) // 2 - 1]:
        assert file.stat().st_size
        assert shown_of(file.read_text()) == []
