"""All objects of a session as one file to keep."""

from collections.abc import Sequence
from functools import partial

from clickvol.interactive.session import InteractiveSession
from clickvol.io.export import export_masks
from clickvol.io.formats import write_mask
from clickvol.io.labelled_mask import NEOPLASM, TERMS, LabelledMask
from clickvol.server.refusal import RefusedError
from clickvol.server.served_session import ServedSession
from clickvol.server.sessions import Sessions
from clickvol.server.wire import ExportFormat
from clickvol.weights.card import ModelCard

# Without the scan's name, which could be a patient's.
_FILE_NAMES: dict[ExportFormat, str] = {
    "nifti": "clickvol-mask.nii.gz",
    "nrrd": "clickvol-mask.nrrd",
    "dicom-seg": "clickvol-seg.dcm",
    "rtstruct": "clickvol-rtstruct.dcm",
}


async def export_file(
    sessions: Sessions, served: ServedSession, *, file_format: ExportFormat, deidentify: bool
) -> tuple[bytes, str]:
    """Return the content of a file with all objects, and a name for it.

    NIfTI and NRRD hold the label map with the ids of the objects and never say who the patient is; the DICOM
    formats hold the objects one by one.

    Raises:
        RefusedError: 409 for a DICOM format where the scan is not DICOM or there is no mask, 507 when the disk
            is full.
        OutputError: when the format cannot hold the masks.
    """
    name = _FILE_NAMES[file_format]
    if file_format in ("nifti", "nrrd"):
        label_map, _ = await sessions.run(served, lambda session, _: session.mask())
        return await sessions.written(served, name, lambda place: write_mask(label_map, place)), name
    _require_dicom(served)
    card = sessions.model.card
    masks, _ = await sessions.run(served, lambda session, _: _labelled(session, card))
    return await dicom_file(sessions, served, masks, name, file_format, deidentify=deidentify), name


async def dicom_file(
    sessions: Sessions,
    served: ServedSession,
    masks: Sequence[LabelledMask],
    name: str,
    file_format: ExportFormat = "dicom-seg",
    *,
    deidentify: bool = False,
) -> bytes:
    """Return a DICOM file with masks on a session's scan; RefusedError 409 where that is no DICOM."""
    _require_dicom(served)
    volume, _ = await sessions.run(served, lambda session, _: session.scan.volume)
    series = None if served.record is None else served.record.series
    write = partial(export_masks, masks, volume, file_format=file_format, deidentify=deidentify, series=series)
    return await sessions.written(served, name, write)


def _require_dicom(served: ServedSession) -> None:
    if not served.is_dicom:
        raise RefusedError(
            409, "this scan is not DICOM, so there are no images to refer to; take NIfTI or NRRD"
        )


def _labelled(session: InteractiveSession, card: ModelCard) -> list[LabelledMask]:
    """Return every object that is not empty, with a name."""
    masks = []
    for known in session.objects:
        mask = session.mask(known.id)
        if mask.num_voxels:
            term = TERMS.get(known.term, NEOPLASM)
            otherwise = f"{term.meaning if known.term else 'Tumour'} {known.id}"
            red, green, blue = bytes.fromhex(known.colour[1:]) if known.colour else (0, 0, 0)
            masks.append(
                LabelledMask(
                    name=known.name.strip() or otherwise,
                    mask=mask,
                    model_id=card.id,
                    model_version=card.weights_version,
                    term=term,
                    colour=(red, green, blue) if known.colour else None,
                )
            )
    if not masks:
        raise RefusedError(409, "there is no mask yet, so there is nothing to save; click first")
    return masks
