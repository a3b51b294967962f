"""What a client of MONAI Label asks of a model, and what it gets: clicks in, a file with masks out."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import read_volume, write_volume
from clickvol.io.input_path import suffix_of
from clickvol.io.itk.raw_nrrd import raw_nrrd
from clickvol.io.labelled_mask import LabelledMask, label_map
from clickvol.io.volume import Volume
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, Prompt, Scribble
from clickvol.server.exporting import dicom_file
from clickvol.server.refusal import RefusedError
from clickvol.server.served_session import ServedSession
from clickvol.server.sessions import Sessions
from clickvol.server.wire import Triple

DEFAULT_LABEL = "tumour"
BACKGROUND = "background"

Output = Literal["all", "image", "json", "dicom_seg"]
Extension = Literal[".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".mha"]

_MAX_CLICKS = 200
_MAX_LABELS = 32
_BOUNDARY_BYTES = 16
_POINTS = TypeAdapter(Annotated[list[Triple], Field(max_length=_MAX_CLICKS)])

# What a client says for voxels that files cannot have: the next wider ones, which hold every label.
_WIDER = {
    **{"bool": "uint8", "int8": "int16", "uint32": "int32", "int64": "int32", "uint64": "int32"},
    "float16": "float32",
}

# In a file of scribbles; MONAI Label's scribbles models number them so.
_INSIDE, _OUTSIDE = 3, 2

_OF_OHIF_AI = ("nninter", "pos_points", "neg_points", "pos_boxes", "pos_lassos", "pos_scribbles", "texts")


def _known_dtype(text: object) -> str:
    try:
        kind = np.dtype(str(text))
    except TypeError as error:
        raise ValueError(f"{text!r} is no type of voxels; give uint8, uint16 or another of numpy's") from error
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise ValueError(f"{text!r} is no type of voxels of a mask; give uint8 or uint16")
    return _WIDER.get(kind.name, kind.name)


class LabelInfo(BaseModel):
    """The name of a label, and its value in a file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1, max_length=64)
    idx: int | None = Field(default=None, ge=1, le=65535)


