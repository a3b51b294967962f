"""What this installation consists of and what it can compute on."""

import os
import platform
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from clickvol import weights
from clickvol.version import __version__
from clickvol.weights.card import list_cards
from clickvol.weights.precision import cpu_speeds

_LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "safetensors")

# Those that decide how fast a network runs on a CPU, x86 and ARM.
_INSTRUCTION_SETS = (
    "avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8",
    "neon", "asimd", "bf16", "sve",
)  # fmt: skip


def describe_installation() -> dict[str, Any]:
    """Return versions, devices, threads, instruction sets and models, ready for JSON."""
    capabilities = _cpu_capabilities()
    speeds = cpu_speeds()
    return {
        "clickvol": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "extras": _extras(),
        "devices": _devices(),
        "gpu": _gpu(),
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "precision": str(speeds.faster).removeprefix("torch."),
        "cpu_gflops": asdict(speeds),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if capabilities.get(name)],
        "models_folder": str(Path(weights.__file__).parent / "shipped"),
        "shipped_models": [card.id for card in list_cards()],
    }


def _extras() -> dict[str, str]:
    """Return what each extra for users lacks, and the command that brings it."""
    purposes = {
        "dicom": "DICOM SEG, compressed DICOM",
        "serve": "viewer, server",
        "archive": "DICOM archives",
        "evaluate": "evaluation, reports",
        "train": "curves of a training",
        "zarr": "OME-Zarr",
    }
    try:
        wanted = [re.match(r"([\w.-]+)[^;\[]*;.*extra == .(\w+)", line) for line in requires("clickvol") or ()]
    except PackageNotFoundError:  # run from its source
        wanted = []
    missing: dict[str, list[str]] = {extra: [] for extra in purposes}
    for match in filter(None, wanted):
        if match[2] in missing and _version(match[1]) == "missing":
            missing[match[2]].append(match[1])
    return {
        f"{extra} ({purposes[extra]})": f'missing {", ".join(names)}; run: pip install "clickvol[{extra}]"'
        if names
        else "installed"
        for extra, names in missing.items()
    }


def _gpu() -> str:
    """Return whether torch can use a GPU, and what to do where it cannot."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return "used"
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return (
            f"none; torch {torch.__version__} is built without; with an NVIDIA GPU, on Linux run: "
            "pip install --force-reinstall torch (elsewhere: https://pytorch.org/get-started)"
        )
    return f"none seen by torch {torch.__version__}; is there one, run nvidia-smi and update its driver"


def _cpu_capabilities() -> dict[str, Any]:
    # Newer than the oldest torch that this package accepts.
    read = getattr(torch.cpu, "get_capabilities", dict)
    return dict(read())


def _devices() -> list[str]:
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        memory_gb = torch.cuda.get_device_properties(index).total_memory / 1e9
        devices.append(f"cuda:{index} ({torch.cuda.get_device_name(index)}, {memory_gb:.0f} GB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
