"""Parts under clicks, what a result tells, and time."""

import time

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.segmentation import (
    FieldOfViewReport,
    Stages,
    Stopwatch,
    keep_clicked,
    most_uncertain,
)
from reference.segmentations import segmentation_of


def test_keep_clicked_keeps_the_part_under_the_click():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [1, 2, 5, 6, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 2.2])])
    assert np.flatnonzero(kept).tolist() == [1, 2]


def test_keep_clicked_keeps_every_clicked_part():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [1, 4, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 7.0])])
    assert np.flatnonzero(kept).tolist() == [1, 7]


def test_keep_clicked_takes_the_nearest_part_when_the_click_missed():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [0, 6, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 4.0])])
    assert np.flatnonzero(kept).tolist() == [6, 7]


def test_keep_clicked_takes_the_part_nearest_to_a_click_outside_of_all_parts_and_of_the_array():
    mask = np.zeros((4, 5, 9), dtype=bool)
    mask[1, 1:3, 2] = mask[2, 3, 5:7] = True
    kept = keep_clicked(mask, [np.array([2.0, 9.0, 12.0]), np.array([0.0, 0.0, 0.0])])
    assert np.argwhere(kept).tolist() == [[2, 3, 5], [2, 3, 6]]
    assert np.argwhere(keep_clicked(mask, [np.array([1.2, 2.4, 1.6])])).tolist() == [[1, 1, 2], [1, 2, 2]]
    # One voxel beyond the box of all parts, in the array.
    assert np.argwhere(keep_clicked(mask, [np.array([2.0, 3.0, 7.0])])).tolist() == [[2, 3, 5], [2, 3, 6]]


def test_keep_clicked_keeps_everything_without_a_click():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [0, 6, 7]] = True
    np.testing.assert_array_equal(keep_clicked(mask, []), mask)


def test_keep_clicked_joins_corners_and_takes_the_border_for_a_click_outside():
    mask = np.zeros((3, 3, 9), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 8] = True
    kept = keep_clicked(mask, [np.array([-3.0, 0.4, -1.0])])
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.argwhere(keep_clicked(mask, [np.array([7.0, 2.0, 11.0])])).tolist() == [[2, 2, 8]]
    # One click hits: the other, which missed, takes no part of its own.
    both = keep_clicked(mask, [np.array([2.0, 2.0, 8.0]), np.array([0.0, 2.0, 0.0])])
    assert np.argwhere(both).tolist() == [[2, 2, 8]]


def result_of(mask, probability, start):
    return segmentation_of(mask, probability, start, VolumeGrid.axial(mask.shape, (2.0, 1.0, 1.0)))


def test_a_result_on_a_part_of_the_scan_is_in_its_voxels():
    mask = np.zeros((20, 30, 40), np.uint8)
    mask[5:9, 12, 21:24] = 1
    probability = np.zeros((10, 14, 16), np.float32)
    probability[2:7, 1:12, 2:13] = 0.5
    result = result_of(mask, probability, (3, 10, 20))
    assert result.bounding_box() == VoxelBox((5, 12, 21), (9, 13, 24))
    assert result.next_click() == VoxelPoint(7, 16, 27)
    full = result.probability()
    assert (full.shape, full.dtype, full.sum()) == ((20, 30, 40), np.float32, 605 / 2)
    assert full[5:10, 11:22, 22:33].min() == 0.5
    sure = result_of(np.zeros_like(mask), np.ones_like(probability), (3, 10, 20))
    assert sure.bounding_box() is sure.next_click() is None


def test_doubt_counts_with_that_of_what_lies_within_5_mm():
    # Of 3 x 5 x 7 voxels, less than 10 mm: a blob that fills them outweighs a long thin line.
    spacing = np.array([3.0, 2.0, 1.4])
    probability = np.zeros((20, 20, 20), np.float32)
    probability[10, 10, :] = 0.5
    probability[2:5, 2:7, 2:9] = 0.25
    assert most_uncertain(probability, spacing) == (3, 4, 5)
    # A doubt of 0.05 on average is the least that counts.
    faint = np.zeros((1, 1, 20), np.float32)
    for height, expected in ((0.03, (0, 0, 9)), (0.02, None)):
        faint[0, 0, 4:15] = height
        assert most_uncertain(faint, np.array([50.0, 50.0, 1.0])) == expected


def test_a_view_is_described_in_millimetres():
    field = FieldOfView(WorldPointRAS(1, 2, 3), 2.5, (4, 6, 8))
    assert FieldOfViewReport.of(field, "why") == FieldOfViewReport(2.5, (1, 2, 3), (10, 15, 20), "why")


def test_stages_are_told_and_added_up():
    told = []
    stages = Stages(told.append)
    with stages.stage("read", "reading the scan"):
        pass
    with stages.stage("encode", "looking at it"):
        pass
    seconds = stages.finish()
    assert told == ["reading the scan", "looking at it"]
    assert list(seconds) == ["read", "encode", "total"]
    assert seconds["total"] == seconds["read"] + seconds["encode"] > 0


def test_a_stage_does_not_count_the_stages_inside_it(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 10.0, 20.0, 24.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    stopwatch = Stopwatch()
    with stopwatch.stage("outer"), stopwatch.stage("inner"):
        pass
    with stopwatch.stage("outer"):
        pass
    assert stopwatch.seconds == {"inner": 2.0, "outer": 8.0 + 4.0}
