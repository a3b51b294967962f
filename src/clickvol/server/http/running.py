"""A server that listens until it is told to stop."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from clickvol.errors import ConfigError
from clickvol.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

INSTALL_HINT = 'the server needs packages that are not installed; pip install "clickvol[serve]"'

_BACKLOG = 128

# A client that sends nothing holds a connection for so long.
_KEEP_ALIVE_SECONDS = 30

# What is being computed may finish; what waits does not keep Ctrl-C waiting.
_SHUTDOWN_SECONDS = 5


def check_installed() -> None:
    """Tell at once when the extra is missing.

    Raises:
        ConfigError: when it is.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(INSTALL_HINT) from error


def run_server(
    settings: ServerSettings,
    *,
    model: str | None,
    device: str,
    on_ready: Callable[[str], None],
) -> None:
    """Load the model and serve until interrupted.

    Args:
        settings: where to listen, and who may ask for what.
        model: id or path; None takes the default model.
        device: "auto", "cpu", "cuda" or "mps".
        on_ready: told the address as soon as the server answers there.

    Raises:
        ConfigError: when the extra is missing, the model takes no clicks, or the port is in use.
        ClickvolError: when the model cannot be loaded, or the state folder not written to.
    """
    check_installed()
    from clickvol.server.app import create_app
    from clickvol.weights.card import DEFAULT_MODEL_ID
    from clickvol.weights.load import load_model

    loaded = load_model(model or DEFAULT_MODEL_ID, device=device)
    if loaded.network.config.is_automatic:
        raise ConfigError(f"{loaded.card.id} is automatic and takes no clicks; serve another model")
    os.umask(0o077)  # scans and logs are for this user alone
    _listen(_config_of(create_app(loaded, settings), settings), settings, on_ready)


def _config_of(app: "FastAPI", settings: ServerSettings) -> "uvicorn.Config":
    import uvicorn

    from clickvol.server.http.connections import MAX_HEAD_BYTES, PunctualProtocol

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        backlog=_BACKLOG,
        access_log=False,  # it would hold paths; the middleware keeps a log of its own
        log_config=None,
        log_level="critical",  # unexpected errors are logged by the middleware, without their words
        http=PunctualProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def _listen(config: "uvicorn.Config", settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed by mypy
        """Says when it listens, and where: port 0 is a free one."""

        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)
            for server in self.servers:
                port = server.sockets[0].getsockname()[1]
                on_ready(address_of(settings.host, port))
                return

    try:
        Server(config).run()
    except SystemExit as error:  # uvicorn ends the process where it cannot listen
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}; give another --port, or --port 0"
        ) from error


def address_of(host: str, port: int) -> str:
    """Return the address of a server for a browser."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def log_to_stderr() -> None:
    """Let the access log appear, one line for each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("clickvol.server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
