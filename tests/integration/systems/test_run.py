"""`imagetool run`: a command in a container of an image, as a user of docker expects it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.integration.systems.conftest import SAID, SAID_AS_APP, STATUS, App
from tests.support.command import imagetool
from tests.support.users import NOBODY, as_user, users_folder
from tests.support.wire import wait_for

pytestmark = pytest.mark.root


def run(app: App, *args: str | Path, check: int | None = 0, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=100, check=False)
    if check is not None:
        assert done.returncode == check, done.stderr.decode()
    return done


def sh(app: App, *args: str | Path, script: str, check: int | None = 0, stdin: bytes = b"") -> str:
    done = run(app, *args, "--entrypoint", "/bin/sh", app.name, "-c", script, check=check, stdin=stdin)
    return done.stdout.decode()


def test_the_image_runs_as_it_says_and_its_status_is_ours(app: App) -> None:
    assert run(app, "--rm", app.name, check=STATUS).stdout.decode() == SAID


def test_everything_after_the_image_is_its_command(app: App) -> None:
    done = run(app, "-u", "app", app.name, "--", "-v", "--root", "", check=STATUS)
    said = SAID_AS_APP.split("argument")[0] + "".join(f"argument <{word}>\n" for word in ("--", "-v", "--root", ""))
    assert done.stdout.decode() == said


def test_environment_user_directory_and_name_are_what_the_caller_wants(app: App, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\n\nFROM_FILE=a b\nGREETING=file\n")
    options = ("--env-file", tmp_path / "env", "-e", "GREETING=line", "-w", "/not/yet", "-h", "box", "-u", "1234:77")
    script = "echo $FROM_FILE/$GREETING/$HOSTNAME; hostname; pwd; id -u; id -g; cat /etc/hostname; grep box /etc/hosts"
    said = sh(app, *options, script=script).split("\n")
    assert said == ["a b/line/box", "box", "/not/yet", "1234", "77", "box", "127.0.0.1\tlocalhost box", ""]


def test_the_hosts_environment_stays_outside(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    assert "of the host" not in sh(app, script="env")
    assert "SECRET=of the host" in sh(app, "-e", "SECRET", script="env"), "unless it is asked for by name"


def test_what_a_container_changes_is_gone_afterwards(app: App) -> None:
    assert sh(app, script="rm -r /srv /data; echo x > /new; ls -a / | grep -c new") == "1\n"
    assert run(app, app.name, check=STATUS).stdout.decode() == SAID
    snapshots = [path.name for path in (app.root / "snapshots").iterdir()]
    assert not [name for name in snapshots if name.startswith("new-")], "no workspace is left"


def test_volumes_are_the_hosts_files(app: App, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("of the host\n")
    volumes = ("-v", f"{tmp_path / 'in'}:/mnt:ro", "-v", f"{tmp_path}:/out")
    said = sh(app, *volumes, script="cat /mnt/file; touch /mnt/x 2>/dev/null || echo refused; echo made > /out/made")
    assert said == "of the host\nrefused\n"
    assert (tmp_path / "made").read_text() == "made\n"


def test_a_read_only_root_has_writable_volumes_with_what_the_image_has_there(app: App) -> None:
    script = (
        "touch /x 2>/dev/null || echo refused; echo more >> /data/seed; cat /data/seed; touch /scratch/y && echo memory"
    )
    said = sh(app, "--read-only", "--tmpfs", "/scratch", script=script)
    assert said == "refused\nseed\nmore\nmemory\n"
    assert "seed" in sh(app, script="cat /data/seed"), "the image is as it was"


def test_directories_in_memory_have_the_options_that_docker_takes(app: App) -> None:
    look = "grep -o ' /scratch tmpfs [^ ]*' /proc/mounts; stat -c %a /scratch"
    said = sh(app, "--tmpfs", "/scratch:size=1m,noexec,exec,ro", script=look)
    assert {"ro", "nosuid", "nodev", "size=1024k"} <= set(said.split()[2].split(","))
    assert "noexec" not in said
    assert said.split()[-1] == "1777"
    said = sh(app, "--mount", "type=tmpfs,destination=/scratch,tmpfs-mode=0700,tmpfs-size=2m", script=look)
    assert "size=2048k" in said
    assert said.split()[-1] == "700"


def test_mounts_are_those_of_docker_run(app: App, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    look = "cat /mnt/file; touch /mnt/made 2>/dev/null || echo refused"
    assert sh(app, "--mount", f"type=bind,src={tmp_path},dst=/mnt,readonly", script=look) == "of the host\nrefused\n"
    assert sh(app, "--mount", f"type=bind,source={tmp_path},target=/mnt,ro=false", script=look) == "of the host\n"
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--mount", "type=volume,src=v,dst=/x"), "volumes with a name are not kept here"),
        (("--mount", "source=/tmp,target=/x"), "volumes with a name are not kept here"),
        (("--mount", "type=bind,target=/x"), "write type=bind,source=HOST"),
        (("--mount", "type=bind,source=/tmp,target=/x,bind-propagation=shared"), "write type=bind,source=HOST"),
        (("--mount", "type=bind,source=/tmp,target=x"), "both absolute"),
        (("--mount", "type=tmpfs,target=/x,tmpfs-size=big"), "'size=big' is none of"),
        (("--tmpfs", "/x:size=1m,huge=always"), "'huge=always' is none of"),
        (("--tmpfs", "x"), "not an absolute path"),
    ],
)
def test_a_mount_that_cannot_be_is_an_error_that_says_what_can(app: App, flags: tuple[str, str], says: str) -> None:
    done = run(app, *flags, app.name, check=2)
    assert says in done.stderr.decode()


def test_an_image_for_another_platform_than_asked_for_is_not_run(app: App) -> None:
    done = run(app, "--platform", "linux/s390x", app.name, check=3)
    assert "is an image for linux/amd64, and not for linux/s390x" in done.stderr.decode()


def test_stdin_is_empty_unless_it_is_handed_on(app: App) -> None:
    assert sh(app, script="wc -c", stdin=b"not for you") == "0\n"
    data = b"line\n" * 100_000
    assert sh(app, "-i", script="wc -c", stdin=data) == f"{len(data)}\n"


def test_a_container_that_does_not_read_its_input_ends_all_the_same(app: App) -> None:
    assert sh(app, "-i", script="exit 5", check=5, stdin=b"x" * 10_000_000) == ""


def test_a_closed_stdin_is_an_empty_one(app: App) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "-i", "--entrypoint", "wc", app.name]
    script = 'exec "$@" -c <&-'
    done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


def test_a_reader_that_goes_away_ends_the_container(app: App) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "--entrypoint", "yes", app.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(100)
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_output_and_errors_stay_apart_and_whole(app: App) -> None:
    done = run(app, "--entrypoint", "/bin/sh", app.name, "-c", "seq 50000; echo wrong >&2")
    assert done.stdout.decode().split() == [str(number) for number in range(1, 50001)]
    assert done.stderr.decode() == "wrong\n"


@pytest.mark.parametrize(
    ("entrypoint", "command", "status"),
    [
        ("/bin/sh", ("-c", "kill -9 $$"), 137),
        ("/no/such/program", (), 127),
        ("/etc/passwd", (), 126),
        ('["/bin/sh", "-c", "exit 3"]', (), 3),
    ],
)
def test_the_status_says_how_it_ended(app: App, entrypoint: str, command: tuple[str, ...], status: int) -> None:
    done = run(app, "--entrypoint", entrypoint, app.name, *command, check=status)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 9), (signal.SIGINT, 9), (signal.SIGUSR1, 9)])
def test_signals_reach_the_containers_program(app: App, number: signal.Signals, status: int) -> None:
    script = "trap 'echo told; exit 9' TERM INT USR1; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "--entrypoint", "/bin/sh", app.name]
    with subprocess.Popen([*command, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"told\n"
        assert process.wait(60) == status


def test_a_program_that_ignores_signals_is_killed_when_told_again_and_again(app: App) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "--entrypoint", "/bin/sh", app.name]
    script = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*command, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < deadline
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)  # to the very end
        assert process.returncode == 130
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == b"imagetool: interrupted"


class Terminal:
    """A user at a terminal: the program's controlling terminal is one of ours."""

    def __init__(self, *command: str, rows: int = 33, columns: int = 77) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            _resize(0, rows, columns)
            os.execv(command[0], command)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        _resize(self.master, rows, columns)

    def until(self, text: bytes) -> None:
        """Read until a text comes that has not been waited for before."""
        while text not in self.seen:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                data = b""
            assert data, self.seen
            self.seen += data
        self.seen = self.seen.partition(text)[2]

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def end(self) -> int:
        while True:
            try:
                if not os.read(self.master, 4096):
                    break
            except OSError:
                break
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _shell(app: App) -> Terminal:
    options = ("-i", "-t", "-e", "PS1=$ ", "--entrypoint", "/bin/sh", app.name)
    return Terminal(sys.executable, "-m", "imagetool", "--root", str(app.root), "run", *options)


