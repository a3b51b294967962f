"""Seconds per case of an annotator, with the worklist and without it, in a real browser.

    python benchmarks/worklist_walk.py DATA [--pictures DIR]

DATA holds Sarcoma_CT, Sarcoma_MR and LungNodule_CT in MSD layout. Twenty scans: CT and MR of the validation
patients and eight nodules. For each: open, a click in the middle of the truth, at most two more where the error
is largest until Dice is .8, a name, save. Without the worklist: open by path, save in the dialog, rename the
download. What the machine takes is measured, until it takes the next input; what the hand takes is counted by
the keystroke-level model (Card, Moran and Newell, 1980).
"""

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference.browser import FLAGS, ViewerPage, chromium, served

PATIENTS = ("008", "019", "024", "029", "042", "047")
NUM_NODULES = 8
ENOUGH_DICE, MAX_CLICKS = 0.8, 3
OBJECT_NAME = "lesion"
# Seconds: a key, pointing, a button pressed and released, a hand to the mouse or back, making up one's mind.
KEY, POINT, BUTTON, HAND, MIND = 0.28, 1.1, 0.2, 0.4, 1.35
MASK = """async (id) => {
    const token = new URLSearchParams(location.hash.slice(1)).get('token');
    const headers = { Authorization: `Bearer ${token}` };
    const reply = await fetch(`api/sessions/${id}/mask.nii.gz`, { headers });
    return Array.from(new Uint8Array(await reply.arrayBuffer()));
}"""


def chosen(data: Path, folder: Path) -> dict[str, Path]:
    """Copy the scans into a folder; return the truth of each by its name."""
    truths = {}
    nodules = sorted((data / "LungNodule_CT" / "imagesTr").glob("*.nii.gz"))
    picked = [*nodules[:: len(nodules) // NUM_NODULES][:NUM_NODULES]]
    for kind in ("Sarcoma_CT", "Sarcoma_MR"):
        picked += [data / kind / "imagesTr" / f"sts_{patient}.nii.gz" for patient in PATIENTS]
    for path in picked:
        kind = path.parents[1].name
        name = f"{kind}_{path.name}"
        shutil.copy(path, folder / name)
        truths[name] = path.parents[1] / "labelsTr" / path.name
    return truths


class Walker:
    """One case after the other; adds up what the machine and what the hand takes."""

    def __init__(self, viewer: ViewerPage, pictures: Path | None) -> None:
        self.viewer, self.pictures = viewer, pictures
        self.machine = self.hand = 0.0

    def wait(self, what: Callable[[], object]) -> None:
        """Do something, and count until the page is ready."""
        begun = time.monotonic()
        what()
        self.viewer.page.wait_for_function("() => document.getElementById('progress').hidden")
        self.machine += time.monotonic() - begun

    def clicks(self, truth: np.ndarray, affine: np.ndarray) -> tuple[int, float]:
        """Click until the mask is good enough; return how often, and its Dice."""
        from clickvol.prompts.packed_mask import PackedMask
        from clickvol.server.viewer.masks import _largest_part

        mask = np.zeros_like(truth)
        number, dice = 0, 0.0
        clicked: set[tuple[float, ...]] = set()
        while number < MAX_CLICKS and dice < ENOUGH_DICE:
            parts = [_largest_part(PackedMask.of(wrong)) for wrong in (truth & ~mask, mask & ~truth)]
            missing = parts[0].num_voxels >= parts[1].num_voxels
            at = parts[0 if missing else 1].innermost()
            place = (affine @ [*at.to_ijk(), 1])[:3]
            if tuple(place) in clicked:
                break  # a click more would open the menu of the mark
            clicked.add(tuple(place))
            self.viewer.go_to(place)
            self.hand += MIND + POINT + BUTTON + (0 if missing else KEY)
            self.wait(lambda place=place, shift=not missing: self.viewer.click_at(place, shift=shift))
            number += 1
            content = self.viewer.page.evaluate(MASK, self.viewer.state()["opened"]["session_id"])
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(bytes(content)))
            mask = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
            dice = 2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1)
        return number, float(dice)

    def name_object(self) -> None:
        """Give the object its name, by the dialog at X."""
        page = self.viewer.page
        page.locator("#canvas").focus()
        self.hand += MIND + KEY * (2 + len(OBJECT_NAME))
        page.keyboard.press("x")
        page.wait_for_selector("#object-dialog[open]")
        page.fill("#object-name", OBJECT_NAME)
        self.wait(lambda: page.keyboard.press("Enter"))

    def case(self, name: str, truth: Path, way: str) -> None:
        """Walk one open case up to saving, and tell."""
        image = nibabel.load(truth)
        array = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
        number, dice = self.clicks(array, image.affine)
        self.name_object()
        if self.pictures is not None:
            self.viewer.page.screenshot(path=self.pictures / f"{way}-{name}.png")
        self.seen = {"case": name, "clicks": number, "dice": round(dice, 2)}

    def tell(self, way: str) -> dict[str, float]:
        """Print what a case took, and begin anew."""
        row = {"machine_s": round(self.machine, 2), "hand_s": round(self.hand, 2)}
        print(json.dumps({"way": way, **self.seen, **row}), flush=True)
        self.machine = self.hand = 0.0
        return row


