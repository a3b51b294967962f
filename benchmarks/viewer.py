"""How long an annotator waits in the viewer: first pixels, click to overlay, steps of the wheel.

    python benchmarks/viewer.py SCAN --click R,A,S [--steps 40]
    python benchmarks/viewer.py --phantom 512,512,300

Runs `clickvol view` and Chromium without a graphics card. Prints one line of JSON per measurement.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference.browser import FLAGS, ViewerPage, chromium, served

CLICK = """() => new Promise(async (resolve) => {
    const { store } = await import('/viewer/app.js');
    const begun = performance.now();
    let asked = false;
    store.subscribe(({ working, session }) => {
        asked ||= working !== '';
        if (!asked || working || !session.objects[0].num_voxels) return;
        const calls = performance.getEntriesByType('resource').filter(({ startTime }) => startTime >= begun);
        const server = calls.find(({ name }) => name.endsWith('/interactions'));
        requestAnimationFrame(() => resolve({
            total_s: (performance.now() - begun) / 1000, server_s: server.duration / 1000 }));
    });
    document.dispatchEvent(new CustomEvent('armed'));
})"""

WHEEL = """async ([x, y, steps]) => {
    const { scene } = await import('/viewer/app.js');
    const turn = (deltaY) => {
        scene.canvas.dispatchEvent(new WheelEvent('wheel',
            { deltaY, clientX: x, clientY: y, bubbles: true, cancelable: true }));
        scene.view.gl.finish();
    };
    const begun = performance.now();
    for (let n = 0; n < steps; n++) { turn(100); await new Promise((go) => setTimeout(go)); }
    return steps / ((performance.now() - begun) / 1000);
}"""


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def cpu_seconds() -> float:
    """Return the CPU time of every process that this one has started, from /proc."""
    of_parent: dict[int, list[tuple[int, float]]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # ended meanwhile
        ticks = sum(int(word) for word in words[11:15])
        of_parent.setdefault(int(words[1]), []).append((int(entry.parent.name), ticks))
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        for pid, ticks in of_parent.get(waiting.pop(), []):
            total += ticks / os.sysconf("SC_CLK_TCK")
            waiting.append(pid)
    return total


def phantom(shape_text: str, folder: str) -> tuple[Path, list[float]]:
    """Write a phantom of a size; return its path and a place in its tumour."""
    from clickvol.io.formats import write_volume
    from clickvol.phantoms.phantom import make_phantom

    w, h, d = (int(n) for n in shape_text.split(","))
    made = make_phantom(8, shape_dhw=(d, h, w), spacing_dhw_mm=(1.5, 0.8, 0.8), tumour_diameter_mm=60)
    path = Path(folder) / "phantom.nii.gz"
    write_volume(made.volume.array, made.volume.grid, path)
    return path, made.volume.grid.to_world(made.inside).as_array().tolist()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", nargs="?", type=Path)
    parser.add_argument("--click", help="R,A,S in mm, in the object")
    parser.add_argument("--phantom", help="i,j,k voxels of a made scan instead")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.phantom:
            scan, place = phantom(given.phantom, folder)
        else:
            scan, place = given.scan, [float(n) for n in given.click.split(",")]
        say(
            scan=scan.name,
            machine=platform.processor() or platform.machine(),
            cores=os.cpu_count(),
            load=os.getloadavg()[0],
        )
        with served(scan, folder) as address, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
            viewer = ViewerPage(browser.new_page(viewport={"width": 1360, "height": 800}))
            viewer.page.set_default_timeout(600_000)
            begun = time.monotonic()
            viewer.page.goto(address, timeout=600_000)
            viewer.wait_open(scan.name)
            say(first_pixels_s=round(time.monotonic() - begun, 1), cpu_s=round(cpu_seconds(), 1))
            viewer.idle()
            viewer.go_to(place)
            viewer.idle()
            for number in (1, 2, 3):
                x, y = viewer.pixel_of(place)
                viewer.page.evaluate(f"window.measured = ({CLICK})(); 0")
                viewer.page.wait_for_timeout(300)
                viewer.page.mouse.click(x, y)
                measured = viewer.page.evaluate("window.measured")
                viewer.idle()
                beyond = measured["total_s"] - 0.3 - measured["server_s"]
                say(click=number, server_s=round(measured["server_s"], 2), beyond_s=round(beyond, 2))
                viewer.press("Control+z")
                viewer.idle()
            box = viewer.page.locator(".tile.axial").bounding_box()
            where = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, given.steps]
            say(wheel_steps_per_s=round(viewer.page.evaluate(WHEEL, where), 1))
            browser.close()


if __name__ == "__main__":
    main()
