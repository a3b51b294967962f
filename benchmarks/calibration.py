"""Whether the expected Dice is what is measured, and what makes it so for the card of a model.

    python benchmarks/calibration.py collect promise3d-lesions --data DATA -o runs/said.csv --scans 13
    python benchmarks/calibration.py report runs/said.csv --picture calibration.png --write-cards

`collect` clicks in held-out patients of every set (`training_pack.is_held_out`), at random: up to three times
where the largest error is, and once, each with as many seeds as `SEEDS` says. A line per mask: what the score
head said, what the probability itself says (`soft_dice`), how long the mask is, and the Dice measured.
Sets take turns, and the first scan of every patient comes before any second one; what is stopped goes on where
it was. `--scans` takes so many of a set, spread over its patients: with 13 some 420 masks, a second each.

`report` fits one curve for all masks, and a shift for each modality and size (under 30 mm or not) with masks of
three patients, both in `expected_dice` of the card. Sets count alike. It is judged by halves: the patients of a
set are dealt into two by turns, and each half is expected by what was fitted to the other. Intervals (95 %) are
from a bootstrap over patients. `--write-cards` puts the fit to all patients into the cards of the models.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise, product, zip_longest
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import optimize, stats
from training_pack import MODALITIES, POORLY_CALIBRATED, is_held_out, patient_of

from clickvol import Click, dice, load_model, read_volume
from clickvol.evaluation.simulated_user import SimulatedUser, Truth
from clickvol.predict.candidate_masks import soft_dice
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.weights.card import find_card
from clickvol.weights.expected_dice import ExpectedDice, MeasuredKind

GROUPS = ("Sarcoma_CT", "Sarcoma_MR", "Sarcoma_PET", "HeadNeckOrgans_CT", "LungNodule_CT")
# Sarcoma has six patients, each with one scan of a kind: more clicks in each.
SEEDS = {"HeadNeckOrgans_CT": 1, "LungNodule_CT": 2}
MANY_SEEDS = 4
MAX_CLICKS = 3
RESAMPLES = 1000
# A nodule of the lung is at most 30 mm (D. Hansell et al., Fleischner Society, 2008).
SIZES_MM = (0.0, 30.0, np.inf)
LEAST_PATIENTS = 3
COLUMNS = ("model", "group", "patient", "case", "object", "seed", "clicks", "head", "soft")
COLUMNS += ("longest_mm", "dice")


def cases(data: Path, group: str, scans: int | None) -> list[Path]:
    """Return held-out scans of a set: the first of every patient, then the second where there is one.

    With a number of scans, so many, of patients evenly spread over the set.
    """
    by_patient = defaultdict[str, list[Path]](list)
    for path in sorted((data / group / "imagesTr").glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        if (
            is_held_out(group, patient_of(group, name))
            and name.removeprefix("lidc_idri_") not in POORLY_CALIBRATED
        ):
            by_patient[patient_of(group, name)].append(path)
    own = list(by_patient.values())
    spread_over = (
        own if scans is None or scans >= len(own) else [own[n * len(own) // scans] for n in range(scans)]
    )
    return [path for turn in zip_longest(*spread_over) for path in turn if path is not None][:scans]


def jobs(data: Path, scans: int | None) -> list[tuple[str, Path]]:
    """Return sets and scans, the sets by turns, so that a run which is stopped has clicked in all of them."""
    columns = [[(group, path) for path in cases(data, group, scans)] for group in GROUPS]
    return [job for turn in zip_longest(*columns) for job in turn if job is not None]


def masks_of(predictor: ScanPredictor, truth: Truth, name: str, seed: int) -> Iterator[tuple]:
    """Yield number of clicks, what is known of each mask, and its Dice."""
    grid = predictor.volume.grid
    user = SimulatedUser(truth, grid, case_id=name, seed=seed, placement="random", next_clicks="error")
    mask, clicks = np.zeros(grid.shape_dhw, dtype=np.uint8), list[Click]()
    for number in range(1, (MAX_CLICKS if seed % 2 == 0 else 1) + 1):
        placed = user.first_click() if number == 1 else user.next_click(mask)
        if placed is None:
            return
        clicks.append(placed.click)
        answer = predictor.predict(clicks)
        mask = answer.mask.array
        box = answer.bounding_box()
        if box is None:
            continue
        own = mask[answer.probability_box.slices] > 0
        head = answer.candidates[0].predicted_dice if answer.candidates else float("nan")
        longest_mm = (box.shape_dhw * grid.spacing_dhw_mm).max()
        numbers = (head, soft_dice(answer.probability_in_box, own), longest_mm, dice(mask, truth.array))
        yield number, *(f"{value:.4f}" for value in numbers)


def collect(models: list[str], data: Path, output: Path, scans: int | None) -> None:
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
    for group, path in jobs(data, scans):
        case = f"{group}/{path.name.removesuffix('.nii.gz')}"
        label = nibabel.load(path.parents[1] / "labelsTr" / path.name)
        stored = np.asarray(label.dataobj).transpose(2, 1, 0)
        for name, model in loaded.items():
            if (name, case) in done:
                continue
            predictor, rows = ScanPredictor(read_volume(path), model, modality=MODALITIES[group]), []
            patient = patient_of(group, case.split("/")[1])
            for value in np.unique(stored[stored > 0]).tolist():
                for seed in range(SEEDS.get(group, MANY_SEEDS)):
                    for said in masks_of(predictor, Truth.of(stored == value), f"{case}/{value}", seed):
                        rows.append((name, group, patient, case, value, seed, *said))
            with output.open("a", newline="") as file:
                writer = csv.writer(file)
                if not file.tell():
                    writer.writerow(COLUMNS)
                writer.writerows(rows)


def rising_knots(said: np.ndarray, measured: np.ndarray, weights: np.ndarray, count: int = 6) -> list:
    """Return knots of a curve that never falls through (n,) points: means of parts of like weight, isotonic."""
    order = np.argsort(said, kind="stable")
    part = np.minimum((np.cumsum(weights[order]) / weights.sum() * count).astype(int), count - 1)
    parts = [order[part == number] for number in np.unique(part)]
    means = [np.average([said[p], measured[p]], axis=1, weights=weights[p]) for p in parts]
    total = [weights[p].sum() for p in parts]
    heights = optimize.isotonic_regression([y for _, y in means], weights=total).x
    return [(round(float(x), 3), round(float(y), 3)) for (x, _), y in zip(means, heights, strict=True)]


def spread(rest: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return between which values all but the lowest and the highest tenth lie."""
    order = np.argsort(rest)
    shares = np.cumsum(weights[order]) / weights.sum()
    low, high = (rest[order][min(np.searchsorted(shares, share), len(rest) - 1)] for share in (0.1, 0.9))
    return round(float(low), 3), round(float(high), 3)


