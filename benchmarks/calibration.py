"""Whether the expected Dice is what is measured: reliability on held-out patients, and knots for the card.

    python benchmarks/calibration.py collect promise3d-small promise3d-lesions --data DATA -o runs/said.csv
    python benchmarks/calibration.py report runs/said.csv --picture docs/explanation/calibration.png

`collect` clicks in the held-out patients of every set (`training_pack.is_held_out`; of the head-and-neck scans
every second one): once, at random, with two seeds, and with the first also up to three times, where the largest
error is. A line per mask: what the score head said, what the probability itself says (`soft_dice`), and the
Dice that was measured. It goes on where it was stopped.

`report` deals the patients of every set into two halves by turns. An isotonic curve through those of the first,
all sets together, becomes knots for the card (`expected_dice`); figures are those of the second half, with 95 %
intervals from a bootstrap over patients.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch
from scipy import stats
from training_pack import MODALITIES, POORLY_CALIBRATED, is_held_out, patient_of

from clickvol import Click, dice, load_model, read_volume
from clickvol.evaluation.simulated_user import SimulatedUser, Truth
from clickvol.predict.candidate_masks import soft_dice
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.report.figures import reliability_picture
from clickvol.report.statistics import calibration_error, rising_knots

GROUPS = ("Sarcoma_CT", "Sarcoma_MR", "Sarcoma_PET", "HeadNeckOrgans_CT", "LungNodule_CT")
EVERY = {"HeadNeckOrgans_CT": 2}
MAX_CLICKS = 3
RESAMPLES = 2000
COLUMNS = ("model", "group", "patient", "case", "object", "seed", "clicks", "head", "soft", "dice")


def cases(data: Path, group: str) -> list[Path]:
    """Return the held-out scans of a set that are clicked."""
    paths = sorted((data / group / "imagesTr").glob("*.nii.gz"))
    names = [path.name.removesuffix(".nii.gz") for path in paths]
    kept = [
        path
        for path, name in zip(paths, names, strict=True)
        if is_held_out(group, patient_of(group, name))
        and name.removeprefix("lidc_idri_") not in POORLY_CALIBRATED
    ]
    return kept[:: EVERY.get(group, 1)]


def masks_of(predictor: ScanPredictor, truth: Truth, name: str, seed: int) -> Iterator[tuple]:
    """Yield number of clicks, what head and probability say, and the Dice."""
    grid = predictor.volume.grid
    user = SimulatedUser(truth, grid, case_id=name, seed=seed, placement="random", next_clicks="error")
    mask, clicks = np.zeros(grid.shape_dhw, dtype=np.uint8), list[Click]()
    for number in range(1, (MAX_CLICKS if seed == 0 else 1) + 1):
        placed = user.first_click() if number == 1 else user.next_click(mask)
        if placed is None:
            return
        clicks.append(placed.click)
        answer = predictor.predict(clicks)
        mask = answer.mask.array
        soft = soft_dice(answer.probability_in_box, mask[answer.probability_box.slices] > 0)
        head = answer.candidates[0].predicted_dice if answer.candidates else float("nan")
        yield number, f"{head:.4f}", f"{soft:.4f}", f"{dice(mask, truth.array):.4f}"


def collect(models: list[str], data: Path, output: Path) -> None:
    """Click, and write the lines that are not there yet."""
    output.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if output.is_file():
        with output.open() as file:
            done = {(row["model"], row["case"]) for row in csv.DictReader(file)}
    loaded = {name: load_model(name) for name in models}
    # The head's own words, whatever the card makes of them.
    loaded = {
        name: type(m)(m.card.model_copy(update={"expected_dice": None}), m.network, m.device, m.precision)
        for name, m in loaded.items()
    }
    for group in GROUPS:
        for path in cases(data, group):
            case = f"{group}/{path.name.removesuffix('.nii.gz')}"
            stored = np.asarray(nibabel.load(path.parents[1] / "labelsTr" / path.name).dataobj).transpose(
                2, 1, 0
            )
            for name, model in loaded.items():
                if (name, case) in done:
                    continue
                predictor, rows = ScanPredictor(read_volume(path), model, modality=MODALITIES[group]), []
                for value in np.unique(stored[stored > 0]).tolist():
                    truth = Truth.of(stored == value)
                    for seed in range(2):
                        for said in masks_of(predictor, truth, f"{case}/{value}", seed):
                            patient = patient_of(group, case.split("/")[1])
                            rows.append((name, group, patient, case, value, seed, *said))
                with output.open("a", newline="") as file:
                    writer = csv.writer(file)
                    if not file.tell():
                        writer.writerow(COLUMNS)
                    writer.writerows(rows)


def halves(rows: pd.DataFrame) -> pd.Series:
    """Return which masks are of the first half: of each set the patients by turns, whatever the model."""
    first = set()
    for group, own in rows.groupby("group"):
        first |= {(group, patient) for patient in sorted(own["patient"].unique())[::2]}
    return pd.Series([key in first for key in zip(rows["group"], rows["patient"], strict=True)], rows.index)


def figures_of(said: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return calibration error, mean absolute error and Spearman's rank correlation."""
    is_flat = np.ptp(said) == 0 or np.ptp(measured) == 0
    rank = np.nan if is_flat else stats.spearmanr(said, measured).statistic
    return np.array([calibration_error(said, measured), np.abs(said - measured).mean(), rank])


