"""The panel and what belongs to it in a real browser: languages, objects, comparison, overlays."""

import os
from pathlib import Path

import pytest

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
    viewer.idle()
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
    viewer.idle()
    viewer.press("?")
    viewer.page.select_option("#language", "de")
    viewer.page.wait_for_selector("#resume-dialog[open]")
    assert viewer.page.locator("html").get_attribute("lang") == "de"
    viewer.page.get_by_role("button", name="Weiter").click()
    viewer.page.wait_for_selector(".marker")
    viewer.idle()
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
