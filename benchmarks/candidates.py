"""First mask, best of the candidates, the one that the score head picks; and what its scores are worth.

    python benchmarks/candidates.py --data ../shared/data

Random clicks in held-out scans (`one_click.scans_of`). Patients are put in two halves by turns: scores are
calibrated on one (knots for `expected_dice` of the card) and judged on the other.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from one_click import scans_of
from training_pack import MODALITIES

from clickvol import Click, dice, load_model, read_volume
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.predict.scan_predictor import ScanPredictor


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="promise3d-lesions")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", default=["Sarcoma_CT", "Sarcoma_MR", "Sarcoma_PET"])
    parser.add_argument("--clicks", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    raw = model.card.model_copy(update={"expected_dice": None})
    halves: tuple[list, list] = ([], [])
    print("| set | first | best of all | picked by score |\n|---|---|---|---|")
    for group in options.groups:
        rows = []
        for number, path in enumerate(scans_of(options.data, group)):
            volume = read_volume(path)
            label = read_volume(path.parents[1] / "labelsTr" / path.name).array
            truth = label == np.unique(label[label > 0])[0]
            voxels, rng = np.argwhere(truth), np.random.default_rng([1, sum(map(ord, path.name))])
            predictor = ScanPredictor(
                volume,
                type(model)(raw, model.network, model.device, model.precision),
                modality=MODALITIES[group],
            )
            for _ in range(options.clicks):
                click = Click(VoxelPoint.of(voxels[rng.integers(len(voxels))]))
                several = predictor.predict([click]).candidates
                if several:
                    scores = [dice(c.mask.array, truth.astype(np.uint8)) for c in several]
                    said = [c.predicted_dice for c in several]
                    rows.append((scores[0], max(scores), scores[int(np.argmax(said))]))
                    halves[number % 2].append((said[0], scores[0]))
        print(f"| {group} | " + " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0)) + " |", flush=True)
    fitted, judged = (np.array(half) for half in halves)
    slope, offset = np.polyfit(fitted[:, 0], fitted[:, 1], 1)
    knots = [(float(said), float(np.clip(offset + slope * said, 0, 1))) for said in (0.0, 0.25, 0.5, 0.75, 1.0)]
    print("knots", [(said, round(value, 3)) for said, value in knots])
    calibrated = np.interp(judged[:, 0], *zip(*knots, strict=True))
    for name, values in (("as said", judged[:, 0]), ("calibrated", calibrated)):
        print(name, f"mean error {np.abs(values - judged[:, 1]).mean():.3f}, of {len(judged)} clicks")
    print("pairs", np.round(np.column_stack([calibrated, judged[:, 1]]), 2).tolist())


if __name__ == "__main__":
    main()
