"""A server that listens until it is told to stop."""

import asyncio
import json
import logging
import os
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from clickvol.errors import ConfigError, require
from clickvol.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


_BACKLOG = 128

# Open at one time; below what systems let a process have open. Further ones get 503.
_MAX_CONNECTIONS = 512

# A client that sends nothing holds a connection for so long.
_KEEP_ALIVE_SECONDS = 30

# What is being computed may finish; what waits does not keep Ctrl-C waiting.
_SHUTDOWN_SECONDS = 5


def check_installed() -> None:
    """Tell at once when the extra is missing, as ConfigError."""
    require("fastapi", "prometheus_client", "python_multipart", "uvicorn", extra="serve", purpose="the server")


def run_server(
    settings: ServerSettings,
    *,
    model: str | None,
    device: str,
    on_ready: Callable[[str], None],
    propose: str | None = None,
) -> None:
    """Load the model, and the automatic one that proposes a first mask, and serve until interrupted.

    Raises:
        ConfigError: when the extra is missing, the model takes no clicks or the other one does, the port is in
            use, or the certificate cannot be used.
        ClickvolError: when the model cannot be loaded, or the state folder not written to.
    """
    check_installed()
    _check_certificate(settings)
    from clickvol.server.app import create_app
    from clickvol.weights.card import DEFAULT_MODEL_ID
    from clickvol.weights.load import load_model

    loaded = load_model(model or DEFAULT_MODEL_ID, device=device)
    if loaded.network.config.is_automatic:
        raise ConfigError(f"{loaded.card.id} is automatic and takes no clicks; serve another model")
    proposer = None if propose is None else load_model(propose, device=device)
    if proposer is not None and not proposer.network.config.is_automatic:
        raise ConfigError(f"{proposer.card.id} takes clicks; --propose asks for an automatic model")
    os.umask(0o077)  # scans and logs are for this user alone
    _listen(_config_of(create_app(loaded, settings, proposer=proposer), settings), settings, on_ready)


def _config_of(app: "FastAPI", settings: ServerSettings) -> "uvicorn.Config":
    import uvicorn

    from clickvol.server.http.connections import PunctualProtocol
    from clickvol.server.http.security import MAX_HEAD_BYTES

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        backlog=_BACKLOG,
        limit_concurrency=_MAX_CONNECTIONS,
        loop="asyncio",
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        access_log=False,  # it would hold paths; the middleware keeps a log of its own
        log_config=None,
        log_level="critical",  # unexpected errors are logged by the middleware, without their words
        http=PunctualProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="none",
        server_header=False,
        proxy_headers=False,  # create_app reads them
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def _listen(config: "uvicorn.Config", settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    import uvicorn

    from clickvol.server.http.connections import HEAD_SECONDS

    class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed by mypy
        """Says when it listens, and where: port 0 is a free one."""

        async def startup(self, sockets: object = None) -> None:
            if config.is_ssl:  # uvicorn has no word for it, and a handshake may take a minute
                loop = asyncio.get_running_loop()
                within = partial(loop.create_server, ssl_handshake_timeout=HEAD_SECONDS)
                loop.create_server = within  # type: ignore[method-assign]
            await super().startup(sockets)
            for server in self.servers:
                on_ready(address_of(settings, server.sockets[0].getsockname()[1]))
                return

    try:
        Server(config).run()
    except SystemExit as error:  # uvicorn ends the process where it cannot listen
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}; give another --port, or --port 0"
        ) from error


def _check_certificate(settings: ServerSettings) -> None:
    if settings.tls_certificate is None:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A key with a password would make the process wait for somebody to type it.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: "")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ConfigError(
            f"cannot serve with the certificate {settings.tls_certificate} ({error}); give PEM files of a "
            "certificate and of its key, without a password"
        ) from error


def address_of(settings: ServerSettings, port: int) -> str:
    """Return the address of a server for a browser."""
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{port}{settings.root_path}/"


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON: `time` (UTC), `level`, and what is known of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        known = getattr(record, "request", None) or {"message": record.getMessage()}
        return json.dumps({"time": time, "level": record.levelname.lower(), **known})


def log_to_stderr(*, as_json: bool = False) -> None:
    """Let the access log appear, one line for each request, for people or for programs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("clickvol.server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
