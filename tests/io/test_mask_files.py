"""Masks from files: also empty ones, and never half a one."""

import gzip

import nibabel
import numpy as np
import pydicom
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.formats import read_volume, write_mask, write_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.mask_files import read_label, read_mask
from clickvol.io.volume import Mask, Volume
from reference.dicom_series import write_series


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_mask_comes_back_with_its_grid(grid, tmp_path, suffix):
    array = np.zeros(grid.shape_dhw, np.uint8)
    array[1:3, 2, 4] = 1
    write_mask(Mask(array, grid), tmp_path / f"m{suffix}")
    mask = read_mask(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(mask.array, array)
    assert mask.array.dtype == np.uint8
    np.testing.assert_allclose(mask.grid.affine_ras_mm, grid.affine_ras_mm, rtol=1e-6, atol=1e-5)


def test_an_empty_mask_and_a_full_one(plain_grid, tmp_path):
    for value in (0, 1):
        array = np.full(plain_grid.shape_dhw, value, np.uint8)
        write_mask(Mask(array, plain_grid), tmp_path / "m.nii.gz")
        np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz").array, array)


def test_whatever_is_not_0_is_the_object(tmp_path):
    stored = np.zeros((2, 3, 4), np.float32)
    stored[0, 1, 2], stored[1, 2, 3] = 7, -0.5
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "m.nii.gz")
    array = read_mask(tmp_path / "m.nii.gz").array
    assert array.shape == (4, 3, 2)
    assert np.argwhere(array).tolist() == [[2, 1, 0], [3, 2, 1]]
    assert set(np.unique(array)) == {0, 1}


@pytest.fixture
def whole(plain_grid, tmp_path):
    """The bytes of a mask that do not compress well."""
    array = np.random.default_rng(0).integers(0, 2, plain_grid.shape_dhw).astype(np.uint8)
    write_mask(Mask(array, plain_grid), tmp_path / "whole.nii.gz")
    return (tmp_path / "whole.nii.gz").read_bytes()


def spoil(content):
    return content[:-20] + bytes(b ^ 0x55 for b in content[-20:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-6],
        spoil,
        lambda content: gzip.compress(gzip.decompress(content)[:-3]),
        lambda _content: b"",
        lambda _content: b"this is a letter, not a mask",
    ],
)
def test_a_damaged_file(whole, tmp_path, damage):
    path = tmp_path / "m.nii.gz"
    path.write_bytes(damage(whole))
    with pytest.raises(UnreadableVolumeError, match=r"m\.nii\.gz"):
        read_mask(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnreadableVolumeError, match=r"cannot read .*: No such file"):
        read_mask(tmp_path / "m.nii.gz")


def test_a_4d_file(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2), np.uint8), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(UnreadableVolumeError, match="4D"):
        read_mask(tmp_path / "m.nii")


@pytest.fixture
def organ_and_tumour(tmp_path):
    """A series, and an organ with a tumour in it: the organ has the number 1, the tumour 2."""
    volume = read_volume(write_series(tmp_path / "ct", "oblique"))
    organ, tumour = (np.zeros(volume.array.shape, np.uint8) for _ in range(2))
    organ[1:4, 1:6, 1:5] = 1
    tumour[2, 3, 2:4] = 1
    masks = [
        LabelledMask(name="organ", mask=Mask(organ, volume.grid)),
        LabelledMask(name="tumour", mask=Mask(tumour, volume.grid)),
    ]
    return volume, masks


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_a_label_as_dicom_has_the_numbers_of_its_segments(organ_and_tumour, tmp_path, write):
    volume, masks = organ_and_tumour
    write(masks, volume.source, tmp_path / "label.dcm")
    label = read_label(tmp_path / "label.dcm", volume)
    organ, tumour = (m.mask.array for m in masks)
    np.testing.assert_array_equal(label.array, np.where(tumour, 2, organ))
    assert label.grid == volume.grid
    assert label.source.endswith("label.dcm")


def test_roi_numbers_may_be_any(organ_and_tumour, tmp_path):
    volume, masks = organ_and_tumour
    write_rtstruct(masks, volume.source, tmp_path / "label.dcm")
    dataset = pydicom.dcmread(tmp_path / "label.dcm")
    for number, new in ((0, 700), (1, 30)):
        dataset.StructureSetROISequence[number].ROINumber = new
        dataset.ROIContourSequence[number].ReferencedROINumber = new
    dataset.save_as(tmp_path / "label.dcm")
    label = read_label(tmp_path / "label.dcm", volume)
    values, counts = np.unique(label.array, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 150, 30: 2, 700: 58}


def test_an_empty_label_as_dicom_is_refused(organ_and_tumour, tmp_path):
    volume, _ = organ_and_tumour
    nothing = Mask(np.zeros(volume.array.shape, np.uint8), volume.grid)
    write_dicom_seg([LabelledMask(name="a", mask=nothing)], volume.source, tmp_path / "label.dcm")
    with pytest.raises(UnreadableVolumeError, match=r"label\.dcm is an empty label"):
        read_label(tmp_path / "label.dcm", volume)


def test_a_label_in_another_format_is_read_like_a_scan(plain_grid, scan_array, tmp_path):
    write_volume(scan_array, plain_grid, tmp_path / "label.nii.gz")
    scan = Volume(scan_array, plain_grid)
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz", scan).array, scan_array)
