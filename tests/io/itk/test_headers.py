import bz2

import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.io.formats import read_volume
from clickvol.io.itk.headers import text_fields

VOXELS = np.arange(2 * 120, dtype="<i2").reshape(2, 4, 5, 6)


def header(*lines, encoding="raw"):
    text = ["NRRD0005", "type: short", "space: left-posterior-superior", "endian: little",
            f"encoding: {encoding}",
            "space origin: (1,2,3)", *lines]  # fmt: skip
    return "\n".join(text).encode() + b"\n\n"


def test_another_encoding_is_named(tmp_path):
    content = header(
        "dimension: 3", "sizes: 6 5 4", "space directions: (2,0,0) (0,2,0) (0,0,3)", encoding="bzip2"
    )
    (tmp_path / "a.nrrd").write_bytes(content + bz2.compress(VOXELS[0].tobytes()))
    with pytest.raises(UnreadableVolumeError, match="encoding bzip2 is not supported; save it as gzip"):
        read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("where", ["last", "first"])
@pytest.mark.parametrize("detached", [False, True])
def test_four_axes_without_kinds(tmp_path, index, where, detached):
    if where == "last":
        lines = ("sizes: 6 5 4 2", "space directions: (2,0,0) (0,2,0) (0,0,3) none")
        voxels = VOXELS
    else:
        lines = ("sizes: 2 6 5 4", "space directions: none (2,0,0) (0,2,0) (0,0,3)")
        voxels = np.ascontiguousarray(np.moveaxis(VOXELS, 0, -1))
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    if detached:
        path.write_bytes(header("dimension: 4", *lines, "data file: a.raw"))
        (tmp_path / "a.raw").write_bytes(voxels.tobytes())
    else:
        path.write_bytes(header("dimension: 4", *lines) + voxels.tobytes())
    with pytest.raises(UnreadableVolumeError, match="holds 2 volumes"):
        read_volume(path)
    volume = read_volume(path, volume_index=index)
    np.testing.assert_array_equal(volume.array, VOXELS[index])
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm @ [0, 0, 0, 1], [-1, -2, 3, 1])
    assert volume.source == str(path)


def test_fields_of_a_header(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(header("dimension: 3") + b"kinds: no field\n")
    assert text_fields(tmp_path / "a.nrrd")["dimension"] == "3"
    assert "kinds" not in text_fields(tmp_path / "a.nrrd")
