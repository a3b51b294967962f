"""Labels that clients save and fetch, what to label next, and how 3D Slicer gets its token."""

import hmac
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Mask, Volume
from clickvol.server.exporting import dicom_file
from clickvol.server.http.failed_tokens import FailedTokens
from clickvol.server.monai_label.infer import LabelInfo
from clickvol.server.monai_label.labels import FINAL, LabelFolder
from clickvol.server.monai_label.sessions import ImageClient
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.scans import read_form, text_field, uploaded

_RAW_SUFFIX = ".bin"  # OHIF's: voxels alone, i fastest
_MAX_VALUE = 65535

Client = Annotated[ImageClient, Depends()]
Name = Annotated[str, Query(min_length=1, max_length=256)]
Tag = Annotated[str, Query(max_length=32), AfterValidator(lambda tag: tag or FINAL)]

router = APIRouter(tags=["MONAI Label"], responses=REFUSALS)


class LabelParams(BaseModel):
    """What is said of a label; the rest of it is for other servers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label_info: list[LabelInfo] = Field(default=[], max_length=_MAX_VALUE)


class InfoIn(BaseModel):
    """Whatever a client wants to be remembered of a label or an image."""

    model_config = ConfigDict(frozen=True, extra="allow")


@router.get("/auth/")
async def auth(client: Client) -> dict[str, bool]:
    """Say whether a token is needed."""
    return {"enabled": client.sessions.settings.token is not None}


@router.post("/auth/token")
async def get_token(request: Request, client: Client) -> JSONResponse:
    """Give the token to whoever knows it, as 3D Slicer asks for it: by a user and a password."""
    token = client.sessions.settings.token
    failed: FailedTokens = request.app.state.datastore.failed
    address = "" if request.client is None else request.client.host
    if seconds := failed.seconds_to_wait(address):
        message = f"too many wrong passwords came from this address; wait {seconds} s"
        raise RefusedError(429, message, retry_after_seconds=seconds)
    async with request.form(max_fields=8, max_files=0) as form:
        password = text_field(form, "password") or ""
    if token is not None and not hmac.compare_digest(password.encode(), token.encode()):
        failed.note(address)
        raise RefusedError(401, "the password is not the server's token; any user name goes with it")
    answer = {"access_token": token or "none", "token_type": "bearer"}
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@router.get("/auth/token/valid")
async def is_token_valid() -> dict[str, bool]:
    """Answer: who gets here has the token."""
    return {"valid": True}


@router.post("/activelearning/{strategy}")
async def next_sample(strategy: Literal["random", "first"], client: Client) -> dict[str, Any]:
    """Say which image has no final label yet; nothing where none is left."""
    images = await client.images()
    labels = await client.labels(images.shared_names)
    unlabelled = [image for image, known in labels.items() if FINAL not in known]
    seconds = client.sessions.settings.lease_seconds
    image = client.datastore.next_sample(strategy, client.client, unlabelled, seconds)
    if image is None:
        return {}
    name = f"{image.rpartition('/')[2]}{images.root.suffix(image) or '.nii.gz'}"
    series = images.archive.get(image)
    study = {} if series is None else {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": image}
    return {"id": image, "name": name, "ts": int(time.time()), **study}


@router.put("/datastore/label")
async def save_label(request: Request, image: Name, client: Client, tag: Tag = FINAL) -> dict[str, str]:
    """Keep a label on the grid of its image; earlier versions stay."""
    folder, settings = _folder(client), client.sessions.settings
    served = await client.session_on(image)
    volume, _ = await client.sessions.run(served, lambda session, _: session.scan.volume)
    async with read_form(request) as form:
        params = parse_json(LabelParams, text_field(form, "params") or "{}")
        file = uploaded(form, "label", "file")
        if (file.filename or "").lower().endswith(_RAW_SUFFIX):
            array = await client.sessions.on_files(lambda _: _raw_label(file, volume))
        else:
            array = await client.with_file(served, file, lambda path: _label_of(path, volume))
    info = {"image": image, "label_info": [one.model_dump(exclude_none=True) for one in params.label_info]}
    name = client.label_name(image)
    await client.sessions.on_files(lambda _: folder.save(name, tag, array, volume.grid, info))
    archive = client.datastore.archive
    if settings.store_labels and archive is not None and await archive.find(image) is not None:
        masks = _masks_of(array, volume, params.label_info)
        await archive.store(await dicom_file(client.sessions, served, masks, "label.dcm"))
    return {"image": image, "label": image}


@router.get("/datastore/label", response_class=FileResponse)
async def download_label(label: Name, client: Client, tag: Tag = FINAL) -> FileResponse:
    """Return the last version of a label, as NIfTI."""
    folder, name = _folder(client), client.label_name(label)
    saved = await client.sessions.on_files(lambda _: folder.latest(name, tag))
    return FileResponse(saved.path, media_type="application/gzip", filename=f"{label}.nii.gz")


@router.delete("/datastore/label")
async def delete_label(id: Name, client: Client, tag: Tag = FINAL) -> dict[str, str]:  # noqa: A002
    """Let a label be gone for clients; its versions stay in the folder."""
    folder, name = _folder(client), client.label_name(id)
    await client.sessions.on_files(lambda _: folder.delete(name, tag))
    return {}


@router.get("/datastore/label/info")
async def label_info(label: Name, client: Client, tag: Tag = FINAL) -> dict[str, Any]:
    """Return what was said of a label."""
    folder, name = _folder(client), client.label_name(label)
    return (await client.sessions.on_files(lambda _: folder.latest(name, tag))).info


@router.put("/datastore/label/info")
async def change_label_info(request: Request, label: Name, client: Client, tag: Tag = FINAL) -> dict[str, str]:
    """Say something else of a label."""
    folder, name = _folder(client), client.label_name(label)
    info = await _info_of(request)
    saved = await client.sessions.on_files(lambda _: folder.latest(name, tag))
    await client.sessions.on_files(lambda _: folder.say(saved, info))
    return {}


@router.get("/datastore/image/info")
async def image_info(image: Name, client: Client) -> dict[str, Any]:
    """Return what was said of an image."""
    await client.check_is_known(image)
    folder, name = client.datastore.labels, client.label_name(image)
    return {} if folder is None else await client.sessions.on_files(lambda _: folder.image_info(name))


@router.put("/datastore/image/info")
async def change_image_info(request: Request, image: Name, client: Client) -> dict[str, str]:
    """Say something of an image; it is kept with its labels."""
    folder, info = _folder(client), await _info_of(request)
    await client.check_is_known(image)
    name = client.label_name(image)
    await client.sessions.on_files(lambda _: folder.say_of_image(name, info))
    return {}


def _folder(client: ImageClient) -> LabelFolder:
    if client.datastore.labels is None:
        raise RefusedError(
            403,
            "this server keeps no labels; save the segmentation in your own program, or start it with --labels",
        )
    return client.datastore.labels


async def _info_of(request: Request) -> dict[str, Any]:
    async with read_form(request) as form:
        return parse_json(InfoIn, text_field(form, "info") or "{}").model_dump()


def _label_of(path: Path, scan: Volume) -> NDArray[np.generic]:
    label = read_label(path, scan)
    if not label.grid.same_place(scan.grid):
        raise RefusedError(
            422, f"the label does not lie on its image: {label.grid.difference_from(scan.grid)}; resample it"
        )
    return _checked(label.array)


def _raw_label(file: UploadFile, scan: Volume) -> NDArray[np.generic]:
    content = file.file.read()
    size = scan.array.size
    if len(content) not in (size, 2 * size):
        raise RefusedError(
            422,
            f"the label has {len(content)} bytes, but its image {size} voxels; send one or two bytes for each",
        )
    flat = np.frombuffer(content, dtype="<u1" if len(content) == size else "<u2")
    return _checked(flat.reshape(scan.array.shape))


def _checked(array: NDArray[np.generic]) -> NDArray[np.generic]:
    values = array.astype(np.float64)
    if not np.array_equal(values, np.clip(np.rint(values), 0, _MAX_VALUE)):
        raise RefusedError(422, f"a label holds whole numbers from 0 to {_MAX_VALUE}; send those")
    return array.astype(np.uint8 if values.max() < 256 else np.uint16)


def _masks_of(array: NDArray[np.generic], scan: Volume, infos: list[LabelInfo]) -> list[LabelledMask]:
    names = {info.idx or number: info.name for number, info in enumerate(infos, start=1)}
    return [
        LabelledMask(
            name=names.get(int(value), f"label {value}"),
            mask=Mask((array == value).astype(np.uint8), scan.grid),
            made_by="person",
        )
        for value in np.unique(array)
        if value
    ]
