"""Masks as DICOM that name nobody, after the basic confidentiality profile of DICOM PS3.15, Annex E.

The profile says for each attribute what becomes of it. Here nothing is searched and removed: what a file
repeats of its scan is cut down beforehand to what places the mask, so that an attribute that nobody thought
of cannot slip in.

What this means:

- Name, ID, birth date, sex, physicians, institution, descriptions, times and dates are empty, missing or
  replaced by a date that is none (1900-01-01). Names of objects become "object 1", "object 2", ...
- Study, series, frame of reference and images are called otherwise (`remapped_uid`). **Such a file no longer
  names the original scan**, and no program will lay it over that. It fits a copy of the scan whose identifiers
  were replaced by the same rule, and masks of one scan still belong together.
- Positions in millimetres and the shape of the mask stay: without them there is no mask. A mask of a face, of
  an implant or of a rare anatomy may itself tell who it is.
- It says nothing of other files: the scan itself is not touched.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clickvol.io.dicom.attributes import OF_WRITING
from clickvol.io.dicom.sources import SourceImages, item_of
from clickvol.io.dicom.uids import remapped_uid
from clickvol.io.labelled_mask import LabelledMask
from clickvol.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# What stays of the header of a scan: how to read the mask, not whose it is.
_KEPT = (
    "Modality",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_REMAPPED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")

# Attributes that must have a value get one that is none (action D of PS3.15, table E.1-1).
_NO_DATE, _NO_TIME, _NO_DATE_TIME = "19000101", "000000", "19000101000000"


def deidentified_sources(images: SourceImages) -> SourceImages:
    """Return the slices of a scan under other identifiers, with a header that describes pixels alone."""
    from pydicom.dataset import Dataset

    header = Dataset()
    for keyword in _KEPT:
        if keyword in images.header:
            header[keyword] = images.header[keyword]
    for keyword in _REMAPPED:
        setattr(header, keyword, remapped_uid(str(images.header[keyword].value)))
    slices = tuple(replace(s, sop_instance_uid=remapped_uid(s.sop_instance_uid)) for s in images.slices)
    return replace(images, slices=slices, header=header)


def without_names(masks: Sequence[LabelledMask]) -> list[LabelledMask]:
    """Return the masks as "object 1", "object 2", ...: what a person typed may be a name."""
    return [replace(mask, name=f"object {n}") for n, mask in enumerate(masks, start=1)]


def mark_deidentified(dataset: "Dataset") -> None:
    """Take the dates of writing out of a file made of `deidentified_sources`, and state the method."""
    for keyword in OF_WRITING:
        if keyword in dataset:
            delattr(dataset, keyword)
    for element in dataset.iterall():
        if element.VR in ("DA", "TM", "DT") and element.value:
            element.value = {"DA": _NO_DATE, "TM": _NO_TIME, "DT": _NO_DATE_TIME}[element.VR]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"clickvol {__version__}: DICOM PS3.15 Basic Profile"
    # DICOM PS3.16, CID 7050.
    profile = "Basic Application Confidentiality Profile"
    code = item_of(CodeValue="113100", CodingSchemeDesignator="DCM", CodeMeaning=profile)
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
