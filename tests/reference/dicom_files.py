"""Small DICOM files made by hand: a CT slice and an enhanced CT."""

from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def make_slice(pixels: np.ndarray, index: int, **tags: Any) -> FileDataset:
    """Return one CT slice, 3 mm after the one before; tags set to None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT_STORAGE
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(index), str(tags)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 5,
        "SeriesDescription": "abdomen",
        "Modality": "CT",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-100, -50, 20 + 3 * index],
        "PixelSpacing": [0.8, 0.5],
        "SliceThickness": 3,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "InstanceNumber": index + 1,
    }
    for name, value in (values | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def enhanced(pixels: np.ndarray) -> FileDataset:
    """Return an enhanced CT of one file; its frames run from the top down."""
    dataset = make_slice(
        pixels,
        0,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        NumberOfFrames=len(pixels),
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        SliceThickness=None,
    )
    shared, measures, plane, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.5], 3
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept = 2, -1000
    shared.PixelMeasuresSequence = pydicom.Sequence([measures])
    shared.PlaneOrientationSequence = pydicom.Sequence([plane])
    shared.PixelValueTransformationSequence = pydicom.Sequence([values])
    dataset.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    frames = []
    for index in range(len(pixels)):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-100, -50, 20 - 3 * index]
        frame.PlanePositionSequence = pydicom.Sequence([position])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    return dataset
