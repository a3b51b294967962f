"""The calls of nnInteractive's remote client, and of SlicerNNInteractive's older one where both share a path.

A client claims a lease, sends an image and draws; every answer is the part of the mask that has changed. Axes
are those of the array that is sent, taken as those of an axial scan (superior, posterior, left), which they are
in 3D Slicer and in all that SimpleITK reads.
"""

import json
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clickvol.errors import ClickError
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.nninteractive import voxel_lengths_mm
from clickvol.interactive.viewer_prompts import box_prompt, drawn_prompt, point_prompt
from clickvol.prompts.packed_mask import EMPTY
from clickvol.server.dependencies import All
from clickvol.server.lease import Change, Lease
from clickvol.server.nninteractive.packed_array import pack_array, unpack_array
from clickvol.server.nninteractive.slicer_routes import slicer_box, slicer_drawing, slicer_point
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.sessions import Sessions
from clickvol.server.wire import RESEARCH_USE, Triple

_LEASE_HEADER = "x-lease-token"
_META_HEADER = "x-meta"
_PACKED = "application/octet-stream"
_LEASE_ENDED = "the session is over: nothing was asked of it for too long, or it was released; connect again"

# How often a client proves that it lives; nothing ends because it does not.
_LIVENESS_SECONDS = 120

_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")

DrawnKind = Literal["scribble", "lasso"]
Range = tuple[float, float]


