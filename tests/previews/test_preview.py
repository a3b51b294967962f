from itertools import permutations, product

import numpy as np
import pytest
from PIL import Image

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.previews.preview import draw_preview
from clickvol.previews.sheet import PANEL_PIXELS
from clickvol.prompts.click import Click
from clickvol.prompts.spatial import Box, Line

OUTLINE, FOREGROUND, BACKGROUND = (255, 170, 28), (64, 226, 160), (255, 84, 112)
TRUTH = (92, 190, 255)
SIDE = 40


def _scan(bright=None, *, order=(0, 1, 2), flips=(1, 1, 1), modality="CT", spacing=4.0):
    """A cube of -1000 HU whose `bright` world half spaces (axis, sign) are 1000 HU.

    `order` and `flips` say which RAS axis each of d, h, w runs along, and in which direction.
    """
    world = np.full((SIDE, SIDE, SIDE), -1000, np.int16)
    for axis, sign in bright or ():
        half = [slice(None)] * 3
        half[axis] = slice(SIDE // 2, None) if sign > 0 else slice(0, SIDE // 2)
        world[tuple(half)] = 1000
    affine = np.eye(4)
    affine[:3, :3] = 0
    for array_axis, (world_axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[world_axis, array_axis] = spacing * flip
        affine[world_axis, 3] = 0 if flip > 0 else spacing * (SIDE - 1)
    array = world.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    array = np.ascontiguousarray(array)
    return Volume(array, VolumeGrid(array.shape, affine), modality=modality)


def _centre_click(foreground=True):
    return Click(VoxelPoint(SIDE // 2, SIDE // 2, SIDE // 2), foreground)


def _panels(picture):
    pixels = np.asarray(picture).astype(int)
    step = PANEL_PIXELS + 10
    return [pixels[40 : 40 + PANEL_PIXELS, 10 + step * n :][:, :PANEL_PIXELS] for n in range(3)]


def _brightness(panel):
    """Mean grey of the left, right, top and bottom quarter, away from the letters."""
    grey, q = panel.mean(axis=2), PANEL_PIXELS // 4
    free = slice(q, q + q // 2)
    return [
        round(float(part.mean()))
        for part in (grey[free, 20:q], grey[free, -q:-20], grey[20:q, free], grey[-q:-30, free])
    ]


def _differing(one, other):
    """Share of the pixels that differ by more than rounding."""
    return (np.abs(one.astype(int) - other.astype(int)).max(axis=2) > 40).mean()


def _has(panel, colour):
    return bool((np.abs(panel - np.array(colour)).max(axis=2) < 12).any())


@pytest.mark.parametrize(
    ("bright", "panel", "expected"),
    [
        ((0, +1), 0, [255, 0]),  # the patient's right is on the left of the axial plane
        ((0, +1), 1, [255, 0]),  # and of the coronal plane
        ((1, +1), 2, [255, 0]),  # anterior is on the left of the sagittal plane
    ],
)
def test_left_of_the_picture_is_right_or_anterior(bright, panel, expected):
    scan = _scan([bright])
    picture = draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [_centre_click()])
    assert _brightness(_panels(picture)[panel])[:2] == expected


@pytest.mark.parametrize(("bright", "panel"), [((1, +1), 0), ((2, +1), 1), ((2, +1), 2)])
def test_top_of_the_picture_is_anterior_or_superior(bright, panel):
    scan = _scan([bright])
    picture = draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [_centre_click()])
    assert _brightness(_panels(picture)[panel])[2:] == [255, 0]


ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[5::7])
def test_the_file_order_of_the_axes_does_not_change_the_picture(order, flips):
    bright = [(0, +1), (2, -1)]
    reference, turned = _scan(bright), _scan(bright, order=order, flips=flips)
    place = reference.grid.to_world(VoxelPoint(20, 18, 22))
    pictures = []
    for scan in (reference, turned):
        point = scan.grid.to_voxel(place)
        mask = np.zeros(scan.array.shape, np.uint8)
        d, h, w = (round(v) for v in point.as_array())
        mask[d - 4 : d + 5, h - 4 : h + 5, w - 4 : w + 5] = 1
        pictures.append(np.asarray(draw_preview(scan, mask, [Click(place)])))
    assert _differing(*pictures) < 0.002


def test_a_millimetre_is_as_long_in_every_direction():
    array = np.zeros((20, 100, 100), np.int16)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 10.0, 2.0, 2.0, 1.0
    grid = VolumeGrid(array.shape, affine)
    mask = np.zeros(array.shape, np.uint8)
    mask[7:13, 35:65, 35:65] = 1
    click = Click(VoxelPoint(9.5, 50, 50))
    panels = _panels(draw_preview(Volume(array, grid), mask, [click], modality="CT"))
    for panel in panels:
        rows, columns = np.nonzero(np.abs(panel - np.array(OUTLINE)).max(axis=2) < 40)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert abs(height - width) <= 3
        # A cube of 60 mm in a view of about 120 mm.
        assert 0.45 * PANEL_PIXELS < width < 0.55 * PANEL_PIXELS


def test_a_box_is_a_rectangle_on_every_plane_through_it_and_gives_the_planes():
    scan = _scan()
    box = Box(VoxelPoint(12, 14, 10), VoxelPoint(25, 21, 29))
    for panel, (rows, columns) in zip(
        _panels(draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [box])),
        ((8, 14), (20, 14), (20, 8)),
        strict=True,
    ):
        marked = np.abs(panel - np.array(FOREGROUND)).max(axis=2) < 40
        height, width = (np.ptp(np.nonzero(marked.any(axis=axis))[0]) + 1 for axis in (1, 0))
        assert height / width == pytest.approx(rows / columns, rel=0.08)
        assert marked.mean() < 0.02  # edges alone


def test_a_line_is_drawn_in_the_planes_of_its_middle():
    scan = _scan()
    line = Line(VoxelPoint(20, 20, 10), VoxelPoint(20, 20, 30))
    axial, coronal, sagittal = (
        np.abs(panel - np.array(FOREGROUND)).max(axis=2) < 40
        for panel in _panels(draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [line]))
    )
    for marked in (coronal, sagittal):
        rows, columns = np.nonzero(marked)
        assert np.ptp(rows) > 10 * np.ptp(columns)
    assert axial.sum() < 0.1 * coronal.sum()


