"""Samples whose object is a synthetic tumour, put into a real scan.

Few patients have been labelled, and their tumours are few. A lesion of known outline where there was none
shows the network more shapes, sizes, places and contrasts. All choices are ours.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.datasets.augment import Triple, smooth_noise, spoil_intensity, turned
from clickvol.datasets.samples import (
    MAX_EXTRA_CLICKS,
    LabelledVolume,
    TrainingSample,
    clicked_sample,
    spoiled_mask,
)
from clickvol.datasets.sampling import SamplingSection
from clickvol.geometry.coordinates import PatchPoint, VoxelPoint
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.prompts.simulate import extra_clicks

_Array32 = NDArray[np.float32]

# Places that are tried before a scan is given up; most of a scan may be air.
_MAX_TRIES = 8

# A lesion needs this part of its shape inside the body and beside the real tumour.
_LEAST_INSIDE = 0.6

# Normalised values of the scan below the lowest one by less than this are air or outside.
_AIR_MARGIN = 0.15


class _Lesion(NamedTuple):
    """A lesion in a patch: where it is, how large it is, and what the scan shows there."""

    image: _Array32
    mask: NDArray[np.bool_]
    click: PatchPoint
    is_first_look: bool


def draw_implant_sample(
    case: LabelledVolume,
    patch_shape_dhw: Triple,
    config: SamplingSection,
    rng: np.random.Generator,
    *,
    num_channels: int = 1,
) -> TrainingSample | None:
    """Draw a sample around a lesion; None where the scan has no room for one at the places tried."""
    lesion = None
    for _ in range(_MAX_TRIES):
        lesion = _try_place(case, patch_shape_dhw, config, rng)
        if lesion is not None:
            break
    if lesion is None:
        return None
    patch = spoil_intensity(_painted(lesion, rng), rng)[None]
    if num_channels > 1:
        patch = with_organ_channel(patch[0], None)
    points, signs = extra_clicks(lesion.click, lesion.mask, MAX_EXTRA_CLICKS + 1, config.extra_click_share, rng)
    prior = np.zeros(patch_shape_dhw, dtype=np.float32)
    if not lesion.is_first_look and rng.random() < config.prior_share:
        prior = spoiled_mask(lesion.mask.astype(np.float32), rng)
    return clicked_sample(torch.from_numpy(patch), lesion.mask, points, signs, torch.from_numpy(prior))


def _try_place(
    case: LabelledVolume, shape: Triple, config: SamplingSection, rng: np.random.Generator
) -> _Lesion | None:
    """Lay a lesion somewhere in the scan; None where it would be in the air or in the real tumour."""
    low, high = np.log(config.implant_extents_mm)
    diameter_mm = float(np.exp(rng.uniform(low, high)))
    anywhere = rng.uniform(0.1, 0.9, 3) * (np.array(case.label.shape) - 1)
    place = case.volume.grid.to_world(VoxelPoint.of(anywhere))
    is_first_look = rng.random() < config.first_look_share
    factors = config.first_zoom if is_first_look else config.fitted_extents
    factor = float(np.exp(rng.uniform(*np.log(factors))))
    voxel_mm = config.first_voxel_mm * factor
    if not is_first_look:
        voxel_mm = diameter_mm * factor / max(shape)
        voxel_mm = float(np.clip(voxel_mm, config.finest_voxel_mm, config.coarsest_voxel_mm))
    grid = turned(
        FieldOfView(place, voxel_mm, shape).grid(),
        place,
        config.rotation_degrees,
        config.stretch,
        rng,
    )
    image = case.scale.normalise(
        extract(case.volume.array, case.volume.grid, grid, outside_value=case.outside_value)
    )
    tumour = extract(case.label, case.volume.grid, grid, outside_value=0.0) > 0.5
    outline, click = _outline(shape, diameter_mm / voxel_mm, config, rng, centred=is_first_look)
    lowest = (case.scale.low - case.scale.mean) / case.scale.deviation
    mask = outline & (image > lowest + _AIR_MARGIN) & ~tumour
    parts, _ = ndimage.label(mask)
    index = tuple(np.rint(click.as_array()).astype(int).tolist())
    if not mask[index] or mask.sum() < max(8, _LEAST_INSIDE * outline.sum()):
        return None
    return _Lesion(image, np.asarray(parts == parts[index]), click, is_first_look)


def _outline(
    shape: Triple,
    diameter_voxels: float,
    config: SamplingSection,
    rng: np.random.Generator,
    *,
    centred: bool,
) -> tuple[NDArray[np.bool_], PatchPoint]:
    """Draw a bumpy ellipsoid and a click in it; `centred` puts the click into the middle of the patch."""
    radii = diameter_voxels / 2 * np.exp(rng.normal(0, 0.3, 3))
    middle = (np.array(shape) - 1) / 2
    direction = rng.standard_normal(3)
    direction *= rng.random() ** (1 / 3) / np.linalg.norm(direction)
    if centred:
        centre = middle - 0.85 * direction * radii
    else:
        centre = middle + config.max_shift * rng.uniform(-1, 1, 3) * np.array(shape)
    axes = np.ogrid[: shape[0], : shape[1], : shape[2]]
    distance = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)))
    cells = int(np.clip(3 * max(shape) / max(diameter_voxels, 1.0), 4, 16))
    bumps = smooth_noise(1, shape, cells, rng)[0] * rng.uniform(0, 0.25)
    inside = distance + bumps < 1
    if centred:
        return inside, PatchPoint.of(middle)
    voxels = np.argwhere(inside)
    if len(voxels) == 0:
        return inside, PatchPoint.of(middle)
    return inside, PatchPoint.of(voxels[rng.integers(len(voxels))])


def _painted(lesion: _Lesion, rng: np.random.Generator) -> _Array32:
    """Paint a lesion: its own value, texture, often a rim or a core, a more or less sharp edge."""
    image, mask = lesion.image, lesion.mask
    own = float(np.median(image[mask]))
    contrast = rng.uniform(0.25, 1.2) * rng.choice([-1.0, 1.0])
    texture = smooth_noise(1, image.shape, int(rng.integers(8, 24)), rng)[0]
    values = own + contrast + texture * rng.uniform(0, 0.4)
    depth = ndimage.distance_transform_edt(mask)
    deepest = float(depth.max())
    if rng.random() < 0.4:
        core = depth > rng.uniform(0.3, 0.6) * deepest
        values = values + core * rng.uniform(-1.0, 0.6)
    kept = rng.uniform(0, 0.4)  # of what the scan showed there
    edge = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.4, 1.5))
    painted = image * (1 - edge) + (kept * image + (1 - kept) * values) * edge
    return np.asarray(painted, dtype=np.float32)
