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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clickvol.io.dicom.contours import mask_contours
from clickvol.io.dicom.mask_writing import (
    DISCLAIMER,
    MANUFACTURER,
    algorithm_name,
    algorithm_type,
    mask_description,
    patient_and_study,
    series_number,
    write_dicom_masks,
)
from clickvol.io.dicom.sources import SourceImages, item_of
from clickvol.io.dicom.uids import new_uid
from clickvol.io.labelled_mask import LabelledMask, display_colour
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
    files = dict.fromkeys((s.sop_class_uid, s.sop_instance_uid) for s in images.slices)
    series = item_of(
        SeriesInstanceUID=images.text("SeriesInstanceUID"),
        ContourImageSequence=[_reference(*file) for file in files],
    )
    study = _reference(_STUDY_CLASS, images.text("StudyInstanceUID"))
    study.RTReferencedSeriesSequence = [series]
    frame = images.text("FrameOfReferenceUID")
    return item_of(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])


def _reference(sop_class_uid: str, sop_instance_uid: str) -> "Dataset":
    return item_of(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)


def _roi(number: int, labelled: LabelledMask, frame_of_reference_uid: str) -> "Dataset":
    return item_of(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=frame_of_reference_uid,
        ROIName=labelled.name,
        ROIDescription=mask_description(labelled),
        ROIGenerationAlgorithm=algorithm_type(labelled),
    )


def _roi_contour(number: int, labelled: LabelledMask, images: SourceImages) -> "Dataset":
    contours = []
    array = labelled.mask.array
    for index in np.flatnonzero(array.any(axis=(1, 2))).tolist():
        source = images.slices[index]
        reference = _reference(source.sop_class_uid, source.sop_instance_uid)
        if source.frame is not None:
            reference.ReferencedFrameNumber = source.frame + 1
        for polygon in mask_contours(array[index]):
            positions = images.corner_lps_mm(index, polygon).ravel().tolist()
            contours.append(
                item_of(
                    ContourImageSequence=[reference],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(polygon),
                    ContourData=[f"{round(v, _DECIMALS) + 0.0:.{_DECIMALS}f}" for v in positions],
                )
            )
    colour = list(labelled.colour or display_colour(number))
    item = item_of(ROIDisplayColor=colour, ReferencedROINumber=number)
    if contours:  # an empty sequence is not allowed, a missing one is
        item.ContourSequence = contours
    return item


def _observation(number: int, labelled: LabelledMask) -> "Dataset":
    term = labelled.term
    code = item_of(CodeValue=term.code, CodingSchemeDesignator="SCT", CodeMeaning=term.meaning)
    return item_of(
        RTROIIdentificationCodeSequence=[code],
        ObservationNumber=number,
        ReferencedROINumber=number,
        # Whether it is a target of treatment, and who says so, is not for a program to tell.
        RTROIInterpretedType="",
        ROIInterpreter="",
    )


write_rtstruct = partial(write_dicom_masks, rtstruct)
"""Write masks as a DICOM RT Structure Set; see `write_dicom_masks`."""
