import json

import numpy as np
import pytest

from clickvol.errors import BadGeometryError, ScanTooLargeError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import read_volume

zarr = pytest.importorskip("zarr")

VALUES = (np.arange(120).reshape(4, 5, 6) * 7 - 300).astype(np.int16)
ORIENTED = {"x": "right-to-left", "y": "posterior-to-anterior", "z": "inferior-to-superior"}


def write(path, values=VALUES, names="zyx", version="0.5", *, oriented=True, unit="millimeter", **image):
    """Write an image with a second, coarser resolution; return its path."""
    kind = {"z": "space", "y": "space", "x": "space", "c": "channel", "t": "time"}
    axes = [{"name": name, "type": kind[name]} for name in names]
    for axis in axes:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
        if axis["type"] == "space" and oriented:
            axis["orientation"] = {"type": "anatomical", "value": ORIENTED[axis["name"]]}
    scale = {"z": 5.0, "y": 1.3, "x": 0.7, "c": 1.0, "t": 1.0}
    start = {"z": 30.0, "y": 20.0, "x": 10.0, "c": 0.0, "t": 0.0}
    transforms = [
        {"type": "scale", "scale": [scale[n] for n in names]},
        {"type": "translation", "translation": [start[n] for n in names]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": transforms}, {"path": "1"}]
    multiscales = [{"version": version, "axes": axes, "datasets": datasets} | image]
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.attrs.update({"ome": {"version": version, "multiscales": multiscales}} if version == "0.5" else
                       {"multiscales": multiscales})  # fmt: skip
    for name, array in (("0", values), ("1", values[..., ::2, ::2])):
        group.create_array(name, data=np.ascontiguousarray(array), chunks=tuple(min(3, n) for n in array.shape))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("names", "index"), [("zyx", np.s_[:]), ("czyx", np.s_[None]), ("tczyx", np.s_[None, None])]
)
@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32"])
def test_values_and_places(tmp_path, version, names, index, dtype):
    values = (VALUES + 300).astype(dtype)
    volume = read_volume(write(tmp_path / "scan.ome.zarr", values[index], names, version))
    np.testing.assert_array_equal(volume.array, values)
    assert (volume.array.dtype, volume.notes) == (dtype, ())
    # x runs to the left: -(10 + 2 * 0.7); y to the front: 20 + 1 * 1.3; z to the head: 30 + 3 * 5
    point = volume.grid.to_world(VoxelPoint.from_ijk(2, 1, 3))
    np.testing.assert_allclose((point.x, point.y, point.z), (-11.4, 21.3, 45.0))


def test_axes_in_another_order_units_and_assumptions(tmp_path):
    values = np.ascontiguousarray(VALUES.transpose(2, 0, 1))
    path = write(tmp_path / "a.zarr", values, "xzy", oriented=False, unit="micrometer",
                 coordinateTransformations=[{"type": "scale", "scale": [1000.0] * 3}])  # fmt: skip
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES)
    np.testing.assert_allclose(volume.grid.spacing_dhw_mm, (5.0, 1.3, 0.7))
    assert len(volume.notes) == 1
    assert "assumed to run to the patient's left, back and head" in volume.notes[0]
    point = volume.grid.to_world(VoxelPoint.from_ijk(0, 0, 0))
    np.testing.assert_allclose((point.x, point.y, point.z), (-10.0, -20.0, 30.0))
    assert "millimetres are assumed" in read_volume(write(tmp_path / "b.zarr", unit=None)).notes[0]


def test_one_of_several_times(tmp_path):
    path = write(tmp_path / "a.zarr", np.stack([VALUES, VALUES + 1]), "tzyx")
    np.testing.assert_array_equal(read_volume(path, volume_index=1).array, VALUES + 1)
    with pytest.raises(UnreadableVolumeError, match="pick one with --volume N"):
        read_volume(path)


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_what_cannot_be_read_is_refused_in_a_line(tmp_path):
    path = write(tmp_path / "a.zarr", np.stack([VALUES] * 3), "czyx")
    with pytest.raises(UnreadableVolumeError, match="one grey channel"):
        read_volume(path)
    path = write(tmp_path / "b.zarr")
    change(path / "0" / "zarr.json", lambda c: c["codecs"].append({"name": "numcodecs.pickle"}))
    with pytest.raises(UnreadableVolumeError, match=r"packed as .numcodecs\.pickle"):
        read_volume(path)
    path = write(tmp_path / "c.zarr", version="0.4")
    change(path / "0" / ".zarray", lambda c: c.update(filters=[{"id": "pickle"}]))
    with pytest.raises(UnreadableVolumeError, match="packed as 'pickle'"):
        read_volume(path)
    path = write(tmp_path / "d.zarr")
    change(
        path / "zarr.json",
        lambda c: c["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(path="../b.zarr/0"),
    )
    with pytest.raises(UnreadableVolumeError, match="outside of it"):
        read_volume(path)
    path = write(tmp_path / "e.zarr")
    (path / "0" / "zarr.json").write_text("{")
    with pytest.raises(UnreadableVolumeError, match="is no OME-Zarr image, or damaged"):
        read_volume(path)
    path = write(tmp_path / "f.zarr", coordinateTransformations=[{"type": "scale", "scale": [1.0, 1.0, -1.0]}])
    with pytest.raises(BadGeometryError, match="spacing along x"):
        read_volume(path)
    with pytest.raises(ScanTooLargeError):
        read_volume(write(tmp_path / "g.zarr"), limits=ReadLimits(max_voxels=10, max_bytes_unpacked=10**6))


def test_a_chunk_that_is_cut_off_is_damage(tmp_path):
    path = write(tmp_path / "a.zarr")
    chunk = next(p for p in (path / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:5])
    with pytest.raises(UnreadableVolumeError, match="damaged"):
        read_volume(path)
