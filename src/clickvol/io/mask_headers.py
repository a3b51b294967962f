"""What both kinds of DICOM mask say of the patient, of the study and of themselves."""

import re
from typing import TYPE_CHECKING, Any

from clickvol.io.dicom.sources import TAGS_OF_THE_SERIES, SourceImages
from clickvol.io.labelled_mask import LabelledMask
from clickvol.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MANUFACTURER = "clickvol"
DISCLAIMER = "research use only, not a medical device"

# Must be there, if only empty (type 2 in the Patient and General Study modules, PS3.3 C.7.1.1 and C.7.2.1).
_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)

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
        if element.keyword not in TAGS_OF_THE_SERIES:
            header[element.keyword] = element
    for keyword in _PATIENT_AND_STUDY:
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
