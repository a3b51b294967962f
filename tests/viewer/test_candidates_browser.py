"""Masks to choose from, in a real browser, with a model that offers several."""

import numpy as np
import pytest

from clickvol.interactive.record import read_record
from reference.browser import needs_browser

needs_browser()

pytestmark = pytest.mark.slow


def tinted(viewer):
    """Tell which pixels of the axial plane have the colour of the first object."""
    viewer.page.mouse.move(5, 5)
    viewer.drawn()
    picture = viewer.picture(".tile.axial")[45:-30, 20:-20]
    return picture[..., 0] - picture[..., 2] > 40


def test_tab_shows_the_other_masks_and_the_record_holds_the_choice(viewer, inside_mm, state_folder):
    viewer.click_at(inside_mm)
    viewer.drawn()
    offered = [each["num_voxels"] for each in viewer.state()["advice"]["candidates"]]
    assert len(offered) == 4
    first = viewer.objects()[0]["num_voxels"]
    assert first == offered[0]
    assert "1" in viewer.page.locator("#advice-text").inner_text()
    before = tinted(viewer)
    shown = [before]
    viewer.page.locator("#canvas").focus()
    for number in (1, 2, 3):
        viewer.press("Tab")
        viewer.drawn()
        assert viewer.objects()[0]["num_voxels"] == offered[number]
        shown.append(tinted(viewer))
    different = [n for n in range(1, 4) if offered[n] != offered[0]]
    assert different
    assert all((shown[n] ^ before).sum() > 20 for n in different)
    viewer.press("Tab")  # round to the first
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == first
    assert (tinted(viewer) ^ before).sum() < 20
    viewer.press("Shift+Tab")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == offered[3]
    viewer.press("Control+z")  # one step, however often Tab was pressed
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == first
    log = max(state_folder.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    kinds = [step.kind for step, _ in read_record(log).steps]
    assert kinds.count("choose_candidate") == 4

    viewer.press("Escape")  # the mask is kept, and Tab leaves the planes again
    viewer.press("Tab")
    assert viewer.page.evaluate("document.activeElement.id") != "canvas"
    assert viewer.objects()[0]["num_voxels"] == first


def test_the_place_to_click_next_is_marked_and_gone_to(viewer, inside_mm):
    viewer.click_at(inside_mm)
    viewer.drawn()
    place = viewer.state()["advice"]["next_click_ras_mm"]
    viewer.page.locator("#canvas").focus()
    viewer.press("g")
    viewer.drawn()
    np.testing.assert_allclose(viewer.state()["place"]["mm"], place, atol=3)
    assert viewer.page.locator(".next-click").count() == 3
