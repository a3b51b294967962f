"""APM, IPS, both and none on the frozen LiteMedSAM, on pictures made of real scans and on generated ones.

    clickvol models fetch litemedsam
    python benchmarks/pictures.py -o OUT --data ../shared/data

There are no real pictures with masks in reach. Three data sets stand in for them: axial CT slices of sarcomas
as grey pictures, the same slices in pseudo-colour, and generated endoscopy-like images. The first two are split
by patient (six are never trained on); of the third every scene is its own group. All are trained on together
(arXiv 2403.04164, Figure 5), through `clickvol train` and `clickvol evaluate`, with one run per mode and seed.
Prints a Markdown table per data set: means over training seeds, draws of points and pictures, with the 95 %
interval of the mean over groups. Stopped runs go on.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.datasets.pictures import (
    PictureFolders,
    PicturePlan,
    is_picture_set,
    prepare_pictures,
    read_pictures,
)
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_label
from clickvol.io.pictures import write_mask_picture, write_picture
from clickvol.methods.sam2d import Sam2d
from clickvol.metrics.overlap import dice
from clickvol.predict.image_predictor import load_image_model, segment_image
from clickvol.preprocessing.slices2d import slice_view, unit_pixels, unit_values
from clickvol.prompts.image_prompts import ImagePrompts
from clickvol.report.statistics import bootstrap_interval
from clickvol.training.run import train_from_config

TEST_PATIENTS = ("008", "019", "024", "029", "042", "047")
MODES = ("apm", "ips", "promise")
SETS = ("grey", "colour", "endoscopy")
NUM_SCENES = 40
TEST_SCENES = tuple(f"scene{number}" for number in range(28, NUM_SCENES))

CONFIG = """
[model]
id = "{name}"
title = "ProMISe-2D ({mode}) on LiteMedSAM, stand-ins for pictures"
method = "promise2d"
size = "litemedsam"

[promise2d]
mode = "{mode}"

[data]
root = "{root}"

[[data.folders]]
path = "set"
modality = "picture"
source = "slices of TCIA Soft-tissue-Sarcoma, and generated images"

[sampling]
kind = "slices"
crop_share = 0
flip_share = 0
move_share = 0
blur_share = 0
contrast_share = 0
grain_share = 0
dropout_share = 0

[optimiser]
steps = {steps}
batch_size = 2
learning_rate = 1e-3
schedule = "constant"
warmup_steps = 0
weight_decay = 0.0
average_decay = 0.0