def test_a_terminal_is_a_terminal_on_both_sides(app: App) -> None:
    at = _shell(app)
    at.until(b"$ ")
    at.send(b"tty; stty size; echo $TERM\n")
    at.until(b"/dev/pts/0\r\n33 77\r\nxterm\r\n$ ")
    at.send(b"sh -c 'echo up; exec sleep 100'\n")
    at.until(b"\r\nup\r\n")
    at.send(b"\x03")
    at.until(b"$ ")
    at.send(b"echo status $?\n")
    at.until(b"status 130\r\n$ ")
    at.resize(20, 60)
    os.kill(at.pid, signal.SIGWINCH)
    at.send(b"until stty size | grep '20 60'; do sleep 0.1; done\n")
    at.until(b"\r\n20 60\r\n$ ")
    at.send(b"exit 4\n")
    assert at.end() == 4


def test_the_console_is_the_terminal(app: App) -> None:
    for user in ("root", "app"):
        options = ("-i", "-t", "--read-only", "--user", user, "-e", "PS1=$ ", "--entrypoint", "/bin/sh", app.name)
        at = Terminal(sys.executable, "-m", "imagetool", "--root", str(app.root), "run", *options)
        at.until(b"$ ")
        at.send(b"stat -c %t:%T:%u /dev/console /dev/pts/0 | sort -u | wc -l; echo shown > /dev/console\n")
        at.until(b"1\r\nshown\r\n")
        at.send(b"exit 3\n")
        assert at.end() == 3
    command = ["--entrypoint", "/bin/sh", app.name, "-c", "test -e /dev/console || echo none"]
    assert run(app, *command).stdout == b"none\n"


