"""The server's routes.

Concurrency model. One process. The event loop speaks HTTP and never computes; the table of sessions is its
own. One thread owns the model: every click, undo and mask of every session happens there, one after the
other, so that two sessions cannot disturb each other and memory is needed once. It has a bounded queue; a
request that does not fit in is told to come again (429). Two further threads read scans and write files. A
client that hangs up, or a session that is closed, cancels its click at the next call of the network. A
session lives as long as somebody asks for it (its lease); when all of them need more memory than allowed, the
one used least recently is parked on disk and opened again from its record. What every request must pass is in
`http/security.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import anyio
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from clickvol.errors import ConfigError
from clickvol.interactive.interactions import ClickInteraction
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import write_mask, write_volume
from clickvol.io.volume import Mask, SaidModality
from clickvol.prompts.click import Click
from clickvol.server.dependencies import All, Session
from clickvol.server.exporting import export_file
from clickvol.server.http.about import router as about
from clickvol.server.http.metrics import Metrics
from clickvol.server.http.security import Guard
from clickvol.server.itk_snap.routes import router as itk_snap
from clickvol.server.monai_label.datastore import Datastore
from clickvol.server.monai_label.label_routes import router as monai_labels
from clickvol.server.monai_label.routes import router as monai_label
from clickvol.server.nninteractive.routes import router as nninteractive
from clickvol.server.nninteractive.slicer_routes import router as slicer_nninteractive
from clickvol.server.refusal import REFUSALS, answer_errors, parse_json, parse_values
from clickvol.server.scans import body_schema, find_under_root, is_form, read_form, store, text_field, uploaded
from clickvol.server.served_session import ScanRecord
from clickvol.server.sessions import Sessions
from clickvol.server.settings import ServerSettings
from clickvol.server.viewer.files import ViewerFiles
from clickvol.server.viewer.masks import router as masks
from clickvol.server.viewer.routes import router as viewer
from clickvol.server.viewer.worklist import worklist_of
from clickvol.server.viewer.worklist_routes import router as worklist_router
from clickvol.server.wire import (
    RESEARCH_USE,
    AddedOut,
    ChangedOut,
    ClickedOut,
    ClickIn,
    ExportFormat,
    LeaseOut,
    NewObjectIn,
    ObjectChangeIn,
    ObjectId,
    OpenedOut,
    OpenPathIn,
    OpenUploadIn,
    ResumeIn,
    StatusOut,
)
from clickvol.server.worker import IsCancelled
from clickvol.version import __version__
from clickvol.weights.load import LoadedModel

_GZIP = "application/gzip"

_SWEEP_SECONDS = 60.0

_OPEN_BODY = body_schema(
    "scan",
    OpenPathIn,
    series={"type": "string"},
    volume={"type": "integer"},
    modality={"type": "string", "enum": list(get_args(SaidModality))},
)


def create_app(model: LoadedModel, settings: ServerSettings, *, proposer: LoadedModel | None = None) -> FastAPI:
    """Make the server for a model, and an automatic one that proposes a mask of a scan, where there is one.

    Raises:
        RefusedError: when the state folder cannot be written to.
        ConfigError: when the worklist cannot be read, the root path is one of the server's own, or the address
            of the archive is none.
    """
    routes = [getattr(route, "path", "") for router in _routers() for route in router.routes]
    own = {"/viewer/", "/u/", *(f"{path}/" for path in routes)}
    if settings.root_path and any(path.startswith(f"{settings.root_path}/") for path in own):
        raise ConfigError(f"{settings.root_path} is a path of the server itself; serve below another one")
    worklist = worklist_of(settings)
    sessions = Sessions(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_sweep_for_ever, sessions)
            yield
            tasks.cancel_scope.cancel()
        sessions.close()

    app = FastAPI(
        title="clickvol",
        version=__version__,
        description=f"Clicks in CT and MR scans become masks; {RESEARCH_USE}.",
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        root_path_in_servers=False,  # it may hold the secret of a user
        servers=[{"url": settings.root_path or "/"}],
    )
    metrics = Metrics(sessions)
    app.state.sessions, app.state.worklist, app.state.metrics = sessions, worklist, metrics
    app.state.proposer = proposer
    app.state.datastore = Datastore.of(settings, sessions.limits)
    for router in _routers():
        app.include_router(router)
    app.mount("/viewer", ViewerFiles())
    answer_errors(app, settings)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app


def _routers() -> tuple[APIRouter, ...]:
    own = (about, _opening, _clicking, _results, viewer, masks, worklist_router)
    return (*own, monai_label, monai_labels, nninteractive, slicer_nninteractive, itk_snap)


async def _sweep_for_ever(sessions: Sessions) -> None:
    """Delete what is left of sessions whose lease is over, also when nobody asks for anything."""
    while True:
        await anyio.sleep(_SWEEP_SECONDS)
        sessions.take_orphans()


_opening = APIRouter(prefix="/api/sessions", tags=["sessions"], responses=REFUSALS)
_clicking = APIRouter(prefix="/api/sessions/{session_id}", tags=["clicks"], responses=REFUSALS)
_results = APIRouter(prefix="/api/sessions/{session_id}", tags=["results"], responses=REFUSALS)


@_opening.post("", status_code=201, openapi_extra=_OPEN_BODY)
async def open_session(request: Request, sessions: All) -> OpenedOut:
    """Open a scan: by path under the allowed root, or as an upload."""
    if is_form(request):
        async with read_form(request) as form:
            file = uploaded(form, "scan")
            texts = {name: text_field(form, name) for name in ("series", "volume", "modality")}
            given = parse_values(OpenUploadIn, texts)

            def stored(folder: Path) -> ScanRecord:
                return ScanRecord(scan=store(file, folder, "scan").name, is_upload=True, **dict(given))

            session_id, served = await sessions.open(stored, request.is_disconnected)
    else:
        named, settings = parse_json(OpenPathIn, await request.body()), sessions.settings
        is_start = named.series is None and named.path == str(settings.start_path)
        series = settings.start_series if is_start else named.series

        def under_root(_: Path) -> ScanRecord:
            path = find_under_root(settings.root, named.path)
            given = named.model_dump(include={"volume", "modality"})
            return ScanRecord(scan=str(path), is_upload=False, series=series, **given)

        session_id, served = await sessions.open(under_root, request.is_disconnected)
    return await sessions.describe(session_id, served)


@_opening.get("/{session_id}")
async def status(opened: Session) -> StatusOut:
    """Say where a session stands; waits for nothing that is being computed."""
    is_busy = opened.served.num_pending > 0
    return StatusOut(**dict(await opened.sessions.state(opened.served)), busy=is_busy)


@_opening.post("/{session_id}/heartbeat")
async def heartbeat(opened: Session) -> LeaseOut:
    """Renew the lease."""
    return LeaseOut(lease_seconds=opened.sessions.settings.lease_seconds)


@_opening.delete("/{session_id}", status_code=204)
async def close(opened: Session) -> None:
    """End a session; its uploaded scan is deleted, its record stays to be resumed."""
    opened.sessions.end(opened.served)


@_clicking.post("/clicks")
async def click(given: ClickIn, opened: Session) -> ClickedOut:
    """Click, and answer all clicks on the object."""
    place = Click.at(given.position, space=given.space).position
    interaction = ClickInteraction.at(place, positive=given.positive, object_id=given.object_id)
    return await opened.add(interaction.model_copy(update={"overlap": given.overlap}))


@_clicking.post("/undo")
async def undo(opened: Session) -> ChangedOut:
    """Go back by one interaction, if there is one."""
    return await opened.changed(lambda session, _: session.undo())


@_clicking.post("/redo")
async def redo(opened: Session) -> ChangedOut:
    """Take back an undo, if there is one."""
    return await opened.changed(lambda session, _: session.redo())


@_clicking.post("/reset")
async def reset(opened: Session) -> ChangedOut:
    """Forget all clicks and objects; can be undone."""
    return await opened.changed(lambda session, _: session.reset())


@_clicking.post("/objects")
async def add_object(given: NewObjectIn, opened: Session) -> AddedOut:
    """Begin another object."""
    object_id, state = await opened.run(lambda session, _: session.add_object(given.name))
    return AddedOut(object_id=object_id, state=state)


@_clicking.patch("/objects/{object_id}")
async def change_object(object_id: ObjectId, given: ObjectChangeIn, opened: Session) -> ChangedOut:
    """Freeze an object or make it changeable again; say what it is called, which term it is, and its colour."""

    def change(session: InteractiveSession, _: IsCancelled) -> None:
        if given.frozen is not None:
            session.freeze_object(object_id, frozen=given.frozen)
        said = given.model_dump(exclude_none=True, exclude={"frozen"})
        if said:
            session.describe_object(object_id, **said)

    return await opened.changed(change)


@_clicking.delete("/objects/{object_id}")
async def delete_object(object_id: ObjectId, opened: Session) -> ChangedOut:
    """Take an object away; undo brings it back, and the others keep their numbers."""
    return await opened.changed(lambda session, _: session.delete_object(object_id))


@_clicking.post("/resume")
async def resume(given: ResumeIn, opened: Session) -> ChangedOut:
    """Go on with a copy of the clicks of an earlier session on the same scan."""
    return ChangedOut(state=await opened.sessions.resume(opened.served, given.log, opened.is_gone))


@_results.get("/scan.nii.gz", response_class=FileResponse)
async def scan(opened: Session) -> FileResponse:
    """Return the scan as NIfTI."""
    return FileResponse(await opened.sessions.scan_copy(opened.served), media_type=_GZIP)


@_results.get("/mask.nii.gz", response_class=Response)
async def mask(opened: Session, request: Request, object_id: ObjectId | None = None) -> Response:
    """Return the mask of an object, or the label map of all, as NIfTI."""
    tag = f'"{(await opened.sessions.state(opened.served)).tag}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    array, state = await opened.run(lambda session, _: session.mask(object_id))
    # On the geometry of the scan's copy, so that a viewer lays one over the other.
    shown = Mask(array.array, array.grid.without_file_facts())
    content = await opened.sessions.written(opened.served, "mask.nii.gz", lambda p: write_mask(shown, p))
    headers = {"ETag": f'"{state.tag}"', "Cache-Control": "private, no-cache"}
    return Response(content, media_type=_GZIP, headers=headers)


@_results.get("/probability.nii.gz", response_class=Response)
async def probability(opened: Session, object_id: ObjectId = 1) -> Response:
    """Return the probability of an object in every voxel, 0 to 1, as NIfTI."""
    array = await opened.get(lambda session, _: session.probability(object_id))
    volume = await opened.get(lambda session, _: session.scan.volume)
    content = await opened.sessions.written(
        opened.served,
        "probability.nii.gz",
        lambda place: write_volume(array, volume.grid.without_file_facts(), place),
    )
    return Response(content, media_type=_GZIP)


@_results.get("/export", response_class=Response)
async def export(
    *,
    opened: Session,
    format: ExportFormat = "nifti",  # noqa: A002  # the name of the query parameter
    deidentify: bool = False,
) -> Response:
    """Return all objects as one file: a label map, a DICOM segmentation or a structure set."""
    content, name = await export_file(opened.sessions, opened.served, file_format=format, deidentify=deidentify)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)
