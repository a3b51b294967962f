from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clickvol.errors import BadGeometryError, DicomSeriesError
from clickvol.io.dicom.reading.geometry import stack_slices
from clickvol.io.dicom.reading.headers import ImageFile
from clickvol.io.dicom.reading.slices import DicomSlice


def stack(positions, orientation=(1, 0, 0, 0, 1, 0)):
    return [
        DicomSlice(
            file=ImageFile(Path(f"IM{n}"), {}),
            frame=0,
            shape_hw=(5, 6),
            position_lps_mm=np.array(position, dtype=float),
            orientation_lps=np.array(orientation, dtype=float),
            spacing_hw_mm=(0.8, 0.5),
            slope=1.0,
            intercept=0.0,
            thickness_mm=3.0,
        )
        for n, position in enumerate(positions)
    ]


def axial(*heights):
    return stack([(-100, -50, z) for z in heights])


def test_slices_are_sorted_and_placed():
    stacked = stack_slices(axial(26, 20, 29, 23))
    grid = stacked.grid
    assert [s.path.name for s in stacked.slices] == ["IM1", "IM3", "IM0", "IM2"]
    assert grid.shape_dhw == (4, 5, 6)
    expected = [[-0.5, 0, 0, 100], [0, -0.8, 0, 50], [0, 0, 3, 20], [0, 0, 0, 1]]
    np.testing.assert_allclose(grid.affine_ijk_ras_mm, expected)
    assert stacked.notes == ()
    assert stacked.sources is None


def test_column_index_moves_along_the_row_by_the_second_spacing():
    # Coronal: rows run to the left, columns run down, so slices run to the back.
    slices = stack([(0, y, 0) for y in (4, 0, 8)], orientation=(1, 0, 0, 0, 0, -1))
    grid = stack_slices(slices).grid
    np.testing.assert_allclose(grid.affine_ijk_ras_mm[:3, 0], [-0.5, 0, 0])
    np.testing.assert_allclose(grid.affine_ijk_ras_mm[:3, 1], [0, 0, -0.8])
    np.testing.assert_allclose(grid.affine_ijk_ras_mm[:3, 2], [0, -4, 0])


def test_gantry_tilt_shears_the_grid():
    slices = stack([(0, 0.5 * n, 3 * n) for n in range(4)])
    tilted = stack_slices(slices)
    np.testing.assert_allclose(tilted.grid.affine_ijk_ras_mm[:3, 2], [0, -0.5, 3])
    assert tilted.notes == ()


def test_one_slice_uses_its_thickness_or_says_so():
    one = stack_slices(axial(20))
    assert (one.grid.shape_dhw, one.grid.spacing_dhw_mm[0], one.notes) == ((1, 5, 6), 3.0, ())
    unknown = stack_slices([replace(axial(20)[0], thickness_mm=None)])
    assert unknown.grid.spacing_dhw_mm[0] == 1.0
    assert "1 mm is assumed" in unknown.notes[0]


def test_rounded_positions_are_regular():
    heights = np.round(np.arange(40) * 1.25, 1)
    grid = stack_slices(axial(*heights)).grid
    assert grid.spacing_dhw_mm[0] == pytest.approx(1.25, abs=2e-3)


def test_missing_slices_are_counted_and_placed():
    with pytest.raises(DicomSeriesError) as caught:
        stack_slices(axial(0, 3, 6, 15, 18, 21))
    assert str(caught.value) == (
        "2 slices are missing: between 6.00 and 15.00 mm along the slice normal, where slices lie "
        "3.00 mm apart; copy or export the series again"
    )
    with pytest.raises(DicomSeriesError, match="1 slice is missing"):
        stack_slices(axial(0, 3, 9, 12))


def test_irregular_slices_are_named():
    with pytest.raises(DicomSeriesError, match=r"irregularly spaced: IM2 lies 0\.\d+ mm off its place"):
        stack_slices(axial(0, 3, 6.4, 9, 12))
    sideways = stack([(0, 0, 0), (0, 0, 3), (5, 0, 6), (0, 0, 9)])
    with pytest.raises(DicomSeriesError, match=r"IM2 lies 5\.00 mm off its place"):
        stack_slices(sideways)


def test_duplicated_positions_are_named():
    with pytest.raises(DicomSeriesError, match=r"IM1 and IM3 are duplicated.*\(-100, -50, 3\) mm"):
        stack_slices(axial(0, 3, 6, 3))


def test_mixed_series_are_refused():
    slices = axial(0, 3, 6)
    turned = np.array([0.0, 1, 0, 0, 0, -1])
    for change, message in [
        ({"orientation_lps": turned}, r"mixed orientations .*localizer"),
        ({"shape_hw": (6, 6)}, r"mixed sizes .*\(5, 6\) and \(6, 6\), in IM0 and IM2"),
        ({"spacing_hw_mm": (0.8, 0.6)}, "mixed pixel spacings"),
    ]:
        with pytest.raises(DicomSeriesError, match=message):
            stack_slices([*slices[:2], replace(slices[2], **change)])


def test_bad_geometry_is_refused():
    with pytest.raises(BadGeometryError, match="not two perpendicular unit vectors"):
        stack_slices(stack([(0, 0, 0), (0, 0, 3)], orientation=(1, 0, 0, 1, 0, 0)))
    with pytest.raises(BadGeometryError, match="spacing"):
        stack_slices([replace(s, spacing_hw_mm=(0.0, 0.5)) for s in axial(0, 3)])


CHANGED = {
    "from thin to thick": ((0, 3, 6, 9, 15, 21, 27), "from 3.00 to 6.00 mm at 9.00 mm"),
    "by less than a half": ((0, 5, 10, 15, 22, 29, 36), "from 5.00 to 7.00 mm at 15.00 mm"),
    "thick at both ends": (
        (0, 6, 12, 15, 18, 21, 27, 33),
        "from 6.00 to 3.00 mm at 12.00 mm, from 3.00 to 6.00",
    ),
    "thick in the middle": (
        (0, 4, 8, 16, 24, 32, 36, 40),
        "from 4.00 to 8.00 mm at 8.00 mm, from 8.00 to 4.00",
    ),
}


@pytest.mark.parametrize("kind", list(CHANGED))
def test_another_distance_is_not_called_missing_slices(kind):
    heights, places = CHANGED[kind]
    with pytest.raises(DicomSeriesError, match=rf"distance of the slices changes {places}.*--resample-gaps"):
        stack_slices(axial(*heights))


def test_changed_distances_are_brought_to_the_smallest_one():
    stacked = stack_slices(axial(0, 3, 6, 9, 15, 21, 27), resample_gaps=True)
    assert stacked.grid.shape_dhw == (10, 5, 6)
    assert stacked.grid.spacing_dhw_mm[0] == pytest.approx(3)
    np.testing.assert_allclose(stacked.sources, [0, 1, 2, 3, 3.5, 4, 4.5, 5, 5.5, 6])
    (note,) = stacked.notes
    assert "changes from 3.00 to 6.00 mm at 9.00 mm" in note
    assert "resampled to a gap of 3.00 mm" in note


def test_resampling_leaves_equal_gaps_and_refuses_holes_and_shifts():
    assert stack_slices(axial(0, 3, 6), resample_gaps=True).sources is None
    with pytest.raises(DicomSeriesError, match="1 slice is missing"):
        stack_slices(axial(0, 3, 9, 12), resample_gaps=True)
    with pytest.raises(DicomSeriesError, match="shifted by up to"):
        stack_slices(stack([(0, 0, 0), (0, 0, 3), (5, 0, 6), (0, 0, 9)]), resample_gaps=True)