def with_intervals(rows: pd.DataFrame, column: str) -> str:
    """Return the figures, each with its 95 % interval from a bootstrap over patients."""
    said, measured = rows[column].to_numpy(), rows["dice"].to_numpy()
    names, member = np.unique(rows["group"] + "/" + rows["patient"], return_inverse=True)
    own = [np.flatnonzero(member == number) for number in range(len(names))]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES if len(names) > 1 else 0):
        chosen = np.concatenate([own[number] for number in rng.integers(len(names), size=len(names))])
        drawn.append(figures_of(said[chosen], measured[chosen]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0) if drawn else (np.full(3, np.nan),) * 2
    cells = [
        f"{v:.2f} ({a:.2f} to {b:.2f})" for v, a, b in zip(figures_of(said, measured), low, high, strict=True)
    ]
    return " | ".join(cells)


def report(table: Path, picture: Path) -> None:
    """Fit on one half, print knots and the figures of the other, and draw."""
    rows = pd.read_csv(table, dtype={"patient": str})
    is_first, panels = halves(rows), {}
    print("| model, set | masks (patients) | mean Dice | expected | calibration error | mean error | rank |")
    print("|---|---|---|---|---|---|---|")
    for model, own in rows.groupby("model"):
        fit, other = own[is_first[own.index]], own[~is_first[own.index]].copy()
        source = "soft" if own["head"].isna().all() else "head"
        knots = rising_knots(fit[source].to_numpy(), fit["dice"].to_numpy())
        other["calibrated"] = np.interp(other[source], *zip(*knots, strict=True))
        for column in (source, "calibrated"):
            for name, part in (("all", other), *other.groupby("group")):
                patients = (part["group"] + part["patient"]).nunique()
                print(
                    f"| {model}, {name}, {column} | {len(part)} ({patients}) | {part['dice'].mean():.2f} | "
                    f"{part[column].mean():.2f} | {with_intervals(part, column)} |",
                    flush=True,
                )
        print(f"knots of {model}: {[(round(x, 3), round(y, 3)) for x, y in knots]}")
        panels[str(model)] = {
            {"soft": "probability", "head": "score head", "calibrated": "calibrated"}[column]: (
                other[column].to_numpy(),
                other["dice"].to_numpy(),
            )
            for column in (source, "calibrated")
        }
    reliability_picture(panels, picture)


def main() -> None:
    """Collect or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("collect")
    first.add_argument("models", nargs="+")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("-o", "--output", type=Path, required=True)
    second = commands.add_parser("report")
    second.add_argument("table", type=Path)
    second.add_argument("--picture", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "report":
        report(options.table, options.picture)
        return
    collect(options.models, options.data, options.output)


if __name__ == "__main__":
    main()
