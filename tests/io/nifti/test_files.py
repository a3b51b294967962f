import gzip
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from clickvol.errors import BadGeometryError, UnreadableVolumeError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.nifti.files import read_nifti, write_nifti
from clickvol.io.nifti.headers import make_header


def save(path: Path, array_dhw: np.ndarray, affine: np.ndarray, **header) -> Path:
    image = nib.Nifti1Image(array_dhw.T, affine)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def test_known_voxel_lies_at_known_millimetres(tmp_path, scan_array):
    affine = np.array([[-2.0, 0, 0, 10], [0, 0, 4, 20], [0, 3, 0, 30], [0, 0, 0, 1]])
    volume = read_nifti(save(tmp_path / "a.nii", scan_array, affine))
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    np.testing.assert_array_equal(volume.array, scan_array)
    # i=5, j=2, k=1: x = 10 - 2*5, y = 20 + 4*1, z = 30 + 3*2
    point = volume.grid.to_world(VoxelPoint.from_ijk(5, 2, 1))
    assert (point.x, point.y, point.z) == (0.0, 24.0, 36.0)
    assert volume.array[1, 2, 5] == (30 + 12 + 5) * 7 - 300
    assert (volume.modality, volume.notes) == ("unknown", ())
    assert volume.source == str(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", ">f4", "<f8", "<u4", ">i8"])
def test_stored_dtype_is_kept_in_native_order(tmp_path, plain_grid, scan_array, dtype, suffix):
    array = np.abs(scan_array).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(array.dtype)
    image = nib.Nifti1Image(array.T, plain_grid.affine_ijk_ras_mm, header)
    image.to_filename(tmp_path / f"a{suffix}")
    volume = read_nifti(tmp_path / f"a{suffix}")
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array)


def test_scaling_matches_nibabel(tmp_path, plain_grid, scan_array):
    image = nib.Nifti1Image(scan_array.T, plain_grid.affine_ijk_ras_mm)
    image.to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    for slope, intercept, dtype in [(0.001, 0, "f4"), (2.5, -3.25, "f4"), (1, -100, "i2")]:
        struct.pack_into("<ff", raw, 112, slope, intercept)
        (tmp_path / "a.nii").write_bytes(raw)
        volume = read_nifti(tmp_path / "a.nii")
        assert volume.array.dtype == np.dtype(dtype)
        expected = nib.load(tmp_path / "a.nii").get_fdata().T
        np.testing.assert_allclose(volume.array, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, 0), (np.inf, 0)])
def test_a_slope_that_means_nothing_is_no_scaling(tmp_path, plain_grid, scan_array, slope, intercept):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    path.write_bytes(patched(path, "<ff", 112, slope, intercept))
    np.testing.assert_array_equal(read_nifti(path).array, scan_array)


