"""The same patient stored in other ways gives the same mask in the patient."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from clickvol import Click, Volume
from clickvol import segment as segment_volume
from clickvol.cli.app import main
from clickvol.geometry.grid import VolumeGrid
from clickvol.metrics.overlap import dice
from clickvol.phantoms.phantom import make_phantom


@pytest.fixture(scope="module")
def patient():
    """Return (array ijk, affine ijk -> RAS, click RAS mm, truth ijk) of a synthetic CT."""
    phantom = make_phantom(8, shape_dhw=(48, 100, 100), spacing_dhw_mm=(3.3, 1.8, 1.8), tumour_diameter_mm=100)
    grid = phantom.volume.grid
    place = grid.to_world(phantom.inside).as_array()
    return phantom.volume.array.T, grid.affine_ijk_ras_mm, place, phantom.truth.array.T


def segment(array, affine, place, folder, name):
    """Run the command on a copy; return the mask (ijk)."""
    scan, mask = folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), scan)
    click = ",".join(f"{v:.6f}" for v in place)
    words = ["segment", str(scan), "--click", click, "--space", "ras", "-o", str(mask), "--quiet"]
    assert main(words) == 0
    image = nib.load(mask)
    assert image.shape == array.shape
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    assert image.get_data_dtype() == np.uint8
    return np.asanyarray(image.dataobj)


@pytest.fixture(scope="module")
def mask(patient, tmp_path_factory):
    array, affine, place, _ = patient
    return segment(array, affine, place, tmp_path_factory.mktemp("base"), "base")


def test_the_tumour_is_found(patient, mask):
    assert dice(mask, patient[3]) > 0.75


@pytest.mark.parametrize("moved_mm", [(1.3, -2.7, 0.4), (-217.31, 400.123, 1000.77)])
def test_the_origin_does_not_matter(moved_mm):
    # Not by files: those of NIfTI round an origin to seven digits, and the click with it.
    phantom = make_phantom(8, shape_dhw=(48, 100, 100), spacing_dhw_mm=(3.3, 1.8, 1.8), tumour_diameter_mm=100)
    volume, clicks = phantom.volume, [Click(phantom.inside)]
    affine = volume.grid.affine_ras_mm.copy()
    affine[:3, 3] += moved_mm
    moved = Volume(volume.array, VolumeGrid(volume.grid.shape_dhw, affine), volume.modality)
    np.testing.assert_array_equal(
        segment_volume(moved, clicks).mask.array, segment_volume(volume, clicks).mask.array
    )


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_permuted_and_flipped_copies(patient, mask, tmp_path, order, flipped):
    array, affine, place, _ = patient
    turned = np.flip(np.transpose(array, order), flipped)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(order):
        sign = -1 if new in flipped else 1
        change[old, new] = sign
        change[old, 3] = array.shape[old] - 1 if sign < 0 else 0
    result = segment(turned, affine @ change, place, tmp_path, "turned")
    expected = np.flip(np.transpose(mask, order), flipped)
    # Only rounding in the last bits of bfloat16 arithmetic may tip a voxel.
    assert dice(result, expected) > 0.999


def resampled(array, affine, new_shape, new_affine, *, order, fill):
    """Bring an array to another grid with scipy (not with the code under test)."""
    to_old = np.linalg.inv(affine) @ new_affine
    return ndimage.affine_transform(
        array.astype(np.float32), to_old[:3, :3], to_old[:3, 3], new_shape, order=order, cval=fill
    )


@pytest.mark.parametrize("kind", ["oblique", "anisotropic", "fine"])
def test_resampled_copies(patient, mask, tmp_path, kind):
    array, affine, place, _ = patient
    middle = affine @ [*((np.array(array.shape) - 1) / 2), 1]
    angle = np.deg2rad(25)
    turn = np.eye(3)
    if kind == "oblique":
        about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turn = about_x @ about_z
    spacing = {"oblique": (1.8, 1.8, 3.0), "anisotropic": (3.0, 1.2, 5.0), "fine": (1.0, 1.0, 1.5)}[kind]
    new_shape = tuple(int(n) for n in np.ceil(np.array(array.shape) * [1.8, 1.8, 3.3] / spacing) + 4)
    new_affine = np.eye(4)
    new_affine[:3, :3] = turn @ np.diag(spacing)
    new_affine[:3, 3] = middle[:3] - new_affine[:3, :3] @ ((np.array(new_shape) - 1) / 2)
    copy = resampled(array, affine, new_shape, new_affine, order=1, fill=-1000).round().astype(np.int16)
    result = segment(copy, new_affine, place, tmp_path, kind)
    back = resampled(result, new_affine, mask.shape, affine, order=1, fill=0) > 0.5
    assert dice(back, mask) > 0.93


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_hold_the_same_mask(patient, mask, tmp_path, suffix):
    import SimpleITK

    array, affine, place, _ = patient
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), scan)
    image = SimpleITK.ReadImage(str(scan))
    copy, out = tmp_path / f"copy{suffix}", tmp_path / f"mask{suffix}"
    SimpleITK.WriteImage(image, str(copy))
    lps = f"{-place[0]:.6f},{-place[1]:.6f},{place[2]:.6f}"
    words = ["segment", str(copy), "--click", lps, "--space", "lps", "-o", str(out), "--quiet"]
    assert main(words) == 0
    written = SimpleITK.ReadImage(str(out))
    assert written.GetSize() == image.GetSize()
    np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-4)
    result = SimpleITK.GetArrayFromImage(written).T
    assert dice(result, mask) > 0.999


def test_json_agrees_with_the_file(patient, tmp_path, capsys):
    array, affine, place, _ = patient
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), scan)
    click = ",".join(f"{v:.6f}" for v in place)
    words = ["segment", str(scan), "--click", click, "--space", "ras", "-o", str(out), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    written = np.asanyarray(nib.load(out).dataobj)
    assert told["voxels"] == written.sum()
    assert told["volume_ml"] == pytest.approx(written.sum() * 1.8 * 1.8 * 3.3 / 1000, rel=1e-3)
    hits = np.argwhere(written)
    bounds = told["bounding_box_ijk_first_and_last_inclusive"]
    assert bounds == [hits.min(0).tolist(), hits.max(0).tolist()]
