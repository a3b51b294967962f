"""The image of a request for 2D: a picture, or a slice of a scan, and its truth."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError
from clickvol.io.formats import read_volume
from clickvol.io.pictures import read_picture
from clickvol.io.volume import Modality, Volume
from clickvol.preprocessing.intensity import recognise_modality, value_sample
from clickvol.preprocessing.slices2d import SliceView, slice_view, unit_pixels, unit_values

if TYPE_CHECKING:
    from clickvol.predict.segmentation_request import ImageRequest


@dataclass(frozen=True, slots=True, eq=False)
class SliceOfScan:
    """Where an image was cut, and as which modality its scan was treated."""

    volume: Volume
    view: SliceView
    modality: Modality


def read_image(request: "ImageRequest") -> tuple[NDArray[np.generic], SliceOfScan | None, list[str]]:
    """Return the image as the network takes it, where it was cut, and what a person should know."""
    if request.is_picture:
        pixels = read_picture(request.image)
        return pixels if pixels.dtype == np.uint8 else unit_pixels(pixels), None, []
    volume = read_volume(request.image, series=request.series, volume_index=request.volume_index)
    if request.modality is not None:
        volume = replace(volume, modality=request.modality)
    if request.slice_index is None:
        last = volume.grid.shape_dhw[slice_view(volume.grid, request.axis, 0).normal_axis] - 1
        raise ConfigError(
            f"{request.image} is a scan; say which of its {request.axis} slices 0 to {last} with --slice"
        )
    view = slice_view(volume.grid, request.axis, request.slice_index)
    recognised = recognise_modality(volume, value_sample(volume))
    warnings = [*volume.notes, *([recognised.warning] if recognised.warning else [])]
    values = unit_values(view.cut(volume.array), recognised.modality)
    return values, SliceOfScan(volume, view, recognised.modality), warnings


def read_truth(path: Path, cut: SliceOfScan | None, shape_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the truth of the image: (H, W)."""
    if cut is not None:
        mask = read_volume(path)
        mask.grid.check_same_place(cut.volume.grid, f"the truth {path}", ConfigError)
        return np.asarray(cut.view.cut(mask.array) != 0)
    truth: NDArray[np.bool_] = np.atleast_3d(read_picture(path)).max(axis=2) > 0
    if truth.shape != shape_hw:
        raise ConfigError(
            f"the truth {path} has {truth.shape[1]} columns and {truth.shape[0]} rows, but the image "
            f"{shape_hw[1]} and {shape_hw[0]}; they must agree"
        )
    return truth
