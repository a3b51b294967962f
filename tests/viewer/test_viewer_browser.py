"""The viewer end to end: a real server, a real browser, mouse and keys."""

import re

import nibabel
import numpy as np
import pytest

from clickvol.cli.app import main
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.io.formats import read_volume, write_volume
from clickvol.phantoms.phantom import make_phantom
from reference.browser import needs_browser

needs_browser()

pytestmark = pytest.mark.slow


def num_tinted(picture):
    """Count pixels in the colour of the first object; the scan itself is grey."""
    return int((picture[..., 0] - picture[..., 2] > 40).sum())


def test_a_click_shows_a_mask_and_undo_and_redo_take_it_and_bring_it_back(viewer, inside_mm, phantom):
    before = num_tinted(viewer.picture())
    viewer.click_at(inside_mm)
    viewer.drawn()
    clicked = viewer.picture()
    assert num_tinted(clicked) > before + 2000
    (tumour,) = viewer.objects()
    assert [c["positive"] for c in tumour["clicks"]] == [True]
    # A pixel of the screen is less than a voxel.
    np.testing.assert_allclose(tumour["clicks"][0]["ras_mm"], inside_mm, atol=2.6)
    shown = viewer.page.locator(".object-volume").inner_text()
    assert float(re.fullmatch(r"([\d.]+) ml", shown).group(1)) == pytest.approx(tumour["volume_ml"], rel=0.01)
    assert 0.3 < tumour["volume_ml"] / phantom.truth.volume_ml < 3
    assert viewer.page.locator(".marker.tumour").count() == 3  # one in every plane

    viewer.press("Control+z")
    viewer.drawn()
    assert num_tinted(viewer.picture()) <= before + 50
    assert viewer.page.locator(".marker").count() == 0

    viewer.press("Control+Shift+Z")
    viewer.drawn()
    again = viewer.picture()
    # The 3D view has noise of its own; the axial plane has none.
    half = (slice(40, again.shape[0] // 2 - 4), slice(8, again.shape[1] // 2 - 4))
    np.testing.assert_array_equal(again[half], clicked[half])


def test_the_saved_mask_is_that_of_the_command_line(viewer, inside_mm, scan, tmp_path):
    viewer.click_at(inside_mm)
    viewer.drawn()
    x, y, z = viewer.objects()[0]["clicks"][0]["ras_mm"]
    viewer.page.click("#save")
    with viewer.page.expect_download() as download:
        viewer.page.click("[data-format=nifti]")
    assert download.value.suggested_filename == "leg_mask.nii.gz"
    download.value.save_as(tmp_path / "saved.nii.gz")

    mask = tmp_path / "mask.nii.gz"
    words = [
        "segment",
        str(scan),
        "--space",
        "ras",
        "--click",
        f"{x!r},{y!r},{z!r}",
        "-o",
        str(mask),
    ]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    saved, expected = read_volume(tmp_path / "saved.nii.gz"), read_volume(mask)
    assert expected.array.sum() > 100
    np.testing.assert_array_equal(saved.array, expected.array)
    assert saved.grid == expected.grid


def test_formats_of_dicom_say_why_they_cannot_be_had(viewer, inside_mm):
    viewer.click_at(inside_mm)
    viewer.drawn()
    viewer.press("Control+s")
    for name in ("dicom-seg", "rtstruct"):
        assert viewer.page.locator(f"[data-format={name}]").is_disabled()
    assert "DICOM series" in viewer.page.locator("#dicom-reason").inner_text()
    assert viewer.page.locator("#deidentify").is_disabled()
    viewer.press("Escape")
    assert not viewer.page.locator("#save-dialog").is_visible()


def test_shift_marks_background_and_objects_are_added_chosen_and_frozen(viewer, inside_mm):
    viewer.click_at(inside_mm)
    # Not waited for: the second click is not lost, and comes second.
    viewer.click_at(inside_mm + np.array([12.0, 0, 0]), shift=True)
    viewer.drawn()
    (tumour,) = viewer.objects()
    assert [c["positive"] for c in tumour["clicks"]] == [True, False]
    assert viewer.page.locator(".marker.background").count() >= 1

    viewer.press("a")
    viewer.click_at(inside_mm + np.array([0, 10.0, 0]))  # the server has yet to add the object
    viewer.drawn()
    assert [(o["id"], len(o["clicks"])) for o in viewer.objects()] == [(1, 2), (2, 1)]
    assert viewer.state()["selected"] == 2
    assert viewer.page.locator("[data-object='2']").get_attribute("aria-pressed") == "true"
    viewer.press("n")
    assert viewer.state()["selected"] == 1

    viewer.press("f")
    viewer.drawn()
    assert viewer.objects()[0]["frozen"]
    viewer.click_at(inside_mm)
    viewer.page.wait_for_selector(".notice.error")
    assert len(viewer.objects()[0]["clicks"]) == 2
    viewer.page.click("[data-freeze='1']")
    viewer.drawn()
    assert not viewer.objects()[0]["frozen"]


def test_a_click_beside_the_scan_is_told_and_changes_nothing(viewer, scan):
    grid = read_volume(scan).grid
    low, _ = grid.extent_ras_mm()
    x, y = viewer.pixel_of([low.x + 4, low.y + 4, viewer.state()["place"]["mm"][2]])
    # Radiological convention: low x, the patient's left, is at the right; beyond it is the black margin.
    viewer.page.mouse.click(x + 40, y - 30)
    notice = viewer.page.locator("[role=alert]")
    notice.wait_for()
    assert "outside" in notice.inner_text()
    assert viewer.objects()[0]["clicks"] == []
    notice.get_by_label("Dismiss").click()
    assert notice.count() == 0


def test_a_drag_is_no_click_and_the_right_button_sets_the_window(viewer, inside_mm):
    x, y = viewer.pixel_of(inside_mm)
    before = viewer.state()
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down()
    viewer.page.mouse.move(x + 30, y + 10, steps=3)
    viewer.page.mouse.up()
    after = viewer.state()
    assert after["place"]["mm"] != before["place"]["mm"]  # the crosshair went along
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down(button="right")
    viewer.page.mouse.move(x + 60, y, steps=2)
    viewer.page.mouse.up(button="right")
    after = viewer.state()
    width = [s["window"]["high"] - s["window"]["low"] for s in (before, after)]
    assert width[1] == pytest.approx(width[0] * np.exp(60 / 250), rel=1e-6)
    viewer.drawn()
    assert viewer.objects()[0]["clicks"] == []
    viewer.page.mouse.dblclick(x, y)
    viewer.drawn()
    assert len(viewer.objects()[0]["clicks"]) == 1  # and not two


def test_the_picture_of_a_diagonal_right_drag_is_that_of_the_window_in_the_label(viewer, inside_mm):
    x, y = viewer.pixel_of(inside_mm)
    viewer.press("1")
    before = viewer.picture(".tile.axial")
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down(button="right")
    viewer.page.mouse.move(x + 70, y + 60, steps=3)
    viewer.drawn()
    during = viewer.picture(".tile.axial")
    viewer.page.mouse.up(button="right")
    viewer.drawn()
    np.testing.assert_array_equal(viewer.picture(".tile.axial"), during)
    assert np.abs(during - before).max() > 20
    # Set anew, the same window gives the same picture: nothing else has changed it.
    viewer.page.evaluate(
        """async () => {
            const { store } = await import('/viewer/app.js');
            store.set({ window: { ...store.get().window } });
        }"""
    )
    viewer.drawn()
    np.testing.assert_array_equal(viewer.picture(".tile.axial"), during)
    window = viewer.state()["window"]
    label = viewer.page.locator(".tile-window").inner_text()
    assert label.split() == [
        "W",
        f"{window['high'] - window['low']:.0f}",
        "L",
        f"{(window['high'] + window['low']) / 2:.0f}",
    ]


def test_looking_is_safe_and_a_wheel_goes_as_far_as_it_turns(viewer, inside_mm):
    x, y = viewer.pixel_of(inside_mm)
    viewer.press("v")
    viewer.page.mouse.click(x, y)
    viewer.drawn()
    assert viewer.objects()[0]["clicks"] == []
    viewer.press("p")
    viewer.page.mouse.move(x, y)
    start = viewer.state()["place"]["mm"]
    for delta, slices in ((100, 1), (-100, 0), (10, 0), (10, 0), (12, 1)):
        viewer.page.mouse.wheel(0, delta)
        viewer.page.wait_for_timeout(100)
        assert start[2] - viewer.state()["place"]["mm"][2] == pytest.approx(5.0 * slices, abs=0.01)
    viewer.go_to(inside_mm)
    # Ctrl and a drag pan, and leave the crosshair.
    start = viewer.state()["place"]["mm"]
    viewer.page.keyboard.down("Control")
    viewer.page.mouse.down()
    viewer.page.mouse.move(x + 40, y + 10, steps=3)
    viewer.page.mouse.up()
    viewer.page.keyboard.up("Control")
    assert viewer.state()["place"]["mm"] == start
    moved = viewer.pixel_of(inside_mm)
    np.testing.assert_allclose(np.subtract(moved, [x, y]), [40, 10], atol=2)
    viewer.press("0")


def test_zoom_keeps_what_is_under_the_pointer_and_fills_the_tile(viewer, inside_mm):
    x, y = viewer.pixel_of(inside_mm)
    read = "async ([x, y]) => (await import('/viewer/app.js')).scene.mmUnder(x, y)"
    place = [round(x) + 50, round(y) - 30]  # events of a wheel have whole pixels
    before = viewer.page.evaluate(read, place)
    viewer.page.mouse.move(*place)
    viewer.page.keyboard.down("Control")
    for _ in range(8):
        viewer.page.mouse.wheel(0, -100)
    viewer.page.keyboard.up("Control")
    viewer.drawn()
    np.testing.assert_allclose(viewer.page.evaluate(read, place), before, atol=0.1)
    tile = viewer.picture(".tile.axial")
    assert tile[20:-20, 1:4].mean() > 20  # no black margin where there was one
    viewer.press("0")


def test_objects_exclude_each_other_and_the_panel_says_what_the_file_gets(viewer, inside_mm, tmp_path):
    viewer.click_at(inside_mm)
    viewer.press("a")
    viewer.press("t")
    viewer.click_at(inside_mm + np.array([0, 8.0, 0]))
    viewer.drawn()
    viewer.press("t")
    volumes = [known["volume_ml"] for known in viewer.objects()]
    viewer.press("Control+s")
    with viewer.page.expect_download() as download:
        viewer.page.click("[data-format=nifti]")
    download.value.save_as(tmp_path / "saved.nii.gz")
    saved = read_volume(tmp_path / "saved.nii.gz")
    ml = saved.grid.voxel_volume_mm3 / 1000
    in_file = [(saved.array == number).sum() * ml for number in (1, 2)]
    assert volumes[1] > 10
    np.testing.assert_allclose(volumes, in_file)
    before = num_tinted(viewer.picture())
    viewer.press(" ")
    assert viewer.state()["masksHidden"]
    viewer.drawn()
    assert num_tinted(viewer.picture(".tile.axial")) < 150 < before
    viewer.press(" ")


def test_windows_opacity_and_outline_have_keys(viewer):
    # Level and width, in HU: 40/400, -600/1500, 400/1800.
    for key, window in (("1", (-160, 240)), ("2", (-1350, 150)), ("3", (-500, 1300))):
        viewer.press(key)
        state = viewer.state()
        assert (state["window"]["low"], state["window"]["high"]) == window
    viewer.press("4")
    automatic = viewer.state()["window"]
    assert -1024 <= automatic["low"] < 0 < automatic["high"] <= 3071
    pressed = viewer.page.locator("#presets [aria-pressed=true]")
    assert pressed.inner_text() == "Auto"
    viewer.press("1")
    opacity = viewer.state()["opacity"]
    viewer.press("]")
    assert viewer.state()["opacity"] == pytest.approx(opacity + 0.1)
    viewer.press("[")
    assert viewer.state()["opacity"] == pytest.approx(opacity)
    assert viewer.state()["outline"]
    viewer.press("o")
    assert not viewer.state()["outline"]
    viewer.press("o")
    assert viewer.page.locator("#outline").is_checked()


def test_everything_works_without_a_mouse(viewer, phantom):
    viewer.page.locator("#skip").focus()
    viewer.press("Enter")
    assert viewer.page.evaluate("document.activeElement.id") == "canvas"
    start = np.array(viewer.state()["place"]["mm"])
    for key, step in (
        ("ArrowLeft", [2.6, 0, 0]),  # the patient's right is at the left
        ("ArrowRight", [-2.6, 0, 0]),
        ("ArrowUp", [0, 2.6, 0]),
        ("ArrowDown", [0, -2.6, 0]),
        ("PageUp", [0, 0, 5.0]),
        ("PageDown", [0, 0, -5.0]),
    ):
        viewer.press(key)
        place = np.array(viewer.state()["place"]["mm"])
        np.testing.assert_allclose(place - start, step, atol=1e-3)
        start = place
    viewer.press("Enter")
    viewer.press("Shift+Enter")
    viewer.drawn()
    (tumour,) = viewer.objects()
    assert [c["positive"] for c in tumour["clicks"]] == [True, False]
    np.testing.assert_allclose(tumour["clicks"][0]["ras_mm"], start, atol=1e-3)
    viewer.press("Control+z")
    viewer.drawn()
    viewer.press("Control+s")
    viewer.page.locator("[data-format=nrrd]").focus()
    with viewer.page.expect_download() as download:
        viewer.press("Enter")
    assert download.value.suggested_filename.endswith(".nrrd")


def test_every_control_can_be_reached_and_has_a_name(viewer):
    names = viewer.page.evaluate(
        """() => [...document.querySelectorAll('button, input, [role], canvas')]
            .filter((e) => e.checkVisibility() && !e.disabled)
            .map((e) => e.getAttribute('aria-label') || e.textContent.trim()
                || e.labels?.[0]?.textContent.trim() || document.getElementById(
                   e.getAttribute('aria-labelledby'))?.textContent || e.getAttribute('role'))"""
    )
    assert len(names) > 15
    assert all(names)
    viewer.page.locator("#skip").focus()
    reached = set()
    for _ in range(40):
        viewer.press("Tab")
        named = "document.activeElement.id || document.activeElement.className"
        reached.add(viewer.page.evaluate(named).replace("row-button ", ""))
    assert {"open", "help", "canvas", "add", "opacity", "outline", "pick", "freeze"} <= reached
    viewer.page.locator("#skip").focus()
    viewer.press("?")
    assert viewer.page.locator("#help-dialog").is_visible()
    assert viewer.page.locator("#keys dt").count() > 18
    viewer.press("Escape")
    assert viewer.page.get_by_text("Research use only, not a medical device").is_visible()


def test_a_page_loaded_anew_offers_the_clicks_made_before(viewer, inside_mm):
    viewer.click_at(inside_mm)
    viewer.drawn()
    clicks = viewer.objects()[0]["clicks"]
    viewer.page.reload()
    viewer.page.wait_for_selector("#resume-dialog[open]")
    assert re.search(r"\d+ clicks? of", viewer.page.locator("#resumable").inner_text())
    viewer.page.get_by_role("button", name="Go on").click()
    viewer.page.wait_for_selector(".marker")
    viewer.drawn()
    assert viewer.objects()[0]["clicks"] == clicks
    assert num_tinted(viewer.picture()) > 2000


@pytest.mark.parametrize("size", [(390, 780), (1024, 640)])
def test_save_can_be_reached_and_notices_cover_no_plane(viewer, inside_mm, size):
    viewer.page.set_viewport_size({"width": size[0], "height": size[1]})
    try:
        viewer.click_at(inside_mm)
        viewer.drawn()
        viewer.page.evaluate(
            """async () => {
                const { makeNotices } = await import('/viewer/notices.js');
                const notify = makeNotices(document.getElementById('notices'));
                const text = 'long words that go over several lines of it '.repeat(3);
                for (let n = 0; n < 4; n++) notify('error', text);
            }"""
        )
        planes, notices = (viewer.page.locator(part).bounding_box() for part in ("#canvas", "#notices"))
        assert notices["x"] >= planes["x"] + planes["width"] or notices["y"] >= planes["y"] + planes["height"]
        viewer.close_notices()
        viewer.page.locator("#save").click()
        viewer.page.get_by_role("button", name="Close").click()
    finally:
        viewer.page.set_viewport_size({"width": 1024, "height": 640})
        viewer.drawn()


def test_a_dead_server_is_seen_and_a_key_is_asked_for_where_it_is_wrong(opened):
    page = opened.page.context.browser.new_page()
    page.clock.install()
    page.goto(opened.origin)
    page.wait_for_selector("#token-dialog[open]")
    with page.expect_event("load"):  # though the fragment alone is another one
        page.goto(f"{opened.origin}#token=wrong")
    page.wait_for_selector("#token-dialog[open]")
    page.locator("#token").fill(opened.page.url)
    page.keyboard.press("Enter")
    page.wait_for_selector("#wait", state="hidden")
    page.wait_for_function("() => document.getElementById('scan-name').textContent !== ''")
    page.route("**/heartbeat", lambda route: route.abort())
    page.clock.fast_forward(20_000)  # the page shows life at least as often
    page.wait_for_function(
        "() => document.getElementById('status').textContent === 'The server does not answer'"
    )
    page.unroute("**/heartbeat")
    page.route("**/heartbeat", lambda route: route.fulfill(status=401, body="{}"))  # started anew
    page.clock.fast_forward(20_000)
    page.wait_for_selector("#token-dialog[open]")
    page.close()


def test_a_dropped_scan_opens_and_clicks_are_right_in_it_though_it_is_oblique(opened, tmp_path):
    """The last test: it leaves another scan in the page."""
    turned = np.radians(25)
    turn = np.array([[np.cos(turned), -np.sin(turned), 0], [np.sin(turned), np.cos(turned), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 4.0, 0], [0, 0, -3.5], [-6.0, 0, 0]])
    affine[:3, 3] = [140, 60, 90]
    phantom = make_phantom(8, shape_dhw=(30, 44, 48), affine_ras_mm=affine, tumour_diameter_mm=90)
    path = tmp_path / "oblique.nii.gz"
    write_volume(phantom.volume.array, phantom.volume.grid, path)
    opened.drop("oblique.nii.gz", path.read_bytes())
    opened.wait_open("oblique.nii.gz")
    inside_mm = phantom.volume.grid.to_world(phantom.inside).as_array()
    for axis in range(3):
        opened.go_to(inside_mm)
        opened.click_at(inside_mm, axis)
        opened.drawn()
        (click,) = opened.objects()[0]["clicks"]
        np.testing.assert_allclose(click["ras_mm"], inside_mm, atol=1.0)
        opened.press("Control+z")
        opened.drawn()
        # What is painted is under the pointer, before and after the server has it.
        opened.press("d")
        x, y = opened.pixel_of(inside_mm, axis)
        opened.page.mouse.move(x, y)
        opened.page.mouse.down()
        opened.page.mouse.move(x + 25, y, steps=4)
        during = opened.colour_at(x + 12, y + 1)
        opened.page.mouse.up()
        opened.drawn()
        after = opened.colour_at(x + 12, y + 1)
        assert min(during[0] - during[2], after[0] - after[2]) > 40
        opened.press("Control+z")
        opened.drawn()
        before = opened.colour_at(x + 12, y + 1)
        assert before[0] - before[2] < 20
        opened.press("p")
    opened.go_to(inside_mm)
    opened.click_at(inside_mm)
    opened.drawn()
    # Where the library itself says that the crosshair is now.
    np.testing.assert_allclose(opened.state()["place"]["mm"], inside_mm, atol=1.0)
    for click in opened.objects()[0]["clicks"]:
        np.testing.assert_allclose(click["ras_mm"], inside_mm, atol=1.0)
    clicked = phantom.volume.grid.to_voxel(WorldPointRAS(*click["ras_mm"])).as_array()
    np.testing.assert_allclose(clicked, phantom.inside.as_array(), atol=0.3)
    np.testing.assert_allclose(click["ras_mm"], opened.state()["place"]["mm"], atol=0.01)


def test_a_volume_is_chosen_and_the_voxel_under_the_mouse_is_clicked_though_the_header_has_no_place(
    opened, tmp_path
):
    """Both forms of a place have code 0, which readers take for different places."""
    values = np.full((48, 44, 12, 2), -80, np.int16)
    values[30:38, 8:16, 4:9, 1] = 100
    image = nibabel.Nifti1Image(values, None)
    image.header.set_zooms((2.0, 2.0, 3.0, 1.0))
    nibabel.save(image, tmp_path / "phases.nii")
    opened.drop("phases.nii", (tmp_path / "phases.nii").read_bytes())
    opened.page.locator("#series button", has_text="Volume 1").click()
    opened.wait_open("phases.nii")
    affine = nibabel.load(tmp_path / "phases.nii").affine
    opened.go_to((affine @ [25, 20, 6, 1])[:3])
    opened.press("p")
    opened.drawn()
    axial = opened.picture()[: opened.picture().shape[0] // 2, : opened.picture().shape[1] // 2]
    box = opened.page.locator("#canvas").bounding_box()
    grey = axial.max(2) - axial.min(2) < 6
    rows, columns = np.nonzero(grey & (abs(axial[..., 0] - np.percentile(axial[100:-100, :, 0], 98)) < 6))
    opened.page.mouse.click(box["x"] + np.median(columns), box["y"] + np.median(rows))
    opened.drawn()
    (click,) = opened.objects()[0]["clicks"]
    voxel = np.linalg.inv(affine) @ [*click["ras_mm"], 1]
    np.testing.assert_allclose(voxel[:3], [33.5, 11.5, 6], atol=0.8)
