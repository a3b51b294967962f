"""DICOM series made by hand, complete enough to refer to, for the tests of masks as DICOM."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SPACING_HW_MM = (0.8, 0.5)
GAP_MM = 3.0

# Cosines along a row and a column, and the step from slice to slice in mm.
SERIES = {
    "axial": ([1, 0, 0, 0, 1, 0], [0, 0, GAP_MM]),
    "axial from above": ([1, 0, 0, 0, 1, 0], [0, 0, -GAP_MM]),
    "sagittal": ([0, 1, 0, 0, 0, -1], [GAP_MM, 0, 0]),
    "oblique": ([0.8, 0.6, 0, -0.48, 0.64, 0.6], [1.08, -1.44, 2.4]),
    "flipped rows": ([-1, 0, 0, 0, -1, 0], [0, 0, GAP_MM]),
    "tilted": ([1, 0, 0, 0, 1, 0], [0, 0.6, GAP_MM]),
}

PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Jörg",
    "PatientID": "PID-4711",
    "PatientBirthDate": "19511224",
    "PatientSex": "M",
    "PatientAge": "072Y",
    "OtherPatientIDs": "PID-OLD",
    "PatientComments": "lives at Secret Street",
    "StudyInstanceUID": "1.2.999.1",
    "StudyDate": "20230405",
    "StudyTime": "101112",
    "StudyID": "S77",
    "StudyDescription": "staging of Mr Müller",
    "AccessionNumber": "ACC-99",
    "ReferringPhysicianName": "House^Gregory",
    "InstitutionName": "Princeton Plainsboro",
    "StationName": "STATION-1",
    "OperatorsName": "Nurse^Ann",
    "Manufacturer": "ACME",
    "ManufacturerModelName": "Scanner 3000",
    "DeviceSerialNumber": "SN-12345",
    "SoftwareVersions": "7.1",
    "SeriesInstanceUID": "1.2.999.4",
    "SeriesNumber": 5,
    "SeriesDescription": "abdomen",
    "SeriesDate": "20230405",
    "AcquisitionDate": "20230405",
    "AcquisitionTime": "101213",
    "ContentDate": "20230405",
    "ContentTime": "101214",
    "FrameOfReferenceUID": "1.2.999.5",
    "PositionReferenceIndicator": "",
    "Modality": "CT",
}


def pixels_of(shape_dhw):
    """Return (D, H, W) uint16, all different."""
    return (np.arange(np.prod(shape_dhw)).reshape(shape_dhw) * 3 + 500).astype(np.uint16)


def slice_uid(index):
    return f"1.2.999.6.{index + 1}"


def make_file(pixels, sop_class, uid, **tags):
    """Return an image of the patient; tags set to None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values = PATIENT | {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    for name, value in (values | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def write_series(folder, kind="axial", shape_dhw=(5, 7, 6), **tags):
    """Write single slices under names whose order is not that of the slices; return the folder."""
    cosines, step = SERIES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    pixels = pixels_of(shape_dhw)
    order = np.random.default_rng(3).permutation(shape_dhw[0])
    for name, index in enumerate(order.tolist()):
        own = {
            "ImageOrientationPatient": cosines,
            "ImagePositionPatient": [
                -10.5 + index * step[0],
                20 + index * step[1],
                index * step[2],
            ],
            "PixelSpacing": list(SPACING_HW_MM),
            "SliceThickness": GAP_MM,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "InstanceNumber": index + 1,
        }
        dataset = make_file(pixels[index], CT, slice_uid(index), **(own | tags))
        dataset.save_as(folder / f"IM{name:04d}", enforce_file_format=True)
    return folder


def write_enhanced(folder, kind="axial", shape_dhw=(5, 7, 6)):
    """Write one enhanced CT whose frames are in no order; return the folder."""
    cosines, step = SERIES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(4).permutation(shape_dhw[0]).tolist()
    dataset = make_file(pixels_of(shape_dhw)[order], ENHANCED_CT, "1.2.999.7", NumberOfFrames=len(order))
    shared, measures, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING_HW_MM), GAP_MM
    orientation.ImageOrientationPatient = cosines
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence = pydicom.Sequence([measures])
    shared.PlaneOrientationSequence = pydicom.Sequence([orientation])
    shared.PixelValueTransformationSequence = pydicom.Sequence([values])
    dataset.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    frames = []
    for index in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [
            -10.5 + index * step[0], 20 + index * step[1], index * step[2]
        ]  # fmt: skip
        frame.PlanePositionSequence = pydicom.Sequence([position])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    dataset.save_as(folder / "enhanced", enforce_file_format=True)
    return folder


def write_as_series(volume, folder):
    """Write a scan, such as one of NIfTI, as a CT series of single slices; return the folder."""
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.grid.affine_ras_mm  # LPS mm of (d, h, w)
    h_mm, w_mm = np.linalg.norm(affine[:3, 1:3], axis=0)
    low = float(volume.array.min())
    folder.mkdir(parents=True, exist_ok=True)
    for index, plane in enumerate(volume.array):
        dataset = make_file(
            np.clip(plane.astype(np.float64) - low, 0, 65535).astype(np.uint16),
            CT,
            slice_uid(index),
            ImagePositionPatient=[round(float(v), 6) for v in affine[:3] @ [index, 0, 0, 1]],
            ImageOrientationPatient=[
                round(float(v), 9) for v in (*affine[:3, 2] / w_mm, *affine[:3, 1] / h_mm)
            ],
            PixelSpacing=[round(float(h_mm), 6), round(float(w_mm), 6)],
            RescaleSlope=1,
            RescaleIntercept=round(low),
        )
        dataset.save_as(folder / f"{index:04d}", enforce_file_format=True)
    return folder
