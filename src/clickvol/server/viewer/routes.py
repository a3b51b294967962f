"""Routes that the viewer needs to be quick: the plain scan, masks that changed, series to choose from."""

import base64
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from clickvol.errors import ClickvolError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.interactions import Shaping
from clickvol.io.dicom.reading.series import SeriesSummary, list_series
from clickvol.io.formats import read_volume
from clickvol.io.input_path import kind_of_path
from clickvol.io.nifti.headers import make_header
from clickvol.io.volume import Volume
from clickvol.prompts.packed_mask import PackedMask
from clickvol.server.dependencies import All, Session
from clickvol.server.refusal import REFUSALS
from clickvol.server.scans import body_schema, find_under_root, read_form, store, uploaded
from clickvol.server.wire import (
    AdviceOut,
    ClickedOut,
    ObjectId,
    OpenPathIn,
    ScanOut,
    SeriesOut,
)

_BINARY = "application/octet-stream"
_CHUNK_VOXELS = 1 << 21
_THUMBNAIL_PIXELS = 96
_MAX_PICTURED = 12  # volumes of a series: each means reading it
_UPLOAD_BODY = body_schema("scan")
_OVERLAY_BODY = body_schema("scan", OpenPathIn)

ShapingIn = Annotated[Shaping, Body(discriminator="kind")]

router = APIRouter(prefix="/api", tags=["viewer"], responses=REFUSALS)


@router.get("/sessions/{session_id}/scan.nii", response_class=Response)
async def plain_scan(opened: Session) -> Response:
    """Return the scan as NIfTI that is not compressed, its geometry in sform and qform alike (code 1)."""
    return plain_nifti(await opened.get(lambda session, _: session.scan.volume))


@router.post("/sessions/{session_id}/overlay", response_class=Response, openapi_extra=_OVERLAY_BODY)
async def overlay(opened: Session) -> Response:
    """Return another scan of the patient as NIfTI, to lay over this one by where both say they are.

    A scan under the root, as `path`, or one that is sent along, which is not kept; the header `X-Modality` says
    what it is.
    """
    limits = opened.sessions.limits

    def read(place: Path, said: OpenPathIn) -> Volume:
        return read_volume(place, series=said.series, volume_index=said.volume, limits=limits)

    volume = await opened.read_given("scan", OpenPathIn, read)
    response = plain_nifti(volume)
    response.headers["X-Modality"] = ScanOut.of(volume, is_dicom=False).modality
    return response


@router.get("/sessions/{session_id}/masks", response_class=Response)
async def changed_masks(opened: Session, known: Annotated[str, Query(max_length=32768)] = "") -> Response:
    """Return the masks of the objects that changed.

    `known` is a list of `id:hash` with commas, of the masks that the client has. The answer is the length of a
    JSON text (4 bytes, little endian), the text, and the masks. The text has the `tag` of the session and for
    every object its `id`, `hash`, and, where the client has another one, `start_ijk` and `shape_ijk` of its box
    in voxels of the scan, and `length` of its mask in bytes: zlib of one bit per voxel, i fastest, the first
    voxel in the highest bit of the first byte. No voxel is in two objects.
    """
    masks, state = await opened.run(lambda session, _: session.shown_masks)
    has = dict(pair.split(":", 1) for pair in known.split(",") if ":" in pair)
    described, bits = [], []
    for number, mask in masks.items():
        entry, content = _described(number, mask, has.get(str(number)))
        described.append(entry)
        bits.append(content)
    text = json.dumps({"tag": state.tag, "objects": described}).encode()
    return Response(len(text).to_bytes(4, "little") + text + b"".join(bits), media_type=_BINARY)


@router.post("/sessions/{session_id}/interactions")
async def interact(given: ShapingIn, opened: Session) -> ClickedOut:
    """Add any interaction on an object, and compute the mask that follows.

    A click, line or box, a scribble, lasso or given mask, a brush edit, the choice of a candidate, an operation
    on the mask, or an earlier prompt replaced or removed (`edit_prompt` with the `place` that the state names).
    Drawn voxels are a box of the scan as (d, h, w) = (k, j, i), and its voxels eight to a byte with i fastest,
    zlib, base64. Undo, redo and the record treat all of them alike.
    """
    return await opened.add(given)


@router.get("/sessions/{session_id}/objects/{object_id}/advice")
async def advice(object_id: ObjectId, opened: Session) -> AdviceOut:
    """Return the Dice to expect of the last answer on an object, other masks for it, and where to click next.

    Empty where the mask comes from no answer, or was edited since.
    """
    return await opened.get(lambda session, _: AdviceOut.of(session, object_id))


@router.get("/series")
async def series(path: str, sessions: All) -> list[SeriesOut]:
    """List the series and volumes of a scan under the root, each with a picture of its middle slice."""
    place = find_under_root(sessions.settings.root, path)
    return await sessions.on_files(lambda _: choices(place, sessions.limits))


