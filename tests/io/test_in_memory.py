"""nibabel, SimpleITK and MONAI judge what becomes of their objects: voxel for voxel, corner for corner."""

import itertools
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage

from clickvol import Mask, Volume, dice, read_volume, write_mask
from clickvol.errors import BadGeometryError, ConfigError, OutputError, UnreadableVolumeError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.formats import write_volume
from clickvol.io.in_memory import as_mask, as_volume

CORNERS_IJK = list(itertools.product((0, 5), (0, 4), (0, 3)))  # of (6, 5, 4) voxels


def _place(volume, ijk):
    return volume.grid.to_world(VoxelPoint.from_ijk(*ijk)).as_array()


def _itk(grid, array):
    """Return an image whose spacing has few digits, and directions that are orthogonal but for rounding."""
    affine = grid.affine_ijk_lps_mm
    spacing = np.round(np.linalg.norm(affine[:3, :3], axis=0), 6)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def test_nibabel_places_every_corner_where_we_do(grid, scan_array):
    image = nibabel.Nifti1Image(scan_array.T, grid.affine_ijk_ras_mm)
    volume = Volume.from_nibabel(image)
    assert np.array_equal(volume.array, scan_array)
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.grid.affine_ijk_ras_mm, image.affine)
    for ijk in CORNERS_IJK:
        assert np.allclose(_place(volume, ijk), nibabel.affines.apply_affine(image.affine, ijk), atol=1e-9)
        assert volume.array[ijk[::-1]] == image.dataobj[ijk]
    back = volume.to_nibabel()
    assert type(back) is nibabel.Nifti1Image
    assert np.array_equal(back.affine, image.affine)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(image.dataobj))


def test_simpleitk_places_every_corner_where_we_do(grid, scan_array):
    image = _itk(grid, scan_array)
    volume = Volume.from_sitk(image)
    assert np.array_equal(volume.array, scan_array)
    for ijk in CORNERS_IJK:
        lps = np.array(image.TransformIndexToPhysicalPoint(ijk))
        assert np.allclose(_place(volume, ijk), lps * [-1, -1, 1], atol=1e-9)
        assert volume.array[ijk[::-1]] == image[ijk]
    back = volume.to_sitk()
    assert back.GetSpacing() == image.GetSpacing()
    assert back.GetDirection() == image.GetDirection()
    assert back.GetOrigin() == image.GetOrigin()
    assert back.GetPixelID() == image.GetPixelID()
    assert np.array_equal(sitk.GetArrayFromImage(back), scan_array)


def test_a_scan_goes_from_nibabel_to_simpleitk_and_back(grid, scan_array):
    volume = Volume.from_nibabel(nibabel.Nifti1Image(scan_array.T, grid.affine_ijk_ras_mm))
    image = volume.to_sitk()
    for ijk in CORNERS_IJK:
        lps = np.array(image.TransformIndexToPhysicalPoint(ijk))
        assert np.allclose(lps * [-1, -1, 1], _place(volume, ijk), atol=1e-9)
    again = Volume.from_sitk(image)
    assert again.grid.corner_distance_mm(volume.grid) < 1e-9
    assert np.array_equal(again.to_nibabel().get_fdata(), scan_array.T)


@pytest.mark.parametrize("slope", [None, 2.5])
def test_an_image_that_nibabel_loaded_is_the_scan_of_its_file(tmp_path, grid, scan_array, slope):
    image = nibabel.Nifti1Image(scan_array.T, grid.affine_ijk_ras_mm)
    image.header.set_slope_inter(slope or 1.0, -7.0 if slope else 0.0)
    image.set_qform(grid.affine_ijk_ras_mm, 3)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(image, path)
    read, loaded = read_volume(path), Volume.from_nibabel(nibabel.load(path))
    assert loaded.array.dtype == read.array.dtype
    assert np.array_equal(loaded.array, read.array)
    assert loaded.grid == read.grid
    assert loaded.notes == read.notes
    write_mask(Mask((read.array > 0).astype(np.uint8), read.grid), tmp_path / "a.nii")
    write_mask(Mask((loaded.array > 0).astype(np.uint8), loaded.grid), tmp_path / "b.nii")
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()
    header = loaded.to_nibabel().header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 3)


