"""Masks as a DICOM RT Structure Set: closed planar contours on the slices of the scan.

The contours run along the borders of the voxels (`clickvol.io.dicom.contours`), so that what is drawn is the
mask itself: the same area, and the same voxels again for every program that asks which voxel centres lie
inside. Holes are keyholes, as PS3.3 (C.8.8.6.3) has them for CLOSED_PLANAR. Programs differ in what they make
of two contours inside one another: 3D Slicer looks for keyholes, others take odd and even (XOR), older ones
unite. A keyhole is read alike by all of them. This writer is ours for that: libraries such as
rt-utils draw through voxel centres, which loses half a voxel at every border.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clickvol.io.dicom.contours import mask_contours
from clickvol.io.dicom.mask_writing import write_dicom_masks
from clickvol.io.dicom.sources import SourceImages
from clickvol.io.dicom.uids import new_uid
from clickvol.io.labelled_mask import LabelledMask, display_colour
from clickvol.io.mask_headers import (
    DISCLAIMER,
    MANUFACTURER,
    algorithm_name,
    algorithm_type,
    mask_description,
    patient_and_study,
    series_number,
)
from clickvol.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
# Implicit VR: with explicit ones a decimal string ends at 64 KiB, and a ragged contour may be longer.
_IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"

# Detached Study Management, the retired class that PS3.3 C.8.8.5 still refers to a study by.
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"

# Positions are written to 0.1 micrometre: far below a voxel, and short enough for a decimal string.
_DECIMALS = 4


def write_rtstruct(
    masks: Sequence[LabelledMask],
    source: str | Path,
    path: str | Path,
    *,
    series: str | None = None,
    deidentify: bool = False,
) -> None:
    """Write masks as a DICOM RT Structure Set; see `write_dicom_masks`."""
    write_dicom_masks(rtstruct, masks, source, path, series=series, deidentify=deidentify)


def rtstruct(masks: Sequence[LabelledMask], images: SourceImages) -> "FileDataset":
    """Return masks, at least one, as a DICOM RT Structure Set that refers to the images of their scan."""
    dataset = _new_file(images)
    dataset.ManufacturerModelName = algorithm_name(masks[0])
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(images)]
    numbered = list(enumerate(masks, start=1))
    frame = images.text("FrameOfReferenceUID")
    dataset.StructureSetROISequence = [_roi(n, mask, frame) for n, mask in numbered]
    dataset.ROIContourSequence = [_roi_contour(n, mask, images) for n, mask in numbered]
    dataset.RTROIObservationsSequence = [_observation(n, mask) for n, mask in numbered]
    return dataset


def _new_file(images: SourceImages) -> "FileDataset":
    """Return everything but the objects: patient, study, series, equipment and structure set."""
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RT_STRUCTURE_SET
    meta.MediaStorageSOPInstanceUID = new_uid()
    meta.TransferSyntaxUID = _IMPLICIT_VR_LITTLE_ENDIAN
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.update(patient_and_study(images))
    now = datetime.now(UTC).astimezone()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    values = {
        "SOPClassUID": RT_STRUCTURE_SET,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
        "InstanceNumber": 1,
        "Modality": "RTSTRUCT",
        "SeriesInstanceUID": new_uid(),
        "SeriesNumber": series_number(images),
        "SeriesDescription": f"clickvol: {DISCLAIMER}",
        "OperatorsName": "",
        "Manufacturer": MANUFACTURER,
        "SoftwareVersions": __version__,
        "FrameOfReferenceUID": images.text("FrameOfReferenceUID"),
        "PositionReferenceIndicator": images.text("PositionReferenceIndicator"),
        "StructureSetLabel": "clickvol",
        "StructureSetDescription": DISCLAIMER,
        "StructureSetDate": date,
        "StructureSetTime": time,
        "ApprovalStatus": "UNAPPROVED",
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _referenced_frame(images: SourceImages) -> "Dataset":
    """Return the item that names every image of the scan."""
    from pydicom.dataset import Dataset

    series, study, frame = Dataset(), Dataset(), Dataset()
    files = dict.fromkeys((s.sop_class_uid, s.sop_instance_uid) for s in images.slices)
    series.SeriesInstanceUID = images.text("SeriesInstanceUID")
    series.ContourImageSequence = [_reference(*file) for file in files]
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = images.text("StudyInstanceUID")
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = images.text("FrameOfReferenceUID")
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(sop_class_uid: str, sop_instance_uid: str) -> "Dataset":
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    return reference


def _roi(number: int, labelled: LabelledMask, frame_of_reference_uid: str) -> "Dataset":
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    roi.ROIName = labelled.name
    roi.ROIDescription = mask_description(labelled)
    roi.ROIGenerationAlgorithm = algorithm_type(labelled)
    return roi


def _roi_contour(number: int, labelled: LabelledMask, images: SourceImages) -> "Dataset":
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ROIDisplayColor = list(labelled.colour or display_colour(number))
    item.ReferencedROINumber = number
    contours = []
    array = labelled.mask.array
    for index in np.flatnonzero(array.any(axis=(1, 2))).tolist():
        source = images.slices[index]
        reference = _reference(source.sop_class_uid, source.sop_instance_uid)
        if source.frame is not None:
            reference.ReferencedFrameNumber = source.frame + 1
        for polygon in mask_contours(array[index]):
            contour = Dataset()
            contour.ContourImageSequence = [reference]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            positions = images.corner_lps_mm(index, polygon)
            contour.ContourData = [_decimal(value) for value in positions.ravel().tolist()]
            contours.append(contour)
    if contours:  # an empty sequence is not allowed, a missing one is
        item.ContourSequence = contours
    return item


def _decimal(value: float) -> str:
    return f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}"


def _observation(number: int, labelled: LabelledMask) -> "Dataset":
    from pydicom.dataset import Dataset

    observation, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = labelled.term.code, "SCT"
    code.CodeMeaning = labelled.term.meaning
    observation.RTROIIdentificationCodeSequence = [code]
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    # Whether it is a target of treatment, and who says so, is not for a program to tell.
    observation.RTROIInterpretedType = ""
    observation.ROIInterpreter = ""
    return observation