def test_a_box_on_another_slice_is_not_drawn_in_that_plane():
    scan = _scan()
    prompts = [_centre_click(), Box(VoxelPoint(33, 14, 14), VoxelPoint(36, 25, 25))]
    marked = [
        (np.abs(panel - np.array(FOREGROUND)).max(axis=2) < 40).sum()
        for panel in _panels(draw_preview(scan, np.zeros(scan.array.shape, np.uint8), prompts))
    ]
    assert marked[2] < 0.5 * min(marked[:2])


def test_the_mask_is_outlined_and_not_filled():
    scan = _scan()
    mask = np.zeros(scan.array.shape, np.uint8)
    mask[10:30, 10:30, 10:30] = 1
    for panel in _panels(draw_preview(scan, mask, [Click(VoxelPoint(14, 14, 14))])):
        outline = np.abs(panel - np.array(OUTLINE)).max(axis=2) < 40
        assert 0.002 < outline.mean() < 0.03


def test_an_empty_mask_has_no_outline():
    scan = _scan()
    empty = np.zeros(scan.array.shape, np.uint8)
    assert not any(_has(p, OUTLINE) for p in _panels(draw_preview(scan, empty, [_centre_click()])))


def test_clicks_are_marked_by_colour_in_the_planes_they_lie_in():
    scan = _scan()
    background = Click(VoxelPoint(20, 20, 26), foreground=False)  # beside it along z
    empty = np.zeros(scan.array.shape, np.uint8)
    axial, coronal, sagittal = _panels(draw_preview(scan, empty, [background, _centre_click()]))
    assert all(_has(panel, FOREGROUND) for panel in (axial, coronal, sagittal))
    assert [_has(panel, BACKGROUND) for panel in (axial, coronal, sagittal)] == [False, True, True]


