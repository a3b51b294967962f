"""Does as nnU-Net's programs do to the files, by the name that it is called by; writes down every call.

Copied into the `bin` folder of a stand-in for nnU-Net's environment. A file `fail` beside that folder names
the programs that fail.
"""

import json
import os
import sys
from pathlib import Path

program, words = Path(sys.argv[0]).name, sys.argv[1:]
venv = Path(sys.argv[0]).parents[1]


def option(name):
    return words[words.index(name) + 1]


def folder_of(kind):
    return Path(os.environ[f"nnUNet_{kind}"])


def plan():
    (raw,) = folder_of("raw").iterdir()
    folder = folder_of("preprocessed") / raw.name
    folder.mkdir(parents=True, exist_ok=True)
    name = option("-overwrite_plans_name") if "-overwrite_plans_name" in words else "nnUNetPlans"
    configurations = {"2d": {}, "3d_fullres": {"patch_size": [4, 5, 6], "batch_size": 2}}
    (folder / f"{name}.json").write_text(json.dumps({"configurations": configurations}))


def results():
    (raw,) = folder_of("raw").iterdir()
    configuration = words[1] if program == "nnUNetv2_train" else option("-c")
    kind = f"{option('-tr')}__{option('-p')}__{configuration}"
    return folder_of("results") / raw.name / kind / "fold_0"


def train():
    results().mkdir(parents=True, exist_ok=True)
    (results() / "checkpoint_best.pth").touch()
    sys.stdout.write("2026-01-01 00:00:00.000000: Epoch 0\n\nEpoch 1\n")
    fail_if_asked()
    (results() / "checkpoint_final.pth").touch()


def predict():
    import SimpleITK

    if not (results() / "checkpoint_final.pth").is_file():
        sys.exit("no model")
    target = Path(option("-o"))
    target.mkdir(exist_ok=True)
    for path in sorted(Path(option("-i")).iterdir()):
        scan = SimpleITK.ReadImage(str(path))
        mask = SimpleITK.Cast(scan > 0, SimpleITK.sitkUInt8)
        mask_path = target / path.name.replace("_0000", "")
        if not mask_path.exists():
            SimpleITK.WriteImage(mask, str(mask_path))


def fail_if_asked():
    asked = venv / "fail"
    if asked.is_file() and program in asked.read_text().split():
        sys.exit("RuntimeError: it broke")


def answer():
    sys.stdout.write((venv / "facts.json").read_text())


if program != "python":
    call = {
        "program": program,
        "words": words,
        "variables": {n: v for n, v in os.environ.items() if n.startswith(("nnUNet", "PYTHONPATH"))},
        "path": os.environ["PATH"].split(os.pathsep)[0],
    }
    with (venv / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(call) + "\n")
    if program != "nnUNetv2_train":
        fail_if_asked()
{
    "python": answer,
    "nnUNetv2_plan_and_preprocess": plan,
    "nnUNetv2_train": train,
    "nnUNetv2_predict": predict,
}[program]()
