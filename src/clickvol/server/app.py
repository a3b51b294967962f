"""The server's routes.

Concurrency model. One process. The event loop speaks HTTP and never computes. One thread owns the model:
every click, undo and mask of every session happens there, one after the other, so that two sessions cannot
disturb each other and memory is needed once. It has a bounded queue; a request that does not fit in is told
to come again (429). Two further threads read scans and write files. A client that hangs up, or a session that
is closed, cancels its click at the next look of the network. A session lives as long as somebody asks for it
(its lease); when all of them need more memory than allowed, the one used least recently is parked on disk and
opened again from its log. Which locks there are is said in `sessions.py`, what every request must pass in
`security.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse

from clickvol.io.formats import write_mask, write_volume
from clickvol.prompts.click import Click
from clickvol.server import monai_label
from clickvol.server.answers import REFUSALS, answer_errors, parse_json, parse_values
from clickvol.server.exporting import export_file
from clickvol.server.paths import find_under_root
from clickvol.server.refusal import RefusedError
from clickvol.server.security import Guard
from clickvol.server.service import SessionService
from clickvol.server.sessions import ScanRecord, ServedSession
from clickvol.server.settings import ServerSettings
from clickvol.server.uploads import read_form, store, text_field, uploaded
from clickvol.server.viewer_files import VIEWER_FOLDER, ViewerFiles
from clickvol.server.wire import (
    RESEARCH_USE,
    AddedOut,
    AnswerOut,
    ChangedOut,
    ClickedOut,
    ClickIn,
    ExportFormat,
    HealthOut,
    LeaseOut,
    ModelOut,
    NewObjectIn,
    ObjectChangeIn,
    ObjectId,
    OpenedOut,
    OpenPathIn,
    OpenUploadIn,
    ResumeIn,
    StartOut,
    StatusOut,
)
from clickvol.version import __version__
from clickvol.weights.load import LoadedModel

_GZIP = "application/gzip"
_MULTIPART = "multipart/form-data"

_SWEEP_SECONDS = 60.0

_FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "scan": {"type": "string", "format": "binary"},
        "series": {"type": "string"},
        "modality": {"type": "string", "enum": ["CT", "MR", "PT"]},
    },
    "required": ["scan"],
}
_OPEN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": OpenPathIn.model_json_schema()},
            _MULTIPART: {"schema": _FORM_SCHEMA},
        },
    }
}


def create_app(model: LoadedModel, settings: ServerSettings) -> FastAPI:
    """Make the server for a model.

    Args:
        model: that answers clicks.
        settings: who may ask for what.

    Raises:
        RefusedError: when the state folder cannot be written to.
    """
    service = SessionService(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_sweep_for_ever, service)
            yield
            tasks.cancel_scope.cancel()
        service.close()

    app = FastAPI(
        title="clickvol",
        version=__version__,
        description=f"Clicks in CT and MR scans become masks; {RESEARCH_USE}.",
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for router in (_about, _opening, _clicking, _results, monai_label.router):
        app.include_router(router)
    app.mount("/viewer", ViewerFiles())
    answer_errors(app, settings)
    app.add_middleware(Guard, settings=settings)
    return app


async def _sweep_for_ever(service: SessionService) -> None:
    """Delete what is left of sessions whose lease is over, also when nobody asks for anything."""
    while True:
        await anyio.sleep(_SWEEP_SECONDS)
        try:
            await service.on_files(lambda _: service.registry.sweep())
        except RefusedError:  # busy; next time
            continue


async def _service_of(request: Request) -> SessionService:
    service: SessionService = request.app.state.service
    return service


Service = Annotated[SessionService, Depends(_service_of)]


async def _session_of(session_id: str, service: Service) -> ServedSession:
    return service.registry.find(session_id)


Served = Annotated[ServedSession, Depends(_session_of)]

_about = APIRouter(tags=["about"], responses=REFUSALS)
_opening = APIRouter(prefix="/api/sessions", tags=["sessions"], responses=REFUSALS)
_clicking = APIRouter(prefix="/api/sessions/{session_id}", tags=["clicks"], responses=REFUSALS)
_results = APIRouter(prefix="/api/sessions/{session_id}", tags=["results"], responses=REFUSALS)


@_about.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the viewer."""
    return FileResponse(VIEWER_FOLDER / "index.html")


@_about.get("/api/health")
async def health(service: Service) -> HealthOut:
    """Say that the server works, and how much it has to do."""
    return HealthOut(version=__version__, sessions=service.registry.num_sessions, queue=service.num_waiting)


@_about.get("/api/model")
async def model_card(service: Service) -> ModelOut:
    """Describe the model."""
    card = service.model.card
    return ModelOut(
        id=card.id,
        title=card.title,
        method=card.method,
        modalities=card.modalities,
        licence=card.licence,
        notes=card.notes,
        sha256=card.sha256,
    )


@_about.get("/api/start")
async def start(service: Service) -> StartOut:
    """Say what the viewer opens at once."""
    path = service.settings.start_path
    return StartOut(path=None if path is None else str(path), version=__version__)


