"""The calls of ITK-SNAP's deep learning service, for its AI paintbrush and polygon.

Geometry is complete here: the scan has its place in the patient. Clicks come as GET, so that the guard against
pages of other sites (`http/security.py`) matters here most.
"""

import base64
import gzip
import zlib
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import Shaping
from clickvol.interactive.viewer_prompts import drawn_prompt, point_prompt
from clickvol.server.lease import Lease
from clickvol.server.refusal import REFUSALS, RefusedError, parse_json
from clickvol.server.scans import read_form, uploaded
from clickvol.server.sessions import Sessions
from clickvol.server.wire import Triple

# ITK-SNAP compares it with the version that it needs; it is the protocol's, not ours.
_PROTOCOL_VERSION = "0.1.2"

_MODEL = "clickvol"
_MAX_SIDE = 1 << 14
_Side = Annotated[int, Field(ge=1, le=_MAX_SIDE)]


class ImageIn(BaseModel):
    """Where an image lies: (x, y, z), LPS mm, direction row by row."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dimensions: tuple[_Side, _Side, _Side]
    spacing: Triple = (1.0, 1.0, 1.0)
    origin: Triple = (0.0, 0.0, 0.0)
    direction: list[float] = Field(default=[1, 0, 0, 0, 1, 0, 0, 0, 1], min_length=9, max_length=9)
    components_per_pixel: Literal[1] = 1

    @property
    def grid(self) -> VolumeGrid:
        """Where the voxels lie."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing
        affine[:3, 3] = self.origin
        return VolumeGrid.from_ijk_lps(self.dimensions, affine)


async def _lease(session_id: str, request: Request) -> Lease:
    sessions: Sessions = request.app.state.sessions
    served = sessions.leased(session_id)
    served.touch()
    return Lease(sessions, served, request.is_disconnected)


Held = Annotated[Lease, Depends(_lease)]

router = APIRouter(tags=["ITK-SNAP"], responses=REFUSALS)


@router.get("/status")
async def status() -> dict[str, str]:
    """Say which version of the protocol this is."""
    return {"status": "ok", "version": _PROTOCOL_VERSION}


@router.get("/v2/models")
async def models() -> dict[str, Any]:
    """Describe the model; the protocol has no call for a box."""
    interactions = ["point", "scribble", "lasso"]
    return {"models": [{"id": _MODEL, "channels": [1], "dimensions": 3, "interactions": interactions}]}


@router.get("/start_session")
async def start_session(request: Request) -> dict[str, str]:
    """Begin a session whose image comes later."""
    session_id, _ = Lease.claim(request.app.state.sessions, request.is_disconnected)
    return {"session_id": session_id}


@router.get("/v2/start_session/{model}")
async def start_session_with(model: str, request: Request) -> dict[str, str]:
    """Begin a session with the model."""
    if model != _MODEL:
        raise RefusedError(404, f"there is no such model here; this server has {_MODEL}")
    return await start_session(request)


@router.post("/upload_raw/{session_id}")
@router.post("/v2/upload_raw/{session_id}")
async def upload_raw(request: Request, lease: Held) -> dict[str, str]:
    """Take an image in place of an earlier one."""
    async with read_form(request, max_files=2) as form:
        image, array = await _image_of(form, lease)
    await lease.set_array(array, image.grid)
    return {"status": "success"}


@router.get("/v2/process_point_interaction/{session_id}")
async def point(request: Request, lease: Held, *, foreground: bool = True) -> dict[str, str]:
    """Click: `point` three times, x, y, z."""
    try:
        place = [float(v) for v in request.query_params.getlist("point")]
    except ValueError as error:
        raise RefusedError(422, "a point is three numbers; give point=X&point=Y&point=Z") from error
    if len(place) != 3:
        raise RefusedError(422, f"a point is three numbers, not {len(place)}; give point=X&point=Y&point=Z")
    return await _answer(lease, point_prompt(place[::-1], positive=foreground))


@router.get("/process_point_interaction/{session_id}")
async def point_xyz(lease: Held, x: float, y: float, z: float, *, foreground: bool = True) -> dict[str, str]:
    """Click, as the first version of the protocol has it."""
    return await _answer(lease, point_prompt((z, y, x), positive=foreground))


@router.post("/process_scribble_interaction/{session_id}")
async def scribble(request: Request, lease: Held, *, foreground: bool = True) -> dict[str, str]:
    """Draw a line."""
    return await _drawn(request, lease, "scribble", positive=foreground)


@router.post("/process_lasso_interaction/{session_id}")
async def lasso(request: Request, lease: Held, *, foreground: bool = True) -> dict[str, str]:
    """Draw around something."""
    return await _drawn(request, lease, "lasso", positive=foreground)


@router.get("/reset_interactions/{session_id}")
@router.get("/v2/reset_interactions/{session_id}")
async def reset_interactions(lease: Held) -> dict[str, str]:
    """Begin with another object."""
    await lease.reset()
    return {"status": "success"}


@router.get("/end_session/{session_id}")
@router.get("/v2/end_session/{session_id}")
async def end_session(lease: Held) -> dict[str, str]:
    """End a session."""
    lease.sessions.end(lease.served)
    return {"message": "the session is over"}


async def _drawn(
    request: Request, lease: Lease, kind: Literal["scribble", "lasso"], *, positive: bool
) -> dict[str, str]:
    async with read_form(request, max_files=2) as form:
        _, drawn = await _image_of(form, lease)
    await lease.require_shape(drawn, "drawing")
    return await _answer(lease, drawn_prompt(kind, drawn, positive=positive))


async def _image_of(form: FormData, lease: Lease) -> tuple[ImageIn, NDArray[np.float32]]:
    """Return an image of a form, and its voxels, (D, H, W)."""
    file, given = uploaded(form, "file"), form.get("metadata")
    text: bytes | str = await given.read() if isinstance(given, UploadFile) else (given or "{}")
    image = parse_json(ImageIn, text)
    num_voxels = int(np.prod(image.dimensions))
    if num_voxels > lease.sessions.settings.max_voxels:
        raise RefusedError(413, f"the image has {num_voxels} voxels, more than are allowed here; crop it")

    def read(_: object) -> NDArray[np.float32]:
        file.file.seek(0)
        num_bytes = 4 * num_voxels
        try:
            data = zlib.decompressobj(wbits=31).decompress(file.file.read(), num_bytes + 1)
        except zlib.error as error:
            raise RefusedError(422, "the voxels are no gzip; send float32 in gzip") from error
        if len(data) != num_bytes:
            raise RefusedError(422, f"there are {len(data)} bytes of voxels, {num_bytes} are expected")
        return np.frombuffer(data, dtype="<f4").reshape(image.dimensions[::-1])

    return image, await lease.sessions.on_files(read)


async def _answer(lease: Lease, prompt: Shaping) -> dict[str, str]:
    await lease.add(prompt)
    mask = await lease.mask()
    content = await lease.sessions.on_files(lambda _: gzip.compress(mask.astype(np.int8).tobytes(), 1))
    return {"status": "success", "result": base64.b64encode(content).decode()}
