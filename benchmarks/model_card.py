"""Fill what a model's page says from its card and from measured scores.

    python benchmarks/model_card.py [--check]

The pages are `src/clickvol/weights/shipped/ID.md`. Between `<!-- facts -->` and `<!-- end -->` stands what the
card (`ID.json`) says; after `<!-- scores -->` means over patients of `benchmarks/results/sarcoma/scores.csv` by
modality and by size, with 95 % intervals (bootstrap over patients, 10,000 resamples, seed 0); after
`<!-- one click -->` the table of that section of `docs/explanation/model.md`. The rest is written by hand. With
--check nothing is written: the exit code is 1 where a page is not up to date.
"""

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src/clickvol/weights/shipped"
SCORES = ROOT / "benchmarks/results/sarcoma/scores.csv"

MEASURED = ROOT / "docs/explanation/model.md"

SIZES_ML = {"under 50 ml": (0, 50), "50 to 200 ml": (50, 200), "above 200 ml": (200, np.inf)}
CLICKS = (1, 3, 10)


def facts(card: dict) -> str:
    """Return what the card says, as a table and a list."""
    rows = {
        "id": f"`{card['id']}`",
        "method": f"`{card['method']}`",
        "modalities": ", ".join(card["modalities"]),
        "size": f"{card['num_parameters']:,} parameters, {card['bytes'] / 1e6:.1f} MB ({card['dtype']})",
        "weights, SHA-256": f"`{card['sha256']}`",
        "licence": card["licence"],
        "clickvol": card["clickvol_version"],
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    data = [f"- {line}" for line in card["training_data"]]
    return "\n".join([*table, "", "Trained on, as the card says:", "", *data])


def scores() -> str:
    """Return the tables by modality and by size."""
    dice: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    size_ml: dict[str, float] = {}
    with SCORES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == "shipped" and row["placement"] == "random":
                dice[row["modality"], int(row["num_clicks"]), row["group"]].append(float(row["dice"]))
                size_ml[row["group"]] = float(row["truth_ml"])
    patients = sorted(size_ml)
    lines = [f"| | patients | {' | '.join(_clicks(n) for n in CLICKS)} |", "|---|---|---|---|---|"]
    for modality in ("CT", "MR"):
        lines.append(_row(modality, patients, [modality], dice))
    for title, (low, high) in SIZES_ML.items():
        lines.append(_row(title, [p for p in patients if low <= size_ml[p] < high], ["CT", "MR"], dice))
    return "\n".join(lines)


def one_click() -> str:
    """Return the table of one click in patients that neither model was trained on."""
    _, _, section = MEASURED.read_text(encoding="utf-8").partition("\n## One random click")
    return "\n".join(re.findall(r"^\|.*", section.split("\n## ")[0], flags=re.MULTILINE))


def _clicks(number: int) -> str:
    return "one click" if number == 1 else f"{number} clicks"


def _row(title: str, patients: list[str], modalities: list[str], dice: dict) -> str:
    cells = []
    for clicks in CLICKS:
        means = np.array([np.mean([dice[m, clicks, p] for m in modalities]) for p in patients])
        draws = np.random.default_rng(0).integers(len(means), size=(10_000, len(means)))
        low, high = np.percentile(means[draws].mean(axis=1), [2.5, 97.5])
        interval = f" [{low:.2f}, {high:.2f}]" if len(means) > 2 else ""
        cells.append(f"{means.mean():.2f}{interval}")
    return f"| {title} | {len(patients)} | {' | '.join(cells)} |"


def filled(page: str, card: dict) -> str:
    """Return a page with its parts anew."""
    for name, text in (("facts", facts(card)), ("scores", scores()), ("one click", one_click())):
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda result, text=text: f"{result[1]}\n{text}\n\n{result[2]}",
            page,
            flags=re.DOTALL,
        )
    return page


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path in sorted(SHIPPED.glob("*.json")):
        page = path.with_suffix(".md")
        old = page.read_text(encoding="utf-8")
        new = filled(old, json.loads(path.read_text(encoding="utf-8")))
        if new != old:
            stale.append(page.name)
            if not check:
                page.write_text(new, encoding="utf-8")
    print(f"{', '.join(stale)}: not up to date" if check and stale else f"{len(stale)} pages changed")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
