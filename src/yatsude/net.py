"""The only opener of outbound connections. Importing it, or anything else of yatsude, opens none.

Each caller names its purpose (it stands in every message) and the hosts it may reach ("*.example.org": those below it);
a redirect elsewhere is refused. Proxies are those of the environment, as every HTTP client reads them.

    download    a file, resumed where it broke off and compared with its SHA-256
    fetch       a small answer, into memory
    run_client  a package client (pip, apt-get) that opens its own connections, to the servers it is configured with
"""

import contextlib
import fnmatch
import http.client
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yatsude.errors import ChecksumError, MachineError, NetworkError
from yatsude.files import disk_full_is_an_error, sha256_of
from yatsude.progress import bar

__all__ = ["download", "fetch", "run_client"]

TIMEOUT_S = 30.0
ATTEMPTS = 3
PIECE = 1 << 18
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def download(url: str, path: Path, *, purpose: str, hosts: Collection[str], sha256: str | None = None) -> Path:
    """Fetch `url` to `path`; a file that is there with the right SHA-256 (hexadecimal) is kept as it is.

    What has arrived waits in `path` + ".part". With a SHA-256 the next call goes on from there; without one it starts
    anew, as the server's file may have changed. Raises NetworkError, and ChecksumError for the wrong bytes.
    """
    if sha256 and path.is_file() and sha256_of(path) == sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if sha256 is None:
        part.unlink(missing_ok=True)
    with disk_full_is_an_error(path):
        resumed = _fill(url, part, purpose, hosts)
        if resumed and sha256 and sha256_of(part) != sha256:
            part.unlink()  # the old beginning was not of this file
            _fill(url, part, purpose, hosts)
        got = sha256_of(part)
        if sha256 and got != sha256:
            part.unlink()
            raise ChecksumError(
                f"{url} has sha256 {got}, expected {sha256}; nothing was kept: try again, or ask where it comes from"
            )
        part.replace(path)
    return path


def fetch(url: str, *, purpose: str, hosts: Collection[str], limit: int = 1 << 24) -> bytes:
    """The body of one GET, of at most `limit` bytes. Raises NetworkError."""
    with _told(url, purpose), _open(url, {}, purpose, hosts) as response:
        body: bytes = response.read(limit + 1)
    if len(body) > limit:
        raise NetworkError(f"{url} answered with more than {limit} bytes ({purpose}); expected a short answer")
    return body


def run_client(command: Sequence[str], *, purpose: str, folder: Path) -> str:
    """Run a package client in `folder`, without input, and return what it printed.

    Which servers it reaches is set in the client's own configuration. Raises MachineError where the client is missing,
    ChecksumError where pip refused the bytes, else NetworkError with the client's last word.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise MachineError(f"{command[0]} is not installed, needed to {purpose}; install it or leave it out") from None
    if done.returncode:
        sums = re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", done.stderr)
        if sums:
            raise ChecksumError(
                f"could not {purpose}: what arrived has sha256 {sums[2]}, expected {sums[1]}; nothing was kept:"
                " try again, or ask where it comes from"
            )
        raise NetworkError(
            f"could not {purpose}: {_last_word(done.stderr or done.stdout)} (exit code {done.returncode} of"
            f" {' '.join(command[:4])} …); check the connection and run the same command again"
        )
    return done.stdout


def _fill(url: str, part: Path, purpose: str, hosts: Collection[str]) -> bool:
    """Bring `part` to its full length; whether older bytes were built upon."""
    resumed = part.is_file() and part.stat().st_size > 0
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part, purpose, hosts)
            break
        except _BrokenOffError as error:
            if attempt == ATTEMPTS - 1:
                raise NetworkError(f"{error}; check the connection and run the same command again") from None
    return resumed


def _append(url: str, part: Path, purpose: str, hosts: Collection[str]) -> None:
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _told(url, purpose), _open(url, headers, purpose, hosts) as response:
        if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file ever was, or complete: one more round decides
            raise _BrokenOffError(f"{url} has no bytes after {have} ({purpose})")
        starts_at_have = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not (response.status == http.HTTPStatus.PARTIAL_CONTENT and starts_at_have):
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as stream, bar(part.stem, total and total / 1e6, "MB") as moving:
            moving.skip(have / 1e6)
            whole = False
            with contextlib.suppress(http.client.IncompleteRead, TimeoutError, ConnectionError, ssl.SSLError):
                while piece := response.read(PIECE):
                    stream.write(piece)
                    moving.advance(len(piece) / 1e6)
                whole = True
    got = part.stat().st_size
    if not whole or got != (total or got):
        raise _BrokenOffError(f"{url} broke off after {got} of {total or 'an unknown number of'} bytes ({purpose})")


class _BrokenOffError(Exception):
    """The connection ended early; what has arrived is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the hosts that the caller named."""

    def __init__(self, purpose: str, hosts: Collection[str]) -> None:
        self._purpose, self._hosts = purpose, hosts

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Check the new address, then do as usual."""
        _check(newurl, self._purpose, self._hosts)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Mapping[str, str], purpose: str, hosts: Collection[str]) -> Any:
    _check(url, purpose, hosts)
    opener = urllib.request.build_opener(_Redirects(purpose, hosts))
    request = urllib.request.Request(url, headers={"User-Agent": "yatsude", **headers})
    try:
        return opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error
        raise


def _check(url: str, purpose: str, hosts: Collection[str]) -> None:
    address = urllib.parse.urlsplit(url)
    host = address.hostname or ""
    if not any(fnmatch.fnmatchcase(host, allowed) for allowed in hosts):
        raise NetworkError(f"{url} is refused: to {purpose}, only {', '.join(hosts)} may be reached")
    if address.scheme != "https" and not (address.scheme == "http" and host in LOOPBACK):
        raise NetworkError(f"{url} is refused: expected an https address to {purpose}")


@contextlib.contextmanager
def _told(url: str, purpose: str) -> Iterator[None]:
    """Turn whatever the HTTP library raises into one NetworkError."""
    host = urllib.parse.urlsplit(url).hostname
    try:
        yield
    except urllib.error.HTTPError as error:
        raise NetworkError(
            f"{url} answered {error.code} {error.reason} (needed to {purpose}); check the name, or try again later"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise NetworkError(
            f"cannot reach {host} to {purpose} ({reason}); check the connection and run the same command again,"
            " or choose sources that are on this machine"
        ) from None


def _last_word(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E:", "error"))]
    return (errors or lines or ["it said nothing"])[-1]
