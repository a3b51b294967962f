"""The page, what the server is, and how it does: for people, load balancers and Prometheus."""

import os
import tempfile
from pathlib import Path

import anyio
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from clickvol.server.dependencies import All
from clickvol.server.http.metrics import CONTENT_TYPE, Metrics
from clickvol.server.refusal import REFUSALS
from clickvol.server.viewer.files import VIEWER_FOLDER
from clickvol.server.wire import HealthOut, ModelOut, StartOut
from clickvol.version import __version__

_PROBE_BYTES = 4096

router = APIRouter(tags=["about"], responses=REFUSALS)


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the viewer."""
    return FileResponse(VIEWER_FOLDER / "index.html")


@router.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Say that the process answers."""
    return {"ok": True}


@router.get("/readyz", response_model=None)
async def readyz(sessions: All) -> JSONResponse:
    """Say whether clicks can be answered and kept: 503 where not."""
    can_write = await anyio.to_thread.run_sync(_can_write, sessions.settings.state_folder)
    # The server listens after the model was loaded.
    body = {"ready": can_write, "model": "loaded", "disk": "writable" if can_write else "refuses"}
    return JSONResponse(body, 200 if can_write else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return counts and times as Prometheus reads them."""
    known: Metrics = request.app.state.metrics
    return Response(known.text(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/api/health")
async def health(sessions: All) -> HealthOut:
    """Say that the server works, and how much it has to do."""
    return HealthOut(version=__version__, sessions=sessions.num_sessions, queue=sessions.num_waiting)


@router.get("/api/model")
async def model_card(sessions: All, request: Request) -> ModelOut:
    """Describe the model, and name the one that proposes a first mask."""
    described = ModelOut.model_validate(sessions.model.card, from_attributes=True)
    proposer = request.app.state.proposer
    return described.model_copy(update={"proposer": proposer and proposer.card.id})


@router.get("/api/start")
async def start(sessions: All) -> StartOut:
    """Say what the viewer opens at once."""
    path = sessions.settings.start_path
    return StartOut(path=None if path is None else str(path), version=__version__)


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
