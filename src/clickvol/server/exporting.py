"""All objects of a session as one file to keep."""

from clickvol.server.refusal import RefusedError
from clickvol.server.service import SessionService
from clickvol.server.sessions import ServedSession
from clickvol.server.wire import ExportFormat
from clickvol.volumes.formats import write_mask

# Without the scan's name, which could be a patient's.
_FILE_NAMES: dict[ExportFormat, str] = {
    "nifti": "clickvol-mask.nii.gz",
    "nrrd": "clickvol-mask.nrrd",
    "dicom-seg": "clickvol-seg.dcm",
    "rtstruct": "clickvol-rtstruct.dcm",
}


async def export_file(
    service: SessionService, served: ServedSession, *, file_format: ExportFormat
) -> tuple[bytes, str]:
    """Return the content of a file with all objects, and a name for it.

    Args:
        service: of the server.
        served: the session.
        file_format: NIfTI and NRRD hold the label map; the DICOM formats one segment for each object.


    Raises:
        RefusedError: 409 for a DICOM format where the scan is not DICOM, 507 when the disk is full.
        OutputError: when the format cannot hold the masks.
    """
    name = _FILE_NAMES[file_format]
    if file_format in ("nifti", "nrrd"):
        label_map = await service.act(served, lambda live, _: live.session.mask())
        return await service.written(served, name, lambda place: write_mask(label_map, place)), name
    if not served.is_dicom:
        msg = "this scan is not DICOM, so there are no images to refer to; save as NIfTI or NRRD"
        raise RefusedError(409, msg)
    raise RefusedError(409, "this version cannot write DICOM yet; save as NIfTI or NRRD")
