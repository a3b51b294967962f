"""The real nnU-Net, from scans to masks. Needs an environment that `clickvol nnunet setup` has made."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from clickvol.bridges.nnunet_environment import check_environment
from clickvol.bridges.nnunet_run import NnunetRun, NnunetSettings, run_nnunet
from clickvol.datasets.splits import Split
from reference.prepared_sets import prepare_lesions

ENVIRONMENT = os.environ.get("CLICKVOL_NNUNET_VENV", "")


@pytest.mark.skipif(not ENVIRONMENT, reason="CLICKVOL_NNUNET_VENV names no environment with nnU-Net")
def test_two_iterations_give_masks_on_the_grids_of_the_scans(tmp_path):
    random = np.random.default_rng(0)
    scans, labels = {}, {}
    for number in range(4):
        label = np.zeros((40, 36, 20), np.uint8)
        label[8:24, 10:22, 5:14] = 2
        labels[number] = label
        scans[number] = (random.normal(100, 20, label.shape) + 200 * (label == 2)).astype(np.int16)
    split = Split(train=("case_0", "case_1"), val=("case_2",), test=("case_3",))
    prepared = prepare_lesions(tmp_path, 4, splits=(split,), scans=scans, labels=labels)
    run = NnunetRun(
        folder=tmp_path / "out",
        environment=check_environment(Path(ENVIRONMENT)),
        settings=NnunetSettings(epochs=1, iterations_per_epoch=2, memory_gb=1, mirroring=False),
        device="cpu",
        workers=1,
    )
    (path,) = run_nnunet(prepared, run)
    mask, scan = nibabel.load(path), nibabel.load(prepared.cases[3].source_image.path)
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    log = run.log.read_text()
    assert "This split has 2 training and 1 validation cases." in log
    (trained,) = run.folder.glob("nnUNet_results/*/*/fold_0/checkpoint_final.pth")
    assert "nnUNetTrainerClickvol__nnUNetPlansMemory__3d_fullres" in str(trained)