def test_an_image_that_simpleitk_read_is_the_scan_of_its_file(tmp_path, grid, scan_array):
    path = str(tmp_path / "scan.nrrd")
    sitk.WriteImage(_itk(grid, scan_array), path)
    read, loaded = read_volume(path), Volume.from_sitk(sitk.ReadImage(path))
    assert np.array_equal(loaded.array, read.array)
    assert loaded.grid == read.grid
    assert read.grid.file_facts == loaded.grid.file_facts


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])
@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # MONAI says what it lacks for DICOM
def test_monai_loads_the_scan_that_we_read(tmp_path, grid, scan_array, suffix, channel):
    path = tmp_path / f"scan{suffix}"
    write_volume(scan_array, grid, path)
    tensor = LoadImage(image_only=True, reader="NibabelReader")(path)
    tensor = EnsureChannelFirst()(tensor) if channel else tensor
    ours, read = Volume.from_monai(tensor), read_volume(path)
    assert np.array_equal(ours.array, read.array)
    assert ours.grid.corner_distance_mm(read.grid) < 1e-4  # an affine may pass through single precision
    assert as_volume(tensor).grid == ours.grid


def test_a_meta_tensor_in_lps_is_turned():
    affine = torch.tensor([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]], dtype=torch.float64)
    values = torch.arange(24.0).reshape(1, 2, 3, 4).requires_grad_()
    lps = Volume.from_monai(MetaTensor(values, affine=affine, meta={"space": "LPS"}))
    ras = Volume.from_monai(MetaTensor(values, affine=affine, meta={"space": "RAS"}))
    assert _place(ras, (1, 2, 3)).tolist() == [12, 26, 42]
    assert _place(lps, (1, 2, 3)).tolist() == [-12, -26, 42]
    assert lps.array[3, 2, 1] == 23


@pytest.mark.parametrize(
    ("shape", "says"), [((2, 3, 4, 5), r"\(2, 3, 4, 5\)"), ((1, 1, 3, 4, 5), "batch axis")]
)
def test_a_meta_tensor_of_several_channels_is_refused(shape, says):
    with pytest.raises(UnreadableVolumeError, match=says):
        Volume.from_monai(MetaTensor(torch.rand(shape), affine=torch.eye(4)))


def test_an_array_in_the_order_of_nibabel_has_its_affine(grid, scan_array):
    volume = Volume.from_numpy(scan_array.T, axes="ijk", affine_ras_mm=grid.affine_ijk_ras_mm, modality="CT")
    assert volume.grid == grid
    assert volume.modality == "CT"
    assert np.array_equal(volume.array, scan_array)
    assert np.array_equal(volume.to_numpy(axes="ijk"), scan_array.T)
    assert np.array_equal(volume.to_numpy(axes="dhw"), scan_array)


def test_an_array_in_our_order_has_ours(grid, scan_array):
    assert Volume.from_numpy(scan_array, axes="dhw", affine_ras_mm=grid.affine_ras_mm).grid == grid


@pytest.mark.parametrize(("axes", "spacing_mm"), [("dhw", (4, 3, 2)), ("ijk", (2, 3, 4))])
def test_a_spacing_alone_lies_as_itk_puts_it(scan_array, axes, spacing_mm):
    given = scan_array if axes == "dhw" else scan_array.T
    volume = Volume.from_numpy(given, axes=axes, spacing_mm=spacing_mm)
    image = sitk.GetImageFromArray(scan_array)
    image.SetSpacing((2.0, 3.0, 4.0))
    assert volume.grid == Volume.from_sitk(image).grid
    assert np.array_equal(volume.array, scan_array)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"axes": "xyz", "spacing_mm": (1, 1, 1)}, ConfigError, "the axes are 'xyz'"),
        ({"axes": "dhw"}, BadGeometryError, "either affine_ras_mm or spacing_mm"),
        ({"axes": "dhw", "spacing_mm": (1, 1, 1), "affine_ras_mm": np.eye(4)}, BadGeometryError, "either"),
        ({"axes": "dhw", "spacing_mm": (1, 0, 1)}, BadGeometryError, r"spacing_mm is \(1.0, 0.0, 1.0\)"),
        ({"axes": "dhw", "spacing_mm": (1, 1)}, BadGeometryError, "three lengths above 0"),
        ({"axes": "ijk", "affine_ras_mm": np.eye(3)}, BadGeometryError, "4x4"),
        ({"axes": "ijk", "affine_ras_mm": np.diag([0, 0, 0, 1])}, BadGeometryError, "spacing"),
        ({"axes": "ijk", "spacing_mm": (1, 1, 1), "modality": "PET"}, ConfigError, "'PET' is no modality"),
    ],
)
def test_a_wrong_place_is_one_line(scan_array, given, error, says):
    with pytest.raises(error, match=says) as caught:
        Volume.from_numpy(scan_array, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\); three axes"),
        (np.zeros((0, 3, 4)), "three axes"),
        (np.ones((2, 3, 4), complex), "complex128"),
        (np.full((2, 3, 4), "a"), "<U1"),
        (np.full((2, 3, 4), np.nan), "no voxel is a finite number"),
        (np.ones((2, 3, 4)), "empty scan"),
    ],
)
def test_an_array_that_is_no_scan_is_one_line(array, says):
    with pytest.raises(UnreadableVolumeError, match=says) as caught:
        Volume.from_numpy(array, axes="dhw", spacing_mm=(1, 1, 1))
    assert "\n" not in str(caught.value)


