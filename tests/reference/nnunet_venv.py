"""A folder that looks like nnU-Net's environment."""

import json
import sys
from pathlib import Path

from clickvol.bridges.nnunet_environment import NNUNET_VERSION

PROGRAMS = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")


def make_stand_in(folder):
    """Make every program in it the stand-in; return the folder.

    `facts.json` in it is what its Python says that it holds.
    """
    (folder / "bin").mkdir(parents=True)
    package = folder / "lib" / "nnunetv2"
    (package / "training" / "nnUNetTrainer").mkdir(parents=True)
    facts = {
        **{"nnunet": NNUNET_VERSION, "torch": "2.13.0+cpu", "cuda": False},
        "package": str(package),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    source = Path(__file__).with_name("nnunet_stand_in.py").read_text()
    for name in ("python", *PROGRAMS):
        program = folder / "bin" / name
        program.write_text(f"#!{sys.executable}\n{source}")
        program.chmod(0o755)
    return folder
