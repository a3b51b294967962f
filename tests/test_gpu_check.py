"""`benchmarks/gpu_check.py` on a CPU, in a process that has none of what a bare machine lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_every_line_runs_without_what_a_bare_machine_lacks(tmp_path):
    program = tmp_path / "without.py"
    program.write_text(WITHOUT)
    words = [str(program), str(ROOT / "benchmarks" / "gpu_check.py"), "-o", str(tmp_path), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, "--small"], env=environment, capture_output=True, text=True, check=False
    )
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
