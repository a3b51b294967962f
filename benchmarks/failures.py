"""Draw what the shipped models get wrong: one click in the middle of the object, the mask beside the reference.

    python benchmarks/failures.py --data ../shared/data -o docs/explanation/failures

The click is the deepest voxel of the label, in mm. The cases are among those that neither model was trained on,
and were chosen because they fail.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from clickvol import Click, dice, load_model, read_volume, segment
from clickvol.previews.preview import draw_preview

CASES = (
    ("Sarcoma_MR", "sts_008", 1, "promise3d-lesions"),
    ("Sarcoma_PET", "sts_047", 1, "promise3d-small"),
    ("LungNodule_CT", "lidc_idri_0127_n00", 1, "promise3d-lesions"),
    ("HeadNeckOrgans_CT", "kbp_027", 2, "promise3d-lesions"),
)


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for group, case_id, label, model in CASES:
        scan = read_volume(options.data / group / "imagesTr" / f"{case_id}.nii.gz")
        truth = read_volume(options.data / group / "labelsTr" / f"{case_id}.nii.gz").array == label
        depth_mm = ndimage.distance_transform_edt(np.pad(truth, 1), sampling=scan.grid.spacing_dhw_mm)[
            1:-1, 1:-1, 1:-1
        ]
        d, h, w = np.unravel_index(depth_mm.argmax(), depth_mm.shape)
        click = Click.at((int(w), int(h), int(d)))
        modality = "PT" if group.endswith("PET") else "MR" if group.endswith("MR") else "CT"
        mask = segment(scan, [click], model=load_model(model), modality=modality).mask
        truth_ml = truth.sum() * np.prod(scan.grid.spacing_dhw_mm) / 1000
        caption = (
            f"{group} {case_id}, {model}: Dice {dice(mask.array, truth):.2f}, "
            f"{mask.volume_ml:.1f} ml, reference {truth_ml:.1f} ml"
        )
        picture = draw_preview(scan, mask.array, [click], modality=modality, caption=caption, truth=truth)
        palette = Image.Quantize.MAXCOVERAGE  # keeps the few coloured pixels
        picture.convert("RGB").quantize(256, palette).save(
            options.output / f"{group}_{case_id}.png", optimize=True
        )
        print(caption)


if __name__ == "__main__":
    main()
