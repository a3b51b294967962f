"""A worklist in two pages of a real browser: who gets which case, and what Ctrl+Enter saves."""

import csv

import numpy as np
import pytest

from clickvol.io.formats import read_volume, write_volume
from clickvol.phantoms.phantom import make_phantom
from reference.browser import ViewerPage, needs_browser, served

needs_browser()

pytestmark = pytest.mark.slow

NAMES = ("a/leg.nii.gz", "b.nii.gz", "c.nii.gz")


def statuses(viewer):
    """Return the words below each case of the list."""
    return viewer.page.locator(".case small").all_inner_texts()


def test_two_annotators_work_through_a_folder_with_ctrl_enter(browser, tmp_path):
    # Each its own patient: of one that was clicked already, the page would offer the clicks.
    shape = {"shape_dhw": (40, 72, 72), "spacing_dhw_mm": (5.0, 2.6, 2.6), "tumour_diameter_mm": 100}
    patients = {name: make_phantom(seed, **shape) for seed, name in enumerate(NAMES, start=8)}
    inside_mm = patients[NAMES[0]].volume.grid.to_world(patients[NAMES[0]].inside).as_array()
    for name, patient in patients.items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        write_volume(patient.volume.array, patient.volume.grid, tmp_path / "scans" / name)
    with served(tmp_path / "scans", tmp_path / "state") as address:
        anne, ben = (ViewerPage(browser.new_page(viewport={"width": 1180, "height": 640})) for _ in range(2))
        try:
            anne.page.goto(address)
            anne.wait_open("a/leg.nii.gz")
            ben.page.goto(address)
            ben.wait_open("b.nii.gz")
            # The list is asked for once more after the scan is shown.
            ben.page.wait_for_selector("[data-case='2'] small:text-is('in progress')")
            assert statuses(ben) == ["in progress, another annotator", "in progress", "new"]
            assert ben.page.locator("[data-case='1']").is_disabled()
            ben.page.fill("#worklist-search", "LEG")
            assert ben.page.locator(".case:visible").count() == 1

            anne.press("Control+Enter")  # nothing is segmented yet
            anne.page.wait_for_selector(".notice.info")
            assert not (tmp_path / "scans-masks").exists()
            anne.go_to(inside_mm)
            anne.click_at(inside_mm)
            anne.press("Control+Enter")  # the click is still on its way
            anne.wait_open("c.nii.gz")
            anne.page.wait_for_function("() => !document.getElementById('case-skip').disabled")
            assert statuses(anne) == ["done", "in progress, another annotator", "in progress"]
            mask = read_volume(tmp_path / "scans-masks" / "a" / "leg_mask.nii.gz")
            assert np.count_nonzero(mask.array) > 100
            anne.page.screenshot(path=tmp_path / "page.png")

            anne.page.click("#case-skip")
            anne.page.wait_for_selector("text=no further case")
            assert statuses(anne)[::2] == ["done", "skipped"]
            assert [*anne.problems, *ben.problems] == []
        finally:
            anne.page.close()
            ben.page.close()
    with (tmp_path / "scans-masks" / "worklist.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scan"], row["status"], row["clicks"]) for row in rows] == [
        ("a/leg.nii.gz", "done", "1"),
        ("c.nii.gz", "skipped", ""),
    ]