def test_an_intercept_that_is_no_number_is_refused(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    path.write_bytes(patched(path, "<ff", 112, 2, np.nan))
    with pytest.raises(UnreadableVolumeError, match="intercept nan"):
        read_nifti(path)


def patched(path: Path, layout: str, offset: int, *values) -> bytes:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    return bytes(raw)


def geometry(path: Path) -> dict:
    header = nib.load(path).header
    names = ("sform_code", "qform_code", "xyzt_units")
    return {
        "affine": nib.load(path).affine.tolist(),
        "sform": header.get_sform().tolist(),
        "qform": header.get_qform().tolist(),
        "zooms": header["pixdim"][:4].tolist(),
        "shape": nib.load(path).shape,
    } | {name: header[name].item() for name in names}


def mask_of(array: np.ndarray) -> np.ndarray:
    return (array > 100).astype(np.uint8)


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (0, 1), (4, 0), (0, 0), (1, 3)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_mask_repeats_the_header_geometry_exactly(tmp_path, grid, scan_array, codes, suffix):
    affine = grid.affine_ijk_ras_mm
    image = nib.Nifti1Image(scan_array.T, affine)
    image.header.set_sform(affine, codes[0])
    # Another qform than the sform, as registration tools leave behind.
    moved = affine.copy()
    moved[:3, 3] += [3, -2, 1] if codes[0] else [0, 0, 0]
    image.header.set_qform(moved, codes[1])
    image.header["xyzt_units"] = 10
    image.to_filename(tmp_path / "scan.nii.gz")
    volume = read_nifti(tmp_path / "scan.nii.gz")
    write_nifti(mask_of(volume.array), volume.grid, tmp_path / f"mask{suffix}")
    scan, mask = geometry(tmp_path / "scan.nii.gz"), geometry(tmp_path / f"mask{suffix}")
    assert mask == scan
    stored = nib.load(tmp_path / f"mask{suffix}")
    assert stored.get_data_dtype() == np.uint8
    assert (stored.dataobj.slope, stored.dataobj.inter) == (1.0, 0.0)
    np.testing.assert_array_equal(np.asarray(stored.dataobj).T, mask_of(scan_array))


ANGLES = st.floats(-3.1, 3.1)
SPACINGS = st.floats(0.2, 8.0)


@given(st.tuples(ANGLES, ANGLES, ANGLES), st.tuples(SPACINGS, SPACINGS, SPACINGS), st.booleans())
def test_qform_only_scan_keeps_its_affine_to_the_bit(angles, spacing, flip):
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles).as_matrix() @ np.diag([-1.0 if flip else 1.0, 1, 1]) * spacing
    )
    affine[:3, 3] = [-12.3, 45.6, 789.1]
    with tempfile.TemporaryDirectory() as folder:
        scan, mask = Path(folder) / "scan.nii", Path(folder) / "mask.nii"
        image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
        image.header.set_qform(affine, 1)
        image.header.set_sform(None, 0)
        image.to_filename(scan)
        volume = read_nifti(scan)
        np.testing.assert_array_equal(volume.grid.affine_ijk_ras_mm, nib.load(scan).affine)
        write_nifti(mask_of(volume.array), volume.grid, mask)
        assert geometry(mask) == geometry(scan)


