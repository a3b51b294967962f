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
from reference.dicom_series import CT, make_file, slice_uid

FOLDER = os.environ.get("CLICKVOL_TEST_MSD")


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="CLICKVOL_TEST_MSD names no folder in MSD layout")
def test_a_real_tumour_comes_back(tmp_path):
    case = list_source("msd", Path(FOLDER)).cases[0]
    scan, label = read_volume(case.image), read_volume(case.label)
    affine = np.diag([-1.0, -1, 1, 1]) @ scan.grid.affine_ras_mm  # LPS mm of (d, h, w)
    h_mm, w_mm = np.linalg.norm(affine[:3, 1:3], axis=0)
    low = float(scan.array.min())
    for index, plane in enumerate(scan.array):
        dataset = make_file(
            np.clip(plane.astype(np.float64) - low, 0, 65535).astype(np.uint16),
            CT,
            slice_uid(index),
            ImagePositionPatient=[round(float(v), 6) for v in affine[:3] @ [index, 0, 0, 1]],
            ImageOrientationPatient=[
                round(float(v), 9) for v in (*affine[:3, 2] / w_mm, *affine[:3, 1] / h_mm)
            ],
            PixelSpacing=[round(float(h_mm), 6), round(float(w_mm), 6)],
            RescaleSlope=1,
            RescaleIntercept=round(low),
        )
        dataset.save_as(tmp_path / f"{index:04d}", enforce_file_format=True)
    series = read_volume(tmp_path)
    truth = (label.array > 0).astype(np.uint8)
    if not np.allclose(series.grid.affine_ras_mm, scan.grid.affine_ras_mm, atol=1e-3):
        truth = truth[::-1]  # the d axis of the file ran against (row x column)
    masks = [LabelledMask(name="tumour", mask=Mask(truth, series.grid))]
    for write in (write_dicom_seg, write_rtstruct):
        path = tmp_path / "mask.dcm"
        write(masks, tmp_path, path)
        (found,) = read_mask_file(path, series.grid)
        assert found.mask.num_voxels == truth.sum() > 0
        np.testing.assert_array_equal(found.mask.array, truth)
        path.unlink()
