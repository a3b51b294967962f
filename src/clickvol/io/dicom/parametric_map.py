"""Probabilities as a DICOM Parametric Map: one file, a float per voxel, on the slices of the scan."""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.mask_writing import write_dicom
from clickvol.io.dicom.reading.headers import shown_text
from clickvol.io.dicom.seg import name_frames, require_highdicom, series_facts, source_headers
from clickvol.io.dicom.sources import SourceImages

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap


def write_parametric_map(
    probability: NDArray[np.float32],
    grid: VolumeGrid,
    source: str | Path,
    path: str | Path,
    *,
    model_id: str = "",
    series: str | None = None,
    deidentify: bool = False,
) -> None:
    """Write probabilities (D, H, W) float32, 0 to 1, as a DICOM file that refers to the images of their scan.

    Wholly or not at all; as `write_dicom_masks`. OutputError also when highdicom is not installed.
    """
    make = partial(_parametric_map, probability, model_id)
    write_dicom(make, [grid], source, path, series=series, deidentify=deidentify)


def _parametric_map(probability: NDArray[np.float32], model_id: str, images: SourceImages) -> "ParametricMap":
    require_highdicom()
    from highdicom.content import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    headers, order = source_headers(images)
    mapping = RealWorldValueMapping(
        lut_label="PROBABILITY",
        lut_explanation="probability of the object",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the names and dates of a scan as it is
        try:
            parametric_map = ParametricMap(
                source_images=headers,
                pixel_array=probability[order],
                manufacturer_model_name=f"clickvol {model_id}".strip()[:64],
                contains_recognizable_visual_features=False,
                real_world_value_mappings=[mapping],
                voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
                content_label="PROBABILITY",
                **series_facts(images),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"the series cannot carry a DICOM parametric map ({shown_text(error)}); write it as .nii.gz"
            ) from error
    parametric_map.Laterality = ""  # nothing says which part of the body it is
    name_frames(parametric_map, images, order)
    return parametric_map
