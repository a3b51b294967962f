"""The tools of the viewer in a real browser: what is drawn and painted is looked at on the screen."""

import numpy as np
import pytest

from clickvol.interactive.record import read_record
from clickvol.interactive.replay import replay_record
from clickvol.io.formats import read_volume
from clickvol.weights.load import load_model
from reference.browser import needs_browser

needs_browser()

pytestmark = pytest.mark.slow


def tinted(picture):
    """Tell which pixels have the colour of the first object; the scan itself is grey."""
    return picture[..., 0] - picture[..., 2] > 40


def axial(viewer):
    """Return the axial tile, without what is written over it."""
    viewer.page.mouse.move(5, 5)
    viewer.drawn()
    return viewer.picture(".tile.axial")[45:-30, 20:-20]


class Hand:
    """The mouse over the axial plane, in millimetres from a place."""

    def __init__(self, viewer, origin_mm):
        self.viewer = viewer
        self.origin_mm = origin_mm
        self.mouse = viewer.page.mouse

    def at(self, x=0.0, y=0.0, axis=2, z=0.0):
        return self.viewer.pixel_of(self.origin_mm + np.array([x, y, z]), axis)

    def drag(self, *places, axis=2, release=True):
        points = [self.at(*place[:2], axis=axis, z=place[2] if len(place) > 2 else 0.0) for place in places]
        self.mouse.move(*points[0])
        self.mouse.down()
        for point in points[1:]:
            self.mouse.move(*point, steps=3)
        if release:
            self.mouse.up()

    def colour_at(self, x=0.0, y=0.0):
        return self.viewer.colour_at(*self.at(x, y))


@pytest.fixture
def hand(viewer, inside_mm):
    yield Hand(viewer, inside_mm)
    viewer.press("Escape")
    viewer.press("p")


def is_tinted(colour):
    return colour[0] - colour[2] > 40


def test_no_tool_for_looking_segments(viewer, hand):
    viewer.press("v")
    before = axial(viewer)
    hand.mouse.click(*hand.at())
    hand.drag((0, 0), (20, 20), (0, 0))
    viewer.drawn()
    assert not viewer.state()["session"]["can_undo"]
    assert viewer.page.locator("#canvas").evaluate("e => getComputedStyle(e).cursor") == "default"
    viewer.go_to(hand.origin_mm)
    assert tinted(axial(viewer)).sum() <= tinted(before).sum() + 20


def test_a_box_is_drawn_stands_and_makes_a_mask(viewer, hand):
    before = tinted(axial(viewer)).sum()
    viewer.press("r")
    hand.drag((-55, -55), (55, 55), release=False)
    edge = hand.colour_at(-55, 10)
    assert is_tinted(edge)  # the box under the mouse, before anything was sent
    assert not viewer.state()["session"]["can_undo"]
    hand.mouse.up()
    viewer.drawn()
    assert is_tinted(hand.colour_at(-55, 10))
    (mark,) = viewer.objects()[0]["marks"]
    assert mark["kind"] == "box"
    np.testing.assert_allclose(np.ptp(mark["points_ras_mm"], axis=0), [110, 110, 5], atol=6)
    assert tinted(axial(viewer)).sum() > before + 2000
    # In another plane it becomes one in space, as one interaction.
    viewer.press("r")
    hand.drag((-50, 0, -40), (50, 0, 45), axis=1)
    viewer.drawn()
    (mark,) = viewer.objects()[0]["marks"]
    np.testing.assert_allclose(np.ptp(mark["points_ras_mm"], axis=0), [110, 110, 90], atol=8)
    viewer.press("Control+z")
    viewer.drawn()
    np.testing.assert_allclose(np.ptp(viewer.objects()[0]["marks"][0]["points_ras_mm"], axis=0)[2], 5, atol=0.1)


