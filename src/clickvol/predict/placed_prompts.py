"""What prompts come to for a network and a scan: clicks, maps, a size, limits, and a mask to begin with.

The one place that says how each prompt is used: by a network that was trained with maps of them (`num_hints`
in its card), and by one that knows clicks alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.hint_maps import draw_hints
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import (
    Box,
    GivenMask,
    Lasso,
    Line,
    Prompt,
    Scribble,
    check_any_prompt_inside,
    check_prompt,
)

# Clicks that stand for a scribble. Chosen: the models were trained with up to five clicks.
_MAX_SCRIBBLE_CLICKS = 4


@dataclass(frozen=True, slots=True)
class WorldClick:
    """A checked click: its place in the patient, and whether it is inside the object."""

    place: WorldPointRAS
    foreground: bool


@dataclass(frozen=True, slots=True)
class PromptUse:
    """How a prompt ("click", "line", "box", "scribble", "lasso" or "mask") was used, in words."""

    kind: str
    foreground: bool
    used_as: str


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """How large the object is, as a prompt tells it.

    Attributes:
        low_ras_mm: (3,) lowest corner of a box along the patient's axes.
        high_ras_mm: (3,) highest.
        is_whole: whether it bounds the object in all directions, so that nothing needs to be searched.
    """

    low_ras_mm: NDArray[np.float64]
    high_ras_mm: NDArray[np.float64]
    is_whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class PlacedPrompts:
    """Prompts, checked, as the network and the views take them.

    Attributes:
        inside: places in the object, at least one.
        drawn: prompts that are drawn as maps; empty for a network without.
        extent: size of the object; None where no prompt tells it.
        excluded: (D, H, W) voxels that cannot belong to the object; None for none.
        given: mask to begin with; None for none.
    """

    grid: VolumeGrid
    clicks: tuple[WorldClick, ...]
    inside: tuple[WorldPointRAS, ...]
    drawn: tuple[Prompt, ...]
    extent: Extent | None
    excluded: NDArray[np.bool_] | None
    given: PackedMask | None
    used: tuple[PromptUse, ...]
    overhangs: bool

    @classmethod
    def of(
        cls,
        prompts: Sequence[Prompt],
        grid: VolumeGrid,
        *,
        knows_hints: bool,
        excluded: NDArray[np.bool_] | None = None,
    ) -> "PlacedPrompts":
        """Check prompts, at least one on the object, and turn them into what a network takes.

        `knows_hints` tells whether it was trained with maps of prompts; `excluded` are voxels of other objects
        (D, H, W). ClickError when a prompt is not finite, empty or outside the scan, or none is on the object.
        """
        for prompt in prompts:
            check_prompt(prompt, grid)
        check_any_prompt_inside(prompts)
        is_clicked = any(isinstance(p, Click) and p.foreground for p in prompts)
        clicks, used = [], []
        for prompt in prompts:
            # A mask alone is the answer; with others, the network is asked with them and a click in its middle.
            is_alone = len(prompts) == 1
            stand_ins = _clicks_of(prompt, grid, is_clicked=is_clicked, is_alone=is_alone)
            clicks += stand_ins
            used.append(_use_of(prompt, len(stand_ins), knows_hints=knows_hints))
        given = next((p.voxels for p in reversed(prompts) if isinstance(p, GivenMask)), None)
        inside = [click.place for click in clicks if click.foreground]
        if not inside and given is not None:
            inside = [grid.to_world(given.innermost())]
        drawn = [p for p in prompts if isinstance(p, Line | Box | Scribble | Lasso)] if knows_hints else []
        return cls(
            grid=grid,
            clicks=tuple(clicks),
            inside=tuple(inside),
            drawn=tuple(drawn),
            extent=_extent_of(prompts, grid, inside),
            excluded=_excluded_by(prompts, grid, excluded),
            given=given,
            used=tuple(used),
            overhangs=any(isinstance(p, Box) and p.overhangs(grid) for p in prompts),
        )

    def hints_on(self, field: FieldOfView) -> NDArray[np.float32] | None:
        """Return the maps of the drawn prompts on a patch; None where there are none."""
        return draw_hints(self.drawn, field, self.grid) if self.drawn else None

    def warnings(self, model_id: str) -> tuple[str, ...]:
        """Say in a sentence each which prompts could not be taken as they are."""
        beyond = ("the box reaches beyond the scan; its part in the scan counts",) if self.overhangs else ()
        kinds = sorted({use.kind for use in self.used if use.kind not in ("click", "mask")})
        if self.drawn or not kinds:
            return beyond
        words = f"{', '.join(kinds[:-1])} and {kinds[-1]}" if len(kinds) > 1 else kinds[0]
        return (
            *beyond,
            f"{model_id} knows clicks alone: the {words} stood for clicks, a size and limits "
            "(--model promise3d-lesions was trained with them)",
        )


def _clicks_of(prompt: Prompt, grid: VolumeGrid, *, is_clicked: bool, is_alone: bool) -> list[WorldClick]:
    """Return the clicks that a checked prompt is or stands for; regions need none beside one."""
    sign = prompt.foreground
    match prompt:
        case Click():
            places = [prompt.world(grid)]
        case Line():
            first, second = (end.as_array() for end in prompt.ends(grid))
            places = [WorldPointRAS.of(first + part * (second - first)) for part in (0.5, 0.1, 0.9)]
        case Box():
            places = [] if sign and is_clicked else [grid.to_world(prompt.voxel_box(grid).middle)]
        case Lasso():
            places = [] if sign and is_clicked else [grid.to_world(innermost_on_slice(prompt.voxels))]
        case Scribble():
            voxels = _along(prompt.voxels)
            steps = np.linspace(0, len(voxels) - 1, min(len(voxels), _MAX_SCRIBBLE_CLICKS) + 2)[1:-1]
            places = [grid.to_world(VoxelPoint.of(voxels[round(step)])) for step in steps]
        case GivenMask():
            places = [] if is_alone else [grid.to_world(prompt.voxels.innermost())]
    return [WorldClick(place, sign) for place in places]


def _along(voxels: PackedMask) -> list[list[int]]:
    """Return the voxels of a drawing in order along its longest direction."""
    places = voxels.places()
    axis = int(np.ptp(places, axis=0).argmax())
    return sorted(places.tolist(), key=itemgetter(axis))


def innermost_on_slice(area: PackedMask) -> VoxelPoint:
    """Return the voxel of an area that is farthest from its border; across a single slice there is none."""
    if area.box is None:
        raise ValueError("an empty area has no innermost voxel")
    margin = [int(length > 1) for length in area.box.shape_dhw]
    depth = ndimage.distance_transform_edt(np.pad(area.in_box(), [(m, m) for m in margin]))
    index = np.unravel_index(int(depth.argmax()), depth.shape)
    return VoxelPoint.of(np.subtract(index, margin) + area.box.start_dhw)


def _use_of(prompt: Prompt, num_clicks: int, *, knows_hints: bool) -> PromptUse:
    kind = "mask" if isinstance(prompt, GivenMask) else type(prompt).__name__.lower()
    clicks = "one click" if num_clicks == 1 else f"{num_clicks} clicks"
    parts = [] if num_clicks == 0 else [clicks]
    if isinstance(prompt, Box | Lasso):
        parts += ["size", "limits"] if prompt.foreground else ["voxels left out"]
    elif isinstance(prompt, Line):
        parts += ["size"]
    elif isinstance(prompt, GivenMask):
        parts += ["mask to correct"]
    if knows_hints and not isinstance(prompt, Click | GivenMask):
        parts += ["map"]
    return PromptUse(kind, prompt.foreground, ", ".join(parts))


def _extent_of(prompts: Sequence[Prompt], grid: VolumeGrid, inside: Sequence[WorldPointRAS]) -> Extent | None:
    """Return the size that the prompts tell: of a region in space, else of a line or a region on a slice."""
    whole: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    partial = whole[:]
    for prompt in prompts:
        if not prompt.foreground:
            continue
        match prompt:
            case Line():
                first, second = (end.as_array() for end in prompt.ends(grid))
                half = np.linalg.norm(second - first) / 2
                partial.append(((first + second) / 2 - half, (first + second) / 2 + half))
            case Box() | Lasso() | GivenMask():
                box = prompt.voxel_box(grid)
                low, high = grid.bounds_of(box)
                (partial if 1 in box.shape_dhw else whole).append((low.as_array(), high.as_array()))
    bounds = whole or partial
    if not bounds:
        return None
    # Of several the last, as the user has corrected it; clicks beyond it show that it is larger.
    lowest, highest = bounds[-1]
    places = np.array([place.as_array() for place in inside]).reshape(-1, 3)
    is_larger = bool(((places < lowest) | (places > highest)).any())
    return Extent(
        np.vstack([places, [lowest]]).min(axis=0),
        np.vstack([places, [highest]]).max(axis=0),
        is_whole=bool(whole) and not is_larger,
    )


def _excluded_by(
    prompts: Sequence[Prompt], grid: VolumeGrid, excluded: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Return the voxels that are other objects', outside a box or lasso, or in one on the background.

    A region on one slice says nothing of the others; of several on it, or in space, each may hold the object.
    """
    regions = [prompt for prompt in prompts if isinstance(prompt, Box | Lasso)]
    if not regions:
        return excluded
    result = np.zeros(grid.shape_dhw, dtype=bool) if excluded is None else excluded.copy()
    allowed: dict[tuple[tuple[int, int], ...], NDArray[np.bool_]] = {}
    for region in regions:
        box = region.voxel_box(grid)
        area = np.True_ if isinstance(region, Box) else region.voxels.in_box()
        if not region.foreground:
            result[box.slices] |= area
            continue
        planes = tuple(
            (start, stop) if stop - start == 1 else (0, length)
            for start, stop, length in zip(box.start_dhw, box.stop_dhw, grid.shape_dhw, strict=True)
        )
        plane = VoxelBox.of(*zip(*planes, strict=True))
        known = allowed.setdefault(planes, np.zeros(plane.shape_dhw, dtype=bool))
        known[box.relative_to(plane).slices] |= area
    for planes, known in allowed.items():
        result[VoxelBox.of(*zip(*planes, strict=True)).slices] |= ~known
    return result
