"""What the DICOM formats of masks have in common: the scan they refer to, de-identification, the file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clickvol.errors import OutputError
from clickvol.files.atomic import atomic_path
from clickvol.io.dicom.deidentify import deidentified_sources, mark_deidentified, without_names
from clickvol.io.dicom.sources import SourceImages, read_source_images
from clickvol.io.labelled_mask import LabelledMask

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


def write_dicom_masks(
    make: "Callable[[Sequence[LabelledMask], SourceImages], FileDataset]",
    masks: Sequence[LabelledMask],
    source: str | Path,
    path: str | Path,
    *,
    series: str | None = None,
    deidentify: bool = False,
) -> None:
    """Write masks as a DICOM file that refers to the images of their scan; wholly or not at all.

    Args:
        make: masks and the images of their scan -> the file's content.
        masks: the objects, on the grid of the scan; at least one. They may overlap or be empty.
        source: folder or .zip of the scan.
        path: where to; an existing file is overwritten.
        series: which series of the source, where there are several.
        deidentify: leave out who was scanned, when and where; see `clickvol.io.dicom.deidentify`.

    Raises:
        OutputError: when there is no mask, the source is not a DICOM series, a mask does not lie on its slices,
            or the file cannot be written.
        UnreadableVolumeError, DicomSeriesError, BadGeometryError: when the source cannot be read.
    """
    if not masks:
        raise OutputError("there is no mask to write; give at least one object")
    images = read_source_images(source, series=series, grid=masks[0].mask.grid)
    for labelled in masks:
        images.check_grid(labelled.mask.grid)
    if deidentify:
        images, masks = deidentified_sources(images), without_names(masks)
    dataset = make(masks, images)
    if deidentify:
        mark_deidentified(dataset)
    with atomic_path(Path(path), ".dcm") as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