@pytest.mark.parametrize(
    ("key", "kind", "places"),
    [
        ("l", "line", [(-40, 0), (40, 5)]),
        ("s", "scribble", [(-20, 0), (0, 10), (20, 0)]),
        ("c", "lasso", [(-35, -35), (35, -35), (35, 35), (-35, 35), (-35, -30)]),
    ],
)
def test_what_is_drawn_stands_as_it_was_drawn_and_makes_a_mask(viewer, hand, key, kind, places):
    viewer.press(key)
    before = tinted(axial(viewer)).sum()
    hand.drag(*places, release=False)
    assert viewer.page.locator("#sketch .sketch").count() >= 1
    assert viewer.page.locator("#sketch .pointer path").count() >= 1  # the pointer shows the tool
    hand.mouse.up()
    viewer.drawn()
    (mark,) = viewer.objects()[0]["marks"]
    assert (mark["kind"], mark["positive"]) == (kind, True)
    drawn = np.array(mark["points_ras_mm"])[:, :2]
    wanted = np.array([hand.origin_mm[:2] + place[:2] for place in places])
    np.testing.assert_allclose(
        [drawn.min(axis=0), drawn.max(axis=0)], [wanted.min(axis=0), wanted.max(axis=0)], atol=4
    )
    assert viewer.page.locator(f".mark.{kind}").count() >= 1
    assert tinted(axial(viewer)).sum() > before + 500
    viewer.press("Control+z")
    viewer.drawn()
    assert viewer.page.locator(f".mark.{kind}").count() == 0
    assert tinted(axial(viewer)).sum() <= before + 50


def test_the_brush_paints_under_the_pointer_at_once_and_undo_takes_it_away(viewer, hand):
    spots = [(-60, 30), (-60, 8), (-60, -30)]  # none on the lines of the crosshair
    assert not any(is_tinted(hand.colour_at(*spot)) for spot in spots)
    viewer.press("d")
    hand.drag(spots[0], spots[2], release=False)
    assert not viewer.state()["session"]["can_undo"]  # the server knows nothing yet
    assert all(is_tinted(hand.colour_at(*spot)) for spot in spots[:2])
    hand.mouse.up()
    viewer.drawn()
    hand.mouse.move(5, 5)
    assert all(is_tinted(hand.colour_at(*spot)) for spot in spots)
    painted = viewer.objects()[0]["num_voxels"]
    assert (
        60 * 12 * 0.7 < painted * 2.6**2 < (60 * 12 + np.pi * 6**2) * 1.2
    )  # a disc of 6 mm along 60 mm, one slice

    viewer.press("e")
    hand.drag(spots[1], (-60, 9))
    viewer.drawn()
    hand.mouse.move(5, 5)
    assert [is_tinted(hand.colour_at(*spot)) for spot in spots] == [True, False, True]
    assert viewer.objects()[0]["num_voxels"] < painted
    viewer.press("Control+z")
    viewer.press("Control+z")
    viewer.drawn()
    hand.mouse.move(5, 5)
    assert not any(is_tinted(hand.colour_at(*spot)) for spot in spots)
    viewer.press("Control+Shift+Z")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == painted
    assert all(is_tinted(hand.colour_at(*spot)) for spot in spots)


def test_a_sphere_reaches_other_slices_and_a_limit_keeps_other_values_out(viewer, hand, phantom):
    viewer.press("d")
    for _ in range(4):
        viewer.press(".")
    radius = viewer.state()["brush"]["radiusMm"]
    assert radius == pytest.approx(6 * 1.25**4)
    viewer.page.locator("#brush-ball").check(force=True)
    hand.mouse.click(*hand.at())
    viewer.drawn()
    ball_mm3 = 4 / 3 * np.pi * radius**3
    assert viewer.objects()[0]["num_voxels"] * 5 * 2.6**2 == pytest.approx(ball_mm3, rel=0.15)
    viewer.press("Control+z")
    viewer.drawn()
    values = phantom.volume.array
    viewer.page.locator("#brush-limited").check(force=True)
    viewer.page.locator("#limit-low").fill("-5000")
    viewer.page.locator("#limit-high").fill(str(float(values.min()) - 1))
    viewer.page.locator("#limit-high").blur()
    hand.mouse.click(*hand.at())
    viewer.drawn()
    assert not viewer.state()["session"]["can_undo"]  # no voxel has such a value
    viewer.page.locator("#limit-high").fill(str(float(values.max())))
    viewer.page.locator("#limit-high").blur()
    hand.mouse.click(*hand.at())
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] * 5 * 2.6**2 == pytest.approx(ball_mm3, rel=0.15)
    viewer.page.locator("#brush-limited").uncheck(force=True)
    viewer.page.locator("#brush-ball").uncheck(force=True)
    for _ in range(4):
        viewer.press(",")


def test_what_the_server_refuses_disappears_from_the_screen(viewer, hand):
    viewer.press("d")
    viewer.page.route(
        "**/interactions", lambda route: route.fulfill(status=422, json={"error": "refused", "detail": ""})
    )
    try:
        hand.drag((-60, 20), (-60, -20))
        viewer.page.wait_for_selector(".notice.error")
        viewer.drawn()
    finally:
        viewer.page.unroute("**/interactions")
    hand.mouse.move(5, 5)
    viewer.drawn()
    assert not is_tinted(hand.colour_at(-60, 0))


def test_a_click_on_a_mark_moves_or_removes_it(viewer, hand):
    viewer.press("p")
    hand.mouse.click(*hand.at())
    viewer.drawn()
    first = viewer.objects()[0]
    hand.drag((0, 0), (12, 8))
    viewer.drawn()
    (click,) = viewer.objects()[0]["clicks"]
    np.testing.assert_allclose(click["ras_mm"], hand.origin_mm + np.array([12, 8, 0]), atol=1.5)
    hand.mouse.click(*hand.at(12, 8))
    assert viewer.page.locator("#mark-menu").is_visible()
    viewer.press("Delete")
    viewer.drawn()
    assert viewer.objects()[0]["clicks"] == []
    assert viewer.objects()[0]["num_voxels"] == 0
    assert viewer.page.locator(".marker").count() == 0
    viewer.press("Control+z")
    viewer.press("Control+z")
    viewer.drawn()
    assert viewer.objects() == [first]
    # Shift puts a background click there all the same; a frozen object's marks cannot be taken hold of.
    viewer.press("n")
    hand.mouse.move(*hand.at())
    viewer.press("f")
    viewer.drawn()
    hand.mouse.click(*hand.at())
    viewer.page.wait_for_selector(".notice.error")
    assert not viewer.page.locator("#mark-menu").is_visible()


def test_masks_are_changed_as_a_whole_and_back(viewer, hand):
    viewer.press("d")
    hand.drag((-60, 30), (-60, -30))
    hand.drag((60, 3), (60, -3))
    viewer.drawn()
    both = viewer.objects()[0]["num_voxels"]
    viewer.page.get_by_text("Change the mask").click()
    viewer.page.locator("[data-operation=keep_largest]").click()
    viewer.drawn()
    assert is_tinted(hand.colour_at(-60, 8))
    assert not is_tinted(hand.colour_at(60, 1.5))
    viewer.page.locator("#operation-mm").fill("8")
    viewer.page.locator("[data-operation=grow]").click()
    viewer.drawn()
    assert is_tinted(hand.colour_at(-48, 8))
    viewer.page.locator("#canvas").focus()
    for _ in range(2):
        viewer.press("Control+z")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == both
    viewer.page.get_by_text("Change the mask").click()


def test_the_log_of_all_tools_replays_to_the_mask_that_is_saved(viewer, hand, scan, state_folder, tmp_path):
    viewer.press("r")
    hand.drag((-50, -50), (50, 50))
    viewer.press("s")
    hand.drag((-10, 0), (10, 5))
    viewer.press("d")
    hand.drag((-60, 20), (-60, -20))
    viewer.press("e")
    hand.drag((0, 0), (5, 0))
    viewer.press("p")
    hand.mouse.click(*hand.at(20, 10))
    viewer.drawn()
    hand.drag((20, 10), (15, 5))
    viewer.drawn()
    viewer.press("Control+s")
    with viewer.page.expect_download() as download:
        viewer.page.click("[data-format=nifti]")
    download.value.save_as(tmp_path / "saved.nii.gz")
    viewer.press("Escape")
    saved = read_volume(tmp_path / "saved.nii.gz").array
    assert saved.sum() > 1000
    (log,) = [p for p in state_folder.rglob("*.jsonl") if "edit_prompt" in p.read_text()]
    assert {"box", "scribble", "brush", "click", "edit_prompt"} <= {s.kind for s, _ in read_record(log).steps}
    replay = replay_record(log, read_volume(scan), load_model(device="cpu"))
    assert replay.differing == ()
    np.testing.assert_array_equal(replay.mask().array, saved)