def test_a_grid_from_elsewhere_gets_scanner_codes(tmp_path, grid, scan_array):
    write_nifti(mask_of(scan_array), grid, tmp_path / "m.nii")
    header = nib.load(tmp_path / "m.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_sform(), grid.affine_ijk_ras_mm, rtol=1e-6)
    np.testing.assert_allclose(header.get_qform(), grid.affine_ijk_ras_mm, atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"


def test_a_sheared_grid_gets_only_the_sform(tmp_path, sheared_grid, scan_array):
    write_nifti(mask_of(scan_array), sheared_grid, tmp_path / "m.nii")
    header = nib.load(tmp_path / "m.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), sheared_grid.affine_ijk_ras_mm, rtol=1e-6)
    volume = read_nifti(tmp_path / "m.nii")
    np.testing.assert_allclose(volume.grid.affine_ras_mm, sheared_grid.affine_ras_mm, rtol=1e-6)


def test_the_same_mask_gives_the_same_bytes(tmp_path, plain_grid, scan_array):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(scan_array, plain_grid, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_no_orientation_uses_nibabels_fallback_and_says_so(tmp_path, plain_grid, scan_array):
    image = nib.Nifti1Image(scan_array.T, None)
    image.header["pixdim"][1:4] = [0.5, 2, 3]
    image.to_filename(tmp_path / "a.nii")
    path = tmp_path / "a.nii"
    path.write_bytes(patched(path, "<hh", 252, 0, 0))
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.grid.affine_ijk_ras_mm, nib.load(path).affine)
    assert "no orientation in the header" in volume.notes[0]


def test_units_and_codes_that_mean_something_else_are_said(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm, xyzt_units=1)
    path.write_bytes(patched(path, "<h", 252, 77))
    notes = read_nifti(path).notes
    assert "qform_code 77" in notes[0]
    assert "in metres" in notes[1]


def test_nifti2_is_read(tmp_path, plain_grid, scan_array):
    nib.Nifti2Image(scan_array.T, plain_grid.affine_ijk_ras_mm).to_filename(tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, scan_array)
    np.testing.assert_array_equal(volume.grid.affine_ras_mm, plain_grid.affine_ras_mm)


def test_a_mask_of_a_nifti2_scan_keeps_double_precision(tmp_path, grid, scan_array):
    nib.Nifti2Image(scan_array.T, grid.affine_ijk_ras_mm).to_filename(tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    write_nifti(mask_of(scan_array), volume.grid, tmp_path / "m.nii")
    assert geometry(tmp_path / "m.nii") == geometry(tmp_path / "a.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii").affine, grid.affine_ijk_ras_mm)


def test_a_qform_in_double_precision_is_kept_beside_a_plain_sform(tmp_path, scan_array):
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix()
    image = nib.Nifti2Image(scan_array.T, np.diag([1, 2, 3, 1]))
    image.header.set_qform(turned, 2)
    image.header.set_sform(np.diag([1, 2, 3, 1]), 1)
    image.to_filename(tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    write_nifti(mask_of(scan_array), volume.grid, tmp_path / "m.nii")
    assert geometry(tmp_path / "m.nii") == geometry(tmp_path / "a.nii")


def test_a_part_of_a_scan_is_written_where_it_lies(tmp_path, grid, scan_array):
    volume = read_nifti(save(tmp_path / "a.nii", scan_array, grid.affine_ijk_ras_mm))
    box = VoxelBox((1, 0, 2), (3, 4, 5))
    write_nifti(scan_array[box.slices], volume.grid.crop(box), tmp_path / "m.nii")
    written = read_nifti(tmp_path / "m.nii")
    assert written.grid.same_place(volume.grid.crop(box))
    np.testing.assert_array_equal(written.array, scan_array[box.slices])


def test_4d_picks_a_volume(tmp_path, plain_grid, scan_array):
    stack = np.stack([scan_array, scan_array + 1, scan_array + 2])
    path = save(tmp_path / "a.nii.gz", stack, plain_grid.affine_ijk_ras_mm)
    np.testing.assert_array_equal(read_nifti(path, volume_index=1).array, scan_array + 1)
    np.testing.assert_array_equal(read_nifti(path, volume_index=2).array, scan_array + 2)
    with pytest.raises(UnreadableVolumeError, match=r"4D with shape \(6, 5, 4, 3\).*fourth axis.*--volume"):
        read_nifti(path)
    single = save(tmp_path / "b.nii.gz", scan_array[None], plain_grid.affine_ijk_ras_mm)
    np.testing.assert_array_equal(read_nifti(single).array, scan_array)


def test_2d_is_one_slice(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array[0], plain_grid.affine_ijk_ras_mm)
    volume = read_nifti(path)
    assert volume.grid.shape_dhw == (1, 5, 6)
    np.testing.assert_array_equal(volume.array, scan_array[:1])


def test_an_image_of_vectors_colours_or_complex_numbers_is_refused(tmp_path, plain_grid):
    rng = np.random.default_rng(0)
    affine = plain_grid.affine_ijk_ras_mm
    vectors = rng.random((3, 1, 4, 5, 6), dtype=np.float32)
    with pytest.raises(UnreadableVolumeError, match=r"vector image .* 3 values per voxel"):
        read_nifti(save(tmp_path / "v.nii", vectors, affine))
    six = rng.random((2, 3, 4, 4, 5, 6), dtype=np.float32)
    with pytest.raises(UnreadableVolumeError, match="6 axes"):
        read_nifti(save(tmp_path / "s.nii", six, affine))
    with pytest.raises(UnreadableVolumeError, match="complex numbers"):
        read_nifti(save(tmp_path / "c.nii", np.ones((4, 5, 6), dtype=np.complex64), affine))
    colour = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableVolumeError, match=r"colour \(RGB\).*single grey channel"):
        read_nifti(save(tmp_path / "rgb.nii", colour, affine))


def test_files_that_are_no_nifti_are_refused(tmp_path, plain_grid, scan_array):
    good = save(tmp_path / "good.nii", scan_array, plain_grid.affine_ijk_ras_mm).read_bytes()
    path = tmp_path / "a.nii.gz"
    for content in (b"", b"hello world\n" * 100, gzip.compress(b"hello" * 500), good[:200]):
        path.write_bytes(content)
        with pytest.raises(UnreadableVolumeError, match="not a NIfTI image"):
            read_nifti(path)
    path.write_bytes(good[:344] + b"ni1\0" + good[348:])
    with pytest.raises(UnreadableVolumeError, match="pair"):
        read_nifti(path)


def test_damaged_headers_are_refused(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    good = path.read_bytes()
    for layout, offset, values, message in [
        ("<h", 70, [9999], "unknown data type code 9999"),
        ("<4h", 40, [3, 2, 0, 4], "empty scan"),
        ("<4h", 40, [3, 2, -3, 4], "damaged header"),
        ("<2h", 40, [0, 2], "damaged header"),
        ("<2h", 40, [1, 120], "row of 120 values"),
        ("<4h", 40, [3, 30000, 30000, 30000], "truncated"),
    ]:
        path.write_bytes(good)
        path.write_bytes(patched(path, layout, offset, *values))
        with pytest.raises(UnreadableVolumeError, match=message):
            read_nifti(path)


def test_truncated_and_damaged_data_is_noticed(tmp_path, plain_grid):
    noise = np.random.default_rng(0).integers(0, 999, (40, 40, 40)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", noise, plain_grid.affine_ijk_ras_mm)
    packed = path.read_bytes()
    half = len(packed) // 2
    flipped = packed[:half] + bytes([packed[half] ^ 0x55]) + packed[half + 1 :]
    for content in (packed[:half], packed[:-4], flipped, packed[:600]):
        path.write_bytes(content)
        with pytest.raises(UnreadableVolumeError, match="truncated or damaged"):
            read_nifti(path)
    short = gzip.compress(gzip.decompress(packed)[:-100])
    for name, content in (("b.nii.gz", short), ("b.nii", gzip.decompress(packed)[:-7])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVolumeError, match="truncated: the header promises 128000"):
            read_nifti(tmp_path / name)


@pytest.mark.parametrize("codes", [(0, 2), (1, 0), (0, 0)], ids=["sform", "qform", "none"])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_bad_spacing_is_refused_and_not_repaired(tmp_path, plain_grid, scan_array, codes, bad, capfd):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    path.write_bytes(patched(path, "<hh", 252, *codes))
    path.write_bytes(patched(path, "<f", 80, bad))
    with pytest.raises(BadGeometryError, match=rf"spacing \(pixdim\) is \({bad:g}, 1.3, 5\) mm"):
        read_nifti(path)
    assert capfd.readouterr() == ("", "")


def test_bad_orientations_are_refused(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    good = patched(path, "<hh", 252, 0, 2)
    for row, message in [
        ([0, 0, 0, 0], "spacing"),
        ([np.nan, 0, 0, 0], "not finite"),
        ([1, 1, 0, 0, 1, 1, 0, 0], "singular"),
    ]:
        path.write_bytes(good)
        path.write_bytes(patched(path, f"<{len(row)}f", 280, *row))
        with pytest.raises(BadGeometryError, match=message):
            read_nifti(path)
    path.write_bytes(good)
    path.write_bytes(patched(path, "<hh3f", 252, 1, 0, 1, 1, 1))
    with pytest.raises(BadGeometryError, match="quaternion"):
        read_nifti(path)


def test_an_unreadable_file_is_one_line(tmp_path, plain_grid, scan_array):
    path = save(tmp_path / "a.nii", scan_array, plain_grid.affine_ijk_ras_mm)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(UnreadableVolumeError, match="Permission denied"):
        read_nifti(path)


@pytest.fixture
def map_all(monkeypatch):
    monkeypatch.setattr("clickvol.io.nifti.files._MIN_MAPPED_BYTES", 1)


@pytest.mark.parametrize(
    ("dtype", "bad", "is_mapped"),
    [
        ("int16", None, True),
        ("uint16", None, True),
        ("float32", None, True),
        ("float64", None, True),
        (">i2", None, False),
        ("int16", -(2**15), False),
        ("float32", np.nan, False),
        ("float32", np.finfo(np.float32).min, False),
    ],
)
def test_a_mapped_scan_has_the_values_of_one_that_is_read(tmp_path, monkeypatch, dtype, bad, is_mapped):
    values = np.random.default_rng(0).integers(0, 99, (40, 6, 5)).astype(dtype)
    if bad is not None:
        values[32, 3, 2] = bad
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(values.dtype)
    image = nib.Nifti1Image(values.T, np.diag([1.0, 1, 2, 1]), header)
    nib.save(image, tmp_path / "scan.nii")
    read = read_volume(tmp_path / "scan.nii")
    assert not isinstance(read.array.base, np.memmap)
    monkeypatch.setattr("clickvol.io.nifti.files._MIN_MAPPED_BYTES", 1)
    mapped = read_volume(tmp_path / "scan.nii")
    assert isinstance(mapped.array.base, np.memmap) == is_mapped
    assert type(mapped.array) is np.ndarray
    assert (mapped.array.dtype, mapped.notes) == (read.array.dtype, read.notes)
    np.testing.assert_array_equal(mapped.array, read.array)
    assert mapped.grid.same_place(read.grid)


@pytest.mark.parametrize(("slope", "suffix"), [(2.0, ".nii"), (1.0, ".nii.gz"), (1.0, ".nii.zst")])
def test_scaled_and_compressed_scans_are_read(tmp_path, map_all, slope, suffix):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_nifti(values, VolumeGrid.axial((3, 4, 5), (1.0, 1.0, 1.0)), tmp_path / f"scan{suffix}")
    if slope != 1.0:
        header = bytearray((tmp_path / "scan.nii").read_bytes())
        header[112:116] = np.float32(slope).tobytes()
        (tmp_path / "scan.nii").write_bytes(header)
    volume = read_volume(tmp_path / f"scan{suffix}")
    assert not isinstance(volume.array.base, np.memmap)
    np.testing.assert_array_equal(volume.array, values * slope)


def test_changes_of_a_mapped_scan_stay_in_memory(tmp_path, map_all):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_nifti(values, VolumeGrid.axial((3, 4, 5), (1.0, 1.0, 1.0)), tmp_path / "scan.nii")
    before = (tmp_path / "scan.nii").read_bytes()
    read_volume(tmp_path / "scan.nii").array[...] = 7
    assert (tmp_path / "scan.nii").read_bytes() == before


def test_an_empty_scan_is_refused_where_it_could_be_mapped(tmp_path, map_all):
    write_nifti(
        np.full((40, 4, 5), 7, np.int16), VolumeGrid.axial((40, 4, 5), (1.0, 1.0, 1.0)), tmp_path / "s.nii"
    )
    with pytest.raises(UnreadableVolumeError, match="every voxel is 7"):
        read_volume(tmp_path / "s.nii")


def test_a_large_scan_is_not_held_in_memory(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the memory that a process had")
    grid = VolumeGrid.axial((1300, 1000, 1000), (1.0, 1.0, 1.0))
    header = make_header(np.broadcast_to(np.int16(0), grid.shape_dhw), grid)
    with (tmp_path / "scan.nii").open("wb") as file:
        file.write(header.binaryblock)
        file.seek(352 + 2 * 1000 * 1000 * 640)
        file.write(np.arange(1000, dtype=np.int16).tobytes())
        file.truncate(352 + 2 * 1000 * 1000 * 1300)  # 2.6 GB, of which the disk holds a page
    code = (
        "import sys; from clickvol import read_volume; a = read_volume(sys.argv[1]).array; "
        "peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0]; "
        "print(a.shape, int(a[640].sum()), peak.split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "scan.nii"], capture_output=True, check=True)
    *shape_and_sum, kilobytes = done.stdout.decode().split()
    assert shape_and_sum == ["(1300,", "1000,", "1000)", "499500"]
    assert int(kilobytes) < 600_000
