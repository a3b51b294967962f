"""From clicks to a probability on the scan's grid: view, widen where needed, refine where the object is.

The first view is centred on the first click. While the object touches the border of the field of view and the
scan goes on beyond it, a wider and coarser view follows. Then comes a view fitted to the object, which is what
counts. In it the click lies off the middle where the model was trained so: such a network takes a click in the
middle for a first view, in which objects are small. Where the fitted view is coarser than the first, the object
is covered with finer views, a bounded number of them, which take the coarse result as a prompt. All fields of
view are laid out in patient millimetres and rounded to steps from the middle of the scan, so that a further
click that changes the object little needs the same fields of view, which are already encoded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, Triple, extract, paste, paste_box
from clickvol.predict.placed_prompts import Extent
from clickvol.predict.segmentation import (
    FAINT,
    THRESHOLD,
    Array32,
    FieldOfViewReport,
    ScanProbability,
    keep_clicked,
)
from clickvol.weights.card import FieldOfViewPlan

# An object is cut off when it comes this close to the border of the patch, in patch voxels.
_BORDER_VOXELS = 2

# Each widening makes the voxels coarser by this factor.
_WIDENING = 1.5

# Views that may be needed to see the whole object; the last ones only move, at the coarsest voxels.
_MAX_WIDENINGS = 7

# The first click stays in the field of view: at most this part of its side away from the middle.
_MAX_SHIFT = 0.4

# Side of the fitted field of view over the longest side of the object. Training has 0.8 to 2.2; 1.2 was
# better than 1.4 and 1.7 on four patients kept from training.
_ROOM = 1.2

# An object is refined in parts when its fitted voxels are coarser than those of the first view by this factor.
_COARSE = 1.25

# Most fields of view that a refinement takes, and how much of a tile overlaps the next.
_MAX_TILES = 8
_TILE_OVERLAP = 0.25


PatchProbability = Callable[[FieldOfView, Array32 | None], Array32]
"""The network on a field of view: a probability (D, H, W) in [0, 1]; the array is that of an earlier view."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A field of view, the probability (D, H, W) on its patch, why it was needed, and the box of the object."""

    field_of_view: FieldOfView
    probability: Array32
    reason: str
    box: VoxelBox | None = None


def zoom_to_object(
    predict_patch: PatchProbability,
    grid: VolumeGrid,
    inside: Sequence[WorldPointRAS],
    plan: FieldOfViewPlan,
    patch_shape_dhw: Triple,
    extent: Extent | None = None,
) -> ScanProbability:
    """Return the probability of the object.

    Args:
        predict_patch: the network, which knows the prompts.
        grid: of the scan.
        inside: places in the object, at least one; the first is the middle of the first view.
        plan: voxel sizes that the model was trained for.
        patch_shape_dhw: shape of its patch.
        extent: size of the object where it is known; then the first view is fitted to it, and where it is known
            in all directions no other is searched.
    """
    if extent is None:
        field, reason = _first_field(inside, plan, patch_shape_dhw)
    else:
        middle, sides_dhw_mm = (
            (extent.low_ras_mm + extent.high_ras_mm) / 2,
            extent.high_ras_mm - extent.low_ras_mm,
        )
        field = _filled_field(middle, sides_dhw_mm[::-1], plan, patch_shape_dhw, grid)
        reason = "fitted to the size that was given"

    def seen(field: FieldOfView, reason: str) -> View:
        probability = predict_patch(field, None)
        return View(field, probability, reason, _object_box(field.grid(), probability, inside))

    views = [seen(field, reason)]
    warnings: list[str] = []
    layers = [views]
    if extent is None or not extent.is_whole:
        warnings += _widen(views, seen, grid, inside, plan)
        layers = [views[-1:]]
        if views[-1].box is not None:
            field, sides = views[-1].field_of_view, np.array(views[-1].box.shape_dhw)
            middle = _middle(field, views[-1].box)
            sides_dhw_mm = sides * field.voxel_mm
            field = _filled_field(middle, sides_dhw_mm, plan, patch_shape_dhw, grid, inside[0])
            views.append(seen(field, "fitted to the object"))
    fitted = views[-1]
    # A fitted view without any object has lost it: the one before stands. One that holds the whole object
    # leaves nothing to say to the one before.
    if fitted.box is not None:
        if not _is_cut_off(fitted, fitted.box, grid):
            layers = []
        parts = _parts(fitted, fitted.box, predict_patch, plan, grid)
        layers = [*layers, [fitted], parts]
        views = [*views, *parts]
    reports = tuple(FieldOfViewReport.of(v.field_of_view, v.reason) for v in views)
    judged = fitted.field_of_view
    return ScanProbability(*_compose(layers, grid), reports, tuple(warnings), judged_field=judged)


