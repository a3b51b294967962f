"""Prompts drawn on a patch: as the training draws them, and where they lie in the scan."""

import numpy as np
import torch

from clickvol.datasets.device.prompts import _axes, _box, _slice_box, segment_tube
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.hint_maps import draw_hints
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, HintChannel, Lasso, Line, Scribble

SHAPE = (12, 16, 20)
# The patch lies voxel on voxel on the scan.
GRID = VolumeGrid.along_patient(
    SHAPE, 1.0, VolumeGrid.axial((3, 3, 3), (1.0, 1.0, 1.0)).to_world(VoxelPoint(1, 1, 1))
)
FIELD = FieldOfView(GRID.to_world(VoxelPoint(5.5, 7.5, 9.5)), 1.0, SHAPE)


def test_a_line_is_the_tube_of_the_training():
    line = Line(VoxelPoint(4, 3, 2), VoxelPoint(4, 11, 15))
    d, h, w = _axes(torch.zeros(1, *SHAPE))
    ends = torch.tensor([[3.0, 11.0]]), torch.tensor([[2.0, 15.0]])
    expected = segment_tube(d, h, w, torch.tensor([4.0]), *ends)[0]
    drawn = draw_hints([line], FIELD, GRID)
    np.testing.assert_allclose(drawn[HintChannel.DIAMETER], expected, atol=1e-5)
    assert not drawn[[HintChannel.SCRIBBLE, HintChannel.REGION]].any()


def test_boxes_are_those_of_the_training():
    label = torch.zeros(1, *SHAPE, dtype=torch.bool)
    label[0, 3:8, 4:10, 5:15] = True
    box = VoxelBox.of((3, 4, 5), (8, 10, 15))
    # The training's boxes are drawn a little off at random; here by nothing.
    uniform = torch.full((1, 64), 0.35)
    drawn = draw_hints([Box.of(box)], FIELD, GRID)[HintChannel.REGION]
    np.testing.assert_array_equal(drawn, _box(label, torch.tensor([[5.0, 6, 7]]), uniform)[0])
    flat = VoxelBox.of((5, 4, 5), (6, 10, 15))
    drawn = draw_hints([Box.of(flat)], FIELD, GRID)[HintChannel.REGION]
    np.testing.assert_array_equal(drawn, _slice_box(label, torch.tensor([[5.0, 6, 7]]), uniform)[0])


def test_a_lasso_says_something_on_its_slice_alone():
    area = np.zeros(SHAPE, dtype=bool)
    area[5, 4:8, 4:8] = True
    area[5, 4, 4] = False
    drawn = draw_hints([Lasso(PackedMask.of(area))], FIELD, GRID)[HintChannel.REGION]
    np.testing.assert_array_equal(drawn[5], np.where(area[5], 1, -1))
    assert np.flatnonzero(drawn.any(axis=(1, 2))).tolist() == [4, 5, 6]


def test_regions_on_the_background_are_minus_one_inside_and_say_nothing_outside():
    box = Box.of(VoxelBox.of((3, 4, 5), (8, 10, 15)), foreground=False)
    drawn = draw_hints([box], FIELD, GRID)[HintChannel.REGION]
    assert (drawn[3:8, 4:10, 5:15] == -1).all()
    assert int(np.count_nonzero(drawn)) == 5 * 6 * 10


def test_a_scribble_is_drawn_with_its_sign():
    stroke = np.zeros(SHAPE, dtype=bool)
    stroke[5, 8, 3:9] = True
    for sign in (1, -1):
        drawn = draw_hints([Scribble(PackedMask.of(stroke), sign > 0)], FIELD, GRID)[HintChannel.SCRIBBLE]
        assert set(np.unique(drawn)) == {0, sign}
        assert (drawn[4:7, 7:10, 3:9] == sign).all()
        assert not drawn[:, :6].any()
        assert not drawn[:3].any()


def test_a_turned_scan_gives_the_same_maps():
    flipped = VolumeGrid(
        SHAPE, GRID.affine_ras_mm @ np.array([[1, 0, 0, 0], [0, -1, 0, 15], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    box = Box.of(VoxelBox.of((3, 4, 5), (8, 10, 15)))
    turned = Box.of(VoxelBox.of((3, 6, 5), (8, 12, 15)))
    np.testing.assert_array_equal(draw_hints([box], FIELD, GRID), draw_hints([turned], FIELD, flipped))