def test_the_end_of_input_ends_a_shell(app: App) -> None:
    at = _shell(app)
    at.until(b"$ ")
    at.send(b"\x04")
    assert at.end() == 0


def test_the_callers_terminal_is_as_it_was(app: App) -> None:
    code = (
        "import subprocess, sys, termios; before = termios.tcgetattr(0);"
        "code = subprocess.run(sys.argv[1:]).returncode; print('same', termios.tcgetattr(0) == before, code)"
    )
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "-it", "--entrypoint", "/bin/sh"]
    at = Terminal(sys.executable, "-c", code, *command, app.name, "-c", "stty -echo raw; exit 6")
    at.until(b"same True 6")
    at.end()


def test_a_terminal_without_a_terminal_is_refused(app: App) -> None:
    done = run(app, "-i", "-t", app.name, check=2)
    assert b"stdin is not a terminal" in done.stderr


def test_limits_end_it_and_say_so(app: App) -> None:
    done = run(app, "--timeout", "1s", "--entrypoint", "sleep", app.name, "60", check=137)
    assert b"it" in done.stderr
    assert b"time limit" in done.stderr


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ((), "00000000a80425fb"),  # what docker gives
        (("--cap-drop", "ALL"), "0000000000000000"),
        (("--cap-drop", "all", "--cap-add", "chown"), "0000000000000001"),
        (("--cap-drop", "MKNOD"), "00000000a00425fb"),
    ],
)
def test_capabilities_are_those_of_a_container_and_the_callers(app: App, options: tuple[str, ...], mask: str) -> None:
    assert sh(app, *options, script="grep CapEff /proc/self/status").split() == ["CapEff:", mask]