def test_mr_is_shown_by_its_own_percentiles():
    scan = _scan([(0, +1)], modality="MR")
    scan = Volume((scan.array // 10 + 500).astype(np.int16), scan.grid, modality="MR")
    picture = draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [_centre_click()])
    assert _brightness(_panels(picture)[0])[:2] == [255, 0]


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 1, 200), (1, 1, 1)])
def test_flat_scans_and_constant_scans_are_drawn(shape):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 5.0, -1.0, -1.0, 1.0
    scan = Volume(np.zeros(shape, np.float32), VolumeGrid(shape, affine))
    click = Click(VoxelPoint(*(n // 2 for n in shape)))
    picture = draw_preview(scan, np.ones(shape, np.uint8), [click])
    assert isinstance(picture, Image.Image)
    assert picture.mode == "RGB"


def test_an_oblique_scan_is_shown_along_its_nearest_axes():
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    straight = _scan([(0, +1)])
    affine = np.eye(4)
    affine[:3, :3] = turn @ straight.grid.affine_ras_mm[:3, :3]
    oblique = Volume(straight.array, VolumeGrid(straight.array.shape, affine), modality="CT")
    empty = np.zeros(straight.array.shape, np.uint8)
    pictures = [np.asarray(draw_preview(s, empty, [_centre_click()])) for s in (straight, oblique)]
    assert _differing(*pictures) < 0.002


def test_a_click_outside_the_scan_is_refused():
    scan = _scan()
    with pytest.raises(ClickError, match="outside"):
        draw_preview(scan, np.zeros(scan.array.shape, np.uint8), [Click(VoxelPoint(99, 0, 0))])


def _drawn(volume, mask, clicks):
    return np.asarray(draw_preview(volume, mask, clicks))


def test_without_clicks_the_planes_go_through_the_middle_of_the_mask():
    volume = _scan()
    volume.array[:] = np.random.default_rng(0).integers(-160, 240, volume.array.shape)
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[4:9, 10:15, 20:25] = 1
    result = _drawn(volume, mask, [])
    at_the_middle = _drawn(volume, mask, [Click(VoxelPoint(6, 12, 22))])
    # All but the cross.
    assert _differing(result, at_the_middle) < 0.01
    assert _differing(result, _drawn(volume, mask, [Click(VoxelPoint(7, 13, 21))])) > 0.1


def test_without_clicks_and_with_an_empty_mask_the_middle_of_the_scan_is_shown():
    volume = _scan()
    volume.array[:] = np.random.default_rng(0).integers(-160, 240, volume.array.shape)
    nothing = np.zeros(volume.array.shape, np.uint8)
    result = _drawn(volume, nothing, [])
    assert _differing(result, _drawn(volume, nothing, [_centre_click()])) < 0.01


def test_a_truth_is_a_second_outline_and_shown_whole():
    volume = _scan()
    mask, truth = np.zeros((2, *volume.array.shape), np.uint8)
    mask[10:20, 10:20, 10:20] = 1
    truth[10:30, 10:30, 10:30] = 3
    clicks = [Click(VoxelPoint(14, 14, 14))]
    with_truth = draw_preview(volume, mask, clicks, truth=truth)
    for panel in _panels(with_truth):
        assert _has(panel, TRUTH)
        assert _has(panel, OUTLINE)
    assert not any(_has(panel, TRUTH) for panel in _panels(draw_preview(volume, mask, clicks)))


def test_the_planes_can_go_elsewhere_than_the_click():
    volume = _scan()
    volume.array[:] = np.random.default_rng(0).integers(-160, 240, volume.array.shape)
    nothing = np.zeros(volume.array.shape, np.uint8)
    there = VoxelPoint(22, 19, 21)
    clicks = [Click(VoxelPoint(2, 2, 2))]
    result = np.asarray(draw_preview(volume, nothing, clicks, through=there))
    assert _differing(result, _drawn(volume, nothing, [Click(there)])) < 0.01