def test_values_that_are_missing_are_replaced_and_said():
    array = np.array([[[1.0, np.nan], [3.0, np.inf]]])
    volume = Volume.from_numpy(array, axes="dhw", spacing_mm=(1, 1, 1))
    assert volume.array.tolist() == [[[1, 1], [3, 1]]]
    assert volume.notes == ("2 voxels of 4 were NaN or infinite and were set to the smallest finite value, 1.",)
    assert np.isnan(array[0, 0, 1])  # the user's own is as it was


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [("bool", "uint8"), ("f2", "float32"), (">i2", "int16"), ("i8", "int64"), ("f8", "float64")],
)
def test_dtypes_are_those_that_files_have(dtype, becomes, scan_array):
    volume = Volume.from_numpy((scan_array > 0).astype(dtype), axes="dhw", spacing_mm=(1, 1, 1))
    assert volume.array.dtype == np.dtype(becomes)
    assert volume.to_nibabel().get_data_dtype() == np.dtype(becomes)
    assert sitk.GetArrayFromImage(volume.to_sitk()).dtype == np.dtype(becomes)


def test_nothing_is_shared_with_the_user(grid, scan_array):
    mine = scan_array.copy()
    volume = Volume.from_numpy(mine, axes="dhw", affine_ras_mm=grid.affine_ras_mm)
    image, loaded = volume.to_nibabel(), Volume.from_nibabel(nibabel.Nifti1Image(mine.T, np.eye(4)))
    mine[:] = 0
    image.dataobj[:] = 5
    volume.to_numpy(axes="dhw")[:] = 6
    assert np.array_equal(volume.array, scan_array)
    assert np.array_equal(loaded.array, scan_array)


def test_one_of_several_volumes_is_chosen(grid, scan_array):
    four = np.stack([scan_array.T, scan_array.T + 1], axis=-1)
    image = nibabel.Nifti1Image(four, grid.affine_ijk_ras_mm)
    with pytest.raises(
        UnreadableVolumeError, match=r"^the nibabel image is 4D .* volume_index=N \(N from 0 to 1\)$"
    ):
        Volume.from_nibabel(image)
    assert np.array_equal(Volume.from_nibabel(image, volume_index=1).array, scan_array + 1)
    joined = sitk.JoinSeries([_itk(grid, scan_array), _itk(grid, scan_array + 1)])
    with pytest.raises(UnreadableVolumeError, match=r"^the SimpleITK image is 4D"):
        Volume.from_sitk(joined)
    assert np.array_equal(Volume.from_sitk(joined, volume_index=1).array, scan_array + 1)
    assert Volume.from_nibabel(nibabel.Nifti1Image(scan_array.T[..., None, None], np.eye(4))).array.ndim == 3


def test_colours_are_refused(scan_array):
    with pytest.raises(UnreadableVolumeError, match="3 values per voxel"):
        Volume.from_sitk(sitk.GetImageFromArray(np.stack([scan_array] * 3, axis=-1), isVector=True))
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableVolumeError, match="one grey channel is expected"):
        Volume.from_nibabel(nibabel.Nifti1Image(colours, np.eye(4)))
    with pytest.raises(UnreadableVolumeError, match="complex128"):
        Volume.from_sitk(sitk.GetImageFromArray(scan_array.astype(complex)))


def test_a_sheared_grid_goes_to_nibabel_but_not_to_simpleitk(sheared_grid, scan_array):
    volume = Volume.from_numpy(scan_array, axes="dhw", affine_ras_mm=sheared_grid.affine_ras_mm)
    image = volume.to_nibabel()
    assert np.array_equal(image.affine, sheared_grid.affine_ijk_ras_mm)
    assert int(image.header["qform_code"]) == 0  # a quaternion holds no shear
    with pytest.raises(OutputError, match="a SimpleITK image: the grid of the scan is sheared"):
        volume.to_sitk()


