import numpy as np
import pytest
import SimpleITK as sitk

from clickvol.errors import BadGeometryError, OutputError, UnreadableVolumeError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.itk.files import ItkGeometry, read_itk, write_itk


def image_of(array, spacing=(1.0, 2.0, 3.0), origin=(10.0, 20.0, 30.0)):
    image = sitk.GetImageFromArray(array)
    if array.ndim == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
    return image


def saved(path, image):
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(params=[".nrrd", ".mha", ".nhdr", ".mhd"])
def suffix(request):
    return request.param


def test_known_voxel_lies_at_known_millimetres(tmp_path, scan_array, suffix):
    volume = read_itk(saved(tmp_path / f"a{suffix}", image_of(scan_array)))
    np.testing.assert_array_equal(volume.array, scan_array)
    assert volume.array.dtype == np.int16
    # LPS (10 + 1*5, 20 + 2*2, 30 + 3*1); RAS has x and y negated.
    point = volume.grid.to_world(VoxelPoint.from_ijk(5, 2, 1))
    assert (point.x, point.y, point.z) == (-15.0, -24.0, 33.0)
    assert (volume.modality, volume.notes) == ("unknown", ())
    # As ITK has it, for whoever writes it again.
    assert volume.grid.file_facts == ItkGeometry((1.0, 2.0, 3.0), tuple(np.eye(3).ravel()), (10.0, 20.0, 30.0))


