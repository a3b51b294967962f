import nibabel
import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.io.formats import read_volume

KINDS = {"a.hdr": nibabel.Nifti1Pair, "a.mgz": nibabel.MGHImage}


@pytest.mark.parametrize("name", list(KINDS))
def test_voxels_lie_where_nibabel_has_them(tmp_path, scan_array, grid, name):
    # MGH has no sheared grids and single precision; these are rotations.
    image = KINDS[name](np.ascontiguousarray(scan_array.T), grid.affine_ijk_ras_mm)
    nibabel.save(image, tmp_path / name)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, scan_array)
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm, nibabel.load(tmp_path / name).affine, atol=1e-4)
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm, grid.affine_ijk_ras_mm, atol=1e-3)


@pytest.mark.parametrize("given", ["a.hdr", "a.img"])
def test_analyze_has_no_orientation_and_says_so(tmp_path, scan_array, given):
    image = nibabel.AnalyzeImage(np.ascontiguousarray(scan_array.T), None)
    image.header.set_zooms((2, 2, 3))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.img")
    volume = read_volume(tmp_path / given)
    np.testing.assert_array_equal(volume.array, scan_array)
    np.testing.assert_allclose(volume.grid.spacing_dhw_mm, [3, 2, 2])
    assert "no orientation" in volume.notes[0]


def test_a_volume_of_four_dimensions_is_chosen(tmp_path, scan_array):
    both = np.stack([scan_array.T, scan_array.T + 1], axis=-1)
    nibabel.save(nibabel.MGHImage(both.astype(np.int32), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(UnreadableVolumeError, match="4D"):
        read_volume(tmp_path / "a.mgz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mgz", volume_index=1).array, scan_array + 1)


def test_half_a_pair_and_a_pair_of_a_stranger_are_refused(tmp_path, scan_array):
    nibabel.save(nibabel.Nifti1Pair(np.ascontiguousarray(scan_array.T), np.eye(4)), tmp_path / "a.hdr")
    with pytest.raises(UnreadableVolumeError, match="does not hold its own voxels"):
        read_volume(tmp_path / "a.hdr", limits=ReadLimits(max_voxels=1000, max_bytes_unpacked=10**6))
    (tmp_path / "a.img").unlink()
    with pytest.raises(UnreadableVolumeError, match="the other one is not beside it"):
        read_volume(tmp_path / "a.hdr")
