"""A data set as hospitals have it: scans as DICOM series, labels as segmentations or structure sets."""

import json

import numpy as np

from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import write_series

WRITERS = (write_dicom_seg, write_rtstruct)
SHAPE_DHW = (12, 14, 13)


def truth_dhw():
    """Return an organ and the tumour inside it, (2, D, H, W)."""
    masks = np.zeros((2, *SHAPE_DHW), np.uint8)
    masks[0, 2:10, 2:12, 2:11] = 1
    masks[1, 4:8, 5:9, 4:8] = 1
    return masks


def write_dicom_data_set(folder, case_ids, *, images="images", labels="labels"):
    """Write every case, in turn with a segmentation and a structure set; return the folder."""
    (folder / labels).mkdir(parents=True)
    for number, case_id in enumerate(case_ids):
        kind = ("oblique", "sagittal")[number % 2]
        series = write_series(folder / images / case_id, kind, SHAPE_DHW)
        grid = read_dicom(series).grid
        masks = [
            LabelledMask(name=name, mask=Mask(array, grid))
            for name, array in zip(("organ", "tumour"), truth_dhw(), strict=True)
        ]
        WRITERS[number % 2](masks, series, folder / labels / f"{case_id}.dcm")
    pairs = [{"image": f"{images}/{c}", "label": f"{labels}/{c}.dcm"} for c in case_ids]
    index = {"name": "hospital", "modality": {"0": "CT"}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder
