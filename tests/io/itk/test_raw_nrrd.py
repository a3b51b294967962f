import numpy as np
import pytest
import SimpleITK

from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.itk.raw_nrrd import raw_nrrd

OBLIQUE = np.array([[0.1, -0.8, 0.2, -31.5], [0.2, 0.3, 0.9, 12.25], [-2.9, 0.05, 0.1, 240.0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_programs_read_it_back(tmp_path, dtype):
    grid = VolumeGrid((3, 4, 5), np.diag([2.5, -0.8, 0.7, 1.0]))
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    (tmp_path / "a.nrrd").write_bytes(raw_nrrd(array, grid))
    image = SimpleITK.ReadImage(str(tmp_path / "a.nrrd"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), array)
    assert image.GetPixelIDTypeAsString() == f"{8 * array.itemsize}-bit unsigned integer"
    assert np.allclose(read_volume(tmp_path / "a.nrrd").grid.affine_ras_mm, grid.affine_ras_mm)


def test_the_header_of_a_sheared_grid_is_exact():
    grid = VolumeGrid((1, 1, 2), OBLIQUE)
    header, _, voxels = raw_nrrd(np.array([[[1, 2]]], np.uint16), grid).partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines()[1:])
    assert fields["sizes"] == "2 1 1"
    assert fields["space directions"] == "(-0.2,-0.9,0.1) (0.8,-0.3,0.05) (-0.1,-0.2,-2.9)"
    assert fields["space origin"] == "(31.5,-12.25,240.0)"
    assert voxels == b"\x01\x00\x02\x00"
