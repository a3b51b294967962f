"""From clicks to a probability on the scan's grid: look, widen where needed, refine where the object is.

A first look is centred on the first click. While the object found touches the border of the field of
view and the scan goes on beyond it, a wider and coarser look is taken. Then the object is looked at
again with a field of view fitted to it, which is what counts. Where that is coarser than the first look,
the object is covered with finer looks, a bounded number of them, which take the coarse
result as a prompt. All fields of view are laid out in patient millimetres and rounded to steps, so that
a further click that changes the object little finds the same, already encoded, fields of view.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, extract, paste, paste_box
from clickvol.predict.features import Array32
from clickvol.predict.patch_predictor import PatchPredictor, Stopwatch, WorldClick
from clickvol.predict.segmentation import FieldOfViewReport
from clickvol.weights.card import FieldOfViewPlan

# Probability from which a voxel belongs to the object.
THRESHOLD = 0.5

# An object is cut off when it comes this close to the border of the patch, in patch voxels.
_BORDER_VOXELS = 2

# Each widening makes the voxels coarser by this factor.
_WIDENING = 1.5

# Looks that may be taken to see the whole object; the last ones only move, at the coarsest voxels.
_MAX_WIDENINGS = 7

# The first click stays in the field of view: at most this part of its side away from the middle.
_MAX_SHIFT = 0.4

# Side of the fitted field of view over the longest side of the object. Training has 0.8 to 2.2; 1.2 was
# better than 1.4 and 1.7 on four patients kept from training.
_ROOM = 1.2

# An object is refined in parts when its fitted voxels are coarser than the first look's by this factor.
_COARSE = 1.25

# Most fields of view that a refinement takes, and how much of a tile overlaps the next.
_MAX_TILES = 8
_TILE_OVERLAP = 0.25

# Below this probability nothing is worth looking at again.
FAINT = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One look and what it found.

    Attributes:
        field_of_view: where.
        probability: (D, H, W) on its patch.
        reason: why it was taken.
    """

    field_of_view: FieldOfView
    probability: Array32
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CascadeResult:
    """The probability on the scan's grid.

    Attributes:
        box: part of the scan that `probability` covers.
        probability: (box shape) float32.
        looks: every look, in order.
        warnings: one sentence each.
    """

    box: VoxelBox
    probability: Array32
    looks: tuple[FieldOfViewReport, ...]
    warnings: tuple[str, ...]


def run_cascade(
    looker: PatchPredictor,
    grid: VolumeGrid,
    clicks: list[WorldClick],
    plan: FieldOfViewPlan,
    patch_shape_dhw: tuple[int, int, int],
    stopwatch: Stopwatch,
) -> CascadeResult:
    """Find the clicked object.

    Args:
        looker: looks at the scan.
        grid: of the scan.
        clicks: at least one inside the object; the first of those is the middle of the first look.
        plan: voxel sizes the model was trained for.
        patch_shape_dhw: shape of its patch.
        stopwatch: gets the time of each stage.
    """
    looks = [_first_look(looker, clicks, plan, patch_shape_dhw, stopwatch)]
    warnings: list[str] = []
    found = _object_box(looks[-1], clicks)
    while found is not None and _is_cut_off(looks[-1], found, grid):
        wider = _widened(looks[-1].field_of_view, found, clicks, plan)
        if wider == looks[-1].field_of_view or len(looks) == _MAX_WIDENINGS:
            side = max(wider.extent_mm)
            warnings.append(
                f"the object reaches the border of the widest field of view ({side:.0f} mm); parts "
                "beyond it are missing; click there, too, and join the masks"
            )
            break
        probability = looker.probability(wider, clicks, stopwatch)
        looks.append(Look(wider, probability, "widened: the object touched the border"))
        found = _object_box(looks[-1], clicks)
    layers = [looks[-1:]]
    if found is not None:
        fitted = _fitted_look(looker, looks[-1], found, clicks, plan, stopwatch)
        object_box = _object_box(fitted, clicks)
        # A second look that finds nothing has lost the object: the first one stands. One that holds the
        # whole object leaves nothing to say to the first.
        if object_box is not None:
            if not _is_cut_off(fitted, object_box, grid):
                layers.clear()
            layers.append([fitted])
            layers.append(_refine(looker, fitted, object_box, clicks, plan, stopwatch))
    with stopwatch.stage("paste"):
        box, probability = _compose(layers, grid)
    further = [look for layer in layers for look in layer if look is not looks[-1]]
    reports = [FieldOfViewReport.of(look.field_of_view, look.reason) for look in looks + further]
    return CascadeResult(box, probability, tuple(reports), tuple(warnings))


