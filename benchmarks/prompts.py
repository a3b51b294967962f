"""What each prompt brings on patients that no shipped model has trained on: mean Dice, by data set and model.

    python benchmarks/prompts.py promise3d-small promise3d-lesions --data ../shared/data

The six validation patients of the sarcoma sets. Prompts are drawn from the truth: a click on a random voxel,
the longest diameter of the largest axial slice, the box of that slice, the box in space, a stroke through that
slice, its area; the truth without its upper third as a given mask, and up to three clicks, each in the largest
error. Prints a Markdown table; the last column is the mean over every second patient: how clicks correct a
given mask (`predict/correction.py`) was chosen on the others.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from one_click import scans_of
from training_pack import MODALITIES

from clickvol import Click, dice, load_model, read_volume
from clickvol.evaluation.simulated_user import SimulatedUser, Truth
from clickvol.geometry.box import bounding_box
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble


def prompts_of(truth: np.ndarray, grid: VolumeGrid, rng: np.random.Generator) -> dict[str, list]:
    """Return what a user might say of an object, by the name of the prompt."""
    voxels = np.argwhere(truth)
    click = Click(VoxelPoint.of(voxels[rng.integers(len(voxels))]))
    level = int(truth.sum(axis=(1, 2)).argmax())
    plane = np.argwhere(truth[level])
    angles = np.arange(32) * np.pi / 32
    along = (plane * grid.spacing_dhw_mm[1:]) @ np.stack([np.cos(angles), np.sin(angles)])
    best = int(np.ptp(along, axis=0).argmax())
    ends = [VoxelPoint.of((level, *plane[pick(along[:, best])])) for pick in (np.argmin, np.argmax)]
    on_slice = np.zeros_like(truth)
    on_slice[level] = truth[level]
    inner = Scribble.along(ends, grid)
    stroke = PackedMask.of(inner.voxels.full(truth.shape) & truth)
    known = truth.copy()
    known[int(np.quantile(voxels[:, 0], 2 / 3)) + 1 :] = False
    return {
        "one click": [click],
        "line": [Line(*ends)],
        "box on a slice": [Box.of(bounding_box(on_slice))],
        "box": [Box.of(bounding_box(truth))],
        "scribble": [Scribble(stroke)],
        "lasso": [Lasso(PackedMask.of(on_slice))],
        "two thirds given": [GivenMask(PackedMask.of(known))],
    }


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", default=["Sarcoma_CT", "Sarcoma_MR"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | model | prompt | mean Dice | first mask, seconds | half |\n|---|---|---|---|---|---|")
    for group in options.groups:
        for name in options.models:
            model, scores = load_model(name), {}
            for path in scans_of(options.data, group):
                volume = read_volume(path)
                truth = read_volume(path.parents[1] / "labelsTr" / path.name).array > 0
                rng = np.random.default_rng([0, sum(map(ord, path.name))])
                for prompt, given in prompts_of(truth, volume.grid, rng).items():
                    started = time.process_time()
                    predictor = ScanPredictor(volume, model, modality=MODALITIES[group])
                    mask = predictor.predict(given).mask.array
                    spent = time.process_time() - started
                    scores.setdefault(prompt, []).append((dice(mask, truth.astype(np.uint8)), spent))
                # The given mask is the last one, and corrected.
                user = SimulatedUser(
                    Truth.of(truth),
                    volume.grid,
                    case_id=path.name,
                    seed=0,
                    placement="random",
                    next_clicks="error",
                )
                for number in range(1, 4):
                    given = [*given, user.next_click(mask).click]
                    mask = predictor.predict(given).mask.array
                    scores.setdefault(f"and {number} clicked", []).append(
                        (dice(mask, truth.astype(np.uint8)), 0)
                    )
            for prompt, each in scores.items():
                (mean, seconds), half = np.mean(each, axis=0), np.mean(each[1::2], axis=0)[0]
                print(f"| {group} | {name} | {prompt} | {mean:.3f} | {seconds:.1f} | {half:.3f} |", flush=True)


if __name__ == "__main__":
    main()
