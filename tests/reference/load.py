"""The clients of `benchmarks/load.py`: viewers' protocols from the client's side."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "clickvol_load", Path(__file__).parents[2] / "benchmarks" / "load.py"
)
load = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = load
_spec.loader.exec_module(load)
