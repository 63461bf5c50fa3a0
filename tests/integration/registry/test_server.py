"""The registry as a process: starting, stopping, dying, and clients that misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool.oci.digest import Digest
from tests.support.registry import manifest


class Server:
    """A running `imagetool registry serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.port = 0

    @property
    def log(self) -> str:
        return self._log.read_text()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def begin(self, repository: str = "app") -> str:
        status, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/", Content_Length="0")
        assert status == 202
        return headers["location"]

    def blob(self, data: bytes, repository: str = "app") -> Digest:
        digest = Digest.of(data)
        assert self.request("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)[0] == 201
        return digest

    def stalled(self, path: str, sent: bytes, length: int = 1000) -> socket.socket:
        """Begin a PATCH and send only some of its body."""
        connection = self.connect()
        head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        return connection

    def wait_for_upload(self, path: str, size: int) -> None:
        self.wait(lambda: self.request("GET", path)[1].get("range") == f"0-{size - 1}")

    @staticmethod
    def wait(condition: object) -> None:
        deadline = time.monotonic() + 60
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


COMMAND = [sys.executable, "-m", "imagetool", "registry", "serve"]


@contextmanager
def serving(root: Path, *args: str, script: str = "") -> Iterator[Server]:
    """Run the server; `script` is Python that runs first, in the same process."""
    log = root.with_suffix(f".{time.monotonic_ns()}.log")
    command = [*COMMAND, "--root", str(root), "--listen", "127.0.0.1:0", *args]
    if script:
        run = f"import sys; {script}; sys.argv[1:] = {command[3:]!r}; from imagetool.__main__ import main; main()"
        command = [sys.executable, "-c", run]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    server = Server(process, log)
    try:
        deadline = time.monotonic() + 60
        while not (
            match := re.search(r"^listening on http://(?:127\.0\.0\.1|localhost):(\d+)\n", server.log, re.MULTILINE)
        ):
            assert process.poll() is None, server.log
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.port = int(match[1])
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)


def refused(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done


# -- starting and stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_line_says_where_and_a_signal_ends_it_cleanly(tmp_path: Path, number: int) -> None:
    with serving(tmp_path / "r") as server:
        assert server.log == f"listening on http://127.0.0.1:{server.port}\n"
        server.blob(b"x")
        assert server.stop(number) == 0
        assert "Traceback" not in server.log


def test_a_name_may_stand_for_the_address(tmp_path: Path) -> None:
    with serving(tmp_path / "r", "--listen", "localhost:0") as server:
        assert server.log == f"listening on http://localhost:{server.port}\n"
        assert server.request("GET", "/v2/")[0] == 200


def test_a_client_that_stalls_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with serving(tmp_path / "r") as server:
        place = server.begin()
        with server.stalled(place, b"x" * 10):
            server.wait_for_upload(place, 10)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 40
            assert "Traceback" not in server.log


def test_clients_that_do_nothing_are_given_up_long_before_those_that_go_on(tmp_path: Path) -> None:
    """Half a header, half a body and a download that nobody takes end a server soon; one that is slow gets its time."""
    limits = "import registry_server.serve as serve; serve._STOP_SECONDS = 1000.0; serve._STILL_SECONDS = 5.0"
    with serving(tmp_path / "r", script=limits) as server, contextlib.ExitStack() as idle:
        digest = server.blob(os.urandom(24 << 20))
        place = server.begin()
        idle.enter_context(server.stalled(place, b"x" * 10))
        server.wait_for_upload(place, 10)
        idle.enter_context(server.connect()).sendall(b"GET /v2/ HTTP/1.1\r\nHo")
        asked = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        idle.enter_context(server.connect()).sendall(asked)
        slow = server.connect()
        slow.sendall(asked)
        taken = len(slow.recv(1 << 16))
        server.process.send_signal(signal.SIGTERM)
        with slow:
            for _ in range(200):
                taken += len(slow.recv(1 << 16))
                time.sleep(0.02)
            assert server.process.poll() is None
            while piece := slow.recv(1 << 20):
                taken += len(piece)
        assert taken > 24 << 20
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log


def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with serving(tmp_path / "r") as server:
        done = refused("--root", tmp_path / "other", "--listen", f"127.0.0.1:{server.port}")
        assert done.returncode == 2
        assert f"127.0.0.1:{server.port}: Address already in use" in done.stderr


def test_a_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    for root in (file, Path("/proc/registry")):
        done = refused("--root", root, "--listen", "127.0.0.1:0")
        assert done.returncode == 8
        assert str(root) in done.stderr


@pytest.mark.parametrize("listen", ["5000", "localhost", "127.0.0.1:x", "127.0.0.1:70000", "no.such.host.invalid:5000"])
def test_an_address_that_cannot_be_is_one_clear_error(tmp_path: Path, listen: str) -> None:
    assert refused("--root", tmp_path / "r", "--listen", listen).returncode == 2


def test_a_damaged_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/registry.db").write_bytes(b"no database" * 1000)
    done = refused("--root", tmp_path / "r", "--listen", "127.0.0.1:0")
    assert done.returncode == 8
    assert "registry.db" in done.stderr


# -- the access log ----------------------------------------------------------------------------------


def test_the_plain_log_is_one_line_a_request_without_control_characters(tmp_path: Path) -> None:
    with serving(tmp_path / "r") as server:
        server.request("GET", "/v2/", User_Agent='evil" 200 0 agent')
        server.request("GET", "/v2/%1b%5b31m%0a/tags/list?n=%0a1")
        server.wait(lambda: server.log.count("\n") >= 3)
        lines = server.log.splitlines()[1:]
    assert len(lines) == 2
    pattern = (
        r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:[\d:]{8} \+0000\]"
        r' "(\S+) (.*) HTTP/1\.1" (\d+) (\d+) "-" "(.*)" [\d.]+'
    )
    first, second = (re.fullmatch(pattern, line) for line in lines)
    assert first is not None
    assert second is not None
    assert first.groups() == ("GET", "/v2/", "200", "2", "evil' 200 0 agent")
    assert second[3] == "404"


def test_the_json_log_is_one_object_a_request(tmp_path: Path) -> None:
    with serving(tmp_path / "r", "--log", "json") as server:
        server.request("GET", "/v2/app/tags/list?n=1", User_Agent="test")
        server.wait(lambda: server.log.count("\n") >= 2)
        found = json.loads(server.log.splitlines()[1])
    assert (found["method"], found["target"], found["status"]) == ("GET", "/v2/app/tags/list?n=1", 404)
    assert (found["client"], found["agent"], found["protocol"]) == ("127.0.0.1", "test", "HTTP/1.1")


def test_there_may_be_no_log(tmp_path: Path) -> None:
    with serving(tmp_path / "r", "--log", "none") as server:
        server.request("GET", "/v2/")
        server.stop()
        assert server.log.count("\n") == 1


# -- durability --------------------------------------------------------------------------------------


def test_a_killed_server_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    """kill -9 at once after each kind of acknowledgement, and in the middle of an upload."""
    config, layer, part = b"{}", os.urandom(100_000), os.urandom(300_000)
    raw = manifest(config, layer)
    with serving(tmp_path / "r") as server:
        place = server.begin()
        assert server.request("PATCH", place, part[:100_000], Content_Range="0-99999")[0] == 202
        server.blob(config)
        server.blob(layer)
        server.process.kill()
        server.process.wait()
    with serving(tmp_path / "r") as server:
        assert server.request("GET", f"/v2/app/blobs/{Digest.of(layer)}")[2] == layer
        assert server.request("PUT", "/v2/app/manifests/v1", raw)[0] == 201
        server.process.kill()
        server.process.wait()
    with serving(tmp_path / "r") as server:
        assert server.request("GET", "/v2/app/manifests/v1")[2] == raw
        status, headers, _ = server.request("GET", place)
        assert (status, headers["range"]) == (204, "0-99999")
        with server.stalled(place, part[100_000:200_000], 200_000):
            server.wait_for_upload(place, 200_000)
            server.process.kill()
            server.process.wait()
    with serving(tmp_path / "r") as server:
        assert server.request("GET", place)[1]["range"] == "0-199999"
        digest = Digest.of(part)
        last = server.request("PUT", f"{place}?digest={digest}", part[200_000:], Content_Range="200000-299999")
        assert last[0] == 201
        assert server.request("GET", f"/v2/app/blobs/{digest}")[2] == part
        assert not list((tmp_path / "r/uploads").iterdir())


def test_a_server_killed_under_load_has_every_blob_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[Digest] = []
    lock = threading.Lock()

    def push(server: Server, worker: int) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for number in range(10_000):
                digest = server.blob(hashlib.sha256(f"{worker} {number}".encode()).digest() * 500, f"app{worker}")
                with lock:
                    acknowledged.append(digest)

    with serving(tmp_path / "r", "--log", "none") as server, ThreadPoolExecutor(4) as pool:
        running = [pool.submit(push, server, worker % 2) for worker in range(4)]
        server.wait(lambda: len(acknowledged) >= 60)
        server.process.kill()
        for push_done in running:
            push_done.result()
    with serving(tmp_path / "r", "--log", "none") as server:
        for digest in acknowledged:
            found = [server.request("GET", f"/v2/app{worker}/blobs/{digest}") for worker in (0, 1)]
            assert any(status == 200 and Digest.of(body) == digest for status, _, body in found)


# -- clients -----------------------------------------------------------------------------------------


def test_many_stalled_uploads_keep_nobody_out(tmp_path: Path) -> None:
    with serving(tmp_path / "r") as server, contextlib.ExitStack() as stalled:
        digest = server.blob(b"x" * 1000)
        for _ in range(40):
            stalled.enter_context(server.stalled(server.begin(), b"x"))
        assert server.request("GET", f"/v2/app/blobs/{digest}")[0] == 200
        server.blob(b"another")


def test_an_upload_that_stalls_or_drips_times_out_and_can_be_continued(tmp_path: Path) -> None:
    limits = "import imagetool.limits as limits; limits.BODY_SECONDS = 0.6; limits.BODY_BYTES_PER_SECOND = 10_000"
    with serving(tmp_path / "r", script=limits) as server:
        place = server.begin()
        with server.stalled(place, b"x" * 100) as connection:
            assert b" 408 " in connection.recv(1000)
        assert server.request("GET", place)[1]["range"] == "0-99"
        with server.stalled(server.begin(), b"") as connection:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                for _ in range(600):
                    connection.sendall(b"x")
                    time.sleep(0.1)
                    connection.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        assert b" 408 " in connection.recv(1000)
                        break
                    connection.setblocking(True)
            assert time.monotonic() - began < 45


def test_a_body_that_ends_early_is_not_taken_for_whole(tmp_path: Path) -> None:
    with serving(tmp_path / "r") as server:
        place = server.begin()
        with server.stalled(place, b"x" * 100):
            server.wait_for_upload(place, 100)
        server.wait(lambda: " 408 " in server.log)
        assert server.request("GET", place)[1]["range"] == "0-99"


def test_the_same_blob_pushed_by_many_at_once(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with serving(tmp_path / "r") as server, ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda number: server.blob(data, f"app{number % 3}"), range(12)))
        assert digests == {Digest.of(data)}
        for number in range(3):
            assert server.request("GET", f"/v2/app{number}/blobs/{Digest.of(data)}")[2] == data
    assert [path.stat().st_size for path in (tmp_path / "r/blobs").rglob("*") if path.is_file()] == [len(data)]


RAW = {
    "length and chunked": b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 48\r\n\r\n"
    b"GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "a signed length": b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n",
    "a space before the colon": b"GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
    "a header without end": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 900_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_ambiguous_requests_are_not_taken_for_two(tmp_path: Path, name: str) -> None:
    with serving(tmp_path / "r") as server:
        with server.connect() as connection, contextlib.suppress(OSError):  # it may hang up at once
            connection.sendall(RAW[name])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        assert server.request("GET", "/v2/")[0] == 200
        assert "smuggled" not in server.log


@pytest.mark.parametrize(
    "path",
    ["/v2/../../etc/passwd", "/v2/%2e%2e/%2e%2e/etc/passwd", "/v2/a/blobs/..%2f..%2fregistry.db", "//etc/passwd",
     "/v2/a/blobs/uploads/..%2f..%2fregistry.db", "/v2/%252e%252e/tags/list", "/v2/a/manifests/..%2f..%2fregistry.db"],
)  # fmt: skip
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    with serving(tmp_path / "r") as server:
        status, _, body = server.request("GET", path)
        assert status in (400, 404)
        assert b"root:" not in body
        assert b"SQLite" not in body
