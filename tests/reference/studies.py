"""A study that takes seconds: phantoms in MSD layout, two tiny networks and a ball."""

import json
from pathlib import Path
from typing import NamedTuple

from reference.evaluation_sets import write_phantoms, write_raw

STUDY = """
name = "tiny"
title = "A tiny study"
source = "nobody, 2026"
reference = "clicked"

[protocol]
name = "promise3d"

[[tasks]]
name = "lump"
title = "Lumps"

[[tasks.data]]
name = "lump"
folder = "Task99_Lump"
modality = "CT"
splits = "splits.json"
source = "phantoms"
obtain = "ask nobody"

[[arms]]
kind = "train"
name = "clicked"
title = "A clicked network"
config = "{task}-clicked.toml"
published = [{ data = "lump", clicks = 1, dice = 66.81, nsd = 81.24, source = "a paper" }]

[[arms]]
kind = "train"
name = "windows"
title = "A network without clicks"
config = "windows.toml"
overrides = ["optimiser.learning_rate=2e-3"]
published = [{ data = "lump", clicks = 0, dice = 40, nsd = 50.5, source = "a paper" }]

[[arms]]
kind = "method"
name = "ball"
title = "A ball"
method = "ball:25"
"""

CLICKED = """
[model]
id = "clicked"
title = "tiny"
size = "tiny"

[data]
intensity = "set"

[sampling]
first_voxel_mm = 5.0
finest_voxel_mm = 3.0
coarsest_voxel_mm = 5.0

[optimiser]
steps = 3
batch_size = 1
warmup_steps = 0

[run]
folder = "nowhere"
threads = 1
precision = "float32"
"""

WINDOWS = """
extends = "lump-clicked.toml"

[model]
id = "windows"
method = "dynunet"
preset = "automatic"

[sampling]
kind = "windows"
voxel_mm = 6.0
"""


class TinyStudy(NamedTuple):
    """Where it lies.

    path: the study; raw: folder of its data set.
    """

    path: Path
    raw: Path


def write_study(folder: Path) -> TinyStudy:
    write_phantoms(folder / "raw" / "Task99_Lump", count=4, write=write_raw)
    cases = [f"case_{n:03d}" for n in range(4)]
    split = {"train": cases[:1], "val": cases[1:2], "test": cases[2:]}
    (folder / "splits.json").write_text(json.dumps([split]))
    for name, text in (
        ("study.toml", STUDY),
        ("lump-clicked.toml", CLICKED),
        ("windows.toml", WINDOWS),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    return TinyStudy(folder / "study.toml", folder / "raw")
