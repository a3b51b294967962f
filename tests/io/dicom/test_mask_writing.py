"""What both formats have in common, with a format of one line."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from clickvol.errors import OutputError
from clickvol.io.dicom.mask_writing import write_dicom_masks
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import write_series


def made(masks, images):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.StudyInstanceUID = images.text("StudyInstanceUID")
    dataset.StructureSetLabel = ",".join(mask.name for mask in masks)
    return dataset


def test_the_file_is_what_was_made_of_masks_and_images(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    labelled = LabelledMask(name="tumour", mask=Mask(np.ones(volume.array.shape, np.uint8), volume.grid))
    write_dicom_masks(made, [labelled], folder, tmp_path / "a.dcm")
    written = pydicom.dcmread(tmp_path / "a.dcm")
    scan = pydicom.dcmread(next(folder.iterdir()))
    assert written.StructureSetLabel == "tumour"
    assert written.StudyInstanceUID == scan.StudyInstanceUID

    write_dicom_masks(made, [labelled], folder, tmp_path / "b.dcm", deidentify=True)
    without = pydicom.dcmread(tmp_path / "b.dcm")
    assert without.StudyInstanceUID != scan.StudyInstanceUID
    assert without.PatientIdentityRemoved == "YES"


def test_nothing_is_written_without_a_mask(tmp_path):
    with pytest.raises(OutputError, match="there is no mask to write; give at least one object"):
        write_dicom_masks(made, [], write_series(tmp_path / "ct"), tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()
