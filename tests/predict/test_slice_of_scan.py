"""Pictures and slices as images for 2D networks, and their truth."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from clickvol.errors import ConfigError
from clickvol.predict.segmentation_request import ImageRequest
from clickvol.predict.slice_of_scan import read_image, read_truth
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts

# i to the right, j to anterior, k to superior: axial images show (j, i) from the far ends.
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def request_of(path, **words):
    words = {"mask": Path("m.png"), "prompts": ImagePrompts((ImageClick(1, 2),)), **words}
    return ImageRequest(image=Path(path), **words)


@pytest.fixture
def scan(tmp_path):
    values = np.full((4, 5, 6), -1000, np.int16)
    values[1, 2, 3] = 40
    values[0, 0, 3] = 240
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_a_picture_is_read_as_it_is_and_deep_grey_as_parts_of_its_range(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    image, cut, warnings = read_image(request_of(tmp_path / "colours.png"))
    np.testing.assert_array_equal(image, colours)
    assert (cut, warnings) == (None, [])
    Image.fromarray(np.array([[100, 1100], [600, 100]], np.uint16)).save(tmp_path / "deep.png")
    image, cut, _ = read_image(request_of(tmp_path / "deep.png"))
    assert image == pytest.approx(np.array([[0, 1], [0.5, 0]]), abs=0.01)
    assert cut is None


def test_a_slice_is_cut_as_radiologists_hang_it_and_windowed_by_modality(scan):
    image, cut, warnings = read_image(request_of(scan, slice_index=3, modality="CT"))
    expected = np.zeros((5, 4))
    expected[2, 2], expected[4, 3] = 0.5, 1  # the middle and the end of -160 to 240 HU
    assert image.tolist() == expected.tolist()
    assert (cut.modality, cut.volume.modality, cut.view.index) == ("CT", "CT", 3)
    assert warnings == []
    stored, _, _ = read_image(request_of(scan, slice_index=3, modality="CT", axis="k"))
    assert stored.tolist() == expected[::-1, ::-1].tolist()
    assert read_image(request_of(scan, slice_index=1, modality="MR", axis="i"))[1].modality == "MR"


def test_a_scan_that_looks_like_nothing_known_is_said_and_one_volume_of_several_is_read(tmp_path):
    values = np.random.default_rng(0).uniform(0, 20, (8, 8, 4, 2)).astype(np.float32)
    values[..., 1] += 1000
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "scan.nii.gz")
    _, cut, warnings = read_image(request_of(tmp_path / "scan.nii.gz", slice_index=0, volume_index=0))
    assert cut.volume.array.max() < 20
    assert "unlike the CT (HU) and MR" in warnings[-1]
    assert (
        read_image(request_of(tmp_path / "scan.nii.gz", slice_index=0, volume_index=1))[1].volume.array.min()
        > 999
    )


@pytest.mark.parametrize(("axis", "last"), [("axial", 5), ("sagittal", 3), ("j", 4)])
def test_a_scan_needs_a_slice(scan, axis, last):
    message = f"{scan} is a scan; say which of its {axis} slices 0 to {last} with --slice"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_image(request_of(scan, axis=axis))


def test_the_truth_of_a_slice_is_cut_with_it_and_lies_on_its_grid(scan, tmp_path):
    truth = np.zeros((4, 5, 6), np.uint8)
    truth[1, 2, 3] = 7
    for name, spacing_k in (("same", 3.0), ("moved", 3.5)):
        affine = np.diag([1.0, 1.0, spacing_k, 1.0])
        nibabel.save(nibabel.Nifti1Image(truth, affine), tmp_path / f"{name}.nii.gz")
    _, cut, _ = read_image(request_of(scan, slice_index=3, modality="CT"))
    mask = read_truth(tmp_path / "same.nii.gz", cut, (5, 4))
    assert np.argwhere(mask).tolist() == [[2, 2]]
    moved = f"the truth {tmp_path / 'moved.nii.gz'} does not lie on the grid of the scan"
    with pytest.raises(ConfigError, match=f"^{re.escape(moved)}"):
        read_truth(tmp_path / "moved.nii.gz", cut, (5, 4))


def test_the_truth_of_a_picture_is_what_is_not_black(tmp_path):
    truth = np.zeros((2, 3, 3), np.uint8)
    truth[0, 1, 2], truth[1, 2, 0] = 1, 255
    Image.fromarray(truth).save(tmp_path / "colours.png")
    mask = read_truth(tmp_path / "colours.png", None, (2, 3))
    assert mask.tolist() == [[False, True, False], [False, False, True]]
    Image.fromarray(truth[..., 2]).save(tmp_path / "grey.png")
    assert read_truth(tmp_path / "grey.png", None, (2, 3)).tolist() == [[False, True, False], [False] * 3]
    message = (
        f"the truth {tmp_path / 'grey.png'} has 3 columns and 2 rows, but the image 4 and 2; they must agree"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_truth(tmp_path / "grey.png", None, (2, 4))