def test_an_affine_that_the_user_changed_counts(scan_array):
    image = nibabel.Nifti1Image(scan_array.T, np.eye(4))
    image.affine[0, 3] = 7.0
    assert _place(Volume.from_nibabel(image), (0, 0, 0)).tolist() == [7, 0, 0]


def test_an_image_without_an_affine_is_said_to_have_no_orientation(scan_array):
    assert "no orientation" in Volume.from_nibabel(nibabel.Nifti1Image(scan_array.T, None)).notes[0]


def test_masks_come_and_go_the_same_way(grid, scan_array):
    inside = (scan_array > 0) * 3
    masks = [
        Mask.from_numpy(inside, axes="dhw", affine_ras_mm=grid.affine_ras_mm),
        Mask.from_nibabel(nibabel.Nifti1Image(inside.T.astype(np.uint8), grid.affine_ijk_ras_mm)),
        Mask.from_sitk(_itk(grid, inside.astype(np.uint8))),
        Mask.from_monai(
            MetaTensor(inside.T.copy()[None], affine=torch.from_numpy(grid.affine_ijk_ras_mm.copy()))
        ),
    ]
    for mask in masks:
        assert mask.array.dtype == np.uint8
        assert np.array_equal(mask.array, inside > 0)
        assert mask.grid.same_place(grid)
    assert Mask.from_nibabel(masks[0].to_nibabel()).grid == grid
    assert np.array_equal(sitk.GetArrayFromImage(masks[0].to_sitk()), inside > 0)
    assert Mask.from_numpy(np.zeros((2, 2, 2)), axes="dhw", spacing_mm=(1, 1, 1)).num_voxels == 0


def test_a_mask_with_nan_is_refused():
    with pytest.raises(UnreadableVolumeError, match="NaN or infinite; give 0 outside and 1 inside"):
        Mask.from_numpy(np.array([[[0, np.nan]]]), axes="dhw", spacing_mm=(1, 1, 1))


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (Volume.from_nibabel, "a nibabel image is expected, but this is a str"),
        (Volume.from_sitk, "a SimpleITK image is expected, but this is a str"),
        (Mask.from_monai, "a MetaTensor is expected, but this is a str"),
        (as_volume, "a str is no scan; give a Volume"),
        (as_mask, "a str is no scan"),
    ],
)
def test_what_is_none_of_them_is_one_line(take, says):
    with pytest.raises(UnreadableVolumeError, match=says):
        take("scan.nii.gz")


@pytest.mark.parametrize("bare", [np.ones((2, 2, 2)), torch.ones(2, 2, 2)])
def test_a_bare_array_is_told_how_to_get_a_place(bare):
    with pytest.raises(UnreadableVolumeError, match=r"does not say where its voxels lie.*Volume\.from_numpy"):
        as_volume(bare)


def test_ours_come_back_as_they_are(grid, scan_array):
    volume, mask = Volume(scan_array, grid), Mask(scan_array.astype(np.uint8), grid)
    assert as_volume(volume) is volume
    assert as_mask(mask) is mask


def test_dice_takes_masks_with_a_place(grid):
    one, other = np.zeros(grid.shape_dhw, np.uint8), np.zeros(grid.shape_dhw, np.uint8)
    one[1, 1, 1:4] = 1
    other[1, 1, 2:5] = 1
    image = nibabel.Nifti1Image(other.T, grid.affine_ijk_ras_mm)
    assert dice(Mask(one, grid), image) == dice(one, other) == pytest.approx(4 / 6)
    assert dice(_itk(grid, one), image) == pytest.approx(4 / 6)
    moved = nibabel.Nifti1Image(other.T, grid.affine_ijk_ras_mm + np.eye(4, k=3) * 2)
    with pytest.raises(
        BadGeometryError, match="different grids: of the second, its corners lie up to 2 mm away"
    ):
        dice(Mask(one, grid), moved)
    with pytest.raises(BadGeometryError, match="one mask is a bare array"):
        dice(one, image)


def test_no_other_program_is_loaded_for_an_array():
    code = (
        "import sys, numpy as np, clickvol\n"
        "v = clickvol.Volume.from_numpy(np.arange(8).reshape(2, 2, 2), axes='dhw', spacing_mm=(1, 1, 1))\n"
        "clickvol.dice(v.array, v.array)\n"
        "print([n for n in ('nibabel', 'SimpleITK', 'torch', 'monai') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
