"""What a run was made with: written beside it, so that a table can be traced."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from clickvol.files.atomic import write_text
from clickvol.version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "monai", "nibabel", "SimpleITK", "pydantic", "safetensors")


def write_provenance(folder: Path, command: str, data_hash: str, num_processes: int) -> None:
    """Write `provenance.json` into the folder of a run.

    Args:
        folder: of the run.
        command: that started it.
        data_hash: of what it trains on, see `start.hash_of_data`.
        num_processes: that train together.
    """
    content = {
        "command": command,
        "clickvol": __version__,
        "git": git_state(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "threads": torch.get_num_threads(),
            "processes": num_processes,
        },
        "data_sha256": data_hash,
    }
    write_text(folder / "provenance.json", json.dumps(content, indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def git_state() -> dict[str, Any] | None:
    """Return commit and whether files differ, at the first call; None where the package is no checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": len(changed.splitlines())}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
