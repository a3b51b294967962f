"""The part of MONAI Label's REST interface that 3D Slicer's and OHIF's existing clients need to click.

Written from the interface's documentation and from what the clients send and read. A client sends all clicks
on a label with every request, as voxel indices (i, j, k) of the stored image, and that list is answered as it
is: the client keeps it, so that nothing of it is kept here. What is not here (training, active learning,
saved labels) is answered in a way that the clients understand.
"""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from clickvol.io.formats import write_volume
from clickvol.io.itk.raw_nrrd import raw_nrrd
from clickvol.io.volume import Mask
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click
from clickvol.server.monai_label.images import list_images
from clickvol.server.monai_label.sessions import ImageClient
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.scans import read_form, text_field, uploaded
from clickvol.server.served_session import ServedSession
from clickvol.server.sessions import Sessions
from clickvol.server.wire import RESEARCH_USE, Triple
from clickvol.version import __version__

DEFAULT_LABEL = "tumour"

_MAX_CLICKS = 200
_BOUNDARY_BYTES = 16
_LABEL_AND_FILE = 2

Output = Literal["all", "image", "json"]


class InferParams(BaseModel):
    """What clients send as `params`; the rest of it is for other servers.

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

    @property
    def clicks(self) -> tuple[Click, ...]:
        """All clicks, those inside the object first."""
        signed = [(self.foreground, True), (self.background, False)]
        return tuple(Click.at(place, foreground=inside) for places, inside in signed for place in places)


Client = Annotated[ImageClient, Depends()]

router = APIRouter(tags=["MONAI Label"], responses=REFUSALS)


@router.get("/info/")
async def info(client: Client) -> dict[str, Any]:
    """Describe the server: one model, which takes clicks."""
    card = client.sessions.model.card
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
        **{section: {} for section in ("trainers", "strategies", "scoring", "train_stats", "datastore")},
    }


@router.put("/session/")
async def create_session(request: Request, client: Client) -> dict[str, Any]:
    """Open a session on an uploaded image."""
    async with read_form(request) as form:
        session_id = await client.open_session(uploaded(form, "files", "file"))
    return {"session_id": session_id, "session_info": client.describe(session_id)}


@router.get("/session/{session_id}", response_model=None)
async def get_session(*, session_id: str, client: Client, image: bool = False) -> FileResponse | dict[str, Any]:
    """Describe a session and renew its lease; with `image`, return its scan."""
    if image:
        served = client.sessions.get(session_id)
        return FileResponse(await client.sessions.scan_copy(served), filename="image.nii.gz")
    return client.describe(session_id)


@router.delete("/session/{session_id}")
async def remove_session(session_id: str, client: Client) -> dict[str, Any]:
    """End a session."""
    described = client.describe(session_id)
    client.sessions.end(client.sessions.get(session_id))
    return described


@router.get("/datastore/")
async def datastore(
    client: Client, output: Literal["stats", "list", "all", "train"] = "stats"
) -> dict[str, Any] | list[str]:
    """List the scans under the root, and the folders that are no scan."""
    root = client.sessions.settings.root
    listed = await client.sessions.on_files(lambda _: list_images(root))
    if output == "list":
        return sorted(listed.images)
    skipped = {"skipped": listed.skipped}
    if output == "stats":
        return {"total": len(listed.images), "completed": 0, "label_tags": {}, "train": [], **skipped}
    suffixes = {
        image: "" if places[0].is_dir() else "".join(places[0].suffixes[-2:])
        for image, places in listed.images.items()
    }
    objects = {i: {"image": {"ext": suffixes[i], "info": {}}, "labels": {}} for i in sorted(suffixes)}
    return {"name": "clickvol", "objects": objects, **skipped}


@router.put("/datastore/")
@router.post("/datastore/", include_in_schema=False)
@router.put("/datastore/image", include_in_schema=False)
@router.post("/datastore/image", include_in_schema=False)
async def upload_image(
    request: Request, client: Client, image: Annotated[str, Query(max_length=256)] = ""
) -> dict[str, str]:
    """Take an image, which is kept as long as this client clicks in it; nothing is written under the root."""
    image = image or secrets.token_hex(8)
    async with read_form(request) as form:
        await client.open_named(uploaded(form, "file", "files"), image)
    return {"image": image}


@router.delete("/datastore/")
@router.delete("/datastore/image", include_in_schema=False)
async def delete_image(client: Client, id: Annotated[str, Query(max_length=256)]) -> dict[str, str]:  # noqa: A002
    """Delete an image that this client has uploaded; nothing under the root is deleted."""
    client.end(id)
    return {}


@router.get("/datastore/image", response_class=FileResponse)
async def download_image(image: Annotated[str, Query(max_length=4096)], client: Client) -> FileResponse:
    """Return an image: the file as stored, a DICOM series as NIfTI."""
    path = await client.file_of(image)
    if path is not None:
        return FileResponse(path, media_type="application/octet-stream")
    served = await client.session_on(image)
    return FileResponse(await client.sessions.scan_copy(served), filename="image.nii.gz")


@router.put("/datastore/label")
async def save_label(image: str = "") -> None:  # noqa: ARG001  # a client sends it
    """Refuse to keep a label: nothing is written under the root."""
    raise RefusedError(403, "this server keeps no labels; save the segmentation in your own program")


@router.post("/infer/{model}", response_class=Response)
async def infer(
    model: str,
    request: Request,
    client: Client,
    image: Annotated[str, Query(max_length=4096)] = "",
    session_id: Annotated[str, Query(max_length=128)] = "",
    output: Output = "all",
) -> Response:
    """Answer all clicks on a label."""
    sessions = client.sessions
    if model != sessions.model.card.id:
        raise RefusedError(404, f"there is no such model here; this server has {sessions.model.card.id}")
    async with read_form(request, max_files=_LABEL_AND_FILE) as form:
        params = parse_json(InferParams, text_field(form, "params") or "{}")
        if session_id:
            served = sessions.get(session_id)
        elif isinstance(form.get("file"), UploadFile):
            served = await client.open_upload(uploaded(form, "file"))
        else:
            served = await client.session_on(image)
    answer, _ = await sessions.run(
        served,
        lambda session, is_cancelled: session.scan.predict(params.clicks, cancelled=is_cancelled),
        request.is_disconnected,
    )
    result = _result_params(answer, params.label)
    if output == "json":
        return Response(json.dumps({"params": result}), media_type="application/json")
    content = await _encoded(sessions, served, answer.mask, params)
    name = f"result{params.result_extension}"
    if output == "image":
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)
    return _multipart(result, content, name)


def _result_params(answer: Segmentation, label: str) -> dict[str, Any]:
    centroids: dict[str, list[float]] = {}
    if answer.mask.num_voxels:
        d, h, w = (float(axis.mean()) for axis in np.nonzero(answer.mask.array))
        centroids[label] = [1, w, h, d]
    return {
        "label_names": {label: 1},
        "centroids": centroids,
        "latencies": {"total": round(sum(answer.seconds.values()), 3)},
    }


async def _encoded(sessions: Sessions, served: ServedSession, mask: Mask, params: InferParams) -> bytes:
    array = mask.array.astype(params.result_dtype)
    if params.result_extension.endswith(".nrrd") and not params.result_compress:
        return await sessions.on_files(lambda _: raw_nrrd(array, mask.grid))

    def write(place: Path) -> None:
        write_volume(array, mask.grid, place)

    return await sessions.written(served, f"result{params.result_extension}", write)


def _multipart(params: dict[str, Any], content: bytes, name: str) -> Response:
    """Return result and file in one answer; the clients search for these very headers of the parts."""
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