class _In(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _PromptIn(_In):
    include_interaction: bool = True
    run_prediction: bool = True


class PointIn(_PromptIn):
    """A click: voxel of the array."""

    coordinates: Triple


class BoxIn(_PromptIn):
    """A box: half-open ranges of voxels of the array."""

    bbox_coords: tuple[Range, Range, Range]


class DrawingIn(_PromptIn):
    """A scribble or lasso: a mask of the box, or of the whole image."""

    interaction_bbox: tuple[Range, Range, Range] | None = None


class ImageProperties(_In):
    """What is said of an image beside its voxels."""

    spacing: Triple | None = None


class ImageIn(_In):
    """What comes with an image."""

    image_properties: ImageProperties = ImageProperties()


class BufferIn(_In):
    """Which mask the client keeps."""

    shape: tuple[int, int, int]
    dtype: str = Field(max_length=32)


async def _watched(request: Request, sessions: All) -> Lease:
    try:
        served = sessions.leased(request.headers.get(_LEASE_HEADER, ""))
    except RefusedError as error:
        if error.status != 404:
            raise
        raise RefusedError(410, _LEASE_ENDED) from error
    return Lease(sessions, served, request.is_disconnected)


async def _held(request: Request, sessions: All) -> Lease:
    lease = await _watched(request, sessions)
    lease.served.touch()
    return lease


Held = Annotated[Lease, Depends(_held)]
Watched = Annotated[Lease, Depends(_watched)]

router = APIRouter(tags=["nnInteractive"], responses=REFUSALS)


@router.post("/claim")
async def claim(request: Request, sessions: All) -> dict[str, Any]:
    """Begin a lease: a session whose image comes later."""
    token, _ = Lease.claim(sessions, request.is_disconnected)
    return {
        "lease_token": token,
        "idle_timeout_seconds": sessions.settings.lease_seconds,
        "liveness_timeout_seconds": _LIVENESS_SECONDS,
        "max_sessions": sessions.settings.max_leases,
    }


@router.get("/capabilities")
async def capabilities(lease: Held) -> dict[str, Any]:
    """Say which interactions there are."""
    card = lease.sessions.model.card
    return {
        "supported_interactions": dict.fromkeys(("points", "bbox2d", "bbox3d", "scribble", "lasso"), True),
        "channel_mapping": {"points": [0, 1]},
        "num_interaction_channels": 2,
        "supports_initial_label": True,
        "supports_zero_shot_label_refinement": True,
        "preferred_scribble_thickness": [2, 2, 2],
        "interaction_decay": None,
        "inference_session_version": 1,
        "license": f"{card.licence}; {RESEARCH_USE}",
        "supports_undo": True,
        "do_autozoom": True,
    }


@router.post("/release")
async def release(request: Request, sessions: All) -> dict[str, bool]:
    """End a lease, if there is one."""
    try:
        sessions.end(sessions.leased(request.headers.get(_LEASE_HEADER, "")))
    except RefusedError as error:
        if error.status != 404:
            raise
    return {"released": True}


@router.post("/heartbeat")
async def heartbeat(lease: Watched) -> dict[str, float]:
    """Say how long the lease lasts; it is not renewed."""
    return {"remaining_seconds": _remaining(lease)}


@router.get("/lease_status")
async def lease_status(lease: Watched) -> dict[str, float]:
    """Say how long the lease lasts; it is not renewed."""
    seconds = lease.sessions.settings.lease_seconds
    return {"remaining_seconds": _remaining(lease), "idle_timeout_seconds": seconds}


@router.post("/set_image")
async def set_image(request: Request, lease: Held) -> dict[str, list[int]]:
    """Take an image in place of an earlier one."""
    given = parse_json(ImageIn, request.headers.get(_META_HEADER, "{}"))
    image = await _array_of(request, lease)
    if image.ndim != 4 or image.shape[0] != 1:
        raise RefusedError(422, f"the image has shape {image.shape}; one channel is expected, (1, X, Y, Z)")
    spacing_mm = voxel_lengths_mm(given.image_properties.spacing or (1.0, 1.0, 1.0))
    await lease.set_array(image[0], VolumeGrid.axial(image.shape[1:], spacing_mm))
    return {"original_image_shape": list(image.shape)}


@router.post("/set_target_buffer")
async def set_target_buffer(given: BufferIn, lease: Held) -> dict[str, Any]:
    """Take the shape and dtype of the client's mask."""
    shape = (await lease.grid()).shape_dhw
    dtype = given.dtype.removeprefix("torch.")
    if given.shape != shape or dtype not in _DTYPES:
        raise RefusedError(
            422,
            f"a mask of {given.dtype} with shape {given.shape} does not fit; {shape} of integers is expected",
        )
    lease.keep(lease.state.but(shown=EMPTY, buffer_dtype=dtype))
    return {}


@router.post("/set_do_autozoom")
async def set_do_autozoom(lease: Held) -> dict[str, Any]:  # noqa: ARG001  # the lease must be there
    """Take note of nothing: fields of view always follow the object."""
    return {}


@router.post("/reset_interactions")
async def reset_interactions(lease: Held) -> dict[str, Any]:
    """Begin with another object."""
    await lease.reset()
    return {}


@router.post("/add_point_interaction", response_class=Response)
async def add_point(request: Request, sessions: All) -> Response:
    """Click; answers the older client of 3D Slicer, too, which has no lease."""
    if _LEASE_HEADER not in request.headers:
        return await slicer_point(request, sessions)
    lease = await _held(request, sessions)
    given = parse_json(PointIn, await request.body())
    prompt = point_prompt(given.coordinates, positive=given.include_interaction)
    return await _answer(lease, await lease.add(prompt, run=given.run_prediction))


@router.post("/add_bbox_interaction", response_class=Response)
async def add_box(request: Request, sessions: All) -> Response:
    """Draw a box; answers the older client of 3D Slicer, too."""
    if _LEASE_HEADER not in request.headers:
        return await slicer_box(request, sessions)
    lease = await _held(request, sessions)
    given = parse_json(BoxIn, await request.body())
    shape = (await lease.grid()).shape_dhw
    low = [max(0, round(a)) for a, _ in given.bbox_coords]
    high = [min(n, round(b)) - 1 for (_, b), n in zip(given.bbox_coords, shape, strict=True)]
    if any(a > b for a, b in zip(low, high, strict=True)):
        raise ClickError(
            f"the box {given.bbox_coords} holds no voxel of the image, {shape}; draw it in the image"
        )
    prompt = box_prompt(low, high, positive=given.include_interaction)
    return await _answer(lease, await lease.add(prompt, run=given.run_prediction))


@router.post("/add_scribble_interaction", response_class=Response)
async def add_scribble(request: Request, sessions: All) -> Response:
    """Draw a line; answers the older client of 3D Slicer, too."""
    return await _drawn(request, sessions, "scribble")


@router.post("/add_lasso_interaction", response_class=Response)
async def add_lasso(request: Request, sessions: All) -> Response:
    """Draw around something; answers the older client of 3D Slicer, too."""
    return await _drawn(request, sessions, "lasso")


@router.post("/add_initial_seg_interaction", response_class=Response)
async def add_initial_seg(request: Request, lease: Held) -> Response:
    """Begin with the mask that the client shows; what follows corrects it."""
    given = parse_json(_PromptIn, request.headers.get(_META_HEADER, "{}"))
    mask = await _array_of(request, lease)
    await lease.require_shape(mask, "mask")
    return await _answer(lease, await lease.begin_with(mask, run=given.run_prediction))


@router.post("/undo", response_class=Response)
async def undo(lease: Held) -> Response:
    """Take back the last interaction."""
    return await _answer(lease, await lease.undo())


@router.post("/predict", response_class=Response)
async def predict(lease: Held) -> Response:
    """Predict with what was added without a prediction."""
    return await _answer(lease, await lease.predict())


def _remaining(lease: Lease) -> float:
    return max(0.0, lease.served.used_at + lease.sessions.settings.lease_seconds - time.time())


async def _array_of(request: Request, lease: Lease) -> NDArray[Any]:
    body, limit = await request.body(), lease.sessions.settings.max_voxels
    return await lease.sessions.on_files(lambda _: unpack_array(body, max_values=limit))


async def _drawn(request: Request, sessions: Sessions, kind: DrawnKind) -> Response:
    if _LEASE_HEADER not in request.headers:
        return await slicer_drawing(request, sessions, kind)
    lease = await _held(request, sessions)
    given = parse_json(DrawingIn, request.headers.get(_META_HEADER, "{}"))
    drawn = await _array_of(request, lease)
    shape = (await lease.grid()).shape_dhw
    start = [0, 0, 0] if given.interaction_bbox is None else [round(a) for a, _ in given.interaction_bbox]
    stop = shape if given.interaction_bbox is None else [round(b) for _, b in given.interaction_bbox]
    if min(start) < 0 or any(b > n for b, n in zip(stop, shape, strict=True)):
        raise ClickError(f"the drawing lies outside the image, {shape}; draw in the image")
    if drawn.shape != tuple(np.subtract(stop, start)):
        raise ClickError(f"the drawing has shape {drawn.shape}, its box {start} to {stop}; they must agree")
    prompt = drawn_prompt(kind, drawn, start, positive=given.include_interaction)
    return await _answer(lease, await lease.add(prompt, run=given.run_prediction))


async def _answer(lease: Lease, change: Change) -> Response:
    dtype = lease.state.buffer_dtype or "uint8"
    meta: dict[str, Any] = {"ran_prediction": change.ran, "bbox": None, "dtype": dtype, "shape": [0, 0, 0]}
    content = b""
    if change.box is not None and change.voxels is not None:
        pairs = zip(change.box.start_dhw, change.box.stop_dhw, strict=True)
        meta |= {"bbox": [list(pair) for pair in pairs], "shape": list(change.box.shape_dhw)}
        voxels = change.voxels.astype(dtype)
        content = await lease.sessions.on_files(lambda _: pack_array(voxels))
    headers = {"X-Meta": json.dumps(meta, separators=(",", ":"))}
    return Response(content, media_type=_PACKED, headers=headers)