def fitted(rows: pd.DataFrame) -> ExpectedDice:
    """Return what becomes of the masks' predicted Dice; sets count alike, however many masks they have."""
    weights = (1 / rows.groupby("group")["dice"].transform("size")).to_numpy()
    said, dices = rows["said"].to_numpy(), rows["dice"].to_numpy()
    knots = rising_knots(said, dices, weights)
    rest, kinds = dices - np.interp(said, *zip(*knots, strict=True)), []
    for modality, (low, high) in product(sorted(set(MODALITIES.values())), pairwise(SIZES_MM)):
        own = (
            (rows["modality"] == modality) & rows["longest_mm"].between(low, high, inclusive="left")
        ).to_numpy()
        of, r, w = rows["patient"].to_numpy()[own], rest[own], weights[own]
        patients = np.unique(of)
        if len(patients) < LEAST_PATIENTS:
            continue
        shift = float(np.average(r, weights=w))
        # Each patient's as the others expect it: the next patient will not have been seen either.
        without = {one: np.average(r[of != one], weights=w[of != one]) for one in patients}
        left = r - np.array([without[one] for one in of])
        kinds.append(
            MeasuredKind(
                modality=modality,
                from_mm=low,
                below_mm=None if np.isinf(high) else high,
                shift=round(shift, 3),
                spread=spread(left, w),
                patients=len(patients),
            )
        )
    return ExpectedDice(knots=knots, spread=spread(rest, weights), kinds=kinds)


def expected(curve: ExpectedDice, rows: pd.DataFrame) -> pd.DataFrame:
    """Return for every mask the Dice to expect, and between what."""
    said = [curve.of(*mask) for mask in zip(rows["said"], rows["modality"], rows["longest_mm"], strict=True)]
    values = [(each.dice, *each.interval) for each in said]
    return pd.DataFrame(values, index=rows.index, columns=["expected", "low", "high"])


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to every mask what a curve expects that knows none of its patient: that of the other half.

    The patients of every set are dealt by turns; each half is judged by the other.
    """
    second = set()
    for _, own in rows.groupby("group"):
        second |= set(sorted(own["patient"].unique())[1::2])
    is_second = rows["patient"].isin(second)
    parts = [expected(fitted(rows[is_second != half]), rows[is_second == half]) for half in (False, True)]
    return rows.join(pd.concat(parts))


def figures_of(said: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the mean difference, the mean absolute difference and Spearman's rank correlation."""
    is_flat = np.ptp(said) == 0 or np.ptp(measured) == 0
    rank = np.nan if is_flat else stats.spearmanr(said, measured).statistic
    return np.array([(said - measured).mean(), np.abs(said - measured).mean(), rank])


