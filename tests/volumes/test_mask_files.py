"""Masks from files: also empty ones, and never half a one."""

import gzip

import nibabel
import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.volumes.formats import write_mask
from clickvol.volumes.mask_files import read_mask
from clickvol.volumes.volume import Mask


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
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((2, 2, 2, 2), np.uint8), np.eye(4)), tmp_path / "m.nii"
    )
    with pytest.raises(UnreadableVolumeError, match="4D"):
        read_mask(tmp_path / "m.nii")
