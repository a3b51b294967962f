"""A real tumour through both DICOM formats and back.

Runs where CLICKVOL_TEST_MSD names a folder in MSD layout, whose first case is made a DICOM series.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from clickvol.datasets.sources import list_source
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.formats import read_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import write_as_series

FOLDER = os.environ.get("CLICKVOL_TEST_MSD")


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="CLICKVOL_TEST_MSD names no folder in MSD layout")
def test_a_real_tumour_comes_back(tmp_path):
    case = list_source("msd", Path(FOLDER)).cases[0]
    scan, label = read_volume(case.image), read_volume(case.label)
    series = read_volume(write_as_series(scan, tmp_path))
    truth = (label.array > 0).astype(np.uint8)
    if not np.allclose(series.grid.affine_ras_mm, scan.grid.affine_ras_mm, atol=1e-3):
        truth = truth[::-1]  # the d axis of the file ran against (row x column)
    masks = [LabelledMask(name="tumour", mask=Mask(truth, series.grid))]
    for write in (write_dicom_seg, write_rtstruct):
        path = tmp_path / "mask.dcm"
        write(masks, tmp_path, path)
        (result,) = read_mask_file(path, series.grid)
        assert result.mask.num_voxels == truth.sum() > 0
        np.testing.assert_array_equal(result.mask.array, truth)
        path.unlink()
