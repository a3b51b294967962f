"""The panel and what belongs to it in a real browser: languages, objects, comparison, overlays."""

import pytest

from reference.browser import chromium

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="there is no chromium on this machine"),
]


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
