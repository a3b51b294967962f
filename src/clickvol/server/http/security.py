"""What every request must pass before a route sees it, and what every answer carries.

- The Host header must be a name that this server is meant to have, so that a page of another site cannot
  reach it under a name of its own (DNS rebinding).
- A request that a browser makes for a page of another site is refused: by Sec-Fetch-Site, which every present
  browser sends to loopback and HTTPS, and by Origin for whatever is not GET or HEAD.
- Where there is a token, every call carries it in the Authorization header, never in the address. An address
  that sends wrong ones has to wait.
- Headers are bounded, and say in one way where the body ends: what a proxy reads as one request is one here.
- Bodies are counted while they arrive; a file may be as large as the settings say, anything else is small.
- Log and metrics have kind of client, method, route, status and time. They have no path, no name and no
  query, which could name a patient; an unexpected error is logged by its kind and its place in the code, not
  by its words.
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import traceback
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clickvol.server.http.failed_tokens import FailedTokens
from clickvol.server.http.metrics import Metrics, kind_of_client
from clickvol.server.refusal import error_body
from clickvol.server.settings import LOOPBACK_NAMES, ServerSettings, is_loopback_name

_log = logging.getLogger("clickvol.server")

# The page and its files hold no data and must come before the token is known.
_OPEN_PATHS = ("/", "/favicon.ico", "/healthz", "/readyz", "/auth/", "/auth/token")
_USER_PREFIX = "/u/"
_OPEN_FOLDER = "/viewer/"

_SAFE_METHODS = ("GET", "HEAD")
_WITHOUT_DANGER = ("same-origin", "none")

# Room for any JSON that a route takes, and for a list of clicks.
_MAX_SMALL_BODY_BYTES = 1 << 18
# Their drawings grow with the scan: a bit per voxel, in base64.
_DRAWING_ENDS = ("/interactions", "/mask")
_VOXELS_PER_BYTE = 6
_FILE_TYPES = ("multipart/form-data", "application/octet-stream")

MAX_HEAD_BYTES = 1 << 14
"""Of a request's line and headers; more is refused."""

_MAX_HEADERS = 100

# Data URLs are the viewer's font and icons; everything else comes from here.
_CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

_METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
)  # whatever else a client makes up is one

_CLIENT_GONE = 499  # in log and metrics alone; nobody reads the answer

_INTERNAL = "the server made a mistake; try again, and tell its owner if it stays"


@dataclass(frozen=True, slots=True)
class _Refusal(Exception):  # not an error of the program
    status: int
    message: str
    retry_after_seconds: int = 0
    is_last: bool = False
    """What follows on the connection cannot be told apart; it is closed."""


def client_of(request: Request) -> str:
    """Return who asks, as far as the server knows: a hash of the address and the token; no name, no secret."""
    address = "" if request.client is None else request.client.host
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    return hashlib.sha256(json.dumps([address, token]).encode()).hexdigest()


def _routed(scope: Scope, root_path: str) -> Scope:
    """Take what is before a route off its path: the proxy's prefix, and /u/SECRET where no token can be sent.

    Both stay in `root_path` of the scope, from which addresses are made; the secret becomes the token.
    """
    path: str = scope["path"]
    if path == root_path or path.startswith(f"{root_path}/"):
        path = path[len(root_path) :]
    prefix, headers = root_path, scope["headers"]
    secret, slash, rest = path.removeprefix(_USER_PREFIX).partition("/")
    if path.startswith(_USER_PREFIX) and secret and slash:
        headers = [(name, value) for name, value in headers if name != b"authorization"]
        headers.append((b"authorization", b"Bearer " + secret.encode("utf-8", "surrogatepass")))
        prefix, path = f"{prefix}{_USER_PREFIX}{secret}", f"/{rest}"
    return {**scope, "path": prefix + path, "root_path": prefix, "raw_path": None, "headers": headers}


