"""The calls of SlicerNNInteractive up to 0.3.2: no session, no token, no spacing; one image for each client.

Whose image it is, is told from the client's address and the name or token in the path (`/u/NAME/...`).
"""

import gzip
import io
import json
import zlib
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clickvol.errors import ClickvolError
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import Shaping
from clickvol.interactive.viewer_prompts import box_prompt, drawn_prompt, point_prompt
from clickvol.server.http.security import client_of
from clickvol.server.lease import Lease
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.scans import read_form, text_field, uploaded
from clickvol.server.sessions import Sessions
from clickvol.server.wire import Triple

_NO_IMAGE = "No image uploaded"  # the words after which the client sends its image and tries again
_MAX_NPY_HEADER_BYTES = 1 << 16


class _In(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    positive_click: bool = True


class _PointIn(_In):
    voxel_coord: Triple


class _BoxIn(_In):
    outer_point_one: Triple
    outer_point_two: Triple


router = APIRouter(tags=["SlicerNNInteractive"], responses=REFUSALS)


@router.post("/upload_image")
async def upload_image(request: Request) -> dict[str, str]:
    """Take the image of this client in place of an earlier one."""
    sessions: Sessions = request.app.state.sessions
    array, _ = await _npy_and_sign(request, sessions)
    try:
        lease = _lease_of(request, sessions)
    except RefusedError:
        _, lease = Lease.claim(sessions, request.is_disconnected, _id_of(request, sessions))
    # This client says no spacing.
    await lease.set_array(array, VolumeGrid.axial(array.shape, (1.0, 1.0, 1.0)))
    return {"status": "ok"}


@router.post("/upload_segment")
async def upload_segment(request: Request) -> JSONResponse:
    """Begin another object, from the mask that the client shows, which may be empty."""
    sessions: Sessions = request.app.state.sessions
    mask, _ = await _npy_and_sign(request, sessions)
    try:
        lease = _lease_of(request, sessions)
        shape = (await lease.grid()).shape_dhw
    except RefusedError:
        return _error(_NO_IMAGE)
    if mask.shape != shape:
        return _error(f"the segment has shape {mask.shape}, the image {shape}")
    await lease.begin_with(mask, run=False)
    return JSONResponse({"status": "ok"})


async def slicer_point(request: Request, sessions: Sessions) -> Response:
    """Answer a click."""
    given = parse_json(_PointIn, await request.body())
    return await _answer(request, sessions, point_prompt(given.voxel_coord, positive=given.positive_click))


async def slicer_box(request: Request, sessions: Sessions) -> Response:
    """Answer a box between two corners, both in it."""
    given = parse_json(_BoxIn, await request.body())
    low, high = np.sort([given.outer_point_one, given.outer_point_two], axis=0)
    return await _answer(request, sessions, box_prompt(low, high, positive=given.positive_click))


async def slicer_drawing(request: Request, sessions: Sessions, kind: Literal["scribble", "lasso"]) -> Response:
    """Answer a scribble or a lasso."""
    drawn, positive = await _npy_and_sign(request, sessions)
    return await _answer(request, sessions, drawn_prompt(kind, drawn, (0, 0, 0), positive=positive))


def _id_of(request: Request, sessions: Sessions) -> str:
    return sessions.derived_id("SlicerNNInteractive", client_of(request))


def _lease_of(request: Request, sessions: Sessions) -> Lease:
    served = sessions.get(_id_of(request, sessions))
    return Lease(sessions, served, request.is_disconnected)


async def _answer(request: Request, sessions: Sessions, prompt: Shaping) -> Response:
    try:
        lease = _lease_of(request, sessions)
    except RefusedError as error:
        if error.status != 404:
            raise
        return _error(_NO_IMAGE)
    try:
        await lease.add(prompt)
    except ClickvolError as error:
        if isinstance(error, RefusedError):
            raise
        return _error(str(error))
    mask = await lease.mask()
    content = await sessions.on_files(lambda _: gzip.compress(np.packbits(mask).tobytes(), compresslevel=1))
    headers = {"Content-Encoding": "gzip"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _error(message: str) -> JSONResponse:
    """Return an error as the client reads it: with status 200."""
    return JSONResponse({"status": "error", "message": message})


async def _npy_and_sign(request: Request, sessions: Sessions) -> tuple[NDArray[Any], bool]:
    max_bytes = sessions.settings.max_voxels * 8 + _MAX_NPY_HEADER_BYTES
    async with read_form(request) as form:
        file, sign = uploaded(form, "file"), text_field(form, "positive_click")

        def read(_: object) -> NDArray[Any]:
            file.file.seek(0)
            return read_npy(file.file.read(), max_bytes=max_bytes)

        array = await sessions.on_files(read)
    if array.ndim != 3 or array.size > sessions.settings.max_voxels:
        raise RefusedError(413, f"the array has shape {array.shape}; three axes and fewer voxels are expected")
    return array, json.loads((sign or "True").lower()) is True


def read_npy(data: bytes, *, max_bytes: int) -> NDArray[Any]:
    """Return the array of a .npy file, gzipped or not, never an object; 413 when it is larger, else 422."""
    try:
        if data.startswith(b"\x1f\x8b"):
            opened = zlib.decompressobj(wbits=31)
            data = opened.decompress(data, max_bytes)
            if opened.unconsumed_tail:
                raise RefusedError(
                    413, f"the array unpacks to more than {max_bytes} bytes; send a smaller image"
                )
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, zlib.error, OSError, MemoryError) as error:
        raise RefusedError(422, "the file is no .npy array of numbers; send it as the client does") from error
    if (
        not isinstance(array, np.ndarray)
        or array.dtype.kind not in "biuf"
        or array.dtype.itemsize > 8
        or not array.size
    ):
        raise RefusedError(422, "the file is no .npy array of numbers; send it as the client does")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
