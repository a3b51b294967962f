"""A 2D segmentation carried through slices: an exact one, and a real 2D network with random weights."""

import numpy as np
import pytest
from scipy import ndimage

from clickvol.errors import ClickError
from clickvol.evaluation.methods import Scan, parse_methods
from clickvol.evaluation.propagated_sam import carry_through
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.prompts.click import Click
from reference.tiny_models2d import write_model2d


def click(d, h, w, *, foreground=True):
    return Click(VoxelPoint(float(d), float(h), float(w)), foreground)


class BrightParts:
    """The connected bright parts under the clicks; remembers the prompts."""

    def __init__(self):
        self.prompts = []

    def __call__(self, image, prompts):
        self.prompts.append(prompts)
        parts, _ = ndimage.label(image > 0.5)
        numbers = {int(parts[round(c.row), round(c.column)]) for c in prompts.clicks if c.foreground} - {0}
        return np.isin(parts, list(numbers))


@pytest.fixture
def cone():
    """Squares that shrink upwards: sides 10, 10, 8, 6, 4, 2 on the slices 3 to 8; and a far block."""
    array = np.zeros((12, 30, 40), np.int16)
    for number, d in enumerate(range(4, 9)):
        array[d, 5 + number : 15 - number, 8 + number : 18 - number] = 1000
    array[3] = array[4]
    array[:, 25:29, 30:38] = 1000
    return array


def test_slices_follow_until_the_object_is_another(cone):
    grid = VolumeGrid.axial(cone.shape, (5.0, 1.0, 1.0))
    segment = BrightParts()
    mask = carry_through(Volume(cone, grid, "CT"), [click(5, 10, 12)], "MR", segment)
    wanted = cone > 0
    wanted[:, 25:29, 30:38] = False
    # From slice 5, 36 of 64 pixels are the same object, 16 of 36 are not.
    wanted[7:] = False
    np.testing.assert_array_equal(mask, wanted)
    assert mask.any(axis=(1, 2)).tolist() == [False] * 3 + [True] * 4 + [False] * 5
    boxes = [prompts.box_xyxy_pixel for prompts in segment.prompts]
    # The clicked slice is asked by its click, the one below by the box of its mask.
    assert boxes[0] is None
    assert boxes[1] == (9.0, 6.0, 16.0, 13.0)


def test_a_flipped_scan_gives_the_flipped_mask(cone):
    grid = VolumeGrid.axial(cone.shape, (5.0, 1.0, 1.0))
    mask = carry_through(Volume(cone, grid, "CT"), [click(5, 10, 12)], "MR", BrightParts())
    affine = np.array(grid.affine_ras_mm)
    affine[:3, 3] += affine[:3, 2] * (cone.shape[2] - 1)
    affine[:3, 2] *= -1
    flipped = Volume(cone[:, :, ::-1].copy(), VolumeGrid(cone.shape, affine), "CT")
    again = carry_through(flipped, [click(5, 10, cone.shape[2] - 1 - 12)], "MR", BrightParts())
    np.testing.assert_array_equal(again[:, :, ::-1], mask)


def test_each_clicked_slice_keeps_its_own_clicks(cone):
    grid = VolumeGrid.axial(cone.shape, (5.0, 1.0, 1.0))
    segment = BrightParts()
    outside = [click(0, 0, 0, foreground=False), click(5, 0, 0, foreground=False)]
    clicks = [click(5, 10, 12), click(8, 10, 12), *outside]
    mask = carry_through(Volume(cone, grid, "CT"), clicks, "MR", segment)
    assert mask[8].sum() == 4
    assert [len(p.clicks) for p in segment.prompts[:2]] == [2, 1]
    # A click outside the object on a slice without one inside is not asked about.
    assert not mask[0].any()


def test_without_a_click_inside_it_is_refused(cone):
    volume = Volume(cone, VolumeGrid.axial(cone.shape, (5.0, 1.0, 1.0)), "CT")
    with pytest.raises(ClickError, match="no click inside"):
        carry_through(volume, [click(5, 10, 12, foreground=False)], "CT", BrightParts())


def test_a_2d_model_is_a_method_by_its_name(tmp_path, cone):
    card = write_model2d(tmp_path, Sam2d(sam2d_preset("tiny")), "sam2d")
    (method,) = parse_methods([f"sam=sam2d-propagated:{card}"], device="cpu")
    assert method.name == "sam"
    assert method.takes_clicks
    volume = Volume(cone, VolumeGrid.axial(cone.shape, (5.0, 1.0, 1.0)), "CT")
    answer = method.open_scan(Scan.blind("data", "x", volume))([click(5, 10, 12)])
    assert answer.mask.shape == cone.shape
    assert set(np.unique(answer.mask)) <= {0, 1}
