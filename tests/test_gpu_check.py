"""The programs for a bare machine, on a CPU, in a process that has none of what such a machine lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clickvol.datasets.device.stored_scan import StoredScan, write_pack
from clickvol.training.read_config import read_train_config
from clickvol.weights.card import read_card

ROOT = Path(__file__).parents[1]

# Runs a program as if these packages were not installed.
WITHOUT = """
import runpy, sys

MISSING = {"nibabel", "monai", "SimpleITK", "pydicom", "highdicom", "pandas", "typer", "dask", "distributed"}
MISSING |= {"blosc2", "httpx", "PIL", "skimage", "matplotlib", "pytest", "fastapi"}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in MISSING else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_bare(folder, name, *words):
    """Run a program of `benchmarks` with the folder as its output, without what a bare machine lacks."""
    program = folder / "without.py"
    program.write_text(WITHOUT)
    words = [str(program), str(ROOT / "benchmarks" / name), "-o", str(folder), "--device", "cpu", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_pack_is_trained_on_by_the_file_of_the_default_model(tmp_path):
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:10, 5:11, 6:12] = 1
    groups = [folder.path for folder in read_train_config(ROOT / "configs" / "lesions.toml", []).data.folders]
    scans = [StoredScan(name, name, name, (3.0, 2.0, 2.0), 80 + 90 * label, label) for name in groups]
    write_pack(scans, tmp_path / "pack.zip")
    write_pack(scans[:1], tmp_path / "held.zip")
    words = ["--pack", str(tmp_path / "pack.zip"), "--held-out", str(tmp_path / "held.zip"), "--max-steps", "2"]
    changes = ["model.size=tiny", "optimiser.batch_size=2", "run.start_from=", "run.checkpoint_every=1"]
    done = run_bare(tmp_path, "train_on_gpu.py", *words, *(f"--set={change}" for change in changes))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "run.json").read_text())
    assert (told["steps"], told["model"]) == (2, str(tmp_path / "1" / "lesions.json"))
    lines = told["log"]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    kinds = {f"{groups[0]} {kind}" for kind in ("click", "diameter", "box", "corrected")}
    assert [line["held_out"].keys() == kinds for line in lines if "held_out" in line] == [True, True]
    first, second = (read_card(tmp_path / number) for number in "01")
    assert first.sha256 != second.sha256
    assert (second.intensity, second.modalities) == ("wide", ["CT", "MR", "PT"])


@pytest.mark.slow
def test_every_line_runs_without_what_a_bare_machine_lacks(tmp_path):
    done = run_bare(tmp_path, "gpu_check.py", "--small")
    facts = json.loads((tmp_path / "gpu_check.json").read_text())
    assert done.returncode == 0, (done.stdout, [line.get("error") for line in facts["lines"]])
    lines = {line["name"]: line for line in facts["lines"]}
    assert len(lines) == 13
    # One device compared with itself: nothing differs.
    assert lines["forward as on the CPU"]["relative_difference"] == 0
    assert lines["loss, gradient, step as on the CPU"]["gradient"] == 0
    assert lines["training of the small network"]["samples_per_s"] > 0
    assert lines["training by CUDA graphs as kernel by kernel, float32"]["graphs_and_plain"] == 0
    assert all(name in done.stdout for name in lines)
