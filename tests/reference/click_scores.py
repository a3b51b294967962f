"""Records of an evaluation that never took place."""

import zlib

import numpy as np

from clickvol.evaluation.records import score_table


def click_score(model="net", case_id="a", **values):
    """Return a row; the group is the case unless given, and every score follows the Dice."""
    dice = values.pop("dice", 0.5)
    nsd = values.pop("nsd", {1: dice * 0.8, 2: dice * 0.9, 5: dice})
    row = {
        "model": model,
        "data": "set",
        "case_id": case_id,
        "group": case_id,
        "modality": "CT",
        "seed": 0,
        "placement": "random",
        "num_clicks": 1,
        "dice": dice,
        "iou": dice / (2 - dice),
        **{f"nsd_{mm:g}mm": value for mm, value in nsd.items()},
        "hd95_mm": 20 * (1 - dice),
        "assd_mm": 5 * (1 - dice),
        "truth_ml": 10.0,
        "mask_ml": 10.0 * dice,
        "lesion_recall": 1.0,
        "seconds": 0.5,
        "failure": None,
    } | values
    return row | {"volume_error_ml": abs(row["mask_ml"] - row["truth_ml"])}


def click_table(*scores):
    """Return the table of some rows."""
    return score_table(scores)


def plausible_scores(num_cases=8, seeds=(0, 1), clicks=(1, 3, 5, 10), placements=("random",)):
    """Yield records of three models on two data sets: two that are clicked and one that is not."""
    for data in ("liver_CT", "brain_MR"):
        for model, start, gain in (
            ("promise3d-small", 0.72, 0.16),
            ("ball 50 mm", 0.35, 0.1),
            ("dynunet", 0.55, 0.0),
        ):
            for case in range(num_cases):
                name = f"{data}-{case:02d}"
                volume = 4.0 * 1.9**case
                for placement in placements if model != "dynunet" else ("none",):
                    for seed in seeds if model != "dynunet" else (0,):
                        label = f"{model}{name}{seed}{placement}"
                        rng = np.random.default_rng(zlib.crc32(label.encode()))
                        skill = start + rng.normal(0, 0.08)
                        for n in clicks if model != "dynunet" else (0,):
                            grown = gain * (1 - 1 / max(n, 1)) + rng.normal(0, 0.01)
                            failed = model == "dynunet" and case == 1
                            dice = 0.0 if failed else float(np.clip(skill + grown, 0.02, 0.98))
                            yield click_score(
                                model,
                                name,
                                data=data,
                                group=f"patient{case // 2}",
                                modality=data[-2:],
                                seed=seed,
                                placement=placement,
                                num_clicks=n,
                                dice=dice,
                                hd95_mm=None if failed else 20 * (1 - dice),
                                assd_mm=None if failed else 5 * (1 - dice),
                                truth_ml=volume,
                                mask_ml=0.0 if failed else volume * (0.4 + 0.7 * dice),
                                seconds=float(rng.uniform(0.2, 1.5)),
                                failure="out of memory" if failed else None,
                            )
