"""Choose the learning rate of a budget of configs/claims.toml from training losses alone.

    python benchmarks/claims_rate.py --prepared runs/claims/data -o runs/claims-rate

The rule, written down before it was run: rates from 8e-4 down, each half of the one before. At a rate the
prompted arms of the claims are trained for the first 160 of 300 steps with seeds that decide no claim, on
the training patients of fold 0. A training collapses where its mean Dice on its own patches over the last
60 steps is below .1 (it answers with nothing; those that learn are above .2 by then). The first rate at
which none collapses is the rate of all arms. No scan of a patient that is left out is read.

Prints a Markdown row per training and writes them to OUT/rates.csv.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

RATES = (8e-4, 4e-4, 2e-4, 1e-4)
SEEDS = (11, 12, 13)
ARMS = ("sam3d_adapter", "two-adapters", "up-conv", "c", "promise3d")  # the one that is known to collapse first
LEAST_DICE = 0.1
CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prepared", type=Path, required=True, help="OUT/data of a reproduction of claims.toml"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--budget", default="tiny", help="whose other overrides are taken")
    given = parser.parse_args()
    study = tomllib.loads((CONFIGS / "claims.toml").read_text(encoding="utf-8"))
    budget = next(one for one in study["budgets"] if one["name"] == given.budget)
    own = {arm["name"]: arm for arm in study["arms"]}
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| rate | arm | seed | loss | Dice on its patches | collapsed |\n|---|---|---|---|---|---|")
    for rate in RATES:
        chosen = True
        for arm, seed in ((arm, seed) for arm in ARMS for seed in SEEDS):
            overrides = [*own[arm]["overrides"], *budget["overrides"], f"optimiser.learning_rate={rate}"]
            loss, dice = train(
                own[arm]["config"], [*overrides, *data_of(study, given.prepared)], seed, given.out
            )
            rows.append({"rate": rate, "arm": arm, "seed": seed, "loss": loss, "dice": dice})
            end = "yes" if dice < LEAST_DICE else "no"
            print(f"| {rate:g} | {arm} | {seed} | {loss:.3f} | {dice:.3f} | {end} |", flush=True)
            with (given.out / "rates.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            if dice < LEAST_DICE:
                chosen = False
                break
        if chosen:
            print(f"\nno training collapses at {rate:g}: it is the rate")
            return
    print("\nno rate is without a collapse")


def data_of(study: dict, prepared: Path) -> list[str]:
    """Return the overrides for the data of the study."""
    keys = {"path": "name", "modality": "modality", "source": "source"}
    folders = [
        ", ".join(f"{key}={json.dumps(one[name])}" for key, name in keys.items())
        for one in study["tasks"][0]["data"]
    ]
    root = f"data.root={json.dumps(str(prepared.resolve()))}"
    return [root, "data.folders=[{" + "}, {".join(folders) + "}]", "data.fold=0"]


def train(config: str, overrides: list[str], seed: int, out: Path) -> tuple[float, float]:
    """Train the first 160 steps; return loss and Dice over the last 60."""
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    overrides = [*overrides, f"run.seed={seed}", f"run.folder={json.dumps(str(folder))}", 'run.device="cpu"']
    words = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "clickvol", "train", str(CONFIGS / config), *words, "--steps", "160"]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["step"] > 100]
    return tuple(sum(line[name] for line in last) / len(last) for name in ("loss", "dice"))


if __name__ == "__main__":
    main()