def test_root_of_a_container_is_nobody_on_the_host_and_its_files_are_roots_all_the_same(
    app: App, tmp_path: Path
) -> None:
    probe = ("-v", f"{tmp_path}:/out")
    said = sh(app, *probe, script="cat /proc/self/uid_map; touch /out/made")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    if kind.strip() in ("ext2/ext3", "xfs", "btrfs"):
        assert said.split()[:2] != ["0", "0"]
    assert (tmp_path / "made").stat().st_uid == 0
    assert sh(app, "--userns", "host", script="cat /proc/self/uid_map").split() == ["0", "0", "4294967295"]


def test_no_network_is_loopback_only(app: App) -> None:
    said = sh(
        app, "--network", "none", script="ip link | grep -c ': <'; cat /etc/resolv.conf | grep -c '127.0.0' || true"
    )
    assert said.split()[0] == "1"


@pytest.mark.parametrize(
    ("options", "said", "status"),
    [
        (("-v", "named:/mnt"), "volumes with a name", 2),
        (("-v", "/no/such/place:/mnt"), "is not there", 3),
        (("-v", "/tmp:/mnt:rx"), "there are ro and rw", 2),
        (("-v", "/tmp:relative"), "both absolute", 2),
        (("-h", "a\nb"), "letters, digits", 2),
        (("-u", "nobody"), "nobody", 1),
        (("--entrypoint", "[1]"), "array of strings", 2),
        (("--env-file", "/no/such/file"), "--env-file", 3),
    ],
)
def test_wrong_wishes_are_one_clear_line(app: App, options: tuple[str, ...], said: str, status: int) -> None:
    done = run(app, *options, app.name, check=status)
    (line,) = done.stderr.decode().splitlines()
    assert said in line


def test_an_image_made_for_another_system_is_refused(app: App, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /\nCMD ["/x"]\n')
    name = f"{app.label}-run-freebsd:1"
    imagetool("build", "--platform", "freebsd/amd64", "-t", name, tmp_path, root=app.root)
    done = run(app, "--platform", "freebsd/amd64", name, check=2)
    assert b"is an image for freebsd" in done.stderr


@pytest.mark.parametrize("subordinate", [True, False], ids=["range of ids", "single id"])
def test_an_ordinary_user_runs_an_image(app: App, subordinate: bool) -> None:
    with users_folder() as folder:
        subprocess.run(["cp", "-r", str(app.root / "layout"), f"{folder}/layout"], check=True)
        (folder / "store").mkdir()
        (folder / "layout").rename(folder / "store/layout")
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(folder)], check=True)
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "run", "-i", app.name]
        done = as_user(command, folder=folder, subordinate=subordinate)
    assert (done.stdout, done.returncode) == (SAID, STATUS), done.stderr
    assert ("all files belong to root" in done.stderr) == (not subordinate)


def test_nothing_is_left_when_the_caller_is_killed(app: App, tmp_path: Path) -> None:
    mark = f"{app.label}-{tmp_path.name}"
    command = [sys.executable, "-m", "imagetool", "--root", str(app.root), "run", "--entrypoint", "/bin/sh", app.name]
    with subprocess.Popen(
        [*command, "-c", f"echo ready; exec sleep 1234567 # {mark}"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
    wait_for(lambda: not any(Path("/proc", child).exists() for child in children), seconds=30)