def _widen(
    views: list[View],
    seen: Callable[[FieldOfView, str], View],
    grid: VolumeGrid,
    inside: Sequence[WorldPointRAS],
    plan: FieldOfViewPlan,
) -> list[str]:
    """Append wider views until the object is seen whole; return warnings."""
    while (box := views[-1].box) is not None and _is_cut_off(views[-1], box, grid):
        wider = _wider_field(views[-1].field_of_view, box, inside[0], plan, grid)
        if wider == views[-1].field_of_view or len(views) == _MAX_WIDENINGS:
            widest = max(views[-1].field_of_view.extent_mm)
            return [
                f"the object reaches the border of the widest field of view ({widest:.0f} mm); "
                "parts beyond it are missing; click there, too, and join the masks"
            ]
        views.append(seen(wider, "widened: the object touched the border"))
    return []


def _parts(
    fitted: View, box: VoxelBox, predict_patch: PatchProbability, plan: FieldOfViewPlan, grid: VolumeGrid
) -> list[View]:
    """Return finer views over the object where the fitted one is coarse, with its result as a prompt."""
    fields = _tiles(fitted.field_of_view, box, plan, grid)
    parts = []
    for number, field in enumerate(fields, start=1):
        prior = extract(fitted.probability, fitted.field_of_view.grid(), field.grid(), outside_value=0.0)
        if ((prior > FAINT) & (prior < 1 - FAINT)).any():
            # The mean counts: a part of an object shows less of what it belongs to.
            probability = np.asarray((prior + predict_patch(field, prior)) / 2, dtype=np.float32)
            parts.append(View(field, probability, f"refined, part {number} of {len(fields)}"))
    return parts


def _object_box(
    patch_grid: VolumeGrid, probability: Array32, inside: Sequence[WorldPointRAS]
) -> VoxelBox | None:
    """Return the box of the connected parts that hold a click inside, in patch voxels."""
    clicks_dhw = [patch_grid.to_voxel(place).as_array() for place in inside]
    return bounding_box(keep_clicked(probability > THRESHOLD, clicks_dhw))


def _is_cut_off(view: View, box: VoxelBox, grid: VolumeGrid) -> bool:
    """Tell whether the object comes close to a face of the patch behind which the scan goes on."""
    first, last = (view.field_of_view.to_patch(corner).as_array() for corner in grid.extent_ras_mm())
    length = np.array(view.field_of_view.shape_dhw)
    cut_near = (np.array(box.start_dhw) < _BORDER_VOXELS) & (first < -0.5)
    cut_far = (np.array(box.stop_dhw) > length - _BORDER_VOXELS) & (last > length - 0.5)
    return bool((cut_near | cut_far).any())


# -- Where to view: fields of view from boxes, without any network


def _first_field(
    inside: Sequence[WorldPointRAS], plan: FieldOfViewPlan, shape: Triple
) -> tuple[FieldOfView, str]:
    """Return a field of view centred on the first click, or wide enough for all; and why."""
    places = np.array([place.as_array() for place in inside])
    reach_mm = 0.4 * plan.first_voxel_mm * min(shape)
    if (np.abs(places - places[0]) <= reach_mm).all():
        return FieldOfView(inside[0], plan.first_voxel_mm, shape), "first view, centred on the first click"
    low, high = places.min(axis=0), places.max(axis=0)
    needed_mm = float((high - low).max()) * _ROOM / min(shape)
    voxel_mm = min(max(plan.first_voxel_mm, needed_mm), plan.coarsest_voxel_mm)
    centre = WorldPointRAS.of((low + high) / 2)
    return FieldOfView(centre, voxel_mm, shape), "first view, wide enough for all clicks inside"


def _wider_field(
    field: FieldOfView, box: VoxelBox, click: WorldPointRAS, plan: FieldOfViewPlan, grid: VolumeGrid
) -> FieldOfView:
    """Return a wider field of view around the object; at the widest, it only moves towards it."""
    voxel_mm = min(field.voxel_mm * _WIDENING, plan.coarsest_voxel_mm)
    reach_mm = _MAX_SHIFT * voxel_mm * np.array(field.shape_dhw[::-1])
    place = click.as_array()
    middle = np.clip(_middle(field, box), place - reach_mm, place + reach_mm)
    return _around(middle, voxel_mm, field.shape_dhw, grid)


def _filled_field(
    middle_ras_mm: NDArray[np.float64],
    sides_dhw_mm: NDArray[np.float64],
    plan: FieldOfViewPlan,
    shape: Triple,
    grid: VolumeGrid,
    click: WorldPointRAS | None = None,
) -> FieldOfView:
    """Return a field of view that a box fills as in training, its voxels rounded up to an eighth of an octave.

    A click lies off its middle as in training, where the box leaves room. On four patients kept from training
    this one alone was better than its mean with the view before it, than giving that view as a prompt, and than
    the mean over a mirrored patch.
    """
    needed_mm = float((sides_dhw_mm / shape).max()) * _ROOM
    steps = max(0.0, np.ceil(8 * np.log2(needed_mm / plan.finest_voxel_mm) - 1e-6))
    voxel_mm = float(min(plan.finest_voxel_mm * 2 ** (steps / 8), plan.coarsest_voxel_mm))
    if click is not None and plan.click_off_middle:
        lengths_mm = voxel_mm * np.array(shape[::-1])
        off_mm = np.round(middle_ras_mm - click.as_array(), 6)
        wanted_mm = plan.click_off_middle * lengths_mm - np.abs(off_mm)
        # Neither the steps nor what counts as cut off may cost a part of the object.
        room_mm = (lengths_mm - sides_dhw_mm[::-1]) / 2 - (_BORDER_VOXELS + 1) * voxel_mm
        move_mm = np.clip(wanted_mm, 0, np.maximum(0, room_mm))
        middle_ras_mm = middle_ras_mm + np.where(off_mm < 0, -1, 1) * move_mm
    return _around(middle_ras_mm, voxel_mm, shape, grid)