[run]
folder = "{folder}"
foundation = "litemedsam"
trained = "adapters"
precision = "float32"
seed = {seed}
threads = 1
workers = 1
checkpoint_every = 50
"""


def pseudo_colour(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour 0..1 from dark violet over red to pale yellow: (H, W) -> (H, W, 3)."""
    stops = np.array([0.0, 0.35, 0.7, 1.0])
    colours = np.array([[25, 10, 45], [170, 40, 60], [240, 150, 70], [255, 245, 215]])
    channels = [np.interp(grey, stops, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def scene(seed: int, side: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an endoscopy-like image (H, W, 3) and the mask (H, W) of the bump on its wall."""
    rng = np.random.default_rng([seed, 77])
    row, column = np.mgrid[:side, :side] / side - 0.5

    def smooth(pixels: float) -> NDArray[np.float64]:
        noise = ndimage.gaussian_filter(rng.standard_normal((side, side)), pixels)
        return noise / noise.std()

    # A wall with folds, lit from the middle; a dark hole somewhere; vessels where fine noise crosses zero.
    light = 1.1 - 1.3 * (row**2 + column**2) + 0.07 * smooth(12)
    hole = rng.uniform(-0.35, 0.35, 2)
    light *= 1 - 0.75 * np.exp(-((row - hole[0]) ** 2 + (column - hole[1]) ** 2) / rng.uniform(0.005, 0.03))
    vessels = np.exp(-((smooth(6) / 0.06) ** 2)) * rng.uniform(0.05, 0.2)
    # The bump: an ellipse with a wavy edge, brighter towards the light, hardly another colour than the wall.
    centre, radii = rng.uniform(-0.28, 0.28, 2), rng.uniform(0.07, 0.22, 2)
    angle, turn = np.arctan2(row - centre[0], column - centre[1]), rng.uniform(0, np.pi)
    across = (column - centre[1]) * np.cos(turn) + (row - centre[0]) * np.sin(turn)
    along = (row - centre[0]) * np.cos(turn) - (column - centre[1]) * np.sin(turn)
    waves = sum(rng.uniform(-0.08, 0.08) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 4))
    distance = np.sqrt((across / radii[0]) ** 2 + (along / radii[1]) ** 2) + waves
    mask = distance < 1
    dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = light * (1 - 0.2 * np.exp(-(((distance - 1.05) / 0.08) ** 2))) + rng.uniform(0.05, 0.25) * dome
    hue = np.array([0.86, 0.47, 0.40]) + rng.uniform(-0.06, 0.06, 3)
    shift = rng.uniform(-0.1, 0.1, 3) * dome[..., None]
    image = light[..., None] * (hue + shift) - vessels[..., None] * (0.1, 0.5, 0.45)
    gloss = ndimage.gaussian_filter((rng.random((side, side)) > 0.9992).astype(float), 1.5)
    image += 25 * gloss[..., None] * (light > 0.9)[..., None]
    corners = np.maximum(abs(row), abs(column)) + 0.35 * np.minimum(abs(row), abs(column))
    image = np.where(corners[..., None] > 0.6, 0.02, image) + rng.normal(0, 0.012, image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask & (corners <= 0.6)


def slices_of(patient: str, data: Path, count: int) -> list[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Return so many slices through a patient's tumour, evenly apart, in 0..1, and their masks."""
    volume = read_volume(data / "Sarcoma_CT" / "imagesTr" / f"sts_{patient}.nii.gz")
    label = read_label(data / "Sarcoma_CT" / "labelsTr" / f"sts_{patient}.nii.gz", volume).array > 0
    axis = slice_view(volume.grid, "axial", 0).normal_axis
    shown = np.flatnonzero(label.any(axis=tuple(a for a in range(3) if a != axis)))
    chosen = shown[np.linspace(0, len(shown) - 1, count + 2).astype(int)[1:-1]]
    views = [(int(index), slice_view(volume.grid, "axial", int(index))) for index in chosen]
    return [(n, unit_values(view.cut(volume.array), "CT"), view.cut(label) > 0) for n, view in views]


def make_set(folder: Path, data: Path, per_patient: int) -> None:
    """Write pictures and masks of the three data sets, and prepare them."""
    raw, groups = folder / "raw", ["case,group"]
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in SETS:
        for kind in ("images", "masks"):
            (raw / name / kind).mkdir(parents=True, exist_ok=True)

    def keep(case: tuple[str, str, str], pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        name, stem, group = case
        write_picture(pixels, raw / name / "images" / f"{stem}.png")
        write_mask_picture(mask, raw / name / "masks" / f"{stem}.png")
        groups.append(f"{name}-{stem},{group}")
        is_test = group in TEST_PATIENTS or group in TEST_SCENES
        parts["test" if is_test else "train"].append(f"{name}-{stem}")

    for path in sorted((data / "Sarcoma_CT" / "imagesTr").glob("sts_*.nii.gz")):
        patient = path.name.removeprefix("sts_").removesuffix(".nii.gz")
        for index, image, mask in slices_of(patient, data, per_patient):
            grey = np.rint(image * 255).astype(np.uint8)
            stem = f"s{index:03d}_{patient}"
            keep(("grey", stem, patient), grey, mask)
            keep(("colour", stem, patient), pseudo_colour(image), mask)
    for number in range(NUM_SCENES):
        keep(("endoscopy", f"e{number:03d}", f"scene{number}"), *scene(number))
    (raw / "groups.csv").write_text("\n".join(groups) + "\n", encoding="utf-8")
    (raw / "splits.json").write_text(json.dumps([parts]), encoding="utf-8")
    prepare_pictures(
        PicturePlan(
            sources=tuple(PictureFolders(name, raw / name / "images", raw / name / "masks") for name in SETS),
            destination=folder / "set",
            groups=raw / "groups.csv",
            splits=raw / "splits.json",
        )
    )


def train_modes(folder: Path, seed: int, steps: int) -> dict[str, Path]:
    """Train every mode with a seed; return the cards by name."""
    cards = {}
    for mode in MODES:
        name = f"{mode}-{seed}"
        run = folder / "runs" / name
        run.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(name=name, mode=mode, root=folder, steps=steps, folder=run, seed=seed)
        (run / "run.toml").write_text(text, encoding="utf-8")
        card = run / f"{name}.json"
        if not card.is_file():
            train_from_config(run / "run.toml", [])
        cards[name] = card
        print(f"{name}: {time.process_time():.0f} s of CPU so far", flush=True)
    return cards


def box_scores(folder: Path) -> pd.DataFrame:
    """Return the Dice of LiteMedSAM with the tight true box, which it was trained for."""
    model, rows = load_image_model("litemedsam", device="cpu"), []
    for case in read_pictures(folder / "set", "test", 0):
        pixels, mask = case.read()
        y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = ImagePrompts(box_xyxy_pixel=(float(x[0]), float(y[0]), float(x[-1]), float(y[-1])))
        overlap = dice(segment_image(unit_pixels(pixels), box, model).mask, mask)
        named = {"data": case.data_set, "group": case.group, "case_id": case.case_id, "dice": overlap}
        rows.append({"model": "litemedsam", "placement": "true box", "num_clicks": 1, **named})
    return pd.DataFrame(rows)


def encode_once() -> None:
    """Keep what the frozen encoder makes of a picture, for all runs and models with the same weights."""
    kept: dict[tuple[bytes, float], SliceFeatures] = {}
    encode = Sam2d.encode_image

    def remembered(self: Sam2d, image: torch.Tensor) -> SliceFeatures:
        weights = float(next(self.image_encoder.parameters()).double().sum())
        key = (hashlib.sha256(image.cpu().numpy().tobytes()).digest(), weights)
        if key not in kept:
            with torch.no_grad():
                kept[key] = encode(self, image)
        return kept[key]

    Sam2d.encode_image = remembered  # type: ignore[method-assign]


def print_tables(table: pd.DataFrame) -> None:
    """Print means over training seeds, draws and pictures, with intervals over groups."""
    names = table["model"].astype(str).str.replace(r"-\d+", "", regex=True)
    table = table.assign(model=names, data=table["data"].astype(str))
    for data in SETS:
        one = table[table["data"] == data]
        print(f"\n{data}: {one['case_id'].nunique()} pictures of {one['group'].nunique()} groups\n")
        print("| model | points | N | Dice | IoU | MAE | boundary F |\n|---|---|---:|---:|---:|---:|---:|")
        for key, rows in one.groupby(["model", "placement", "num_clicks"], observed=True):
            low, high = bootstrap_interval(rows["dice"], rows["group"]) or (np.nan, np.nan)
            cells = [*map(str, key), f"{rows['dice'].mean():.3f} [{low:.3f}, {high:.3f}]"]
            for name in ("iou", "mae", "boundary_f"):
                cells.append(f"{rows[name].mean():.3f}" if rows[name].notna().any() else "")
            print("| " + " | ".join(cells) + " |")


def disc_scores(folder: Path) -> pd.DataFrame:
    """Return the scores of a disc around the click, which sees no picture."""
    request = EvaluationRequest(
        methods=("disc of 40 pixels=ball:40",),
        data=(str(folder / "set"),),
        folder=folder / "report-disc",
        protocol=read_protocol("clickvol", num_clicks=(1,)),
    )
    return run_evaluation(request).table


def evaluate_seed(folder: Path, seed: int, options: argparse.Namespace) -> pd.DataFrame:
    """Train and evaluate with one seed, or read what is there; return the table of the evaluation."""
    words = [f"{name}={card}" for name, card in train_modes(folder, seed, options.steps).items()]
    protocol = dataclasses.replace(read_protocol("promise2d"), seeds=options.draws, corrected_clicks=(1,))
    request = EvaluationRequest(
        methods=("litemedsam", *words),
        data=(str(folder / "set"),),
        folder=folder / f"report-{seed}",
        protocol=protocol,
        device="cpu",
    )
    table = run_evaluation(request).table
    print(f"seed {seed}: {time.process_time():.0f} s of CPU so far", flush=True)
    return table


def main() -> None:
    """Make, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--per-patient", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training; each may run alone"
    )
    parser.add_argument("--draws", type=int, default=1, help="of points, per picture and training seed")
    options = parser.parse_args()
    encode_once()
    folder = options.output.resolve()
    if not is_picture_set(folder / "set"):
        make_set(folder, options.data, options.per_patient)
    tables = [evaluate_seed(folder, seed, options) for seed in options.seeds]
    print_tables(pd.concat([*tables, disc_scores(folder), box_scores(folder)]))


if __name__ == "__main__":
    main()
