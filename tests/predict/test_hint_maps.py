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
        expected = np.zeros(SHAPE, dtype=np.float32)
        expected[4:7, 7:10, 3:9] = expected[4:7, 8, 2:10] = sign
        np.testing.assert_array_equal(drawn, expected)
    assert drawn.dtype == np.float32


def test_a_scribble_at_the_border_of_a_patch_goes_on_beyond_it():
    stroke = np.zeros(SHAPE, dtype=bool)
    stroke[0, 0, 0] = stroke[11, 15, 18:] = True
    drawn = draw_hints([Scribble(PackedMask.of(stroke))], FIELD, GRID)[HintChannel.SCRIBBLE]
    expected = np.zeros(SHAPE, dtype=np.float32)
    expected[:2, 0, :2] = expected[:2, 1, 0] = 1
    expected[10:, 15, 17:] = expected[10:, 14, 18:] = 1
    np.testing.assert_array_equal(drawn, expected)


def test_the_later_of_two_prompts_of_a_kind_counts_where_they_meet():
    outer, inner = Box.of(VoxelBox.of((3, 4, 5), (8, 10, 15))), Box.of(VoxelBox.of((4, 5, 6), (6, 7, 9)))
    without = Box(inner.first, inner.second, foreground=False)
    drawn = draw_hints([outer, without], FIELD, GRID)[HintChannel.REGION]
    expected = np.full(SHAPE, -1.0)
    expected[3:8, 4:10, 5:15] = 1
    expected[4:6, 5:7, 6:9] = -1
    np.testing.assert_array_equal(drawn, expected)
    drawn = draw_hints([without, outer], FIELD, GRID)[HintChannel.REGION]
    expected[4:6, 5:7, 6:9] = 1
    np.testing.assert_array_equal(drawn, expected)
    one, other = Line(VoxelPoint(4, 3, 2), VoxelPoint(4, 3, 9)), Line(VoxelPoint(8, 9, 2), VoxelPoint(8, 9, 9))
    both, *alone = (draw_hints(lines, FIELD, GRID) for lines in ([one, other], [one], [other]))
    np.testing.assert_array_equal(both, np.maximum(*alone))


def test_a_finer_patch_is_drawn_up_to_the_faces_of_the_scan_s_voxels():
    # Quarters of a voxel, from voxel 1.5 of the scan on along all axes.
    middle = VoxelPoint(*[1.5 + 0.25 * (side - 1) / 2 for side in (24, 28, 32)])
    field = FieldOfView(GRID.to_world(middle), 0.25, (24, 28, 32))
    drawn = draw_hints([Box.of(VoxelBox.of((3, 4, 5), (5, 7, 9)))], field, GRID)[HintChannel.REGION]
    expected = np.full(field.shape_dhw, -1.0)
    expected[4:13, 8:21, 12:29] = 1  # 2.5 to 4.5, 3.5 to 6.5, 4.5 to 8.5
    np.testing.assert_array_equal(drawn, expected)
    # On one slice: half a voxel of the scan to each side, as one of the patch is less.
    drawn = draw_hints([Box.of(VoxelBox.of((3, 4, 5), (4, 7, 9)))], field, GRID)[HintChannel.REGION]
    expected[:4] = expected[9:] = 0
    np.testing.assert_array_equal(drawn, expected)


def test_a_turned_scan_gives_the_same_maps():
    flipped = VolumeGrid(
        SHAPE, GRID.affine_ras_mm @ np.array([[1, 0, 0, 0], [0, -1, 0, 15], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    box = Box.of(VoxelBox.of((3, 4, 5), (8, 10, 15)))
    turned = Box.of(VoxelBox.of((3, 6, 5), (8, 12, 15)))
    np.testing.assert_array_equal(draw_hints([box], FIELD, GRID), draw_hints([turned], FIELD, flipped))
