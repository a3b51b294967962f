"""Train by `configs/lesions.toml` on a machine with torch, numpy, scipy, safetensors and pydantic alone.

    python benchmarks/train_on_gpu.py --pack runs/pack.zip --held-out runs/heldout.zip --minutes 8.8 -o OUT

This is `clickvol train configs/lesions.toml` with a pack (`training_pack.py`) in place of the prepared folders.
Every minute the averaged weights are written as a model with its card, into OUT/0 and OUT/1 in turn, and the
log into OUT/run.json, so that the run may be cut off at any second; after a minute and at the end the log has
figures on held-out patients. `--set` changes the recipe as for the command; `gpu_check.py --batches` times
steps. `--fold N` begins with random weights, leaves the sarcoma patients of a fold out of a pack of all
(`training_pack.py --all-sarcoma`) and has the figures on them; `one_click.py MODEL --fold N` scores its model.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import read_pack
from clickvol.errors import ClickvolError
from clickvol.files.atomic import make_folder, write_text
from clickvol.methods.freezing import num_parameters
from clickvol.methods.registry import find_recipe
from clickvol.training.model_file import write_model
from clickvol.training.read_config import read_train_config
from clickvol.training.run import train_from_config
from clickvol.training.start import task_of
from clickvol.training.state import TrainState
from clickvol.training.tasks.step import TrainingStep

LESIONS = Path(__file__).parents[1] / "configs" / "lesions.toml"
FOLDS = LESIONS.parent / "splits" / "sarcoma-folds.json"
PROMPTS = {"click": {}, "diameter": {"diameter_share": 1.0}, "box": {"box_share": 1.0}, "corrected": {}}


def patients_of(fold: int) -> tuple[str, ...]:
    """Return the sarcoma patients that a fold is tested on."""
    folds = json.loads(FOLDS.read_text(encoding="utf-8"))
    return tuple(name.removeprefix("sts_") for name in folds[fold]["test"])


class Record:
    """What is kept of a run: models, log, and figures on held-out patients.

    Args:
        options: of the command line.
        overrides: of the configuration.
    """

    def __init__(self, options: argparse.Namespace, overrides: list[str]) -> None:
        self.options, self.config = options, read_train_config(options.config, overrides)
        self.task = task_of(self.config)
        scans = read_pack(options.held_out)
        if options.fold is not None:
            scans = [scan for scan in scans if not scan.group.startswith("Sarcoma")]
            scans += [scan for scan in read_pack(options.pack) if scan.patient in patients_of(options.fold)]
        self.held_out = ScanStore.of(scans, torch.device(options.device))
        self.facts = {"config": str(options.config), "overrides": overrides, "pack": str(options.pack)}
        self.facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.log: list[dict] = []
        self.saves = 0

    def write(self, figures: dict) -> None:
        """Keep figures and print them; of a step without there is only the number."""
        if "loss" in figures or "held_out" in figures:
            self.log.append({k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()})
            print(self.log[-1], flush=True)

    def save(self, state: TrainState) -> None:
        """Write the model and the log."""
        options = self.options
        if not self.saves or state.seconds >= 60 * options.minutes or state.step == options.max_steps:
            with state.averaged():
                figures = self.evaluate(state)
            self.write({"step": state.step, "seconds": state.seconds, "held_out": figures})
        folder = options.output / str(self.saves % 2)
        self.saves += 1
        make_folder(folder)
        config = self.config.model_copy(update={"run": self.config.run.model_copy(update={"folder": folder})})
        command = f"python benchmarks/train_on_gpu.py ({state.step} steps)"
        weights, count = state.weights_to_keep(), num_parameters(state.network)[0]
        card = write_model(weights, count, config, self.task, command, "wide")
        facts = {"steps": state.step, "model": str(card), "seconds": state.seconds}
        write_text(options.output / "run.json", json.dumps(facts | self.facts | {"log": self.log}, indent=1))

    @torch.no_grad()
    def evaluate(self, state: TrainState) -> dict:
        """Return the mean Dice of the network, of its best mask, and the error of the Dice that it predicts.

        By group and kind of prompt.
        """
        size, device, model = self.config.optimiser.batch_size, self.held_out.device, self.config.model
        recipe = find_recipe(model.method, model.preset, model.size)
        plain = {"diameter_share": 0.0, "slice_box_share": 0.0, "box_share": 0.0, "scribble_share": 0.0}
        result = {}
        for group in self.held_out.groups if self.options.held_out_batches else ():
            for name, shares in PROMPTS.items():
                changes = plain | shares | {"click_kept_share": 1.0, "group_shares": {group: 1.0}}
                changes |= {"corrected_click_share": float(name == "corrected")}
                sampling = self.config.sampling.without_changes().model_copy(update=changes)
                step = TrainingStep(state.network, recipe, sampling, 0)
                sampler = PatchSampler(self.held_out, sampling, recipe.network.patch_shape_dhw, 5)
                figures = []
                for part in range(self.options.held_out_batches):
                    # The size of the steps, for which libraries have chosen their kernels.
                    batch = sampler.batch(range(part * size, part * size + size))
                    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                        figures.append(step(batch, part)[1])
                result[f"{group} {name}"] = [round(x, 4) for x in torch.stack(figures).mean(0).tolist()]
        return result


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=LESIONS)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--fold", type=int, choices=range(5))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--held-out-batches", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    precision = "bfloat16" if options.device.startswith("cuda") else "float32"
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"data.root={options.pack}", f"run.folder={folder}", f"run.minutes={options.minutes}"]
        overrides += [f"run.device={options.device}", f"run.precision={precision}"]
        if options.fold is not None:
            left_out = json.dumps(patients_of(options.fold))
            overrides += [f"data.validation_patients={left_out}", "run.start_from=''"]
        overrides += options.changes
        try:
            record = Record(options, overrides)
            train_from_config(
                options.config, overrides, max_steps=options.max_steps, report=record.write, saved=record.save
            )
        except ClickvolError as error:
            raise SystemExit(f"{error}; the models of the last saves stand") from error


if __name__ == "__main__":
    main()
