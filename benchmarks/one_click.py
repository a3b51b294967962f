"""One random click on patients that no shipped model has trained on: mean Dice, by data set.

    python benchmarks/one_click.py promise3d-small promise3d-lesions --data ../shared/data --seeds 2

The six validation patients of the sarcoma sets; every fourth of the held-out lung nodules and every third of
the held-out head-and-neck scans (`training_pack.is_held_out`), to save time. The click is any voxel of the
object, the same for every model. `--trained` takes the patients that the models were trained on instead, which
tells whether they have learnt them by heart; `--fold N` the sarcoma patients that a model of
`train_on_gpu.py --fold N` never saw. Prints a Markdown table.
"""

import argparse
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from train_on_gpu import patients_of
from training_pack import MODALITIES, POORLY_CALIBRATED, is_held_out, patient_of

from clickvol import Click, dice, load_model, read_volume
from clickvol.predict.scan_predictor import ScanPredictor

# Every case costs seconds: of the larger sets a part is enough.
EVERY = {"LungNodule_CT": 4, "HeadNeckOrgans_CT": 3}
NOT_SCORED = ("MSLesion_MR",)


def scans_of(data: Path, group: str, *, held_out: bool = True, fold: int | None = None) -> list[Path]:
    """Return the held-out scans of a set that are scored, those of a fold, or as great a part of the others."""

    def is_left_out(patient: str) -> bool:
        if fold is not None and group.startswith("Sarcoma"):
            return patient in patients_of(fold)
        return is_held_out(group, patient)

    paths = [
        path
        for path in sorted((data / group / "imagesTr").glob("*.nii.gz"))
        if is_left_out(patient_of(group, path.name.removesuffix(".nii.gz"))) == held_out
        and path.name.removesuffix(".nii.gz").removeprefix("lidc_idri_") not in POORLY_CALIBRATED
    ]
    return paths[:: EVERY.get(group, 1)]


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--groups", nargs="+", default=[g for g in MODALITIES if g not in NOT_SCORED])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trained", action="store_true", help="score patients that were trained on")
    parser.add_argument("--fold", type=int, choices=range(5))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| set | model | clicks | mean Dice | median | under .3 | seconds a click |")
    print("|---|---|---|---|---|---|---|")
    for group in options.groups:
        for name in options.models:
            model = load_model(name)
            scores, started = [], time.perf_counter()
            paths = scans_of(options.data, group, held_out=not options.trained, fold=options.fold)
            for path in paths:
                volume = read_volume(path)
                label = np.asarray(nibabel.load(path.parents[1] / "labelsTr" / path.name).dataobj)
                predictor = ScanPredictor(volume, model, modality=MODALITIES[group])
                for value in np.unique(label[label > 0]).tolist():
                    voxels = np.argwhere(label == value)
                    for seed in range(options.seeds):
                        rng = np.random.default_rng([seed, value, sum(map(ord, path.name))])
                        i, j, k = voxels[rng.integers(len(voxels))].tolist()
                        mask = predictor.predict([Click.at((i, j, k))]).mask.array
                        scores.append(dice(mask, (label == value).transpose(2, 1, 0).astype(np.uint8)))
            each = (time.perf_counter() - started) / len(scores)
            few = np.mean(np.array(scores) < 0.3)
            print(
                f"| {group} | {name} | {len(scores)} | {np.mean(scores):.3f} | {np.median(scores):.3f} | "
                f"{few:.0%} | {each:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
