"""A stand-in for the network in the processes of a batch, which import this by Python's `sitecustomize`.

The name of the scan says what becomes of a row: `ok-*` writes a mask, `bad-*` and `odd-*` raise, `crash-*`
kills its process, `slow-*` takes a minute while it writes.
"""

import os
import sys
import textwrap
from pathlib import Path

_SITECUSTOMIZE = """
import os, signal, time
from types import SimpleNamespace

from clickvol.errors import ClickError
from clickvol.predict import segmentation_request
from clickvol.files.atomic import atomic_path


def stand_in(job, *, load):
    name = job.scan.name
    with (job.mask.parent / "calls.txt").open("a") as calls:
        calls.write(f"{name} {os.getpid()} {job.device}\\\\n")
    if name.startswith("bad"):
        raise ClickError("the click\\\\nis bad")
    if name.startswith("odd"):
        raise KeyError("odd")
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    with atomic_path(job.mask, ".nii.gz") as temporary:
        temporary.write_bytes(b"mask")
        if name.startswith("slow"):
            time.sleep(60)
    mask = SimpleNamespace(num_voxels=8, volume_ml=0.128)
    segmentation = SimpleNamespace(mask=mask, modality="CT", model_id="stand-in")
    return SimpleNamespace(segmentation=segmentation, seconds={"total": 0.5}, warnings=("careful",))


segmentation_request.run_request = stand_in
"""


def install(folder: Path) -> dict[str, str]:
    """Write the module into a folder and return the environment in which Python imports it."""
    folder.mkdir(exist_ok=True)
    source = textwrap.dedent(_SITECUSTOMIZE).replace("\\\\n", "\\n")
    (folder / "sitecustomize.py").write_text(source)
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), *sys.path)), "OMP_NUM_THREADS": "1"}


def calls(folder: Path) -> list[list[str]]:
    """Return the words of every call so far: scan, process, device."""
    path = folder / "calls.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
