"""A stand-in for the network in a batch; other processes take it by Python's `sitecustomize`.

The name of the scan says what becomes of a row: `ok-*` writes a mask, `bad-*` and `odd-*` raise, `slow-*`
takes a minute while it writes.
"""

import os
import time
from pathlib import Path
from types import SimpleNamespace

from clickvol.errors import ClickError
from clickvol.files.atomic import atomic_path

_SITECUSTOMIZE = """
from clickvol.predict import segmentation_request
from reference import batch_stand_in
segmentation_request.run_request = batch_stand_in.run_request
"""


def run_request(job, *, load):
    """Do what the name of the scan says."""
    name = job.scan.name
    with (job.mask.parent / "calls.txt").open("a") as calls:
        calls.write(f"{name} {os.getpid()}\n")
    if name.startswith("bad"):
        raise ClickError("the click\nis bad")
    if name.startswith("odd"):
        raise KeyError("odd")
    with atomic_path(job.mask, ".nii.gz") as temporary:
        temporary.write_bytes(b"mask")
        if name.startswith("slow"):
            time.sleep(60)
    mask = SimpleNamespace(num_voxels=8, volume_ml=0.128)
    segmentation = SimpleNamespace(mask=mask, modality="CT", model_id="stand-in")
    return SimpleNamespace(segmentation=segmentation, seconds={"total": 0.5}, warnings=("careful",))


def take_part_in_a_group_of_its_own():
    """Stand in for the network in this process, and make it the first of a process group."""
    from clickvol.batch import run  # at the top it would come before the stand-in of another process

    os.setpgrp()
    run.run_request = run_request


def python_path(folder: Path) -> str:
    """Return the PYTHONPATH with which a process has the stand-in; a folder for its module is needed."""
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    tests = Path(__file__).parents[1]
    return os.pathsep.join([str(folder), str(tests), os.environ.get("PYTHONPATH", "")])


def calls(folder: Path) -> list[tuple[str, int]]:
    """Return scan and process of every call so far."""
    path = folder / "calls.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]