@_opening.post("", status_code=201, openapi_extra=_OPEN_BODY)
async def open_session(request: Request, service: Service) -> OpenedOut:
    """Open a scan: by path under the allowed root, or as an upload."""
    if request.headers.get("content-type", "").lower().startswith(_MULTIPART):
        form = await read_form(request)
        try:
            file = uploaded(form, "scan")
            texts = {name: text_field(form, name) for name in ("series", "modality")}
            wish = parse_values(OpenUploadIn, texts)
            opened = await service.open(
                lambda folder: ScanRecord(
                    scan=store(file, folder, "scan").name,
                    is_upload=True,
                    series=wish.series,
                    modality=wish.modality,
                ),
                request.is_disconnected,
            )
        finally:
            await form.close()
    else:
        given, settings = parse_json(OpenPathIn, await request.body()), service.settings
        is_start = given.series is None and given.path == str(settings.start_path)
        opened = await service.open(
            lambda _: ScanRecord(
                scan=str(find_under_root(settings.root, given.path)),
                is_upload=False,
                series=settings.start_series if is_start else given.series,
                modality=given.modality,
            ),
            request.is_disconnected,
        )
    return await service.describe(opened)


@_opening.get("/{session_id}")
async def status(served: Served, service: Service) -> StatusOut:
    """Say where a session stands; waits for nothing that is being computed."""
    is_busy = served.num_pending > 0
    state = await service.state(served)
    return StatusOut(**dict(state), busy=is_busy)


@_opening.post("/{session_id}/heartbeat")
async def heartbeat(served: Served, service: Service) -> LeaseOut:
    """Renew the lease."""
    served.touch()
    return LeaseOut(lease_seconds=service.settings.lease_seconds)


@_opening.delete("/{session_id}", status_code=204)
async def close(served: Served, service: Service) -> None:
    """End a session; its uploaded scan is deleted, its log stays to be resumed."""
    service.registry.close(served)


@_clicking.post("/clicks")
async def click(given: ClickIn, served: Served, service: Service, request: Request) -> ClickedOut:
    """Click, and answer all clicks on the object."""
    place = Click.at(given.position, space=given.space).position
    answer, state = await service.change(
        served,
        lambda live, is_cancelled: live.session.click(
            place,
            positive=given.positive,
            object_id=given.object_id,
            cancelled=is_cancelled,
        ),
        request.is_disconnected,
    )
    return ClickedOut(
        state=state,
        answer=AnswerOut(
            object_id=answer.object_id,
            num_voxels=answer.num_voxels,
            volume_ml=answer.volume_ml,
            seconds=sum(answer.seconds.values()),
            warnings=list(answer.warnings),
        ),
    )


@_clicking.post("/undo")
async def undo(served: Served, service: Service) -> ChangedOut:
    """Go back by one step, if there is one."""
    _, state = await service.change(served, lambda live, _: live.session.undo())
    return ChangedOut(state=state)


@_clicking.post("/redo")
async def redo(served: Served, service: Service) -> ChangedOut:
    """Take back an undo, if there is one."""
    _, state = await service.change(served, lambda live, _: live.session.redo())
    return ChangedOut(state=state)


@_clicking.post("/reset")
async def reset(served: Served, service: Service) -> ChangedOut:
    """Forget all clicks and objects; can be undone."""
    _, state = await service.change(served, lambda live, _: live.session.reset())
    return ChangedOut(state=state)


@_clicking.post("/objects")
async def add_object(given: NewObjectIn, served: Served, service: Service) -> AddedOut:
    """Begin another object."""
    object_id, state = await service.change(served, lambda live, _: live.session.add_object(given.name))
    return AddedOut(object_id=object_id, state=state)


@_clicking.patch("/objects/{object_id}")
async def change_object(
    object_id: ObjectId, given: ObjectChangeIn, served: Served, service: Service
) -> ChangedOut:
    """Freeze an object, or make it changeable again."""
    _, state = await service.change(
        served, lambda live, _: live.session.freeze_object(object_id, frozen=given.frozen)
    )
    return ChangedOut(state=state)


@_clicking.post("/resume")
async def resume(given: ResumeIn, served: Served, service: Service, request: Request) -> ChangedOut:
    """Go on with the clicks of an earlier session on the same scan."""
    return ChangedOut(state=await service.resume(served, given.log, request.is_disconnected))


@_results.get("/scan.nii.gz", response_class=FileResponse)
async def scan(served: Served, service: Service) -> FileResponse:
    """Return the scan as NIfTI."""
    return FileResponse(await service.scan_copy(served), media_type=_GZIP)


@_results.get("/mask.nii.gz", response_class=Response)
async def mask(
    served: Served, service: Service, request: Request, object_id: ObjectId | None = None
) -> Response:
    """Return the mask of an object, or the label map of all, as NIfTI."""
    tag = f'"{(await service.state(served)).revision}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    found, revision = await service.act(served, lambda live, _: (live.session.mask(object_id), served.revision))
    content = await service.written(served, "mask.nii.gz", lambda p: write_mask(found, p))
    headers = {"ETag": f'"{revision}"', "Cache-Control": "private, no-cache"}
    return Response(content, media_type=_GZIP, headers=headers)


@_results.get("/probability.nii.gz", response_class=Response)
async def probability(served: Served, service: Service, object_id: ObjectId = 1) -> Response:
    """Return the probability of an object in every voxel, 0 to 1, as NIfTI."""
    array, volume = await service.act(
        served, lambda live, _: (live.session.probability(object_id), live.volume)
    )
    content = await service.written(
        served,
        "probability.nii.gz",
        lambda place: write_volume(array, volume.grid, place),
    )
    return Response(content, media_type=_GZIP)


@_results.get("/export", response_class=Response)
async def export(
    *,
    served: Served,
    service: Service,
    format: ExportFormat = "nifti",  # noqa: A002  # the name of the query parameter
    deidentify: bool = False,
) -> Response:
    """Return all objects as one file: a label map, a DICOM segmentation or a structure set."""
    content, name = await export_file(service, served, file_format=format, deidentify=deidentify)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)
