"""The part of MONAI Label's REST interface that 3D Slicer's and OHIF's existing clients need to click.

Written from the interface's documentation and from what the clients send and read. A client sends all clicks
on a label with every request, as voxel indices (i, j, k) of the stored image, and that list is answered as it
is: the client keeps it, so that nothing of it is kept here. Training is not here. Labels, the next sample and
the token are in `label_routes.py`.
"""

from collections import Counter
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import FormData, UploadFile

from clickvol.interactive.session import InteractiveSession
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.spatial import Prompt, Scribble
from clickvol.server.monai_label.datastore import STRATEGIES
from clickvol.server.monai_label.infer import (
    BACKGROUND,
    DEFAULT_LABEL,
    Answers,
    InferParams,
    Output,
    read_scribbles,
)
from clickvol.server.monai_label.labels import FINAL
from clickvol.server.monai_label.sessions import ImageClient
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.scans import read_form, scan_suffix, text_field, uploaded
from clickvol.server.served_session import ServedSession
from clickvol.server.wire import RESEARCH_USE
from clickvol.server.worker import IsCancelled
from clickvol.version import __version__

_MAX_SERIES_FILES = 1024
_LABEL_AND_FILE = 2

# What only browsers send; OHIF's panel is the only client that is one.
_OF_BROWSERS = ("origin", "sec-fetch-site")

Client = Annotated[ImageClient, Depends()]

router = APIRouter(tags=["MONAI Label"], responses=REFUSALS)


@router.get("/info/")
async def info(client: Client, request: Request) -> dict[str, Any]:
    """Describe the server: one model, which takes clicks."""
    card = client.sessions.model.card
    model = {
        "type": "deepgrow",  # what clients call a model with foreground and background clicks
        "labels": [],  # whatever the user names
        "dimension": 3,
        "description": f"{card.title}; {RESEARCH_USE}",
    }
    # OHIF leaves out the first label, whatever it is; 3D Slicer selects it, and clicks on what it is called.
    first = [BACKGROUND] if any(name in request.headers for name in _OF_BROWSERS) else []
    return {
        "name": "clickvol",
        "description": f"One click in a CT or MR scan gives the tumour in 3D; {RESEARCH_USE}",
        "version": __version__,
        "labels": [*first, DEFAULT_LABEL],
        "models": {card.id: model},
        "strategies": {name: {"description": text} for name, text in STRATEGIES.items()},
        **{section: {} for section in ("trainers", "scoring", "train_stats", "datastore")},
    }


@router.put("/session/")
async def create_session(request: Request, client: Client) -> dict[str, Any]:
    """Open a session on an upload: one file, or those of a DICOM series."""
    async with read_form(request, max_files=_MAX_SERIES_FILES) as form:
        files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
        session_id = await client.open_session(files or [uploaded(form, "file")])
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
    """List the scans under the root and in the archive, own uploads, labels, and folders that are no scan."""
    images = await client.images()
    if output == "list":
        return images.names
    labels = await client.labels(images.names)
    skipped = {"skipped": images.root.skipped}
    if output == "stats":
        tags = Counter(tag for known in labels.values() for tag in known)
        completed = tags[FINAL]
        return {"total": len(labels), "completed": completed, "label_tags": tags, "train": [], **skipped}
    objects = {
        name: {
            "image": {"ext": images.root.suffix(name), "info": {}},
            "labels": {tag: {"ext": ".nii.gz", "info": label.info} for tag, label in known.items()},
        }
        for name, known in labels.items()
    }
    return {"name": "clickvol", "objects": objects, **skipped}


@router.put("/datastore/")
@router.post("/datastore/", include_in_schema=False)
@router.put("/datastore/image", include_in_schema=False)
@router.post("/datastore/image", include_in_schema=False)
async def upload_image(
    request: Request, client: Client, image: Annotated[str, Query(max_length=256)] = ""
) -> dict[str, str]:
    """Take an image, which is kept as long as this client clicks in it; nothing is written under the root."""
    async with read_form(request) as form:
        file = uploaded(form, "file", "files")
        name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
        image = image or name[: -len(scan_suffix(name))]
        await client.open_named(file, image)
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


@router.post("/infer/{model}", response_class=Response)
async def infer(
    model: str,
    request: Request,
    client: Client,
    image: Annotated[str, Query(max_length=4096)] = "",
    session_id: Annotated[str, Query(max_length=128)] = "",
    output: Output = "all",
) -> Response:
    """Answer all clicks on a label, or on each of several."""
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
        scribbles = await _scribbles(client, served, form)
    answers = {}
    for name, prompts in params.objects(scribbles).items():
        ask = partial(_answer, prompts)
        answers[name], _ = await sessions.run(served, ask, request.is_disconnected)
    return await Answers(sessions=sessions, served=served, params=params, answers=answers).response(output)


def _answer(prompts: list[Prompt], session: InteractiveSession, is_cancelled: IsCancelled) -> Segmentation:
    return session.scan.predict(prompts, cancelled=is_cancelled)


async def _scribbles(client: ImageClient, served: ServedSession, form: FormData) -> list[Scribble]:
    if not isinstance(form.get("label"), UploadFile):
        return []
    file = uploaded(form, "label")
    volume, _ = await client.sessions.run(served, lambda session, _: session.scan.volume)
    return await client.with_file(served, file, lambda path: read_scribbles(path, volume))
