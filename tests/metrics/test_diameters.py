"""Diameters of shapes made by hand."""

import numpy as np
import pytest

from clickvol.geometry.grid import VolumeGrid
from clickvol.metrics.diameters import longest_diameters

GRID = VolumeGrid.axial((6, 8, 9), (5.0, 2.0, 1.0))


def test_the_longest_diameters_of_a_box_are_its_diagonals():
    mask = np.zeros((6, 8, 9), dtype=np.uint8)
    mask[1:5, 2:6, 3:7] = 1
    longest, on_slice = longest_diameters(mask, GRID)
    assert longest.mm == pytest.approx(np.sqrt(15**2 + 6**2 + 3**2))
    assert on_slice.mm == pytest.approx(np.sqrt(6**2 + 3**2))
    ends = GRID.world_positions(longest.ends_dhw)
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(longest.mm)
    assert mask[tuple(longest.ends_dhw.T)].all()
    assert len(set(on_slice.ends_dhw[:, 0])) == 1


def test_lines_points_and_nothing():
    mask = np.zeros((6, 8, 9), dtype=np.uint8)
    assert longest_diameters(mask, GRID) is None
    mask[2, 3, 4] = 1
    assert [d.mm for d in longest_diameters(mask, GRID)] == [0, 0]
    assert [d.ends_dhw.tolist() for d in longest_diameters(mask, GRID)] == [[[2, 3, 4]] * 2] * 2
    mask[2, 3, 1:8] = 1
    assert [d.mm for d in longest_diameters(mask, GRID)] == [6, 6]
    mask[:, 3, 4] = 1
    assert longest_diameters(mask, GRID)[0].mm == 25


def test_of_slices_alike_the_first_counts():
    mask = np.zeros((6, 8, 9), dtype=np.uint8)
    mask[1, 2, 2] = mask[3:5, 2, 2:5] = 1
    longest, on_slice = longest_diameters(mask, GRID)
    assert on_slice.ends_dhw.tolist() == [[3, 2, 2], [3, 2, 4]]
    assert longest.ends_dhw.tolist() == [[1, 2, 2], [4, 2, 4]]


def test_any_shape_has_the_diameter_of_all_its_pairs():
    generator = np.random.default_rng(1)
    mask = generator.random((6, 8, 9)) > 0.9
    places = GRID.world_positions(np.argwhere(mask))
    expected = np.linalg.norm(places[:, None] - places[None], axis=-1).max()
    assert longest_diameters(mask, GRID)[0].mm == pytest.approx(expected)