class Guard:
    """Middleware around all routes."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._failed = FailedTokens()
        self._token = None if settings.token is None else settings.token.encode()
        self._names = {name.lower() for name in (*LOOPBACK_NAMES, *settings.allowed_hosts)}
        self._names.add(settings.host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, hand it on, and note what came of it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started_at = perf_counter()
        scope = _routed(scope, self._settings.root_path)
        headers, path = Headers(scope=scope), scope["path"][len(scope["root_path"]) :]
        answer = _Answer(send, self._extra_headers(headers, path))
        try:
            preflight = self._preflight(scope, headers)
            if preflight is not None:
                await preflight(scope, receive, answer.send)
            else:
                limit = self._checked(scope, headers, path)
                await self._app(scope, _counted(receive, limit), answer.send)
        except _Refusal as refusal:
            await self._refuse(scope, receive, answer, refusal)
        except ClientDisconnect:
            answer.status = answer.status or _CLIENT_GONE
        except Exception as error:  # the last place that can keep its words out of logs and answers
            _log.error("unexpected %s at %s", type(error).__name__, _place(error))
            if not answer.is_begun:
                await self._refuse(scope, receive, answer, _Refusal(500, _INTERNAL))
        finally:
            self._note(scope, headers, answer.status, perf_counter() - started_at)

    def _note(self, scope: Scope, headers: Headers, status: int, seconds: float) -> None:
        client, route = kind_of_client(scope, headers), getattr(scope.get("route"), "path", "-")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.count(client, method, route, status, seconds)
        request = {"client": client, "method": method, "route": route, "status": status}
        request["seconds"] = round(seconds, 4)
        words = "%(method)s %(route)s %(status)d %(seconds).3f s, %(client)s"
        _log.info(words, request, extra={"request": request})

    def _checked(self, scope: Scope, headers: Headers, path: str) -> int:
        """Return how many bytes the body may have; raises `_Refusal` when the request may not come in."""
        _check_head(scope, headers)
        method = scope["method"]
        host = headers.getlist("host")
        if len(host) != 1 or not self._is_known(host[0]):
            raise _Refusal(
                403,
                "this server is not known by that name; use the address that it printed, or start it with "
                "--allow-host",
            )
        self._check_origin(method, path, headers, host[0])
        is_open = path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER)
        if not is_open:
            self._check_token(scope, headers)
        is_file = headers.get("content-type", "").lower().startswith(_FILE_TYPES)
        limit = self._settings.max_upload_bytes if is_file else _MAX_SMALL_BODY_BYTES
        if not is_file and path.startswith("/api/sessions/") and path.endswith(_DRAWING_ENDS):
            limit += min(self._settings.max_voxels // _VOXELS_PER_BYTE, self._settings.max_upload_bytes)
        length = headers.get("content-length", "0")
        # A number of a thousand digits is larger than any limit; it need not be read.
        if len(length) > 15 or int(length) > limit:
            raise _Refusal(413, _too_large(limit))
        return limit

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        if self._token is None:
            return
        address = scope["client"][0] if scope.get("client") else ""
        seconds = self._failed.seconds_to_wait(address)
        if seconds:
            raise _Refusal(429, f"too many wrong tokens came from this address; wait {seconds} s", seconds)
        given = headers.get("authorization", "").encode("utf-8", "surrogatepass")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            if token:  # a request without one guesses nothing
                self._failed.note(address)
                self._metrics.failed_tokens.inc()
            raise _Refusal(
                401,
                "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN', or open the "
                "address that the server printed",
            )

    def _check_origin(self, method: str, path: str, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        if origin is not None and origin in self._settings.allowed_origins:
            return
        site = headers.get("sec-fetch-site")
        # A link to the viewer in another page may be followed: the page itself does nothing unasked.
        is_visit = (
            method in _SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate" and path in _OPEN_PATHS
        )
        is_foreign = site is not None and site not in _WITHOUT_DANGER and not is_visit
        if origin is not None and method not in _SAFE_METHODS:
            is_foreign = is_foreign or _host_of(origin) != host.lower()
        if is_foreign:
            raise _Refusal(
                403,
                "a page of another site may not use this server; open the server's own page, or start it "
                "with --allow-origin",
            )

    def _is_known(self, host: str) -> bool:
        name = _without_port(host.lower())
        if name is None:
            return False
        if name in self._names or is_loopback_name(name):
            return True
        if self._settings.is_loopback:
            return False
        # No name server gives an address away for another: a number is what it says.
        return _is_address(name)

    def _preflight(self, scope: Scope, headers: Headers) -> Response | None:
        """Answer a browser that asks whether a page of an allowed other site may call."""
        asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if not asks or headers.get("origin") not in self._settings.allowed_origins:
            return None
        allowed = {
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers=allowed)

    def _extra_headers(self, headers: Headers, path: str) -> dict[str, str]:
        extra = dict(_HEADERS)
        origin = headers.get("origin")
        if origin is not None and origin in self._settings.allowed_origins:
            extra["Access-Control-Allow-Origin"] = origin
            extra["Access-Control-Expose-Headers"] = "ETag, Content-Disposition, Retry-After"
            extra["Vary"] = "Origin"
        else:
            extra["Cross-Origin-Resource-Policy"] = "same-origin"
        if path.startswith(_OPEN_FOLDER) or path in _OPEN_PATHS:
            extra["Cache-Control"] = "no-cache"
        else:
            extra["Cache-Control"] = "no-store"
        return extra

    async def _refuse(self, scope: Scope, receive: Receive, answer: "_Answer", refusal: _Refusal) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
        if refusal.retry_after_seconds:
            headers["Retry-After"] = str(refusal.retry_after_seconds)
        if refusal.is_last:
            headers["Connection"] = "close"
        response = JSONResponse(error_body(refusal.message), refusal.status, headers)
        await response(scope, receive, answer.send)


class _Answer:
    """Sends an answer with the headers that all have, and remembers its status."""

    def __init__(self, send: Send, extra: dict[str, str]) -> None:
        self._send = send
        self._extra = extra
        self.status = 0

    @property
    def is_begun(self) -> bool:
        return self.status != 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._extra.items():
                headers.setdefault(name, value)
        await self._send(message)


def _check_head(scope: Scope, headers: Headers) -> None:
    """Refuse too many headers, and those that leave open where the body ends or what the path is (400, 431)."""
    num_bytes = len(scope["path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in headers.raw)
    if len(headers) > _MAX_HEADERS or num_bytes > MAX_HEAD_BYTES:
        raise _Refusal(431, "the request has too many headers, or too long ones; send fewer", is_last=True)
    lengths = headers.getlist("content-length")
    if len(lengths) > 1 or (lengths and "transfer-encoding" in headers):
        raise _Refusal(400, "the request says twice how long it is; leave one out", is_last=True)
    if any(not length.isascii() or not length.isdecimal() for length in lengths):
        raise _Refusal(400, "the Content-Length is no number; leave it out", is_last=True)
    if "\0" in scope["path"]:
        raise _Refusal(400, "there is a null byte in the address; leave it out")


def _host_of(origin: str) -> str:
    """Return host and port of an origin, in lower case; nothing where it is none ("null")."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _counted(receive: Receive, limit: int) -> Receive:
    """Stop a body that turns out longer than its limit."""
    received = 0

    async def counting() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _too_large(limit))
        return message

    return counting


def _too_large(limit: int) -> str:
    return (
        f"the request is longer than the {limit / 2**20:g} MiB that are allowed here; send a smaller scan, or "
        "start the server with another --max-upload-mb"
    )


def _without_port(host: str) -> str | None:
    """Return the name in a Host header, without the brackets of an IPv6 address; None where it is none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
        bracket = "]"
    is_sound = bool(name) and bool(bracket) and (not port or (port.isascii() and port.isdecimal()))
    return name if is_sound else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
