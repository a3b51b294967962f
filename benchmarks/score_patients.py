"""Score a model on labelled patients with one seeded random click, beside a ball around the click.

    python benchmarks/score_patients.py [--data ../shared/data] [--model promise3d-small]

The click is a voxel drawn uniformly from the tumour by numpy's default_rng([seed, patient number]). The
ball has the one radius (50 mm) that is best on average for these data; it knows nothing of the scan.
Region growing is ITK's ConfidenceConnected (multiplier 2, 4 iterations, start radius 2) and an opening.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import SimpleITK

from clickvol.datasets.msd import CaseRecord, list_msd_cases
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.inference.predict import segment
from clickvol.metrics.overlap import dice
from clickvol.prompts.click import Click
from clickvol.volumes.formats import read_volume
from clickvol.volumes.volume import Volume
from clickvol.weights.load import LoadedModel, load_model

VALIDATION_PATIENTS = ("008", "019", "024", "029", "042", "047")
BALL_RADIUS_MM = 50.0


def ball(volume: Volume, click: VoxelPoint) -> np.ndarray:
    """Return the voxels within 50 mm of the click."""
    axes = np.ogrid[tuple(slice(n) for n in volume.array.shape)]
    matrix = volume.grid.affine_ras_mm[:3, :3]
    offset = [axis - c for axis, c in zip(axes, click.as_array(), strict=True)]
    squared = sum((matrix[row] @ np.array(offset, dtype=object)) ** 2 for row in range(3))
    return squared <= BALL_RADIUS_MM**2


def grown_region(volume: Volume, click: VoxelPoint) -> np.ndarray:
    """Return the region of like values around the click, opened by one voxel."""
    image = SimpleITK.GetImageFromArray(volume.array.astype(np.float32))
    seed = [int(v) for v in click.to_ijk()]
    region = SimpleITK.ConfidenceConnected(
        image, [seed], numberOfIterations=4, multiplier=2.0, initialNeighborhoodRadius=2
    )
    opened = SimpleITK.BinaryMorphologicalOpening(region, [1, 1, 1])
    return SimpleITK.GetArrayFromImage(opened) > 0


def score_case(record: CaseRecord, model: LoadedModel, seed: int) -> dict[str, object]:
    """Return Dice of model and ball, and the seconds of the segmentation."""
    volume, label = read_volume(record.image), read_volume(record.label)
    truth = np.asarray(label.array) > 0
    patient = record.case_id.rsplit("_", maxsplit=1)[-1]
    voxels = np.argwhere(truth)
    rng = np.random.default_rng([seed, int(patient)])
    click = VoxelPoint(*voxels[rng.integers(len(voxels))].astype(float).tolist())
    started_at = time.perf_counter()
    found = segment(volume, [Click(click)], model)
    seconds = time.perf_counter() - started_at
    return {
        "patient": patient,
        "modality": record.modality,
        "seed": seed,
        "recognised": found.modality,
        "truth_ml": truth.sum() * label.grid.voxel_volume_mm3 / 1000,
        "mask_ml": found.mask.volume_ml,
        "looks": len(found.fields_of_view),
        "dice": dice(found.mask.array, truth),
        "ball_dice": dice(ball(volume, click), truth),
        "grown_dice": dice(grown_region(volume, click), truth),
        "seconds": seconds,
    }


def write_scores(
    card: Path, rows: list[dict[str, object]], patients: list[str], seeds: list[int]
) -> None:
    """Put the mean of each modality into a model card, with the command that measured it."""
    seeds_text = " ".join(map(str, seeds))
    command = f"python benchmarks/score_patients.py --seeds {seeds_text}"
    content = json.loads(card.read_text(encoding="utf-8"))
    content["scores"] = [
        {
            "modality": modality,
            "mean_dice": round(float(np.mean([row["dice"] for row in of])), 4),
            "mean_dice_of_ball": round(float(np.mean([row["ball_dice"] for row in of])), 4),
            "mean_dice_of_region_growing": round(
                float(np.mean([row["grown_dice"] for row in of])), 4
            ),
            "clicks": len(of),
            "patients": patients,
            "protocol": "one seeded random click in the tumour, whole scan, its own grid",
            "command": command,
        }
        for modality in ("CT", "MR")
        if (of := [row for row in rows if row["modality"] == modality])
    ]
    card.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Print the table, and write it as CSV where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="promise3d-small")
    parser.add_argument("--patients", nargs="+", default=list(VALIDATION_PATIENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csv", type=Path)
    parser.add_argument(
        "--card", type=Path, help="model card that the mean scores are written into"
    )
    options = parser.parse_args()
    model = load_model(options.model)
    rows = []
    for modality, folder in (("CT", "Sarcoma_CT"), ("MR", "Sarcoma_MR")):
        for record in list_msd_cases(options.data / folder, modality):
            if record.belongs_to(tuple(options.patients)):
                rows += [score_case(record, model, seed) for seed in options.seeds]
    print("| patient | modality | seed | truth ml | mask ml | Dice | ball | grown | looks | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['patient']} | {row['modality']} | {row['seed']} | {row['truth_ml']:.0f} | "
            f"{row['mask_ml']:.0f} | {row['dice']:.3f} | {row['ball_dice']:.3f} | "
            f"{row['grown_dice']:.3f} | {row['looks']} | "
            f"{row['seconds']:.2f} |"
        )
    for modality in ("CT", "MR"):
        of = [row for row in rows if row["modality"] == modality]
        if of:
            ours = np.mean([row["dice"] for row in of])
            baseline = np.mean([row["ball_dice"] for row in of])
            grown = np.mean([row["grown_dice"] for row in of])
            print(
                f"\n{modality}: mean Dice {ours:.3f}, ball {baseline:.3f}, region growing "
                f"{grown:.3f}, {len(of)} clicks"
            )
    if options.card:
        write_scores(options.card, rows, options.patients, options.seeds)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
