"""Probabilities as a DICOM Parametric Map: one file, a float per voxel, on the slices of the scan."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.deidentify import deidentified_sources, mark_deidentified
from clickvol.io.dicom.reading.headers import shown_text
from clickvol.io.dicom.seg import name_frames, require_highdicom, source_headers
from clickvol.io.dicom.sources import SourceImages, read_source_images
from clickvol.io.dicom.uids import new_uid
from clickvol.io.mask_headers import DISCLAIMER, MANUFACTURER, series_number
from clickvol.version import __version__

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
    images = read_source_images(source, series=series, grid=grid)
    images.check_grid(grid)
    if deidentify:
        images = deidentified_sources(images)
    dataset = _parametric_map(probability, images, model_id)
    if deidentify:
        mark_deidentified(dataset)
    with atomic_path(Path(path), ".dcm") as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _parametric_map(probability: NDArray[np.float32], images: SourceImages, model_id: str) -> "ParametricMap":
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
                series_instance_uid=new_uid(),
                series_number=series_number(images),
                sop_instance_uid=new_uid(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=f"clickvol {model_id}".strip()[:64],
                software_versions=__version__,
                device_serial_number="none",
                contains_recognizable_visual_features=False,
                real_world_value_mappings=[mapping],
                voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
                content_label="PROBABILITY",
                content_description=DISCLAIMER,
                series_description=f"clickvol: {DISCLAIMER}",
                specific_character_set="ISO_IR 192",
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"the series cannot carry a DICOM parametric map ({shown_text(error)}); write it as .nii.gz"
            ) from error
    parametric_map.Laterality = ""  # nothing says which part of the body it is
    name_frames(parametric_map, images, order)
    return parametric_map
