"""Routes for masks: put in from a file, painted, measured, compared with a reference, given as a surface."""

from pathlib import Path

import numpy as np
from fastapi import APIRouter, Request, Response
from scipy import ndimage

from clickvol.files.atomic import write_text
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import BrushEdit, DrawnInteraction, DrawnVoxels
from clickvol.interactive.session import Answer, InteractiveSession
from clickvol.io.labelled_mask import TERMS, LabelledMask
from clickvol.io.mask_files import read_objects
from clickvol.metrics.diameters import Diameter, longest_diameters
from clickvol.predict.scan_predictor import segment
from clickvol.previews.surface import write_stl
from clickvol.prompts.packed_mask import EMPTY, PackedMask
from clickvol.server.dependencies import Opened, Session
from clickvol.server.refusal import REFUSALS, RefusedError
from clickvol.server.scans import (
    MASK_SUFFIXES,
    body_schema,
)
from clickvol.server.wire import (
    AnswerOut,
    ChangedOut,
    ClickedOut,
    ComparisonOut,
    DiameterOut,
    MaskChangeIn,
    MaskPathIn,
    MeasuredOut,
    ObjectId,
    ProposalOut,
    TermOut,
    Triple,
)
from clickvol.server.worker import IsCancelled
from clickvol.weights.load import LoadedModel

_MASK_BODY = body_schema("mask", MaskPathIn, segment={"type": "string"})
_REFERENCE = "reference.json"

router = APIRouter(prefix="/api", tags=["masks"], responses=REFUSALS)
_ONE = "/sessions/{session_id}"


@router.get("/terms")
async def terms() -> list[TermOut]:
    """List what an object can be, in SNOMED CT; it goes into DICOM SEG and RTSTRUCT."""
    return [TermOut(code=t.code, meaning=t.meaning, category=t.category) for t in TERMS.values()]


async def _objects_given(opened: Opened) -> list[LabelledMask]:
    """Read the masks that a request brings or names: a file, or a path under the root."""
    volume = await opened.get(lambda session, _: session.scan.volume)

    def read(path: Path, said: MaskPathIn) -> list[LabelledMask]:
        objects = read_objects(path, volume, opened.sessions.limits)
        chosen = [each for each in objects if said.segment in (None, each.name)]
        if not chosen:
            listed = ", ".join(repr(each.name) for each in objects[:12])
            raise RefusedError(422, f"the file has no object {said.segment!r}; it has {listed}")
        return chosen

    return await opened.read_given("mask", MaskPathIn, read, MASK_SUFFIXES)


def _union(masks: list[PackedMask]) -> PackedMask:
    whole = EMPTY
    for mask in masks:
        whole = whole.with_change(mask, added=True)
    return whole


def _put(session: InteractiveSession, object_id: int, mask: PackedMask, is_cancelled: IsCancelled) -> Answer:
    given = DrawnInteraction(kind="given_mask", object_id=object_id, voxels=DrawnVoxels.of(mask))
    return session.add(given, cancelled=is_cancelled)


@router.put(_ONE + "/objects/{object_id}/mask", openapi_extra=_MASK_BODY)
async def put_mask(object_id: ObjectId, opened: Session) -> ClickedOut:
    """Give an object the mask of a file, to correct it: NIfTI, NRRD, MHA, DICOM SEG or RTSTRUCT.

    Of a file with several objects, `segment` is the name of the one wanted ("Label 2" of a label image), else
    all together. What was on the object before is replaced; undo brings it back.
    """
    mask = _union([PackedMask.of(each.mask.array) for each in await _objects_given(opened)])
    answer, state = await opened.run(lambda s, is_cancelled: _put(s, object_id, mask, is_cancelled))
    return ClickedOut(state=state, answer=AnswerOut.of(answer))


@router.patch(_ONE + "/objects/{object_id}/mask")
async def patch_mask(object_id: ObjectId, given: MaskChangeIn, opened: Session) -> ClickedOut:
    """Paint voxels into an object's mask, or out of it; no network is asked."""
    return await opened.add(BrushEdit.model_validate(given.model_dump() | {"object_id": object_id}))


@router.post(_ONE + "/masks", openapi_extra=_MASK_BODY)
async def add_masks(opened: Session) -> ChangedOut:
    """Make an object of every one in a file, with its name; one that is empty still is filled first."""
    objects = await _objects_given(opened)

    def add(session: InteractiveSession, is_cancelled: IsCancelled) -> None:
        untouched = [o.id for o in session.objects if not (o.num_voxels or o.prompts or o.frozen)]
        for each in objects:
            number = untouched.pop(0) if untouched else session.add_object()
            if len(objects) > 1 or not each.name.startswith("Label "):
                session.describe_object(number, name=each.name)
            _put(session, number, PackedMask.of(each.mask.array), is_cancelled)

    return await opened.changed(add)


@router.get(_ONE + "/objects/{object_id}/measurements")
async def measurements(object_id: ObjectId, opened: Session) -> MeasuredOut:
    """Return the longest diameters of an object, and where they end."""

    def measured(session: InteractiveSession, _: IsCancelled) -> MeasuredOut:
        mask = session.mask(object_id)
        diameters = longest_diameters(mask.array, mask.grid)
        if diameters is None:
            return MeasuredOut(longest=None, longest_on_slice=None)
        longest, on_slice = (_diameter_out(each, mask.grid) for each in diameters)
        return MeasuredOut(longest=longest, longest_on_slice=on_slice)

    return await opened.get(measured)


