"""Methods that learned nothing: a ball, region growing, a random walker. What a network has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError, require
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.patches.field_of_view import FieldOfView, extract, paste, paste_box
from clickvol.prompts.click import Click

BALL_RADIUS_MM = 50.0
"""Best single radius for the soft-tissue sarcomas that the shipped model was trained on."""

# ITK's ConfidenceConnected: values within so many deviations of the mean, estimated again so often, from a cube
# around the seed; then one opening. Chosen on phantoms when the shipped model was first measured.
_GROWING = {"numberOfIterations": 4, "multiplier": 2.0, "initialNeighborhoodRadius": 2}
_OPENING_RADIUS = [1, 1, 1]

# The walker's cube: reach beyond the clicks, and voxels per side. Chosen: 120 mm at 3 mm hold most tumours, and
# 40^3 equations take a second or two, whatever the scan.
_WALK_REACH_MM = 60.0
_WALK_SIDE = 40

# Radius of the seeds around each click. Chosen on phantoms: a walker from 5 mm gets nowhere in noise (Dice .1),
# one from 10 mm does (.3); larger seeds would be beside small tumours.
_SEED_RADIUS_MM = 10.0

# Weight of an intensity difference in deviations of the cube: scikit-image's default. Its default tolerance of
# the solver (1e-3) stops at half of the region.
_WALK_BETA = 130.0
_WALK_TOLERANCE = 1e-8
_WALK_PROBABILITY_TOLERANCE = 0.01

Segmenter = Callable[[Volume, Sequence[Click]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Classical:
    """A method without weights: its name in the report, its parameters in words, and what segments."""

    name: str
    fingerprint: str
    segment: Segmenter


def ball(radius_mm: float = BALL_RADIUS_MM) -> Classical:
    """Return the ball: everything within a radius of a foreground click, whatever the scan shows.

    Background clicks have no effect. ConfigError for a radius that is not above 0.
    """
    if not 0 < radius_mm < np.inf:
        raise ConfigError(f"a ball has a radius above 0 mm, not {radius_mm:g}; give ball:MM, such as ball:50")

    def segment(volume: Volume, clicks: Sequence[Click]) -> NDArray[np.bool_]:
        mask = np.zeros(volume.grid.shape_dhw, dtype=bool)
        for click in clicks:
            if click.foreground:
                _add_ball(mask, volume.grid, click.world(volume.grid), radius_mm)
        return mask

    return Classical(f"ball {radius_mm:g} mm", f"radius {radius_mm:g} mm", segment)


def region_growing() -> Classical:
    """Return region growing from the foreground clicks; background clicks have no effect."""
    words = ", ".join(f"{name} {value:g}" for name, value in _GROWING.items())
    return Classical("region growing", f"ITK ConfidenceConnected, {words}", _grow)


def random_walker() -> Classical:
    """Return Grady's random walker in a cube around the clicks, with both kinds of clicks as seeds.

    The border of the cube is background. ConfigError without scikit-image, of the extra `clickvol[evaluate]`.
    """
    require("skimage", extra="evaluate", purpose="the random walker")
    from skimage.segmentation import random_walker as walk

    def segment(volume: Volume, clicks: Sequence[Click]) -> NDArray[np.bool_]:
        return _walk(walk, volume, clicks)

    words = f"{_WALK_SIDE}^3 voxels, seeds of {_SEED_RADIUS_MM:g} mm"
    return Classical("random walker", words, segment)


def _add_ball(mask: NDArray[np.bool_], grid: VolumeGrid, centre: WorldPointRAS, radius_mm: float) -> None:
    """Set the voxels whose centre is within the radius; computes for the voxels around the ball only."""
    box = grid.ball_box(centre, radius_mm)
    x, y, z = grid.offsets_ras_mm(box, centre)
    mask[box.slices] |= x**2 + y**2 + z**2 <= radius_mm**2


def _grow(volume: Volume, clicks: Sequence[Click]) -> NDArray[np.bool_]:
    import SimpleITK

    last = np.array(volume.grid.shape_dhw) - 1
    seeds = []
    for click in clicks:
        if click.foreground:
            voxel = volume.grid.to_voxel(click.world(volume.grid)).as_array()
            d, h, w = np.clip(np.rint(voxel), 0, last).astype(int).tolist()
            seeds.append([w, h, d])
    image = SimpleITK.GetImageFromArray(volume.array.astype(np.float32))
    region = SimpleITK.ConfidenceConnected(image, seeds, **_GROWING)
    opened = SimpleITK.BinaryMorphologicalOpening(region, _OPENING_RADIUS)
    grown: NDArray[np.bool_] = SimpleITK.GetArrayFromImage(opened) > 0
    return grown


def _walk(walk: Any, volume: Volume, clicks: Sequence[Click]) -> NDArray[np.bool_]:  # noqa: ANN401
    """Solve in the cube, and bring the probability back to the scan's grid."""
    grid = volume.grid
    mask = np.zeros(grid.shape_dhw, dtype=bool)
    inside = [click.world(grid) for click in clicks if click.foreground]
    field = _around(inside)
    patch_grid = field.grid()
    values = extract(volume.array, grid, patch_grid, outside_value=np.nan)
    beyond = np.isnan(values)
    lowest, highest = np.nanmin(values), np.nanmax(values)
    if lowest == highest:
        return mask
    values[beyond] = lowest
    seeds = _seeds(field, beyond, [(click.world(grid), click.foreground) for click in clicks])
    probability = walk(
        (values / values.std()).astype(np.float64),
        seeds,
        beta=_WALK_BETA,
        mode="cg_j",
        tol=_WALK_TOLERANCE,
        prob_tol=_WALK_PROBABILITY_TOLERANCE,
        return_full_prob=True,
    )[0].astype(np.float32)
    box = paste_box(probability, patch_grid, grid, 0.5)
    if box is not None:
        mask[box.slices] = paste(probability, patch_grid, grid, box) > 0.5
    return mask


def _around(places: list[WorldPointRAS]) -> FieldOfView:
    """Return the cube around all places, with the reach on every side."""
    corners = np.array([place.as_array() for place in places])
    low, high = corners.min(axis=0), corners.max(axis=0)
    side_mm = float((high - low).max()) + 2 * _WALK_REACH_MM
    return FieldOfView(WorldPointRAS.of((low + high) / 2), side_mm / _WALK_SIDE, (_WALK_SIDE,) * 3)


def _seeds(
    field: FieldOfView, beyond: NDArray[np.bool_], clicks: list[tuple[WorldPointRAS, bool]]
) -> NDArray[np.int32]:
    """Return what is known in the cube: 1 object, 2 background, 0 unknown; the first clicks win."""
    seeds = np.where(beyond, 2, 0).astype(np.int32)
    seeds[[0, -1]] = seeds[:, [0, -1]] = seeds[:, :, [0, -1]] = 2
    grid = field.grid()
    for place, foreground in reversed(clicks):
        if not grid.contains(grid.to_voxel(place)):
            continue  # a background click far away, where everything is background
        near = np.zeros(field.shape_dhw, dtype=bool)
        _add_ball(near, grid, place, _SEED_RADIUS_MM)
        seeds[near] = 1 if foreground else 2
    return seeds
