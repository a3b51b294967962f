"""What `clickvol adapt` brings on patients that it has not seen, and what it costs on sarcoma: mean Dice.

    python benchmarks/adapt_curve.py LungNodule_CT 10 --data ../shared/data -o runs/adapt

Takes so many patients at random (seed 0) of those that have the object and are not held out
(`training_pack.is_held_out`), adapts `promise3d-small` to them, and clicks once, at random, with two seeds, in
the held-out scans of `one_click.py` and of both sarcoma sets. `--label` takes one organ of a set with several.
Prints a line per figure.
"""

import argparse
import csv
from pathlib import Path

import nibabel
import numpy as np
import torch
from one_click import scans_of
from training_pack import MODALITIES, POORLY_CALIBRATED, is_held_out, patient_of

from clickvol import Click, dice, load_model, read_volume
from clickvol.adapt.intake import Intake
from clickvol.adapt.run import AdaptRequest, adapt
from clickvol.predict.scan_predictor import ScanPredictor


def name_of(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


def label_of(scan: Path) -> Path:
    return scan.parents[1] / "labelsTr" / scan.name


def has_object(scan: Path, label: int | None) -> bool:
    values = np.asarray(nibabel.load(label_of(scan)).dataobj)
    return bool((values == label if label else values > 0).any())


def link_patients(data: Path, group: str, count: int, label: int | None, folder: Path) -> None:
    """Make a data set of links to the scans of some patients, and say who is one patient."""
    scans = [
        path
        for path in sorted((data / group / "imagesTr").glob("*.nii.gz"))
        if not is_held_out(group, patient_of(group, name_of(path)))
        and name_of(path).removeprefix("lidc_idri_") not in POORLY_CALIBRATED
    ]
    by_patient: dict[str, list[Path]] = {}
    for path in scans:
        by_patient.setdefault(patient_of(group, name_of(path)), []).append(path)
    patients = sorted(by_patient)
    np.random.default_rng(0).shuffle(patients)
    rows = []
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for patient in patients:
        useful = [path for path in by_patient[patient] if has_object(path, label)]
        for path in useful:
            for kind, target in (("images", path), ("labels", label_of(path))):
                link = folder / kind / path.name
                if not link.exists():
                    link.symlink_to(target.resolve())
        rows += [(name_of(path), patient) for path in useful]
        if len({known for _, known in rows}) == count:
            break
    with (folder / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), *rows])


def score(model_name: str, data: Path, group: str, label: int | None) -> str:
    """Return the mean Dice of one random click, as a sentence."""
    model, scores = load_model(model_name), []
    for path in scans_of(data, group):
        stored = np.asarray(nibabel.load(label_of(path)).dataobj)
        predictor = ScanPredictor(read_volume(path), model, modality=MODALITIES[group])
        for value in [label] if label else np.unique(stored[stored > 0]).tolist():
            voxels = np.argwhere(stored == value)
            for seed in range(2 if len(voxels) else 0):
                rng = np.random.default_rng([seed, value, sum(map(ord, path.name))])
                click = Click.at(tuple(voxels[rng.integers(len(voxels))].tolist()))
                mask = predictor.predict([click]).mask.array
                scores.append(dice(mask, (stored == value).transpose(2, 1, 0).astype(np.uint8)))
    low = np.mean(np.array(scores) < 0.3)
    return f"{group}: {np.mean(scores):.3f}, {low:.0%} under .3, {len(scores)} clicks"


def main() -> None:
    """Adapt and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group")
    parser.add_argument("patients", type=int)
    parser.add_argument("--label", type=int)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--base", default="promise3d-small")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = f"{options.group}-{options.label or 'all'}-{options.patients}"
    folder, model = options.output / f"{name}-set", options.output / name
    link_patients(options.data, options.group, options.patients, options.label, folder)
    intake = Intake(
        source=folder, groups=folder / "groups.csv", label=options.label, modality=MODALITIES[options.group]
    )
    done = adapt(
        AdaptRequest(
            intake=intake,
            output=model,
            base=options.base,
            minutes=options.minutes,
            force=True,
            command=f"benchmarks/adapt_curve.py {options.group} {options.patients}",
        ),
        lambda *_: None,
    )
    print(f"{done.seconds:.0f} s; left out in turn:", flush=True)
    for row in done.comparison.rows():
        print("  ", {key: value for key, value in row.items() if key != "protocol"}, flush=True)
    for which in (options.base, str(model.with_suffix(".json"))):
        for group in dict.fromkeys((options.group, "Sarcoma_CT", "Sarcoma_MR")):
            print(
                which,
                score(which, options.data, group, options.label if group == options.group else None),
                flush=True,
            )


if __name__ == "__main__":
    main()
