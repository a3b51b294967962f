import io
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from clickvol.errors import OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.nifti.headers import NiftiGeometry, make_header, parse_header, read_geometry, voxel_layout


def test_header_of_a_mask_says_where_the_voxels_start(tmp_path, plain_grid):
    header = make_header(np.zeros((4, 5, 6), dtype=np.uint8), plain_grid)
    parsed, notes = parse_header(io.BytesIO(header.binaryblock), tmp_path)
    layout = voxel_layout(parsed, tmp_path, None)
    assert notes == []
    assert (layout.shape_ijk, layout.dtype, layout.offset_bytes) == ((6, 5, 4), np.uint8, 352)
    assert layout.num_bytes == 120


def test_axes_too_long_for_nifti1_become_nifti2():
    grid = VolumeGrid((1, 1, 40000), np.eye(4))
    header = make_header(np.zeros((1, 1, 40000), dtype=np.uint8), grid)
    assert (int(header["sizeof_hdr"]), int(header["vox_offset"])) == (540, 544)


def test_qfac_and_unused_spacing_are_put_right(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((6, 5))
    header["pixdim"][:4] = [5, 2, 3, 0]
    header["magic"] = b"n+1"
    header["qform_code"] = 1
    parsed, _ = parse_header(io.BytesIO(header.binaryblock + b"\0" * 200), tmp_path)
    affine, geometry, notes = read_geometry(parsed, tmp_path)
    np.testing.assert_array_equal(affine, np.diag([2, 3, 1, 1]))
    assert geometry.zooms_ijk_mm == (2, 3, 1)
    assert notes == []


def test_geometry_of_another_scan_is_refused(plain_grid):
    elsewhere = NiftiGeometry(np.eye(4), None, 1, 0, (1, 1, 1), 2)
    with pytest.raises(OutputError, match="would move the mask by"):
        make_header(np.zeros((4, 5, 6), dtype=np.uint8), replace(plain_grid, file_facts=elsewhere))


def test_facts_of_another_format_say_nothing_here(plain_grid):
    array = np.zeros((4, 5, 6), dtype=np.uint8)
    header = make_header(array, replace(plain_grid, file_facts="of another format"))
    assert header.binaryblock == make_header(array, plain_grid).binaryblock


@pytest.mark.parametrize(("shift_mm", "is_said"), [(0.0, False), (0.01, False), (4.0, True)])
def test_forms_that_disagree_are_said(tmp_path, shift_mm, is_said):
    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    image = nib.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1]))
    moved = np.diag([2.0, 2, 3, 1])
    moved[0, 3] = shift_mm
    image.header.set_sform(np.diag([2.0, 2, 3, 1]), 1)
    image.header.set_qform(moved, 1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    volume = read_volume(tmp_path / "a.nii")
    assert (
        any("two orientations" in note and "4 mm apart; the sform" in note for note in volume.notes) is is_said
    )
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm, np.diag([2.0, 2, 3, 1]))