def _first_look(
    looker: PatchPredictor,
    clicks: list[WorldClick],
    plan: FieldOfViewPlan,
    shape: tuple[int, int, int],
    stopwatch: Stopwatch,
) -> Look:
    inside = np.array([click.place.as_array() for click in clicks if click.foreground])
    low, high = inside.min(axis=0), inside.max(axis=0)
    centre = inside[0]
    voxel_mm = plan.first_voxel_mm
    reason = "first look, centred on the first click"
    reach_mm = 0.4 * voxel_mm * min(shape)
    if (np.abs(inside - centre) > reach_mm).any():
        centre = (low + high) / 2
        needed = float((high - low).max()) * _ROOM / min(shape)
        voxel_mm = min(max(voxel_mm, needed), plan.coarsest_voxel_mm)
        reason = "first look, wide enough for all clicks inside"
    field = FieldOfView(WorldPointRAS(*map(float, centre)), voxel_mm, shape)
    return Look(field, looker.probability(field, clicks, stopwatch), reason)


def _object_box(look: Look, clicks: list[WorldClick]) -> VoxelBox | None:
    """Return the box of the connected parts that hold a click inside, in patch voxels."""
    kept = keep_clicked(
        look.probability > THRESHOLD,
        [look.field_of_view.to_patch(c.place).as_array() for c in clicks if c.foreground],
    )
    return bounding_box(kept)


