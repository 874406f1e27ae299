import hashlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from yatsude import net
from yatsude.errors import ChecksumError, MachineError, NetworkError

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
HERE = ("127.0.0.1",)


class Server:
    """A loopback server that understands ranges, and can break off after some bytes of an answer."""

    def __init__(self) -> None:
        self.break_after: list[int] = []
        self.ranges: list[str | None] = []
        self.honours_ranges = True
        self.chunked = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        if to.path == "/elsewhere":
            to.send_response(302)
            to.send_header("Location", "https://tracker.invalid/file")
            to.end_headers()
            return
        if to.path != "/file":
            to.send_error(404)
            return
        wanted = to.headers.get("Range")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.honours_ranges else 0
        if start >= len(BODY):
            to.send_error(416)
            return
        if self.chunked:
            to.protocol_version = "HTTP/1.1"
        to.send_response(206 if start else 200)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        end = self.break_after.pop(0) if self.break_after else len(BODY)
        if self.chunked:
            to.send_header("Transfer-Encoding", "chunked")
            to.send_header("Connection", "close")
            to.end_headers()
            to.wfile.write(b"%x\r\n%s\r\n" % (end - start, BODY[start:end]))
            to.wfile.write(b"0\r\n\r\n" if end == len(BODY) else b"")
            return
        to.send_header("Content-Length", str(len(BODY) - start))
        to.end_headers()
        to.wfile.write(BODY[start:end])

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_a_file_arrives_and_is_not_fetched_twice(server, tmp_path):
    for _ in range(2):
        path = net.download(f"{server.url}/file", tmp_path / "a" / "f", purpose="test", hosts=HERE, sha256=SHA256)
        assert path.read_bytes() == BODY
    assert server.ranges == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.break_after = [1000, 5000]
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256=SHA256)
    assert server.ranges == [None, "bytes=1000-", "bytes=5000-"]
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_break_is_noticed_where_no_length_was_told(server, tmp_path):
    server.chunked, server.break_after = True, [1000]
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE)
    assert (tmp_path / "f").read_bytes() == BODY
    assert len(server.ranges) == 2
    server.break_after = [10, 20, 30]
    with pytest.raises(NetworkError, match=r"broke off after .* of an unknown number of bytes"):
        net.download(f"{server.url}/file", tmp_path / "g", purpose="test", hosts=HERE)
    assert not (tmp_path / "g").exists()


def test_a_fault_of_the_encryption_is_one_line(server, monkeypatch):
    def fail(*_):
        raise ssl.SSLError("record layer failure")

    monkeypatch.setattr("http.client.HTTPResponse.read", fail)
    with pytest.raises(NetworkError, match="record layer failure"):
        net.fetch(f"{server.url}/file", purpose="test", hosts=HERE)


def test_after_three_breaks_it_says_so_and_the_next_call_goes_on(server, tmp_path):
    server.break_after = [10, 20, 30]
    with pytest.raises(NetworkError, match=rf"broke off after 30 of {len(BODY)} bytes.*run the same command again"):
        net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256=SHA256)
    assert not (tmp_path / "f").exists()
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256=SHA256)
    assert server.ranges[-1] == "bytes=30-"


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.honours_ranges = False
    (tmp_path / "f.part").write_bytes(BODY[:777])
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("stale", [b"something else entirely", b"x" * (len(BODY) + 5)])
def test_a_stale_beginning_is_thrown_away(server, tmp_path, stale):
    (tmp_path / "f.part").write_bytes(stale)
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == BODY


def test_without_a_checksum_nothing_is_resumed(server, tmp_path):
    (tmp_path / "f.part").write_bytes(b"old")
    net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE)
    assert server.ranges == [None]


def test_a_wrong_checksum_names_both_sums_and_keeps_the_old_file(server, tmp_path):
    (tmp_path / "f").write_text("good")
    with pytest.raises(ChecksumError, match=rf"{SHA256}, expected {'0' * 64}"):
        net.download(f"{server.url}/file", tmp_path / "f", purpose="test", hosts=HERE, sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "good"


def test_only_named_hosts_are_reached(server, tmp_path):
    with pytest.raises(NetworkError, match=r"refused: to fetch texts, only example\.org may be reached"):
        net.fetch(f"{server.url}/file", purpose="fetch texts", hosts=("example.org",))
    with pytest.raises(NetworkError, match=r"https://tracker\.invalid/file is refused"):
        net.download(f"{server.url}/elsewhere", tmp_path / "f", purpose="test", hosts=HERE)
    with pytest.raises(NetworkError, match="expected an https address"):
        net.fetch("http://a.example.org/", purpose="test", hosts=("*.example.org",))


def test_failures_are_one_line_with_the_host(server):
    with pytest.raises(NetworkError, match="404"):
        net.fetch(f"{server.url}/missing", purpose="test", hosts=HERE)
    with pytest.raises(NetworkError, match=r"cannot reach 127\.0\.0\.1 to test .*check the connection") as caught:
        net.fetch("http://127.0.0.1:9/", purpose="test", hosts=HERE)
    assert "\n" not in str(caught.value)
    with pytest.raises(NetworkError, match="more than 10 bytes"):
        net.fetch(f"{server.url}/file", purpose="test", hosts=HERE, limit=10)


def test_a_package_client_and_its_failures(tmp_path):
    def python(code: str) -> list[str]:
        return [sys.executable, "-c", code]

    assert net.run_client(python("print('done')"), purpose="test", folder=tmp_path) == "done\n"
    with pytest.raises(NetworkError, match=r"could not fetch x: ERROR: no route \(exit code 3"):
        net.run_client(
            python("import sys; print('ERROR: no route\\nbye', file=sys.stderr); sys.exit(3)"),
            purpose="fetch x",
            folder=tmp_path,
        )
    with pytest.raises(ChecksumError, match="sha256 bbb, expected aaa"):
        net.run_client(
            python("import sys; sys.exit('  Expected sha256 aaa\\n       Got        bbb')"),
            purpose="x",
            folder=tmp_path,
        )
    with pytest.raises(MachineError, match="no-such-client is not installed"):
        net.run_client(["no-such-client"], purpose="x", folder=tmp_path)


def test_importing_opens_no_connection():
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('opened a socket')\n"
        "socket.socket.connect = refuse\n"
        "import yatsude.net, yatsude.data.build, yatsude.text.scripts\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