class InferParams(BaseModel):
    """What clients send as `params`; most of the rest of it is for other models.

    Attributes:
        foreground, background: clicks, (i, j, k) of the stored image.
        label_info: names of the objects of a DICOM segmentation.
        roi: a box around the object: i, i, j, j, k, k, first and last voxel.
        result_extension: format of the result; None for that of the image.
        result_dtype: of its voxels.
        result_compress: False for clients that cannot unpack it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    foreground: list[Triple] = Field(default=[], max_length=_MAX_CLICKS)
    background: list[Triple] = Field(default=[], max_length=_MAX_CLICKS)
    label: str = Field(default="", max_length=64)
    label_info: list[LabelInfo] = Field(default=[], max_length=_MAX_LABELS)
    roi: Annotated[
        tuple[float, float, float, float, float, float] | None, BeforeValidator(lambda v: v or None)
    ] = None
    result_extension: Annotated[Extension | None, BeforeValidator(lambda v: v or None)] = None
    result_dtype: Annotated[str, BeforeValidator(_known_dtype)] = "uint8"
    result_compress: bool = True

    def objects(self, scribbles: Sequence[Scribble] = ()) -> dict[str, list[Prompt]]:
        """Return what is said of each object, by its name; 422 for another server's form or too many labels.

        DeepEdit's form has a list of clicks for each label, and one for the background; clicks on one label are
        then outside the others.
        """
        extra = self.model_extra or {}
        if foreign := [name for name in _OF_OHIF_AI if extra.get(name)]:
            raise RefusedError(422, f"{foreign[0]} is of OHIF-AI's own server; send foreground and background")
        by_label = {} if self.foreground else _points_by_label(extra)
        if len(by_label) > _MAX_LABELS:
            raise RefusedError(422, f"{len(by_label)} labels were clicked; give at most {_MAX_LABELS}")
        if not by_label or scribbles or self.roi is not None:
            name = self.label or (self.label_info[0].name if self.label_info else DEFAULT_LABEL)
            around = [] if self.roi is None else [_box(self.roi)]
            by_label = by_label or {name: self.foreground}
            if len(by_label) > 1:
                raise RefusedError(422, "scribbles and roi are for one label; click on one alone")
            ((name, inside),) = by_label.items()
            return {name: [*_clicks(inside, self.background), *around, *scribbles]}
        return {
            name: _clicks(
                inside, [*self.background, *(p for n, points in by_label.items() if n != name for p in points)]
            )
            for name, inside in by_label.items()
        }


def _points_by_label(extra: dict[str, Any]) -> dict[str, list[Triple]]:
    points = {}
    for name, value in extra.items():
        try:
            known = _POINTS.validate_python(value)
        except ValidationError:
            continue
        if known:
            points[name] = known
    return points


def _clicks(inside: Sequence[Triple], outside: Sequence[Triple]) -> list[Prompt]:
    # OHIF sends the background's clicks as both where "background" is chosen at the time of Run.
    if both := sorted(set(inside) & set(outside)):
        raise RefusedError(422, f"{both[0]} is foreground and background; choose the label, then run")
    signed = [(inside, True), (outside, False)]
    return [Click.at(place, foreground=is_inside) for places, is_inside in signed for place in places]


def _box(roi: tuple[float, float, float, float, float, float]) -> Box:
    i_low, i_high, j_low, j_high, k_low, k_high = roi
    return Box(VoxelPoint.from_ijk(i_low, j_low, k_low), VoxelPoint.from_ijk(i_high, j_high, k_high))


def read_scribbles(path: Path, scan: Volume) -> list[Scribble]:
    """Read what was drawn: 3 is inside and 2 outside; without either, whatever is above 0 is inside.

    Raises:
        RefusedError: 422 when it does not lie on the scan, or nothing was drawn.
        ClickvolError: when it cannot be read.
    """
    drawn = read_volume(path)
    if not drawn.grid.same_place(scan.grid):
        raise RefusedError(
            422, f"the scribbles are not on the grid of the scan: {drawn.grid.difference_from(scan.grid)}"
        )
    inside, outside = drawn.array == _INSIDE, drawn.array == _OUTSIDE
    if not inside.any() and not outside.any():
        inside = drawn.array.astype(np.float64) > 0
    signed = [(inside, True), (outside, False)]
    return [Scribble(PackedMask.of(area), is_inside) for area, is_inside in signed if area.any()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The masks of a request: what was asked in a session, and the answers by the names of their objects."""

    sessions: Sessions
    served: ServedSession
    params: InferParams
    answers: dict[str, Segmentation]

    @property
    def _masks(self) -> list[LabelledMask]:
        card, given = self.sessions.model.card, [info.name for info in self.params.label_info]
        names = given if len(given) == len(self.answers) else list(self.answers)
        return [
            LabelledMask(name=name, mask=answer.mask, model_id=card.id, model_version=card.weights_version)
            for name, answer in zip(names, self.answers.values(), strict=True)
        ]

    async def response(self, output: Output) -> Response:
        """Return them in the form that a client has asked for; RefusedError 409 as of `dicom_file`."""
        if output == "json":
            return Response(json.dumps({"params": self._facts()}), media_type="application/json")
        name = "result.dcm" if output == "dicom_seg" else f"result{self._extension}"
        content = await (
            dicom_file(self.sessions, self.served, self._masks, name)
            if output == "dicom_seg"
            else self._file(name)
        )
        if output == "all":
            return _multipart(self._facts(), content, name)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @property
    def _extension(self) -> str:
        if self.params.result_extension is not None:
            return self.params.result_extension
        return suffix_of(self.served.scan_path.name, (".nii", ".nrrd", ".mha")) or ".nii.gz"

    def _facts(self) -> dict[str, Any]:
        centroids = {}
        for value, (name, answer) in enumerate(self.answers.items(), start=1):
            if answer.mask.num_voxels:
                d, h, w = (float(axis.mean()) for axis in np.nonzero(answer.mask.array))
                centroids[name] = [value, w, h, d]
        seconds = sum(sum(answer.seconds.values()) for answer in self.answers.values())
        return {
            "label_names": {name: value for value, name in enumerate(self.answers, start=1)},
            "centroids": centroids,
            "latencies": {"total": round(seconds, 3)},
        }

    async def _file(self, name: str) -> bytes:
        masks = self._masks
        grid = masks[0].mask.grid
        array = label_map(masks).astype(self.params.result_dtype)
        if name.endswith(".nrrd") and not self.params.result_compress:
            return await self.sessions.on_files(lambda _: raw_nrrd(array, grid))
        return await self.sessions.written(self.served, name, lambda place: write_volume(array, grid, place))


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
