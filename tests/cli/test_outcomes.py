"""Exit codes are API, stdout is for results, and everything else goes to stderr."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli.app import run
from tests.support.command import imagetool


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context that needs no root."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch AS one\nCOPY file /\nFROM scratch\nCOPY --from=one file /\n")
    (folder / "file").write_text("hello\n")
    return folder


@pytest.fixture
def root(tmp_path: Path, context: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A store with app:1."""
    store = str(tmp_path / "root")
    assert run(["build", "-q", "--root", store, "-t", "app:1", str(context)]) == 0
    capsys.readouterr()
    return store


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["images"], 0, ""),
        (["nothing"], 2, "there is no command 'nothing'; see imagetool --help"),
        (["verfy", "app:1"], 2, "did you mean 'verify'?"),
        (["verify", "--jsn", "app:1"], 2, "verify: there is no option '--jsn'; did you mean '--json'?"),
        (["verify"], 2, "verify: missing argument 'REFERENCE'"),
        (["inspect", "--raw", "--config", "app:1"], 2, "exclude each other"),
        (["inspect", "absent:1"], 3, "no image 'absent:1' in the local store; it has: app:1"),
        (["inspect", "App:1"], 2, "App"),
        (["inspect", "docker-daemon:x"], 2, "no such transport"),
        (["build", "/nowhere"], 3, "/nowhere is not a directory"),
        (["pull", "127.0.0.1:1/a/b:c"], 5, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_exit_code_says_what_kind_of_thing_went_wrong(
    args: list[str],
    code: int,
    told: str,
    root: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    assert run(["--root", root, *args]) == code
    out, err = capsys.readouterr()
    if code:
        assert out == ""
        assert err.startswith("imagetool: ")
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("dockerfile", "told"),
    [
        ("FRM scratch\n", "Dockerfile:1: "),
        ("FROM scratch\nCOPY absent /\n", "Dockerfile:2"),
        ("FROM scratch\nCOPY --form=x a /\n", "Dockerfile:2: "),
    ],
)
def test_a_wrong_dockerfile_is_1_with_the_place_and_an_excerpt(
    dockerfile: str, told: str, root: str, context: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    files = [str(tmp_path / name) for name in ("iid", "meta")]
    written = ["--iidfile", files[0], "--metadata-file", files[1]]
    Path(files[0]).write_text("what an earlier build wrote")
    assert run(["build", "--root", root, *written, str(context)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert dockerfile.splitlines()[-1] in err
    assert not any(os.path.exists(path) for path in files)


def test_damaged_blobs_are_6(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    (layer,) = [path for path in Path(root, "layout/blobs/sha256").iterdir() if path.read_bytes()[:2] == b"\x1f\x8b"]
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    assert run(["--root", root, "verify", "app:1"]) == 6
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert err.endswith("1 of 3 checks failed\n")
    assert run(["--root", root, "verify", "--json", "app:1"]) == 6
    assert [entry["ok"] for entry in json.loads(capsys.readouterr().out)] == [True, True, False]


@pytest.mark.root
def test_a_failed_step_shows_where_and_what_it_said(context: Path, tmp_path: Path) -> None:
    store = tmp_path / "run"
    imagetool("base", "busybox", root=store)
    (context / "Dockerfile").write_text("FROM busybox\nENV A=b\nRUN echo before; echo wrong >&2; exit 7\nRUN true\n")
    for mode in ("plain", "quiet"):
        failed = imagetool("build", "--progress", mode, context, root=store, check=False)
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert "exit code 7" in failed.stderr
        assert "Dockerfile:3" in failed.stderr
        assert "RUN echo before; echo wrong >&2; exit 7" in failed.stderr
        assert "wrong\n" in failed.stderr, mode


@pytest.mark.root
@pytest.mark.peer
def test_steps_run_with_runc_and_its_absence_is_9(context: Path, tmp_path: Path) -> None:
    store = tmp_path / "run"
    imagetool("base", "busybox", root=store)
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo by runc > /file\n")
    args = ("build", "--no-cache", context)
    embedded = imagetool(*args, root=store).stdout
    assert imagetool(*args, "--runtime", "runc", root=store).stdout == embedded
    missing = imagetool(*args, "--runtime", "runc", root=store, check=False, env={"PATH": str(tmp_path)})
    assert missing.returncode == 9
    assert "runc is not installed" in missing.stderr


def test_a_tar_on_stdout_is_all_of_stdout(root: str, context: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "imagetool", "--root", root, "build", "-o", "-", str(context)],
        capture_output=True,
        check=True,
    )
    listed = subprocess.run(["tar", "-t"], input=made.stdout, capture_output=True, check=True).stdout
    assert listed == b"file\n"
    assert made.stderr.splitlines()[-1].startswith(b"sha256:")
    direct = imagetool("build", "-o", f"type=tar,dest={tmp_path / 'out.tar'}", context, root=Path(root))
    assert (tmp_path / "out.tar").read_bytes() == made.stdout
    assert direct.stdout.startswith("sha256:")


@pytest.mark.parametrize(
    "output",
    ["type=foo,dest=x", "type=oci", "type=local,dest=-", "dest=x", "type=tar,dest=x,typo=1", "type=tar,,dest=x"],
)
def test_an_output_that_cannot_be_is_told_before_anything_is_built(
    output: str, tmp_path: Path, context: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", "--root", str(tmp_path / "new"), "-o", output, str(context)]) == 2
    assert "--output" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_dockerfile_may_come_from_stdin(context: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(tmp_path / "new"), "build", "-f", "-", str(context)]
    text = b"FROM scratch\nCOPY file /other\n"
    made = subprocess.run(command, input=text, capture_output=True, check=True).stdout.decode()
    (context / "Dockerfile").write_bytes(text)
    assert imagetool("build", context, root=tmp_path / "other").stdout == made
    assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 2


def test_a_reader_that_goes_away_is_no_error_of_ours(root: str) -> None:
    command = f"{sys.executable} -m imagetool --root {root} inspect app:1 | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


@pytest.mark.root
@pytest.mark.parametrize(("number", "ignored", "status"), [("TERM", "", 143), ("HUP", "", 129), ("TERM", "HUP", 143)])
def test_a_signal_ends_a_build_in_order(context: Path, tmp_path: Path, number: str, ignored: str, status: int) -> None:
    """What nohup starts does not end with its terminal."""
    store = tmp_path / "run"
    imagetool("base", "busybox", root=store)
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo started; sleep 1000\n")
    iidfile = tmp_path / "iid"
    command = [sys.executable, "-m", "imagetool", "--root", str(store), "build", "--iidfile", str(iidfile)]
    script = f"trap '' {ignored or 'USR2'}; trap - {number}; exec \"$@\""
    wrapped = ["env", "--default-signal", "sh", "-c", script, "sh", *command, "--progress", "plain", str(context)]
    running = subprocess.Popen(wrapped, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while "started" not in (line := running.stderr.readline()) or "STEP" in line:
        assert line, "the step did not start"
    if ignored:
        running.send_signal(signal.Signals[f"SIG{ignored}"])
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(1)
    running.send_signal(signal.Signals[f"SIG{number}"])
    _, rest = running.communicate(timeout=60)
    assert running.returncode == status
    assert "Traceback" not in rest
    assert not iidfile.exists()
    assert [path for path in store.rglob("*") if path.parent.name in (".staging", "work")] == []
    assert imagetool("verify", "busybox", root=store).returncode == 0


def test_a_bug_is_125_and_shows_where(root: str) -> None:
    code = (
        "import sys; from imagetool import __main__, api; api.opened = None;"
        f"sys.argv = ['imagetool', '--root', {root!r}, 'inspect', 'app:1']; __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("please report it with the lines above\n")


@pytest.mark.root
def test_misspelt_stages_and_build_arguments_are_recognised(
    context: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    (context / "Dockerfile").write_text("FROM scratch AS builder\nARG VERSION\nFROM scratch\nCOPY --from=bulder /a /\n")
    assert run(["build", "--root", str(tmp_path / "root"), "--build-arg", "VERSON=1", str(context)]) in (3, 5)
    told = capsys.readouterr().err
    assert "no stage before this one is named 'bulder' (did you mean builder?)" in told
    assert "no ARG declares: VERSON (did you mean VERSION?)" in told


@pytest.mark.parametrize(
    ("args", "environment", "code", "told"),
    [
        (["build", "--label", "a=\udcff", "."], {}, 2, "not UTF-8"),
        (["build", "--build-arg", "a=\udcff", "."], {}, 2, "--build-arg a"),
        (["build", "--build-arg", "A", "."], {"A": "\udcff"}, 2, "--build-arg A"),
        (["build", "--output", "", "."], {}, 2, "--output"),
        (["build", "."], {"SOURCE_DATE_EPOCH": "²"}, 2, "SOURCE_DATE_EPOCH"),
        (["build", "--target", "²", "."], {}, 2, "no stage is named"),
        (["build", "-f", "/dev/zero", "."], {}, 1, "/dev/zero: larger than"),
        (["lint", "/dev/zero"], {}, 1, "/dev/zero: larger than"),
        (["build", "n" * 5000], {}, 3, "is not a directory"),
        (["build", "-f", "n" * 5000, "."], {}, 8, "File name too long"),
        (["ls", "--layer", "²", "app:1"], {}, 2, "--layer"),
        (["build", "-o", f"oci,dest={'n' * 300}", "."], {}, 2, "--output"),
        (["build", "-o", f"type=oci,dest={'n' * 300}", "."], {}, 8, "File name too long"),
        (["inspect", "oci:" + "n" * 300], {}, 8, "File name too long"),
        (["inspect", "dir:" + "n" * 300], {}, 8, "File name too long"),
        (["unpack", "app:1", "n" * 300], {}, 8, "File name too long"),
        (["repack", "n" * 300, "app:1"], {}, 8, "File name too long"),
        (["base", "-t", "x", "/" + "n" * 300], {}, 8, "File name too long"),
        (["copy", "app:1", "oci-archive:" + "n" * 300], {}, 8, "File name too long"),
        (["--root", "n" * 300, "images"], {}, 8, "File name too long"),
        (["build", "-f", "-", "-"], {}, 2, "stdin"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_odd_arguments_end_with_one_error(
    args: list[str], environment: dict[str, str], code: int, told: str, root: str, context: Path
) -> None:
    command = [sys.executable, "-m", "imagetool", *([] if "--root" in args else ["--root", root]), *args]
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    done = subprocess.run(
        command, cwd=context, env=known, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    text = done.stderr.decode()
    assert (done.returncode, "Traceback" in text) == (code, False), text
    assert told in text


@pytest.mark.parametrize("args", [["--version"], ["images"], ["inspect", "app:1"], ["--help"], ["verify", "app:1"]])
@pytest.mark.parametrize(
    ("streams", "code"),
    [("<&-", 0), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 8), ("| true", 141)],
)
def test_streams_that_are_closed_full_or_read_by_nobody(
    args: list[str], streams: str, code: int, root: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", root, *args]
    if args == ["--version"]:
        command = [sys.executable, "-m", "imagetool", *args]
    gone = tmp_path / "gone"
    os.mkfifo(gone)
    if streams == "| true":
        script = f"set -o pipefail; (: < {gone}; exec {shlex.join(command)}) | (exec <&-; : > {gone})"
    else:
        script = f"{shlex.join(command)} {streams}"
    done = subprocess.run(["bash", "-c", script], cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr


def test_what_is_closed_is_not_taken_by_other_files(root: str) -> None:
    code = (
        "import os, runpy, sys; sys.argv[0:] = ['imagetool', '--version'];"
        "runpy.run_module('imagetool', run_name='__main__');"
        "os.write(3, repr([os.readlink(f'/proc/self/fd/{n}') for n in range(3)]).encode())"
    )
    script = f"exec 3>&1; exec {shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", script], cwd=Path(__file__).parents[2], capture_output=True, check=True)
    assert done.stdout.decode() == repr(["/dev/null"] * 3)
