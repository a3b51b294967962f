"""Write the scores of a finished evaluation into a model card, and print the table of patients for the README.

    clickvol evaluate promise3d-small ball region-growing --data CT=runs/data/Sarcoma_CT \
        --data MR=runs/data/Sarcoma_MR --clicks 1,3,5,10 --seeds 5 --reference promise3d-small -o runs/patients
    python benchmarks/card_scores.py runs/patients --card src/clickvol/weights/shipped/promise3d-small.json

Nothing is scored here: all numbers are those of REPORT/cases.csv (docs/how-to/evaluate.md).
"""

import argparse
import json
from pathlib import Path

import pandas as pd

BALL, GROWN = "ball 50 mm", "region growing"


def read_cases(report: Path) -> pd.DataFrame:
    """Return the rows of cases.csv that belong to the protocol, not to `--robustness`."""
    settings = json.loads((report / "settings.json").read_text(encoding="utf-8"))
    rows = pd.read_csv(report / "cases.csv")
    return rows[rows["placement"] == settings["protocol"]["first_click"]]


def mean_dice(rows: pd.DataFrame, **values: object) -> float:
    """Return the mean Dice of the rows that have these values; not a number where there is none."""
    return float(rows.loc[(rows[list(values)] == pd.Series(values)).all(axis=1), "dice"].mean())


def patient_table(rows: pd.DataFrame, model: str) -> list[str]:
    """Return Markdown: one click, every patient, a column per data set, the ball in brackets."""
    names = list(rows["data"].unique())
    lines = [f"| patient | tumour | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for case, here in rows.groupby("case_id", sort=False):
        cells = [case.rsplit("_", maxsplit=1)[-1]]
        cells.append(f"{here['truth_ml'].mean():.0f} ml")
        for name in names:
            ours, ball = (mean_dice(here, data=name, model=m, num_clicks=1) for m in (model, BALL))
            cells.append(f"{ours:.2f} ({ball:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    cells = ["**mean**", ""]
    for name in names:
        ours, ball = (mean_dice(rows, data=name, model=m, num_clicks=1) for m in (model, BALL))
        cells.append(f"**{ours:.3f}** ({ball:.2f})")
    lines += [f"| {' | '.join(cells)} |", ""]
    for who in (model, GROWN):
        for clicks in sorted(rows["num_clicks"].unique()):
            means = (mean_dice(rows, data=name, model=who, num_clicks=clicks) for name in names)
            each = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(names, means, strict=True))
            lines.append(f"{who}, {clicks} {'click' if clicks == 1 else 'clicks'}: {each}")
    return lines


def card_scores(report: Path, rows: pd.DataFrame, model: str) -> list[dict[str, object]]:
    """Return what a card says of each data set."""
    settings = json.loads((report / "settings.json").read_text(encoding="utf-8"))
    page = (report / "report.md").read_text(encoding="utf-8")
    command = page.partition("- Command: `")[2].partition("`")[0]
    scores = []
    for _, of in rows.groupby("data", sort=False):
        scores.append(
            {
                "modality": of["modality"].iloc[0],
                **{
                    f"mean_dice{title}_{clicks}_{'click' if clicks == 1 else 'clicks'}": round(
                        mean_dice(of, model=who, num_clicks=clicks), 4
                    )
                    for title, who, numbers in (
                        ("", model, settings["protocol"]["num_clicks"]),
                        ("_of_ball", BALL, [1]),
                        ("_of_region_growing", GROWN, [1]),
                    )
                    if who in set(of["model"])
                    for clicks in numbers
                },
                "users_per_scan": settings["protocol"]["seeds"],
                "patients": [case.rsplit("_", maxsplit=1)[-1] for case in of["case_id"].unique()],
                "protocol": f"{settings['protocol']['title']}, whole scan, its own grid",
                "command": command,
            }
        )
    return scores


def main() -> None:
    """Print the table; write the card where one is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder of a finished clickvol evaluate")
    parser.add_argument("--model", default="promise3d-small")
    parser.add_argument("--card", type=Path, help="model card that the scores are written into")
    options = parser.parse_args()
    rows = read_cases(options.report)
    print("\n".join(patient_table(rows, options.model)))
    if options.card is not None:
        content = json.loads(options.card.read_text(encoding="utf-8"))
        content["scores"] = card_scores(options.report, rows, options.model)
        options.card.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