def keep_clicked(mask: NDArray[np.bool_], places_dhw: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Keep the connected parts (26 neighbours) that hold a click; the nearest one where none does.

    Args:
        mask: (D, H, W).
        places_dhw: clicks inside the object, in voxels of the mask; may lie outside the array.

    Returns:
        (D, H, W).
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return mask
    last = np.array(mask.shape) - 1
    indices = [np.clip(np.rint(place), 0, last).astype(int) for place in places_dhw]
    hit = {int(parts[tuple(index)]) for index in indices} - {0}
    if not hit:
        voxels = np.argwhere(mask)
        distances = ((voxels - indices[0]) ** 2).sum(axis=1)
        hit = {int(parts[tuple(voxels[distances.argmin()])])}
    return np.isin(parts, list(hit))


def _is_cut_off(look: Look, found: VoxelBox, grid: VolumeGrid) -> bool:
    """Tell whether the object comes close to a face of the patch behind which the scan goes on."""
    patch_grid = look.field_of_view.grid()
    low, high = grid.extent_ras_mm()
    first = patch_grid.to_voxel(low).as_array()
    last = patch_grid.to_voxel(high).as_array()
    for axis, length in enumerate(look.field_of_view.shape_dhw):
        touches_near = found.start_dhw[axis] < _BORDER_VOXELS
        touches_far = found.stop_dhw[axis] > length - _BORDER_VOXELS
        if touches_near and first[axis] < -0.5:
            return True
        if touches_far and last[axis] > length - 0.5:
            return True
    return False


def _widened(
    field: FieldOfView, found: VoxelBox, clicks: list[WorldClick], plan: FieldOfViewPlan
) -> FieldOfView:
    """Return a wider field of view around what was found; at the widest, it only moves towards it."""
    voxel_mm = min(field.voxel_mm * _WIDENING, plan.coarsest_voxel_mm)
    click = next(click for click in clicks if click.foreground).place.as_array()
    reach_mm = _MAX_SHIFT * voxel_mm * np.array(field.shape_dhw[::-1])
    middle = np.clip(_middle(field, found).as_array(), click - reach_mm, click + reach_mm)
    x, y, z = middle.tolist()
    return _around(WorldPointRAS(x, y, z), voxel_mm, field.shape_dhw)


def _middle(field: FieldOfView, box: VoxelBox) -> WorldPointRAS:
    ends = np.array([box.start_dhw, box.stop_dhw], dtype=np.float64)
    d, h, w = (ends.mean(axis=0) - 0.5).tolist()
    return field.grid().to_world(VoxelPoint(d, h, w))


def _around(middle: WorldPointRAS, voxel_mm: float, shape: tuple[int, int, int]) -> FieldOfView:
    """Return a field of view whose middle is rounded to 2 of its voxels."""
    step = 2 * voxel_mm
    x, y, z = (np.rint(middle.as_array() / step) * step).tolist()
    return FieldOfView(WorldPointRAS(x, y, z), voxel_mm, shape)


def _fitted_look(
    looker: PatchPredictor,
    coarse: Look,
    found: VoxelBox,
    clicks: list[WorldClick],
    plan: FieldOfViewPlan,
    stopwatch: Stopwatch,
) -> Look:
    """Look again with the object filling the patch as in training.

    On four patients kept from training this was better than the mean with the look before it, than
    giving that look as a prompt, and than the mean over a mirrored patch.
    """
    shape = coarse.field_of_view.shape_dhw
    sides_mm = np.array(found.shape_dhw) * coarse.field_of_view.voxel_mm
    voxel_mm = _step_up(float((sides_mm / shape).max()) * _ROOM, plan)
    field = _around(_middle(coarse.field_of_view, found), voxel_mm, shape)
    probability = looker.probability(field, clicks, stopwatch)
    return Look(field, probability, "fitted to the object")


def _refine(
    looker: PatchPredictor,
    fitted: Look,
    found: VoxelBox,
    clicks: list[WorldClick],
    plan: FieldOfViewPlan,
    stopwatch: Stopwatch,
) -> list[Look]:
    """Look at the border of an object that needed coarser voxels than the first look, with finer ones.

    The mean of both looks counts: a part of an object shows less of what it belongs to.
    """
    if fitted.field_of_view.voxel_mm <= _COARSE * plan.first_voxel_mm:
        return []
    looks = []
    fields = _tiles(fitted.field_of_view, found, plan)
    for number, field in enumerate(fields, start=1):
        prior = _on_patch(fitted, field, stopwatch)
        if not ((prior > FAINT) & (prior < 1 - FAINT)).any():
            continue
        probability = looker.probability(field, clicks, stopwatch, prior=prior)
        mean = np.asarray((prior + probability) / 2, dtype=np.float32)
        looks.append(Look(field, mean, f"refined, part {number} of {len(fields)}"))
    return looks


def _on_patch(look: Look, field: FieldOfView, stopwatch: Stopwatch) -> Array32:
    """Bring what a look found to the patch of another field of view."""
    with stopwatch.stage("paste"):
        return extract(look.probability, look.field_of_view.grid(), field.grid(), outside_value=0.0)


def _step_up(voxel_mm: float, plan: FieldOfViewPlan) -> float:
    """Round a voxel side up to an eighth of an octave above the finest, within the plan."""
    steps = max(0.0, np.ceil(8 * np.log2(voxel_mm / plan.finest_voxel_mm) - 1e-6))
    return float(min(plan.finest_voxel_mm * 2 ** (steps / 8), plan.coarsest_voxel_mm))


def _tiles(field: FieldOfView, found: VoxelBox, plan: FieldOfViewPlan) -> list[FieldOfView]:
    """Cover an object with overlapping fields of view, the finest that are few enough.

    Empty where even those would hardly be finer than the field of view at hand.
    """
    shape = np.array(field.shape_dhw)
    sides_mm = np.array(found.shape_dhw) * field.voxel_mm * 1.1
    voxel_mm = max(plan.finest_voxel_mm, field.voxel_mm / 2)
    while True:
        tile_mm = shape * voxel_mm
        step_mm = tile_mm * (1 - _TILE_OVERLAP)
        counts = np.maximum(1, np.ceil((sides_mm - tile_mm) / step_mm - 1e-6) + 1).astype(int)
        if counts.prod() <= _MAX_TILES:
            break
        voxel_mm *= 2 ** (1 / 8)
    if voxel_mm > 0.8 * field.voxel_mm:
        return []
    centre_dhw = _middle(field, found).as_array()[::-1]
    fields = []
    for index in np.ndindex(*counts.tolist()):
        offset_dhw = (np.array(index) - (counts - 1) / 2) * step_mm
        z, y, x = (centre_dhw + offset_dhw).tolist()
        fields.append(_around(WorldPointRAS(x, y, z), voxel_mm, field.shape_dhw))
    return fields


def _compose(layers: list[list[Look]], grid: VolumeGrid) -> tuple[VoxelBox, Array32]:
    """Bring all looks to the scan's grid; each layer covers the ones before, and blends within itself."""
    boxes = [
        paste_box(look.probability, look.field_of_view.grid(), grid, FAINT)
        for layer in layers
        for look in layer
    ]
    known = [box for box in boxes if box is not None]
    if not known:
        return VoxelBox((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), dtype=np.float32)
    whole = known[0]
    for box in known[1:]:
        whole = whole.union(box)
    (base,) = layers[0]
    result = paste(base.probability, base.field_of_view.grid(), grid, whole)
    for layer in layers[1:]:
        if layer:
            result = _cover(result, whole, layer, grid)
    return whole, result


def _cover(below: Array32, whole: VoxelBox, layer: list[Look], grid: VolumeGrid) -> Array32:
    """Lay the looks of a layer over what is known of a box of the scan."""
    weighted, weights = np.zeros_like(below), np.zeros_like(below)
    ramp = _ramp(layer[0].field_of_view.shape_dhw)
    for look in layer:
        patch_grid = look.field_of_view.grid()
        part = paste_box(ramp, patch_grid, grid, 0.0)
        if part is None:
            continue
        part = VoxelBox(_at_least(part.start_dhw, whole.start_dhw), _at_most(part.stop_dhw, whole.stop_dhw))
        if part.is_empty:
            continue
        inner = _relative(part, whole).slices
        weights[inner] += paste(ramp, patch_grid, grid, part)
        weighted[inner] += paste(look.probability * ramp, patch_grid, grid, part)
    share = np.minimum(weights, 1.0)
    covered: Array32 = below * (1 - share) + weighted * (share / np.maximum(weights, 1e-6))
    return covered


def _ramp(shape: tuple[int, int, int]) -> Array32:
    """Return weights that fall to 0 at the border of a patch over an eighth of its side."""
    weight = np.ones(shape, dtype=np.float32)
    for axis, length in enumerate(shape):
        to_border = np.minimum(np.arange(length), np.arange(length)[::-1]).astype(np.float32)
        across = [1, 1, 1]
        across[axis] = -1
        weight = np.minimum(weight, np.minimum(8 * to_border / length, 1).reshape(across))
    return weight


def _at_least(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]))


def _at_most(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]))


def _relative(box: VoxelBox, outer: VoxelBox) -> VoxelBox:
    d, h, w = outer.start_dhw
    (a, b, c), (e, f, g) = box.start_dhw, box.stop_dhw
    return VoxelBox((a - d, b - h, c - w), (e - d, f - h, g - w))