def with_worklist(walker: Walker, truths: dict[str, Path], _: Path) -> list[dict[str, float]]:
    """Walk by Ctrl+Enter."""
    rows = []
    for number, name in enumerate(sorted(truths)):
        if number == 0:
            walker.viewer.wait_open(name)
        walker.case(name, truths[name], "after")
        walker.hand += 2 * KEY
        following = sorted(truths)[number + 1 : number + 2]

        def go_on(following: list[str] = following) -> None:
            page = walker.viewer.page
            page.locator("#canvas").focus()
            if walker.viewer.objects()[0]["num_voxels"]:
                page.keyboard.press("Control+Enter")
            else:
                page.click("#case-skip")
            if following:
                walker.viewer.wait_open(following[0])

        walker.wait(go_on)
        rows.append(walker.tell("after"))
    return rows


def without_worklist(walker: Walker, truths: dict[str, Path], masks: Path) -> list[dict[str, float]]:
    """Walk by Open, path, Save, format, and a new name for the download."""
    page, rows = walker.viewer.page, []
    for number, name in enumerate(sorted(truths)):
        if number == 0:
            walker.viewer.wait_open(name)
        else:
            walker.hand += MIND + POINT + BUTTON + HAND + KEY * (len(name) + 1) + HAND
            page.click("#open")
            page.fill("#path", name)

            def opened(name: str = name) -> None:
                page.keyboard.press("Enter")
                walker.viewer.wait_open(name)

            walker.wait(opened)
        walker.case(name, truths[name], "before")
        walker.viewer.close_notices()
        walker.hand += MIND + 2 * KEY + HAND + POINT + BUTTON
        if not walker.viewer.objects()[0]["num_voxels"]:
            rows.append(walker.tell("before"))
            continue
        page.locator("#canvas").focus()
        page.keyboard.press("Control+s")

        def saved(name: str = name) -> None:
            with page.expect_download() as download:
                page.click("#formats button:first-child")
            download.value.save_as(masks / f"{name}-mask.nii.gz")

        walker.wait(saved)
        if page.locator("#save-dialog[open]").count():
            page.keyboard.press("Escape")
        # In the folder of downloads: point at the file, F2, its name, Enter; and close the dialog before.
        walker.hand += KEY + MIND + POINT + BUTTON + HAND + KEY * (2 + len(name)) + HAND
        rows.append(walker.tell("before"))
    return rows


def main() -> None:
    """Walk both ways and print the sums."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for a screenshot of each case")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, sync_playwright() as play:
        scans, masks = Path(work) / "scans", Path(work) / "masks"
        scans.mkdir()
        masks.mkdir()
        truths = chosen(given.data, scans)
        print(
            json.dumps({"cases": len(truths), "cores": os.cpu_count(), "load": os.getloadavg()[0]}), flush=True
        )
        for way, walk in (("after", with_worklist), ("before", without_worklist)):
            options = ("--model", "promise3d-lesions", *(("--output", str(masks)) if way == "after" else ()))
            source = scans if way == "after" else scans / min(truths)
            with served(source, Path(work) / way, *options) as address:
                browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
                viewer = ViewerPage(browser.new_page(viewport={"width": 1360, "height": 800}))
                viewer.page.goto(address)
                rows = walk(Walker(viewer, given.pictures), truths, masks)
                browser.close()
            means = {key: round(float(np.mean([row[key] for row in rows])), 1) for key in rows[0]}
            print(json.dumps({"way": way, "mean": means, "load": os.getloadavg()[0]}), flush=True)


if __name__ == "__main__":
    main()
