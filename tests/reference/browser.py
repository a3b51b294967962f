"""A headless browser on the viewer of a real server in a process of its own."""

import base64
import contextlib
import io
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from reference.forked_program import ForkedProgram

# Software rendering, and none of a browser's own calls home. A root user has no sandbox.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The page around the planes is put together without the graphics card: emulated, that takes most of the time.
TEST_FLAGS = [*FLAGS, "--disable-gpu-compositing"]

# Software rendering on a busy machine takes its time.
WAIT_MS = 240_000


def chromium():
    """Return the path of a Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def needs_browser():
    """Skip a module where no browser can be driven; never where CLICKVOL_REQUIRE_BROWSER is set, as in CI."""
    if "CLICKVOL_REQUIRE_BROWSER" in os.environ:
        return
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium() is None:
        pytest.skip("there is no Chromium here; make setup installs it where it can", allow_module_level=True)


@contextlib.contextmanager
def served(scan, state_folder, *options):
    """Run `clickvol view` on a scan, with further options.

    Yields:
        The address that it prints.
    """
    words = ["view", scan, "--no-browser", "--device", "cpu", "--state-folder", state_folder, *options]
    program = ForkedProgram(words)
    try:
        address = program.stdout.readline().strip()
        if not address:
            raise RuntimeError(program.communicate()[1])
        yield address
    finally:
        program.send_signal(signal.SIGINT)
        program.communicate()


class ViewerPage:
    """The viewer in a page of the browser, as its user sees and handles it.

    Args:
        page: of playwright.
    """

    def __init__(self, page):
        self.page = page
        self.problems = []
        self.addresses = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))

    def _note(self, message):
        # Chromium says so of every picture that TEST_FLAGS make it read back.
        if message.type != "log" and "GPU stall due to ReadPixels" not in message.text:
            self.problems.append(message.text)

    def wait_open(self, name):
        self.page.wait_for_function(
            "name => document.getElementById('scan-name').textContent === name"
            " && document.getElementById('wait').hidden",
            arg=name,
        )

    def idle(self, *, in_3d=True):
        """Wait until everything that was asked for is done and drawn.

        Args:
            in_3d: the 3D view too, which takes most of the time; else it waits until it is asked for.
        """
        self.page.wait_for_function("() => document.getElementById('progress').hidden")
        self.page.evaluate(
            """async (in3D) => {
                const { view } = (await import('/viewer/app.js')).scene;
                if (in3D && !view.idleTimer && view.customLayout?.length) view.drawLater();
                const pause = () => new Promise((resolve) => setTimeout(resolve, 10));
                while (view.planesTimer || (in3D && view.idleTimer)) await pause();
                clearTimeout(view.idleTimer);
                view.idleTimer = 0;
                const frame = () => new Promise(requestAnimationFrame);
                await frame();
                await frame();
            }""",
            in_3d,
        )

    def drawn(self):
        """Wait until everything that was asked for is done, and drawn in the planes."""
        self.idle(in_3d=False)

    def state(self):
        """Return the page's state."""
        return self.page.evaluate("async () => (await import('/viewer/app.js')).store.get()")

    def objects(self):
        return self.state()["session"]["objects"]

    def go_to(self, mm):
        """Move the crosshair to a place in RAS mm."""
        self.page.evaluate("async mm => (await import('/viewer/app.js')).scene.goTo(mm)", list(mm))

    def pixel_of(self, mm, axis=2):
        """Return where a place lies on the screen, in the plane that an axis (0 to 2) goes through."""
        return self.page.evaluate(
            """async ([mm, axis]) => {
                const { scene } = await import('/viewer/app.js');
                const box = scene.canvas.getBoundingClientRect();
                const place = scene.tilesShown().find((each) => each.axis === axis).placeOf(mm);
                return [place.x + box.left, place.y + box.top];
            }""",
            [list(mm), axis],
        )

    def click_at(self, mm, axis=2, *, shift=False):
        """Click on a place with the mouse; it must lie in the slice that is shown."""
        x, y = self.pixel_of(mm, axis)
        if shift:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(x, y)
        if shift:
            self.page.keyboard.up("Shift")

    def drop(self, name, content):
        """Drop a file into the page."""
        self.page.evaluate(
            """([name, content]) => {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const carried = new DataTransfer();
                carried.items.add(new File([bytes], name));
                for (const kind of ['dragenter', 'dragover', 'drop']) {
                    document.body.dispatchEvent(new DragEvent(kind,
                        { dataTransfer: carried, bubbles: true, cancelable: true }));
                }
            }""",
            [name, base64.b64encode(content).decode()],
        )

    def press(self, keys):
        self.page.keyboard.press(keys)

    def picture(self, selector="#canvas"):
        """Return what is on the screen there, (H, W, 3) int."""
        if selector in ("#canvas", ".tile.render"):
            self.idle()
        return self._part(self.page.locator(selector).bounding_box())

    def colour_at(self, x, y):
        """Return the colour of the screen at a pixel of the page, (3,) int, the median of nine."""
        part = self._part({"x": round(x) - 1, "y": round(y) - 1, "width": 3, "height": 3})
        return np.median(part.reshape(-1, 3), axis=0).astype(int)

    def _part(self, box):
        content = self.page.screenshot(clip=box)
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def undo_all(self):
        """Go back to where no scan was clicked."""
        self.page.keyboard.press("Escape")
        for _ in range(30):
            self.drawn()
            if not self.state()["session"]["can_undo"]:
                return
            self.page.keyboard.press("Control+z")
        raise AssertionError("undo does not end")

    def close_notices(self):
        self.page.evaluate("document.getElementById('notices').replaceChildren()")


@contextlib.contextmanager
def launched():
    """Start a browser; yields it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=TEST_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened_page(browser, scan, state_folder, *options):
    """Run `clickvol view` on a scan and open its page in a browser; yields it when the scan is there."""
    with served(scan, state_folder, *options) as address:
        viewer = ViewerPage(browser.new_page(viewport={"width": 1024, "height": 640}))
        try:
            viewer.page.goto(address)
            viewer.wait_open(scan.name)
            viewer.origin, viewer.address = address.split("#")[0], address
            yield viewer
        finally:
            viewer.page.close()