@router.post("/series", openapi_extra=_UPLOAD_BODY)
async def series_of_upload(request: Request, sessions: All) -> list[SeriesOut]:
    """List the series and volumes of a scan that is sent along; nothing of it stays."""
    async with read_form(request) as form:
        file = uploaded(form, "scan")

        def listed(_: object) -> list[SeriesOut]:
            with tempfile.TemporaryDirectory(dir=sessions.settings.state_folder, prefix="series-") as folder:
                return choices(store(file, Path(folder), "scan"), sessions.limits)

        return await sessions.on_files(listed)


def choices(place: Path, limits: ReadLimits, *, only: str | None = None) -> list[SeriesOut]:
    """Return what a scan offers: its series, or `only` one, each as its volumes where it has several."""
    if kind_of_path(place) == "folder" or place.suffix.lower() == ".zip":
        listed = [s for s in list_series(place, limits=limits) if only in (None, s.uid)]
    else:
        listed = [SeriesSummary(uid="", number=None, description="", modality="unknown", num_slices=0)]
    return [choice for summary in listed for choice in _with_pictures(place, summary, limits)]


def _with_pictures(
    place: Path, summary: SeriesSummary, limits: ReadLimits, index: int | None = None, label: str = ""
) -> list[SeriesOut]:
    """Return a series with its picture, or its volumes; of many volumes the first ones have pictures."""
    problem: str | None = None
    picture: str | None = None
    size: tuple[int, int, int] | None = None
    try:
        if index is None or index < _MAX_PICTURED:
            volume = read_volume(place, series=summary.uid or None, volume_index=index, limits=limits)
            d, h, w = volume.grid.shape_dhw
            picture, size = thumbnail(volume), (w, h, d)
    except ClickvolError as error:
        if index is None and isinstance(error, UnreadableVolumeError) and error.volumes:
            each = replace(summary, num_slices=summary.num_slices // len(error.volumes))
            return [
                choice
                for number, name in enumerate(error.volumes)
                for choice in _with_pictures(place, each, limits, number, name)
            ]
        problem = str(error)
    return [
        SeriesOut(
            uid=summary.uid,
            volume=index,
            number=summary.number,
            description=", ".join(text for text in (summary.description, label) if text),
            modality=summary.modality,
            num_slices=summary.num_slices,
            shape_ijk=size,
            picture=picture,
            problem=problem,
        )
    ]


def thumbnail(volume: Volume) -> str:
    """Return the middle slice of a scan as a data URL: the patient's right at the left, the front above."""
    from PIL import Image

    plane = volume.array[volume.grid.shape_dhw[0] // 2].astype(np.float32)
    low, high = np.percentile(plane, (1, 99.5))
    grey = np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8))
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    # Turned where rows and columns of the file run against what radiologists expect.
    first, across, down = (volume.grid.to_world(VoxelPoint(0, h, w)) for h, w in ((0, 0), (0, 1), (1, 0)))
    if across.x > first.x:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if down.y > first.y:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def plain_nifti(volume: Volume) -> Response:
    """Return a scan as NIfTI that is not compressed, its geometry in sform and qform alike (code 1)."""
    header, array = _display_copy(volume)
    headers = {"Content-Length": str(len(header) + array.nbytes), "Cache-Control": "no-store"}
    return StreamingResponse(_chunks(header, array), media_type=_BINARY, headers=headers)


def _display_copy(volume: Volume) -> tuple[bytes, NDArray[np.generic]]:
    """Return header and voxels for the page: values as they are, in a type that graphics cards have."""
    array = volume.array
    if array.dtype.name not in ("uint8", "int16", "uint16", "float32"):
        array = array.astype(np.int16 if array.dtype.itemsize == 1 else np.float32)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # Readers disagree where a header says two things or none; this one says one.
    header = make_header(array, volume.grid.without_file_facts())
    block = header.binaryblock
    return block + b"\0" * (int(header["vox_offset"]) - len(block)), array


def _chunks(header: bytes, array: NDArray[np.generic]) -> Iterator[bytes]:
    yield header
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK_VOXELS):
        yield flat[start : start + _CHUNK_VOXELS].tobytes()


def _described(number: int, mask: PackedMask, known: str | None) -> tuple[dict[str, object], bytes]:
    """Return the entry of an object, and the bits of its mask where the client has another one."""
    digest = mask.sha256()[:16]
    entry: dict[str, object] = {"id": number, "hash": digest}
    if known == digest:
        return entry, b""
    start = (0, 0, 0) if mask.box is None else mask.box.start_dhw
    shape = (0, 0, 0) if mask.box is None else mask.box.shape_dhw
    entry |= {"start_ijk": start[::-1], "shape_ijk": shape[::-1], "length": len(mask.bits)}
    return entry, mask.bits
