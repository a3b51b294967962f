"""How trainings of the claims' small networks begin, by learning rate and seed, told by training losses alone.

    python benchmarks/claims_rate.py --prepared runs/claims/data -o runs/claims-rate --arms sam3d_adapter \
        --rates 8e-4,4e-4 --seeds 11,12 --steps 160

The arms of configs/claims.toml with the other overrides of its budget tiny (a schedule of 300 steps, of
which --steps are done), on the training patients of fold 0, with seeds that no claim is decided by. No scan
of a patient that is left out is read. Prints a Markdown row per training: loss and Dice on its own patches
over its last 60 steps. A training that answers with nothing is at a Dice below .1 then.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prepared", type=Path, required=True, help="OUT/data of a reproduction of claims.toml"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--arms", default="sam3d_adapter,promise3d")
    parser.add_argument("--rates", default="8e-4,4e-4,2e-4")
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    study = tomllib.loads((CONFIGS / "claims.toml").read_text(encoding="utf-8"))
    budget = next(one for one in study["budgets"] if one["name"] == "tiny")
    arms = {arm["name"]: arm for arm in study["arms"]}
    print("| rate | arm | seed | loss | Dice on its patches |\n|---|---|---|---|---|")
    for rate, name, seed in itertools.product(
        *(words.split(",") for words in (given.rates, given.arms, given.seeds))
    ):
        overrides = [*arms[name]["overrides"], *budget["overrides"], *data_of(study, given.prepared)]
        overrides += [f"optimiser.learning_rate={rate}", f"run.seed={seed}"]
        loss, dice = train(arms[name]["config"], overrides, given.out / "run", given.steps)
        print(f"| {rate} | {name} | {seed} | {loss:.3f} | {dice:.3f} |", flush=True)


def data_of(study: dict, prepared: Path) -> list[str]:
    """Return the overrides for the data of the study."""
    keys = {"path": "name", "modality": "modality", "source": "source"}
    folders = [
        ", ".join(f"{key}={json.dumps(one[name])}" for key, name in keys.items())
        for one in study["tasks"][0]["data"]
    ]
    root = f"data.root={json.dumps(str(prepared.resolve()))}"
    return [root, "data.folders=[{" + "}, {".join(folders) + "}]", "data.fold=0"]


def train(config: str, overrides: list[str], folder: Path, steps: int) -> tuple[float, float]:
    """Train the first steps in an empty folder; return loss and Dice over the last 60."""
    shutil.rmtree(folder, ignore_errors=True)
    overrides = [*overrides, f"run.folder={json.dumps(str(folder))}", 'run.device="cpu"']
    words = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "clickvol", "train", str(CONFIGS / config), *words, "--steps", str(steps)]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["step"] > steps - 60]
    return tuple(sum(line[name] for line in last) / len(last) for name in ("loss", "dice"))


if __name__ == "__main__":
    main()