def with_intervals(rows: pd.DataFrame) -> str:
    """Return the figures, each with its 95 % interval from a bootstrap over patients."""
    said, measured = rows["expected"].to_numpy(), rows["dice"].to_numpy()
    own = list(rows.assign(place=range(len(rows))).groupby("patient")["place"].agg(np.array))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([own[number] for number in rng.integers(len(own), size=len(own))])
        drawn.append(figures_of(said[chosen], measured[chosen]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    three = zip(figures_of(said, measured), low, high, strict=True)
    return " | ".join(f"{value:.2f} ({a:.2f} to {b:.2f})" for value, a, b in three)


def report(table: Path, picture: Path, *, writes_cards: bool) -> None:
    """Judge each half of the patients by the other, draw, and fit to all for the cards."""
    rows, panels = pd.read_csv(table, dtype={"patient": str}), {}
    rows["said"] = rows["head"].fillna(rows["soft"])
    rows["modality"] = rows["group"].map(MODALITIES)
    columns = ("model, set", "masks (patients)", "Dice", "as said", "expected", "too high by", "mean error")
    print("| " + " | ".join((*columns, "rank correlation", "in the interval")) + " |\n" + "|---" * 9 + "|")
    for model, own in rows.groupby("model"):
        known = judged(own)
        for name, part in (("all", known), *known.groupby("group")):
            means = part[["dice", "said", "expected"]].mean()
            is_inside = part["dice"].between(part["low"], part["high"])
            print(
                f"| {model}, {name} | {len(part)} ({part['patient'].nunique()}) | "
                + " | ".join(f"{value:.2f}" for value in means)
                + f" | {with_intervals(part)} | {is_inside.mean():.0%} |",
                flush=True,
            )
        panels[str(model)] = {name: (known[name], known["dice"]) for name in ("said", "expected")}
        curve = fitted(own).model_dump(mode="json")
        print(f"{model}: {json.dumps(curve)}")
        if writes_cards:
            write_card(find_card(str(model)), curve)
    draw(panels, picture)


def write_card(path: Path, curve: dict) -> None:
    """Put a curve into a card, and leave every other character as it is."""
    text, key = path.read_text(encoding="utf-8"), '"expected_dice": '
    if key not in text:
        text = text.replace("{\n", f"{{\n  {key}null,\n", 1)
    start = text.index(key) + len(key)
    _, end = json.JSONDecoder().raw_decode(text, start)
    path.write_text(text[:start] + json.dumps(curve) + text[end:], encoding="utf-8")


def draw(panels: dict[str, dict[str, tuple[pd.Series, pd.Series]]], path: Path) -> None:
    """Draw what was said against what was measured, in ten bins; a dot's area is the number of masks."""
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for number, (title, lines) in enumerate(panels.items(), start=1):
        panel = figure.add_subplot(1, len(panels), number, title=title)
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        for (name, (said, measured)), colour in zip(lines.items(), ("#0072B2", "#D55E00"), strict=True):
            binned = pd.DataFrame({"x": said, "y": measured}).groupby((said * 10).astype(int).clip(upper=9))
            x, y, counts = binned["x"].mean(), binned["y"].mean(), binned.size()
            panel.plot(x, y, color=colour, linewidth=1.2, label=name)
            panel.scatter(x, y, s=4 + 2 * counts, color=colour, alpha=0.6, zorder=3)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="expected Dice", ylabel="measured Dice, mean")
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    """Collect or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("collect")
    first.add_argument("models", nargs="+")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("-o", "--output", type=Path, required=True)
    first.add_argument("--scans", type=int, help="of every set; without it all held-out scans")
    second = commands.add_parser("report")
    second.add_argument("table", type=Path)
    second.add_argument("--picture", type=Path, required=True)
    second.add_argument("--write-cards", action="store_true", help="of the models in the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "report":
        report(options.table, options.picture, writes_cards=options.write_cards)
        return
    collect(options.models, options.data, options.output, options.scans)


if __name__ == "__main__":
    main()