def _diameter_out(diameter: Diameter, grid: VolumeGrid) -> DiameterOut:
    first, second = (_triple(end) for end in grid.world_positions(diameter.ends_dhw))
    return DiameterOut(mm=diameter.mm, ends_ras_mm=(first, second))


def _triple(place: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Triple:
    x, y, z = place.tolist()
    return (x, y, z)


@router.get(_ONE + "/objects/{object_id}/surface.stl", response_class=Response)
async def surface(object_id: ObjectId, opened: Session) -> Response:
    """Return the smooth surface of an object as binary STL, RAS mm."""
    mask = await opened.get(lambda session, _: session.mask(object_id))
    content = await opened.sessions.written(opened.served, "surface.stl", lambda place: write_stl(mask, place))
    headers = {"Content-Disposition": 'attachment; filename="clickvol-surface.stl"'}
    return Response(content, media_type="model/stl", headers=headers)


@router.get(_ONE + "/proposal")
async def proposal(opened: Session, request: Request) -> ProposalOut:
    """Return what an automatic model makes of the scan; it is no object until it is added as a given mask.

    It is computed beside the clicks, which need not wait for it.
    """
    proposer: LoadedModel | None = request.app.state.proposer
    if proposer is None:
        raise RefusedError(404, "this server proposes nothing; start it with --propose MODEL")
    volume, record = await opened.get(lambda session, _: session.scan.volume), opened.served.record
    modality = None if record is None else record.modality

    def proposed(_: IsCancelled) -> ProposalOut:
        made = segment(volume, (), proposer, modality=modality)
        mask = PackedMask.of(made.mask.array)
        if not mask.num_voxels:
            return ProposalOut(model_id=proposer.card.id, warnings=list(made.warnings))
        return ProposalOut(
            model_id=proposer.card.id,
            voxels=DrawnVoxels.of(mask),
            place_ras_mm=_place_in(_largest_part(mask), volume.grid),
            warnings=list(made.warnings),
        )

    return await opened.sessions.on_files(proposed, opened.is_gone)


def _place_in(mask: PackedMask, grid: VolumeGrid) -> Triple:
    place = grid.to_world(mask.innermost())
    return place.x, place.y, place.z


@router.put(_ONE + "/reference", openapi_extra=_MASK_BODY)
async def put_reference(opened: Session) -> ComparisonOut:
    """Keep a mask to compare with, as long as the session; it is no object and is saved nowhere."""
    objects = await _objects_given(opened)
    drawn = DrawnVoxels.of(_union([PackedMask.of(each.mask.array) for each in objects]))
    place = opened.served.folder / _REFERENCE
    await opened.sessions.on_files(lambda _: write_text(place, drawn.model_dump_json()))
    return await comparison(opened)


@router.get(_ONE + "/reference")
async def reference(opened: Session) -> DrawnVoxels:
    """Return the voxels of the reference."""

    def read(_: IsCancelled) -> DrawnVoxels:
        try:
            return DrawnVoxels.model_validate_json((opened.served.folder / _REFERENCE).read_bytes())
        except FileNotFoundError as error:
            raise RefusedError(404, "there is no reference to compare with; put one first") from error

    return await opened.sessions.on_files(read)


@router.delete(_ONE + "/reference", status_code=204)
async def forget_reference(opened: Session) -> None:
    """Compare no more."""
    await opened.sessions.on_files(lambda _: (opened.served.folder / _REFERENCE).unlink(missing_ok=True))


@router.get(_ONE + "/comparison")
async def comparison(opened: Session) -> ComparisonOut:
    """Compare the masks of all objects together with the reference."""
    kept = (await reference(opened)).mask
    return await opened.get(lambda session, _: _compared(session, kept))


def _compared(session: InteractiveSession, kept: PackedMask) -> ComparisonOut:
    grid = session.scan.volume.grid
    ml = grid.voxel_volume_mm3 / 1000
    shown = _union(list(session.shown_masks.values()))
    missing, surplus = kept.without([shown]), shown.without([kept])
    largest = max((_largest_part(missing), _largest_part(surplus)), key=lambda part: part.num_voxels)
    common = kept.num_voxels - missing.num_voxels
    return ComparisonOut(
        dice=2 * common / (kept.num_voxels + shown.num_voxels),
        volume_ml=shown.num_voxels * ml,
        reference_ml=kept.num_voxels * ml,
        missing_ml=missing.num_voxels * ml,
        surplus_ml=surplus.num_voxels * ml,
        differs_at_ras_mm=_place_in(largest, grid) if largest.num_voxels else None,
        largest_difference_ml=largest.num_voxels * ml,
    )


def _largest_part(mask: PackedMask) -> PackedMask:
    if mask.box is None:
        return EMPTY
    parts, _ = ndimage.label(mask.in_box())
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return PackedMask.of(parts == sizes.argmax()).shift(mask.box.start_dhw)