@pytest.mark.parametrize("out", [".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_simpleitk_sees_the_same_world(tmp_path, grid, scan_array, out, dtype):
    array = scan_array.clip(0, 255).astype(dtype)
    path = tmp_path / f"m{out}"
    write_itk(array, grid, path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    for ijk in [(0, 0, 0), (5, 4, 3), (1, 2, 3)]:
        lps = grid.to_world(VoxelPoint.from_ijk(*ijk)).to_lps()
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(ijk), lps, atol=1e-4)
    volume = read_itk(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine_ras_mm, grid.affine_ras_mm, atol=1e-4)


@pytest.mark.parametrize("out", [".nrrd", ".mha"])
def test_a_sheared_grid_is_refused_with_a_way_out(tmp_path, sheared_grid, scan_array, out):
    with pytest.raises(OutputError, match=r"sheared.*write \.nii\.gz instead"):
        write_itk(scan_array, sheared_grid, tmp_path / f"m{out}")


def test_a_sheared_scan_is_read_as_it_is(tmp_path, scan_array):
    image = image_of(scan_array, origin=(0, 0, 0))
    image.SetDirection((1, 0, 0, 0, 1, 0.6, 0, 0, 0.8))
    volume = read_itk(saved(tmp_path / "a.mha", image))
    np.testing.assert_allclose(volume.grid.affine_ras_mm[:3, 0], [0, -1.8, 2.4])


def test_4d_picks_a_volume(tmp_path, scan_array, suffix):
    image = sitk.JoinSeries([image_of(scan_array + n) for n in range(3)])
    path = saved(tmp_path / f"a{suffix}", image)
    with pytest.raises(UnreadableVolumeError, match=r"4D with shape \(6, 5, 4, 3\).*--volume"):
        read_itk(path)
    volume = read_itk(path, volume_index=2)
    np.testing.assert_array_equal(volume.array, scan_array + 2)
    np.testing.assert_array_equal(volume.grid.affine_ijk_ras_mm[:3, 3], [-10, -20, 30])
    one = saved(tmp_path / f"b{suffix}", sitk.JoinSeries([image_of(scan_array)]))
    np.testing.assert_array_equal(read_itk(one).array, scan_array)


def test_a_nrrd_sequence_is_4d_and_not_a_vector(tmp_path, scan_array):
    vector = sitk.Compose([image_of(scan_array), image_of(scan_array + 1)])
    path = saved(tmp_path / "a.nrrd", vector)
    path.write_bytes(path.read_bytes().replace(b"kinds: vector", b"kinds: list"))
    with pytest.raises(UnreadableVolumeError, match="fourth axis holds 2 volumes"):
        read_itk(path)
    np.testing.assert_array_equal(read_itk(path, volume_index=1).array, scan_array + 1)


def test_2d_is_one_slice(tmp_path, scan_array, suffix):
    volume = read_itk(saved(tmp_path / f"a{suffix}", image_of(scan_array[0])))
    assert volume.grid.shape_dhw == (1, 5, 6)
    np.testing.assert_array_equal(volume.array, scan_array[:1])


def test_vector_colour_and_complex_images_are_refused(tmp_path, scan_array, suffix):
    grey = image_of(scan_array)
    colour = sitk.Compose([sitk.Cast(grey, sitk.sitkUInt8)] * 3)
    real = sitk.Cast(grey, sitk.sitkFloat32)
    images = [(sitk.Compose([grey, grey]), 2), (colour, 3)]
    if suffix in (".mha", ".mhd"):
        images.append((sitk.RealAndImaginaryToComplex(real, real), 2))
    for image, count in images:
        path = saved(tmp_path / f"a{suffix}", image)
        with pytest.raises(UnreadableVolumeError, match=f"{count} values per voxel.*single grey"):
            read_itk(path)


def plain(tmp_path, scan_array, suffix):
    """Return the path and bytes of an uncompressed file."""
    path = saved(tmp_path / f"a{suffix}", image_of(scan_array))
    return path, path.read_bytes()


@pytest.mark.parametrize("bad", ["0", "-1", "nan"])
def test_bad_mha_spacing_is_refused_and_not_repaired(tmp_path, scan_array, bad, capfd):
    path, good = plain(tmp_path, scan_array, ".mha")
    path.write_bytes(good.replace(b"ElementSpacing = 1 2", f"ElementSpacing = {bad} 2".encode()))
    with pytest.raises(BadGeometryError, match=r"spacing.*above zero") as caught:
        read_itk(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "directions",
    [
        "(0,0,0) (0,2,0) (0,0,3)",
        "(1,0,0) (1,0,0) (0,0,3)",
        "(nan,0,0) (0,2,0) (0,0,3)",
    ],
)
def test_bad_nrrd_directions_are_refused(tmp_path, scan_array, directions, capfd):
    path, good = plain(tmp_path, scan_array, ".nrrd")
    path.write_bytes(good.replace(b"(1,0,0) (0,2,0) (0,0,3)", directions.encode()))
    with pytest.raises(BadGeometryError):
        read_itk(path)
    assert capfd.readouterr() == ("", "")


def without_space(good: bytes, spacings: bytes) -> bytes:
    lines = [
        line
        for line in good.split(b"\n\n", 1)[0].split(b"\n")
        if not line.startswith((b"space:", b"space origin", b"space directions"))
    ]
    return b"\n".join([*lines, *([spacings] if spacings else [])]) + b"\n\n" + good.split(b"\n\n", 1)[1]


@pytest.mark.parametrize("bad", ["0", "-1", "nan"])
def test_bad_nrrd_spacings_are_refused(tmp_path, scan_array, bad):
    path, good = plain(tmp_path, scan_array, ".nrrd")
    path.write_bytes(without_space(good, f"spacings: {bad} 2 3".encode()))
    with pytest.raises(BadGeometryError, match=r"spacing.*above zero"):
        read_itk(path)


def test_a_missing_orientation_is_said(tmp_path, scan_array):
    path, good = plain(tmp_path, scan_array, ".nrrd")
    path.write_bytes(without_space(good, b"spacings: 1 2 3"))
    volume = read_itk(path)
    assert len(volume.notes) == 1
    assert "no orientation in the header" in volume.notes[0]
    assert volume.grid.spacing_dhw_mm.tolist() == [3, 2, 1]
    path.write_bytes(without_space(good, b""))
    assert "no voxel spacing" in read_itk(path).notes[0]
    path, good = plain(tmp_path, scan_array, ".mha")
    path.write_bytes(good.replace(b"ElementSpacing = 1 2 3\n", b""))
    assert "no voxel spacing" in read_itk(path).notes[0]


def test_truncated_files_are_refused_silently(tmp_path, scan_array, suffix, capfd):
    path = saved(tmp_path / f"a{suffix}", image_of(scan_array))
    if suffix in (".nhdr", ".mhd"):
        (tmp_path / "a.raw").unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UnreadableVolumeError, match=r"truncated or damaged|data file") as caught:
        read_itk(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 50, b"NRRD0004\ntype: short\n"])
def test_files_of_another_kind_are_refused_silently(tmp_path, suffix, content, capfd):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match="not a readable") as caught:
        read_itk(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_empty_and_non_finite_scans(tmp_path, scan_array):
    path, good = plain(tmp_path, scan_array, ".mha")
    path.write_bytes(good.replace(b"DimSize = 6", b"DimSize = 0"))
    with pytest.raises(UnreadableVolumeError, match="empty scan"):
        read_itk(path)
    saved(path, image_of(np.zeros((4, 5, 6), dtype=np.int16)))
    with pytest.raises(UnreadableVolumeError, match="every voxel is 0"):
        read_itk(path)
    floats = scan_array.astype(np.float32)
    floats[0, 0, :2] = np.nan
    volume = read_itk(saved(path, image_of(floats)))
    assert volume.array[0, 0, 0] == floats[np.isfinite(floats)].min()
    assert volume.notes[0].startswith("2 voxels of 120 were NaN")
