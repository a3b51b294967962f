"""The part of MONAI Label's REST interface that 3D Slicer's and OHIF's existing clients need to click.

Written from the interface's documentation and from what the clients send and read. A client sends all clicks
on a label with every request, as voxel indices (i, j, k) of the stored image; each label is an object of a
session here. What is not here (training, active learning, saved labels) is answered in a way that the clients
understand.
"""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import write_volume
from clickvol.io.raw_nrrd import raw_nrrd
from clickvol.io.volume import Mask
from clickvol.prompts.click import Click
from clickvol.server.answers import REFUSALS, parse_json
from clickvol.server.image_store import find_image, list_images
from clickvol.server.refusal import RefusedError
from clickvol.server.service import IsGone, SessionService
from clickvol.server.sessions import Live, ScanRecord, ServedSession
from clickvol.server.uploads import read_form, store, text_field, uploaded
from clickvol.server.wire import RESEARCH_USE, Triple
from clickvol.server.worker import IsCancelled
from clickvol.version import __version__

DEFAULT_LABEL = "tumour"

_MAX_CLICKS = 200
_BOUNDARY_BYTES = 16
_LABEL_AND_FILE = 2

Output = Literal["all", "image", "json"]


class InferParams(BaseModel):
    """What clients send as `params`; what they send beside it is for other servers.

    Attributes:
        foreground, background: clicks, (i, j, k) of the stored image.
        label: name of the object.
        result_extension: format of the result.
        result_dtype: of its voxels.
        result_compress: False for clients that cannot unpack it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    foreground: list[Triple] = Field(default=[], max_length=_MAX_CLICKS)
    background: list[Triple] = Field(default=[], max_length=_MAX_CLICKS)
    label: str = Field(default=DEFAULT_LABEL, min_length=1, max_length=64)
    result_extension: Literal[".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".mha"] = ".nrrd"
    result_dtype: Literal["uint8", "uint16"] = "uint8"
    result_compress: bool = True


async def _service_of(request: Request) -> SessionService:
    service: SessionService = request.app.state.service
    return service


Service = Annotated[SessionService, Depends(_service_of)]

router = APIRouter(tags=["MONAI Label"], responses=REFUSALS)


@router.get("/info/")
async def info(service: Service) -> dict[str, Any]:
    """Describe the server: one model, which takes clicks."""
    card = service.model.card
    model = {
        "type": "deepgrow",  # what clients call a model with foreground and background clicks
        "labels": [],  # whatever the user names
        "dimension": 3,
        "description": f"{card.title}; {RESEARCH_USE}",
    }
    return {
        "name": "clickvol",
        "description": f"One click in a CT or MR scan gives the tumour in 3D; {RESEARCH_USE}",
        "version": __version__,
        # OHIF leaves out the first.
        "labels": ["background", DEFAULT_LABEL],
        "models": {card.id: model},
        "trainers": {},
        "strategies": {},
        "scoring": {},
        "train_stats": {},
        "datastore": {},
    }


@router.put("/session/")
async def create_session(request: Request, service: Service) -> dict[str, Any]:
    """Open a session on an uploaded image."""
    form = await read_form(request)
    try:
        session_id = await _open_upload(service, uploaded(form, "files", "file"), request.is_disconnected)
    finally:
        await form.close()
    return {"session_id": session_id, "session_info": _session_info(service, session_id)}


@router.get("/session/{session_id}", response_model=None)
async def get_session(
    *, session_id: str, service: Service, image: bool = False
) -> FileResponse | dict[str, Any]:
    """Describe a session and renew its lease; with `image`, return its scan."""
    served = service.registry.find(session_id)
    if image:
        return FileResponse(await service.scan_copy(served), filename="image.nii.gz")
    return _session_info(service, session_id)


@router.delete("/session/{session_id}")
async def remove_session(session_id: str, service: Service) -> dict[str, Any]:
    """End a session."""
    known = _session_info(service, session_id)
    service.registry.close(service.registry.find(session_id))
    return known


@router.get("/datastore/")
async def datastore(
    service: Service, output: Literal["stats", "list", "all", "train"] = "stats"
) -> dict[str, Any] | list[str]:
    """List the scans under the root."""
    root = service.settings.root
    images = await service.on_files(lambda _: list_images(root))
    if output == "list":
        return sorted(images)
    if output == "stats":
        return {"total": len(images), "completed": 0, "label_tags": {}, "train": []}
    objects = {
        image_id: {"image": {"ext": _extension(path), "info": {}}, "labels": {}}
        for image_id, path in sorted(images.items())
    }
    return {"name": "clickvol", "objects": objects}


@router.put("/datastore/")
@router.post("/datastore/", include_in_schema=False)
@router.put("/datastore/image", include_in_schema=False)
@router.post("/datastore/image", include_in_schema=False)
async def upload_image(
    request: Request, service: Service, image: Annotated[str, Query(max_length=256)] = ""
) -> dict[str, str]:
    """Take an image, which is kept as long as somebody clicks in it; nothing is written under the root."""
    form = await read_form(request)
    try:
        session_id = await _open_upload(service, uploaded(form, "file", "files"), request.is_disconnected)
    finally:
        await form.close()
    image_id = image or secrets.token_hex(8)
    service.names.set(image_id, session_id)
    return {"image": image_id}


@router.get("/datastore/image", response_class=FileResponse)
async def download_image(image: Annotated[str, Query(max_length=4096)], service: Service) -> FileResponse:
    """Return an image: the file as stored, a DICOM series as NIfTI."""
    root = service.settings.root
    if service.names.get(image) is None:
        path = await service.on_files(lambda _: find_image(root, image))
        if path.is_file():
            return FileResponse(path, media_type="application/octet-stream")
    served = await _session_on(service, image, None)
    return FileResponse(await service.scan_copy(served), filename="image.nii.gz")


@router.put("/datastore/label")
async def save_label(image: str = "") -> None:  # noqa: ARG001  # a client sends it
    """Refuse to keep a label: nothing is written under the root."""
    raise RefusedError(403, "this server keeps no labels; save the segmentation in your own program")


@router.post("/infer/{model}", response_class=Response)
async def infer(
    model: str,
    request: Request,
    service: Service,
    image: Annotated[str, Query(max_length=4096)] = "",
    session_id: Annotated[str, Query(max_length=128)] = "",
    output: Output = "all",
) -> Response:
    """Answer all clicks on a label."""
    if model != service.model.card.id:
        raise RefusedError(404, f"there is no such model here; this server has {service.model.card.id}")
    form = await read_form(request, max_files=_LABEL_AND_FILE)
    try:
        params = parse_json(InferParams, text_field(form, "params") or "{}")
        served = await _session_for(service, form, image, session_id, request.is_disconnected)
    finally:
        await form.close()
    (mask, seconds), _ = await service.change(
        served,
        lambda live, is_cancelled: _answer(live, params, is_cancelled),
        request.is_disconnected,
    )
    result = _result_params(mask, params.label, seconds)
    if output == "json":
        return Response(json.dumps({"params": result}), media_type="application/json")
    content = await _encoded(service, served, mask, params)
    name = f"result{params.result_extension}"
    if output == "image":
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)
    return _multipart(result, content, name)


async def _open_upload(service: SessionService, file: UploadFile, is_gone: IsGone) -> str:
    opened = await service.open(
        lambda folder: ScanRecord(scan=store(file, folder, "scan").name, is_upload=True), is_gone
    )
    return opened.session_id


async def _session_for(
    service: SessionService, form: FormData, image: str, session_id: str, is_gone: IsGone
) -> ServedSession:
    """Return the session that a request means: one it names, or one on the image it names or brings."""
    if session_id:
        return service.registry.find(session_id)
    if isinstance(form.get("file"), UploadFile):
        opened = await _open_upload(service, uploaded(form, "file"), is_gone)
        if image:
            service.names.set(image, opened)
        return service.registry.find(opened)
    return await _session_on(service, image, is_gone)


async def _session_on(service: SessionService, image: str, is_gone: IsGone | None) -> ServedSession:
    """Return the session on an image that was uploaded or lies under the root; the same as last time."""
    known = service.names.get(image)
    if known is not None:
        try:
            return service.registry.find(known)
        except RefusedError:  # its lease is over; one under the root can be opened again
            service.names.forget(image)
    path = await service.on_files(lambda _: find_image(service.settings.root, image))
    series = image if path.is_dir() else None
    opened = await service.open(lambda _: ScanRecord(scan=str(path), is_upload=False, series=series), is_gone)
    service.names.set(image, opened.session_id)
    return opened.served


def _answer(live: Live, params: InferParams, is_cancelled: IsCancelled) -> tuple[Mask, float]:
    """Bring the clicks on a label to what the client has, and return its mask.

    What was added is clicked. Where a click was taken away, the label begins anew as another object: features
    are kept, so that this costs little, and the object that it replaces is not shown to this client again.
    """
    wanted = [(point, True) for point in params.foreground]
    wanted += [(point, False) for point in params.background]
    if not params.foreground:
        raise RefusedError(422, "there is no click inside the object; send at least one in 'foreground'")
    named = [known for known in live.session.objects if known.name == params.label]
    object_id, missing = 0, wanted
    if named and not named[-1].frozen:
        left = _without([_as_sent(click) for click in named[-1].clicks], wanted)
        if left is not None:
            object_id, missing = named[-1].id, left
    if not object_id:
        object_id = live.session.add_object(params.label)
    seconds = 0.0
    for point, positive in missing:
        answer = live.session.click(
            VoxelPoint.from_ijk(*point),
            positive=positive,
            object_id=object_id,
            cancelled=is_cancelled,
        )
        seconds += sum(answer.seconds.values())
    return live.session.mask(object_id), seconds


def _as_sent(click: Click) -> tuple[Triple, bool] | None:
    place = click.position
    return (place.to_ijk(), click.foreground) if isinstance(place, VoxelPoint) else None


def _without(
    there: list[tuple[Triple, bool] | None], wanted: list[tuple[Triple, bool]]
) -> list[tuple[Triple, bool]] | None:
    """Return what is wanted and not there yet; None where something is there that is not wanted."""
    missing = list(wanted)
    for click in there:
        if click is None or click not in missing:
            return None
        missing.remove(click)
    return missing


def _result_params(mask: Mask, label: str, seconds: float) -> dict[str, Any]:
    centroids: dict[str, list[float]] = {}
    if mask.num_voxels:
        d, h, w = (float(axis.mean()) for axis in np.nonzero(mask.array))
        centroids[label] = [1, w, h, d]
    return {
        "label_names": {label: 1},
        "centroids": centroids,
        "latencies": {"total": round(seconds, 3)},
    }


async def _encoded(service: SessionService, served: ServedSession, mask: Mask, params: InferParams) -> bytes:
    array = mask.array.astype(params.result_dtype)
    if params.result_extension.endswith(".nrrd") and not params.result_compress:
        return await service.on_files(lambda _: raw_nrrd(array, mask.grid))

    def write(place: Path) -> None:
        write_volume(array, mask.grid, place)

    return await service.written(served, f"result{params.result_extension}", write)


def _multipart(params: dict[str, Any], content: bytes, name: str) -> Response:
    """Return result and file in one answer; the clients look for these very headers of the parts."""
    boundary = secrets.token_hex(_BOUNDARY_BYTES)
    start = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="params"\r\n'
        "Content-Type: application/json\r\n\r\n"
        f"{json.dumps(params)}\r\n"
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = b"".join((start.encode(), content, f"\r\n--{boundary}--\r\n".encode()))
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")


def _session_info(service: SessionService, session_id: str) -> dict[str, Any]:
    served = service.registry.find(session_id)
    return {
        "name": session_id,
        "expiry": service.settings.lease_seconds,
        "last_access_ts": int(served.used_at),
        "busy": served.num_pending > 0,
    }


def _extension(path: Path) -> str:
    return "" if path.is_dir() else "".join(path.suffixes[-2:])
