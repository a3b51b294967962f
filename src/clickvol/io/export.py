"""All objects of a scan to one file, in any of the formats that people take masks away in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import check_one_file, require_highdicom, write_dicom_seg
from clickvol.io.dicom.sources import check_is_series, read_source_images
from clickvol.io.formats import (
    WRITABLE_SUFFIXES,
    check_compression,
    check_output_grid,
    check_output_path,
    write_volume,
)
from clickvol.io.labelled_mask import LabelledMask, label_map
from clickvol.io.volume import Volume

ExportFormat = Literal["nifti", "nrrd", "dicom-seg", "rtstruct"]

SUFFIXES: dict[ExportFormat, tuple[str, ...]] = {
    "nifti": (".nii.gz", ".nii", ".nii.zst"),
    "nrrd": (".nrrd",),
    "dicom-seg": (".dcm",),
    "rtstruct": (".dcm",),
}
"""How files of each format may end."""

PROBABILITY_SUFFIXES = (*WRITABLE_SUFFIXES, ".dcm")
"""How files of probabilities may end."""


def export_masks(
    masks: Sequence[LabelledMask],
    volume: Volume,
    path: str | Path,
    *,
    file_format: ExportFormat,
    deidentify: bool = False,
    series: str | None = None,
) -> None:
    """Write the objects of a scan, on its grid, to one file; wholly or not at all.

    NIfTI and NRRD hold one label map, object n with the value n; where objects overlap, the smaller one is
    seen. The DICOM formats hold the objects one by one, with their names, and read the scan's `source` once
    more, for the images they refer to; `deidentify` leaves out who was scanned
    (`clickvol.io.dicom.deidentify`), which the others never say.

    Raises:
        OutputError: when the path does not allow it, the masks are not on the grid of the scan, or the format
            is DICOM and the scan is not.
        UnreadableVolumeError, DicomSeriesError, BadGeometryError: when the DICOM source can no longer be read.
    """
    path = check_export(path, volume.source, file_format)
    for labelled in masks:
        what = f"the mask {labelled.name!r}"
        labelled.mask.grid.check_same_place(volume.grid, what, OutputError, "give the scan it was made on")
    if file_format in ("nifti", "nrrd"):
        write_volume(label_map(masks), volume.grid, path)
        return
    write = write_rtstruct if file_format == "rtstruct" else write_dicom_seg
    write(masks, volume.source, path, series=series, deidentify=deidentify)


def check_export(path: str | Path, source: str | Path, file_format: ExportFormat) -> Path:
    """Tell before any computing whether masks can be written here in this format; OutputError when not."""
    path = check_output_path(path, source, suffixes=SUFFIXES[file_format])
    if file_format in ("nifti", "nrrd"):
        return path
    if file_format == "dicom-seg":
        require_highdicom()
    check_is_series(source)
    return path


def check_export_grid(
    path: Path, volume: Volume, dicom_format: ExportFormat = "dicom-seg", *, series: str | None = None
) -> None:
    """Refuse a scan whose grid such a file cannot hold, or whose images it cannot refer to (OutputError)."""
    if not _is_dicom(path):
        check_output_grid(path, volume.grid)
        return
    images = read_source_images(volume.source, series=series, grid=volume.grid)
    images.check_grid(volume.grid)
    if dicom_format == "dicom-seg":
        check_one_file(images)


def export_probability(
    probability: NDArray[np.float32],
    volume: Volume,
    path: Path,
    *,
    model_id: str = "",
    series: str | None = None,
    deidentify: bool = False,
    compression_level: int | None = None,
) -> None:
    """Write probabilities (D, H, W), 0 to 1; as .dcm a Parametric Map, which refers to the scan's images.

    `model_id`, `series` and `deidentify` are for .dcm alone, the level for all others. Errors as
    `export_masks`.
    """
    if not _is_dicom(path):
        write_volume(probability, volume.grid, path, compression_level=compression_level)
        return
    from clickvol.io.dicom.parametric_map import write_parametric_map

    write_parametric_map(
        probability,
        volume.grid,
        volume.source,
        path,
        model_id=model_id,
        series=series,
        deidentify=deidentify,
    )


def check_probability_path(path: Path, source: str | Path, compression_level: int | None) -> None:
    """Tell before any computing whether probabilities can be written here; OutputError when not."""
    if _is_dicom(path):
        check_export(path, source, "dicom-seg")
    else:
        check_compression(path, compression_level)


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"
