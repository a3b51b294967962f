import math

import numpy as np
import pytest

from clickvol.metrics.surface import _unit_normals, element_areas_mm2, neighbour_codes


def test_one_voxel_gives_one_code_per_corner():
    codes = neighbour_codes(np.ones((1, 1, 1), bool))
    # The corner before the voxel sees it as its last neighbour (bit 7), the one behind as its first.
    assert codes[0, 0, 0] == 128
    assert codes[1, 1, 1] == 1
    assert sorted(codes.ravel()) == [1, 2, 4, 8, 16, 32, 64, 128]


def test_bits_count_h_and_w_before_d():
    mask = np.zeros((2, 2, 2), bool)
    mask[1, 0, 1] = True
    assert neighbour_codes(mask)[1, 1, 1] == 1 << (4 + 1)


def test_areas_of_pieces_that_can_be_measured_by_hand():
    d, h, w = 2.0, 3.0, 5.0
    areas = element_areas_mm2((d, h, w))
    assert areas[0] == areas[255] == 0
    # Four voxels on one side: the plane between them.
    assert areas[0b00001111] == pytest.approx(h * w)
    assert areas[0b00110011] == pytest.approx(d * w)
    assert areas[0b01010101] == pytest.approx(d * h)
    # A bar along w: a rectangle from middle to middle of edges.
    assert areas[0b00000011] == pytest.approx(w * math.hypot(d / 2, h / 2))
    # One corner: half the cross product of two half diagonals.
    corner = np.cross([d / 2, -h / 2, 0], [d / 2, 0, -w / 2])
    assert areas[1] == pytest.approx(np.linalg.norm(corner) / 2)
    # Two corners across the cube: two corners cut off.
    assert areas[0b10000001] == pytest.approx(2 * areas[1])
    # Four corners of which no two share an edge: four corners cut off.
    assert areas[0b01101001] == pytest.approx(4 * areas[1])


def test_three_voxels_make_a_triangle_and_a_slope():
    areas = element_areas_mm2((1.0, 1.0, 1.0))
    triangle = 1 / 2
    # The slope is the half, away from the corner, of the plane through the middles of three edges' ends.
    long_side, short_side = math.sqrt(2), math.sqrt(2) / 2
    height = math.sqrt((1 / 2) ** 2 + (math.sqrt(2) / 4) ** 2)
    assert areas[0b00000111] == pytest.approx(triangle + (long_side + short_side) / 2 * height)


def test_inside_and_outside_have_the_same_surface():
    areas = element_areas_mm2((0.7, 1.1, 4.0))
    np.testing.assert_allclose(areas, areas[::-1], rtol=1e-12)


def test_all_areas_are_those_of_the_other_implementation():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    _unit_normals.cache_clear()  # computed here, whatever ran before
    rng = np.random.default_rng(0)
    # Its first voxel has the highest bit.
    reversed_bits = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    for spacing in rng.uniform(0.3, 6.0, (4, 3)):
        theirs = np.array(tables.create_table_neighbour_code_to_surface_area(spacing))
        ours = element_areas_mm2(tuple(map(float, spacing)))
        np.testing.assert_allclose(ours[reversed_bits], theirs, atol=1e-10)