def _tiles(field: FieldOfView, box: VoxelBox, plan: FieldOfViewPlan, grid: VolumeGrid) -> list[FieldOfView]:
    """Cover an object with overlapping fields of view, the finest that are few enough.

    Empty where the field of view at hand is fine enough, or none can be clearly finer.
    """
    if field.voxel_mm <= _COARSE * max(plan.first_voxel_mm, plan.finest_voxel_mm):
        return []
    shape = np.array(field.shape_dhw)
    sides_mm = np.array(box.shape_dhw) * field.voxel_mm * 1.1
    voxel_mm = max(plan.finest_voxel_mm, field.voxel_mm / 2)
    while True:
        tile_mm = shape * voxel_mm
        step_mm = tile_mm * (1 - _TILE_OVERLAP)
        counts = np.maximum(1, np.ceil((sides_mm - tile_mm) / step_mm - 1e-6) + 1).astype(int)
        if counts.prod() <= _MAX_TILES:
            break
        voxel_mm *= 2 ** (1 / 8)
    centre_dhw = _middle(field, box)[::-1]
    offsets_dhw = [(np.array(index) - (counts - 1) / 2) * step_mm for index in np.ndindex(*counts.tolist())]
    return [_around((centre_dhw + offset)[::-1], voxel_mm, field.shape_dhw, grid) for offset in offsets_dhw]


def _middle(field: FieldOfView, box: VoxelBox) -> NDArray[np.float64]:
    """Return the middle of a box of patch voxels: (3,), x, y, z in RAS mm."""
    return field.grid().to_world(box.middle).as_array()


def _around(
    middle_ras_mm: NDArray[np.float64], voxel_mm: float, shape: Triple, grid: VolumeGrid
) -> FieldOfView:
    """Return a field of view whose middle is rounded to 2 of its voxels, counted from the middle of the scan.

    So it does not depend on where the scan's origin lies, nor on the order of its axes.
    """
    step = 2 * voxel_mm
    anchor = grid.to_world(grid.box.middle).as_array()
    # Ties, common with round voxel sizes, go the same way whatever the origin adds to the last digits.
    steps = np.rint(np.round((middle_ras_mm - anchor) / step, 6))
    return FieldOfView(WorldPointRAS.of(anchor + steps * step), voxel_mm, shape)


# -- Onto the scan's grid


def _compose(layers: list[list[View]], grid: VolumeGrid) -> tuple[VoxelBox, Array32]:
    """Bring all views to the scan's grid; each layer covers the ones before, and blends within itself."""
    boxes = [
        paste_box(view.probability, view.field_of_view.grid(), grid, FAINT)
        for layer in layers
        for view in layer
    ]
    known = [box for box in boxes if box is not None]
    if not known:
        return VoxelBox.whole((1, 1, 1)), np.zeros((1, 1, 1), dtype=np.float32)
    whole = known[0]
    for box in known[1:]:
        whole = whole.union(box)
    (base,) = layers[0]
    result = paste(base.probability, base.field_of_view.grid(), grid, whole)
    for layer in layers[1:]:
        if layer:
            result = _cover(result, whole, layer, grid)
    return whole, result


def _cover(below: Array32, whole: VoxelBox, layer: list[View], grid: VolumeGrid) -> Array32:
    """Lay the views of a layer over what is known of a box of the scan."""
    weighted, weights = np.zeros_like(below), np.zeros_like(below)
    ramp = _ramp(layer[0].field_of_view.shape_dhw)
    for view in layer:
        patch_grid = view.field_of_view.grid()
        part = paste_box(ramp, patch_grid, grid, 0.0)
        if part is None or (part := part.intersect(whole)).is_empty:
            continue
        inner = part.relative_to(whole).slices
        weights[inner] += paste(ramp, patch_grid, grid, part)
        weighted[inner] += paste(view.probability * ramp, patch_grid, grid, part)
    share = np.minimum(weights, 1.0)
    covered: Array32 = below * (1 - share) + weighted * (share / np.maximum(weights, 1e-6))
    return covered


def _ramp(shape: Triple) -> Array32:
    """Return weights that fall to 0 at the border of a patch over an eighth of its side."""
    weight = np.ones(shape, dtype=np.float32)
    for axis, length in enumerate(shape):
        to_border = np.minimum(np.arange(length), np.arange(length)[::-1]).astype(np.float32)
        across = [1, 1, 1]
        across[axis] = -1
        weight = np.minimum(weight, np.minimum(8 * to_border / length, 1).reshape(across))
    return weight
