"""What the DICOM formats of masks have in common: the scan they refer to, what they say of it, the file."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clickvol.errors import OutputError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.attributes import NEVER_MISSING, OF_SERIES
from clickvol.io.dicom.deidentify import deidentified_sources, mark_deidentified, without_names
from clickvol.io.dicom.sources import SourceImages, read_source_images
from clickvol.io.labelled_mask import LabelledMask
from clickvol.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

MANUFACTURER = "clickvol"
DISCLAIMER = "research use only, not a medical device"


# PS3.5, 6.2. A value of another form cannot be kept: it would make the new file invalid.
_FORMS = {
    "PatientBirthDate": re.compile(r"\d{8}"),
    "StudyDate": re.compile(r"\d{8}"),
    "StudyTime": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "PatientSex": re.compile(r"[MFO]"),
}

# Scanners number their series from 1 to some hundreds; chosen to lie behind them.
_FIRST_SERIES_NUMBER = 1000
_MAX_SERIES_NUMBER = 2**31 - 1

# DICOM LO.
_MAX_LONG_STRING = 64


def patient_and_study(images: SourceImages) -> "Dataset":
    """Return patient and study of a scan, with all that must be there, without values of no valid form."""
    from pydicom.dataset import Dataset

    header = Dataset()
    for element in images.header:
        if element.keyword not in OF_SERIES:
            header[element.keyword] = element
    for keyword in NEVER_MISSING:
        value = images.text(keyword)
        form = _FORMS.get(keyword)
        if not value or (form is not None and not form.fullmatch(value)):
            setattr(header, keyword, "")
    return header


def series_number(images: SourceImages) -> int:
    """Return the number for a series of masks: that of the scan and 1000."""
    number: Any = images.header.get("SeriesNumber")
    scan = int(number) if number not in (None, "") else 0
    return min(max(scan, 0) + _FIRST_SERIES_NUMBER, _MAX_SERIES_NUMBER)


def algorithm_type(labelled: LabelledMask) -> str:
    """Return how a mask came about, in the words of DICOM."""
    words = {"person": "MANUAL", "model": "AUTOMATIC", "model with clicks": "SEMIAUTOMATIC"}
    return words[labelled.made_by]


def algorithm_name(labelled: LabelledMask) -> str:
    """Return program and model, at most 64 characters."""
    return f"clickvol {labelled.model_id}".strip()[:_MAX_LONG_STRING]


def algorithm_version(labelled: LabelledMask) -> str:
    """Return the versions of model and program, at most 64 characters."""
    model = f"model {labelled.model_version}, " if labelled.model_version else ""
    return f"{model}clickvol {__version__}"[:_MAX_LONG_STRING]


def mask_description(labelled: LabelledMask) -> str:
    """Return what made a mask, and what it is not for."""
    if labelled.made_by == "person":
        return f"drawn with clickvol {__version__}; {DISCLAIMER}"
    return f"made by {algorithm_name(labelled)}, {algorithm_version(labelled)}; {DISCLAIMER}"


def write_dicom(
    make: "Callable[[SourceImages], FileDataset]",
    grids: Sequence[VolumeGrid],
    source: str | Path,
    path: str | Path,
    *,
    series: str | None = None,
    deidentify: bool = False,
) -> None:
    """Write a DICOM file that refers to the images of a scan, a folder or .zip; wholly or not at all.

    `make` turns the images into the file's content; the grids, of what is written, must all be that of the
    scan. `deidentify` leaves out who was scanned, when and where; see `clickvol.io.dicom.deidentify`.

    Raises:
        OutputError: when the source is not a DICOM series, a grid is not its, or the file cannot be written.
        UnreadableVolumeError, DicomSeriesError, BadGeometryError: when the source cannot be read.
    """
    images = read_source_images(source, series=series, grid=grids[0])
    for grid in grids:
        images.check_grid(grid)
    dataset = make(deidentified_sources(images) if deidentify else images)
    if deidentify:
        mark_deidentified(dataset)
    with atomic_path(Path(path), ".dcm") as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def write_dicom_masks(
    make: "Callable[[Sequence[LabelledMask], SourceImages], FileDataset]",
    masks: Sequence[LabelledMask],
    source: str | Path,
    path: str | Path,
    *,
    series: str | None = None,
    deidentify: bool = False,
) -> None:
    """Write masks, at least one, as `write_dicom`; they may overlap or be empty."""
    if not masks:
        raise OutputError("there is no mask to write; give at least one object")
    shown = without_names(masks) if deidentify else masks
    grids = [labelled.mask.grid for labelled in masks]
    write_dicom(partial(make, shown), grids, source, path, series=series, deidentify=deidentify)
