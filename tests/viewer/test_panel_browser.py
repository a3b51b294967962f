"""The panel and what belongs to it in a real browser: languages, objects, comparison, overlays."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_mask, write_volume
from clickvol.io.volume import Mask
from reference.browser import needs_browser

needs_browser()

pytestmark = pytest.mark.slow


AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def violations(viewer):
    """Return what axe-core finds wrong with the page as it is, in one line each."""
    if not AXE.exists() and "CLICKVOL_REQUIRE_NODE" not in os.environ:
        pytest.skip("axe-core is not here; make setup fetches it where it can")
    viewer.page.evaluate(AXE.read_text(encoding="utf-8"))
    answer = viewer.page.evaluate("rules => axe.run(document, rules)", RULES)
    assert len(answer["passes"]) > 15
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in answer["violations"]]


@pytest.mark.parametrize("dialog", [None, "#help-dialog", "#save-dialog"])
def test_axe_finds_nothing_that_keeps_somebody_out(viewer, inside_mm, dialog):
    viewer.click_at(inside_mm)
    viewer.drawn()
    if dialog is not None:
        viewer.press("?" if dialog == "#help-dialog" else "Control+s")
        viewer.page.wait_for_selector(f"{dialog}[open]")
    assert violations(viewer) == []


def test_axe_sees_a_control_without_a_name(viewer):
    viewer.page.evaluate("document.getElementById('panel').append(document.createElement('button'))")
    assert [line.split(":")[0] for line in violations(viewer)] == ["button-name"]
    viewer.page.evaluate("document.getElementById('panel').lastElementChild.remove()")


def test_the_page_speaks_the_language_that_is_chosen(viewer, inside_mm, tmp_path):
    assert viewer.page.locator("#save").inner_text() == "Save…"
    viewer.click_at(inside_mm)
    viewer.drawn()
    viewer.press("?")
    viewer.page.select_option("#language", "de")
    viewer.page.wait_for_selector("#resume-dialog[open]")
    assert viewer.page.locator("html").get_attribute("lang") == "de"
    viewer.page.get_by_role("button", name="Weiter").click()
    viewer.page.wait_for_selector(".marker")
    viewer.drawn()
    assert viewer.page.locator("#save").inner_text() == "Speichern …"
    assert viewer.page.locator(".object-name").inner_text() == "Tumor 1"
    assert viewer.page.locator(".object-clicks").inner_text() == "1 Klick"
    assert viewer.page.get_by_text("Nur für die Forschung").is_visible()
    viewer.press("?")
    assert "Strg" in viewer.page.locator("#keys").inner_text()
    viewer.page.screenshot(path=tmp_path / "page.png")
    viewer.page.select_option("#language", "en")
    viewer.page.wait_for_selector("#resume-dialog[open]")
    viewer.page.get_by_role("button", name="Start afresh").click()
    assert viewer.page.locator("#save").inner_text() == "Save…"


def choose_file(viewer, button, path):
    """Open the dialog that a button of the panel opens, and give it a file."""
    if not viewer.page.locator(button).is_visible():
        viewer.page.get_by_text("Compare and lay over").click()
    viewer.page.click(button)
    with viewer.page.expect_file_chooser() as chooser:
        viewer.page.click("#source-choose")
    chooser.value.set_files(path)


def near(picture, colour, within=40):
    """Count the pixels of a colour."""
    return int((np.abs(picture - colour).max(axis=-1) < within).sum())


@pytest.fixture(scope="module")
def truth_file(phantom, tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "truth.nii.gz"
    write_mask(phantom.truth, path)
    return path


def test_a_name_a_term_and_a_colour_are_given_and_an_object_is_deleted(viewer, inside_mm):
    viewer.click_at(inside_mm)
    viewer.drawn()
    viewer.press("x")
    viewer.page.wait_for_selector("#object-dialog[open]")
    viewer.page.select_option("#object-term", label="Neoplasm, Secondary")
    assert viewer.page.input_value("#object-name") == "Neoplasm, Secondary"
    viewer.page.fill("#object-name", "Metastasis")
    viewer.page.fill("#object-colour", "#00ff00")
    viewer.page.wait_for_function("() => /mm/.test(document.getElementById('measured').textContent)")
    with viewer.page.expect_download() as download:
        viewer.page.click("#save-surface")
    assert download.value.suggested_filename == "Tumour 1.stl"
    viewer.page.press("#object-name", "Enter")
    viewer.page.locator(".object-name", has_text="Metastasis").wait_for()
    viewer.drawn()
    assert viewer.objects()[0]["term"] == "14799000"
    viewer.press("]")
    viewer.press("]")
    viewer.press("]")
    viewer.drawn()
    picture = viewer.picture(".tile.axial")
    assert int((picture[..., 1] - np.maximum(picture[..., 0], picture[..., 2]) > 40).sum()) > 500  # green
    for _ in range(3):
        viewer.press("[")
    viewer.page.click("[data-describe='1']")
    viewer.page.click("#delete-object")
    viewer.drawn()
    (left,) = viewer.objects()
    assert (left["id"], left["num_voxels"]) == (2, 0)
    viewer.press("Control+z")
    viewer.press("Control+z")
    viewer.drawn()
    assert viewer.page.locator(".object-name").inner_text() == "Metastasis"


def test_an_eye_hides_one_object_and_space_all(viewer, inside_mm, truth_file):
    choose_file(viewer, "#load-masks", truth_file)
    viewer.page.wait_for_function("() => /ml/.test(document.querySelector('.object-volume').textContent)")
    viewer.drawn()
    before = viewer.picture(".tile.axial")
    viewer.page.click("[data-eye='1']")
    viewer.drawn()
    hidden = viewer.picture(".tile.axial")
    tint = [int((p[..., 0] - p[..., 2] > 40).sum()) for p in (before, hidden)]
    assert tint[0] > 1000
    assert tint[1] < 100
    assert viewer.page.locator("[data-eye='1']").get_attribute("aria-pressed") == "true"
    viewer.page.click("[data-eye='1']")
    viewer.drawn()
    np.testing.assert_array_equal(viewer.picture(".tile.axial")[60:], before[60:])


def test_a_mask_is_loaded_to_correct_and_compared_with_itself_and_after_a_change(viewer, phantom, truth_file):
    choose_file(viewer, "#load-masks", truth_file)
    viewer.page.wait_for_function("() => /ml/.test(document.querySelector('.object-volume').textContent)")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == phantom.truth.num_voxels
    choose_file(viewer, "#compare", truth_file)
    viewer.page.wait_for_selector("#comparison:not([hidden])")
    assert viewer.page.locator("#comparison-text").inner_text().startswith("Dice 1.000")
    assert viewer.page.locator("path.reference").count() == 3
    viewer.press("Control+z")
    viewer.press("Control+z")
    viewer.page.wait_for_function(
        "() => document.getElementById('comparison-text').textContent.startsWith('Dice 0.000')"
    )
    viewer.press("j")
    place = viewer.state()["place"]["mm"]
    voxel = phantom.volume.grid.voxel_positions(np.array([place]))[0].round().astype(int)
    assert phantom.truth.array[tuple(voxel)] == 1
    viewer.drawn()
    assert near(viewer.picture(".tile.axial"), (255, 255, 255)) > 100  # the outline
    viewer.page.click("#forget-reference")
    assert viewer.page.locator("path.reference").count() == 0


def test_a_mask_of_another_scan_is_refused(viewer, tmp_path, phantom):
    shorter = phantom.truth.array[:-1]
    other = Mask(shorter, VolumeGrid.axial(shorter.shape, (5.0, 2.6, 2.6)))
    write_mask(other, tmp_path / "other.nii.gz")
    choose_file(viewer, "#load-masks", tmp_path / "other.nii.gz")
    viewer.page.wait_for_selector(".notice.error")
    assert "grid of the scan" in viewer.page.locator(".notice.error").inner_text()
    assert not viewer.state()["session"]["can_undo"]


def test_another_scan_is_laid_over_where_it_says_it_is(viewer, phantom, inside_mm, tmp_path):
    spot = np.zeros(phantom.volume.grid.shape_dhw, dtype=np.float32)
    d, h, w = (round(v) for v in phantom.inside.as_array())
    spot[d, h - 4 : h + 5, w - 4 : w + 5] = 7
    spot[0, 0, 0] = 0.1
    write_volume(spot, phantom.volume.grid, tmp_path / "pet.nii.gz")
    before = viewer.picture(".tile.axial")
    choose_file(viewer, "#lay-over", tmp_path / "pet.nii.gz")
    viewer.page.wait_for_selector("#overlay:not([hidden])")
    viewer.page.fill("#overlay-low", "1")
    viewer.page.fill("#overlay-high", "20")
    viewer.press("Enter")
    viewer.drawn()
    laid = viewer.picture(".tile.axial")
    changed = np.argwhere((laid - before)[..., 0] - (laid - before)[..., 2] > 15)  # redder than before
    x, y = viewer.pixel_of(inside_mm)
    box = viewer.page.locator(".tile.axial").bounding_box()
    middle = np.median(changed, axis=0)
    np.testing.assert_allclose(middle[::-1] + np.array([box["x"], box["y"]]), [x, y], atol=12)
    viewer.page.click("#take-off")
    viewer.drawn()
    viewer.drawn()
    inner = (slice(60, -30), slice(40, -60))  # without the ring of the focus
    np.testing.assert_array_equal(viewer.picture(".tile.axial")[inner], before[inner])


def test_a_ruler_measures_and_a_click_takes_it_away(viewer, inside_mm):
    viewer.press("m")
    x, y = viewer.pixel_of(inside_mm)
    far = inside_mm + np.array([-26.0, 0, 0])
    x2, _ = viewer.pixel_of(far)
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down()
    viewer.page.mouse.move(x2, y, steps=3)
    viewer.page.mouse.up()
    text = viewer.page.locator(".ruler-text").first.text_content()
    assert float(re.match(r"([\d.]+) mm", text).group(1)) == pytest.approx(26, abs=1)
    assert viewer.objects()[0]["clicks"] == []
    viewer.page.mouse.click(x, y)
    assert viewer.page.locator(".ruler").count() == 0
    viewer.press("p")


def test_the_axial_plane_is_large_and_masks_are_alone_in_3d(viewer, inside_mm):
    small = viewer.page.locator(".tile.axial").bounding_box()
    viewer.press("w")
    viewer.drawn()
    large = viewer.page.locator(".tile.axial").bounding_box()
    assert large["width"] > 1.25 * small["width"]
    assert large["height"] > 1.9 * small["height"]
    viewer.click_at(inside_mm)  # places on the screen are right in it
    viewer.drawn()
    np.testing.assert_allclose(viewer.objects()[0]["clicks"][0]["ras_mm"], inside_mm, atol=1.5)
    viewer.press("w")
    viewer.drawn()
    whole = viewer.picture(".tile.render")
    viewer.page.click("label:has(#masks-only)")
    viewer.drawn()
    alone = viewer.picture(".tile.render")

    def tinted(picture):
        return int((picture[..., 0] - picture[..., 2] > 40).sum())

    def grey(picture):
        is_grey = (picture.max(axis=-1) - picture.min(axis=-1) < 12) & (picture.mean(axis=-1) > 40)
        return int(is_grey[60:, :-60].sum())

    assert tinted(alone) > 500
    assert grey(whole) > 10 * max(grey(alone), 20)
    viewer.page.click("label:has(#masks-only)")
    assert viewer.page.evaluate("document.scrollingElement.scrollTop") == 0


def test_cine_plays_through_the_slices_and_stops(viewer, inside_mm):
    start = viewer.state()["place"]["mm"][2]
    viewer.press("k")
    viewer.page.wait_for_timeout(900)
    viewer.press("k")
    moved = viewer.state()["place"]["mm"][2]
    assert moved > start + 4
    viewer.drawn()
    assert viewer.state()["place"]["mm"][2] == moved


def test_a_key_is_changed_in_the_help_and_the_other_command_takes_the_free_one(viewer):
    viewer.press("?")
    viewer.page.click("[data-letter=v]")
    viewer.press("p")
    assert viewer.page.locator("[data-letter=v]").inner_text() == "P"
    assert viewer.page.locator("[data-letter=p]").inner_text() == "V"
    viewer.press("Escape")
    viewer.press("p")
    assert viewer.state()["tool"] == "navigate"
    viewer.press("v")
    assert viewer.state()["tool"] == "point"
    assert "(P)" in viewer.page.locator("[data-tool=navigate]").get_attribute("title")
    viewer.press("?")
    viewer.page.click("#own-keys")
    viewer.press("Escape")
    viewer.press("v")
    assert viewer.state()["tool"] == "navigate"
    viewer.press("p")
