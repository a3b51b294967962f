"""What a simulated user says of an object, drawn on the device for a whole batch.

Clicks, the longest diameter on a slice, a box on a slice or in space, a scribble. Prompts other than clicks are
drawn as maps on the patch, one channel for each kind of meaning (`HintChannel`).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device import noise
from clickvol.datasets.device.sample_plan import SamplePlan
from clickvol.datasets.samples import MAX_CLICKS, PatchPrompts
from clickvol.methods.recipe import TrainingClicks
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.spatial import NUM_HINTS, HintChannel
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL

_MAX_EXTRA = 4

# A click outside is so many voxels from one of the object.
_OUTSIDE_VOXELS = (4.0, 16.0)

_NUM_DIRECTIONS = 16


def draw_prompts(
    plan: SamplePlan,
    label: Tensor,
    soft: Tensor,
    click_voxel: Tensor,
    seeds: Tensor,
    uniform: Tensor,
    *,
    with_hints: bool,
) -> PatchPrompts:
    """Draw everything that the plan asks for.

    Args:
        plan: of the batch.
        label: (B, 1, D, H, W) bool.
        soft: (B, 1, D, H, W) in [0, 1].
        click_voxel: (B, 3) the first click.
        seeds: (B,).
        uniform: (B, 64).
        with_hints: whether the network takes hints.
    """
    device = label.device
    count = len(label)
    points = torch.zeros(count, MAX_CLICKS, 3, device=device)
    labels = torch.full((count, MAX_CLICKS), PADDING_LABEL, dtype=torch.int64, device=device)
    points[:, 0] = click_voxel
    kept = on_device(plan.click_kept, device)
    labels[:, 0] = torch.where(kept, FOREGROUND_LABEL, PADDING_LABEL)
    clicked = np.flatnonzero(plan.extra_clicks)
    if len(clicked):
        rows = on_device(clicked, device)
        wanted = on_device(plan.extra_clicks[clicked], device)
        places, signs = _extra_clicks(label[rows], wanted, seeds[rows])
        points[rows, 1 : 1 + _MAX_EXTRA] = places
        labels[rows, 1 : 1 + _MAX_EXTRA] = signs
    prior = torch.zeros_like(soft)
    spoiled = np.flatnonzero(plan.prior)
    if len(spoiled):
        rows = on_device(spoiled, device)
        prior[rows] = _spoiled(soft[rows], seeds[rows], uniform[rows])
    if not with_hints:
        return PatchPrompts(points, labels, prior)
    hints = torch.zeros(count, NUM_HINTS, *label.shape[2:], device=device)
    for kind, draw, channel in (
        (1, _diameter, HintChannel.DIAMETER),
        (2, _slice_box, HintChannel.REGION),
        (3, _box, HintChannel.REGION),
        (4, _scribble, HintChannel.SCRIBBLE),
    ):
        chosen = np.flatnonzero(plan.hint == kind)
        if len(chosen):
            rows = on_device(chosen, device)
            hints[rows, int(channel)] = draw(label[rows, 0], click_voxel[rows], uniform[rows])
    return PatchPrompts(points, labels, prior, hints)


def on_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Bring numbers of the plan to a device without waiting for it: floating ones as float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _extra_clicks(label: Tensor, wanted: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Draw clicks inside and near the object: places (B, 4, 3), signs (B, 4), padding beyond those wanted.

    Clicks inside are random voxels of the object; clicks outside are some voxels from such a voxel, in a random
    direction, where the object is not; where it is, that click is left out.
    """
    u = noise.uniform(seeds, 100, _MAX_EXTRA * 6).view(-1, _MAX_EXTRA, 6)
    inside, is_there = random_voxels(label, u[:, :, 0])
    direction = F.normalize(noise.normal(seeds, 101, _MAX_EXTRA * 3).view(-1, _MAX_EXTRA, 3), dim=2)
    low, high = _OUTSIDE_VOXELS
    outside = inside + direction * (low + (high - low) * u[:, :, 1:2])
    index, in_patch = _flat_index(outside, _shape_of(label))
    is_free = in_patch & ~label.flatten(1).gather(1, index)
    is_inside = u[:, :, 2] < 0.5
    sign = torch.where(is_inside, FOREGROUND_LABEL, torch.where(is_free, BACKGROUND_LABEL, PADDING_LABEL))
    is_wanted = torch.arange(_MAX_EXTRA, device=label.device) < wanted[:, None]
    sign = torch.where(is_wanted & is_there[:, None], sign, PADDING_LABEL)
    places = torch.where(is_inside[:, :, None], inside, outside)
    return torch.where((sign == PADDING_LABEL)[:, :, None], 0.0, places), sign


def _shape_of(mask: Tensor) -> tuple[int, int, int]:
    return (mask.shape[-3], mask.shape[-2], mask.shape[-1])


def _flat_index(voxels: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return the place in a flat mask of the voxel nearest to each of (B, N, 3), and which lie in the patch."""
    d, h, w = voxels.round().long().unbind(2)
    inside = (d >= 0) & (d < shape[0]) & (h >= 0) & (h < shape[1]) & (w >= 0) & (w < shape[2])
    d, h, w = d.clamp(0, shape[0] - 1), h.clamp(0, shape[1] - 1), w.clamp(0, shape[2] - 1)
    return (d * shape[1] + h) * shape[2] + w, inside


def random_voxels(mask: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draw voxels of each mask, all alike, with replacement.

    Args:
        mask: (B, 1, D, H, W) bool.
        u: (B, N) uniform in [0, 1).

    Returns:
        (B, N, 3) float32 voxels (the first one of the patch where the mask is empty), and (B,) whether the
        mask has any.
    """
    ranks = mask.flatten(1).cumsum(1, dtype=torch.int32)
    total = ranks[:, -1:]
    wanted = torch.minimum((u * total).to(torch.int32), (total - 1).clamp(min=0)) + 1
    index = torch.searchsorted(ranks, wanted).clamp(max=ranks.shape[1] - 1)
    is_there = total[:, 0] > 0
    index = torch.where(is_there[:, None], index, 0)
    _, height, width = _shape_of(mask)
    voxels = torch.stack([index // (height * width), index // width % height, index % width], dim=2)
    return voxels.to(torch.float32), is_there


def published_clicks(label: Tensor, clicks: TrainingClicks, seeds: Tensor) -> PointPrompts:
    """Draw the clicks of training patches as the published methods do, uniformly and with replacement.

    Args:
        label: (B, 1, D, H, W) of the patches.
        clicks: how many inside, and how many further ones from everywhere, the object included, or from the
            background (from everywhere where there is none).
        seeds: (B,).

    Returns:
        Those inside first, padding in their place where there is no object.
    """
    mask = label.bool()
    u = noise.uniform(seeds, 300, clicks.foreground + clicks.others)
    inside, is_there = random_voxels(mask, u[:, : clicks.foreground])
    others, has_background = random_voxels(
        ~mask if clicks.others_from == "background" else torch.ones_like(mask), u[:, clicks.foreground :]
    )
    if clicks.others_from == "background":
        everywhere, _ = random_voxels(torch.ones_like(mask), u[:, clicks.foreground :])
        others = torch.where(has_background[:, None, None], others, everywhere)
    sign = torch.where(is_there, FOREGROUND_LABEL, PADDING_LABEL)[:, None].expand(-1, clicks.foreground)
    signs = torch.cat([sign, torch.full_like(others[:, :, 0], BACKGROUND_LABEL, dtype=torch.int64)], dim=1)
    return PointPrompts(torch.cat([inside, others], dim=1), signs)


def validation_clicks(label: Tensor, count: int, seeds: Tensor) -> PointPrompts:
    """Draw the clicks by which the published methods choose their weights: all inside, with replacement.

    Args:
        label: (B, 1, D, H, W) of the patches.
        count: clicks per patch; from everywhere in a patch without the object.
        seeds: (B,).
    """
    u = noise.uniform(seeds, 300, count)
    inside, is_there = random_voxels(label.bool(), u)
    everywhere, _ = random_voxels(torch.ones_like(label, dtype=torch.bool), u)
    points = torch.where(is_there[:, None, None], inside, everywhere)
    return PointPrompts(points, torch.full_like(points[:, :, 0], FOREGROUND_LABEL, dtype=torch.int64))


def random_error_click(predicted: Tensor, label: Tensor, seeds: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Draw a click into what a prediction got wrong, away from the border of the error where it has a middle.

    Args:
        predicted: (B, 1, D, H, W) bool.
        label: (B, 1, D, H, W) bool.
        seeds: (B,).
        stream: of the noise.

    Returns:
        (B, 3) voxels and (B,) labels of the clicks, padding for a prediction without error.
    """
    wrong = predicted != label
    core = _eroded(wrong)
    has_core = core.flatten(1).any(dim=1)[:, None, None, None, None]
    voxel, is_there = random_voxels(torch.where(has_core, core, wrong), noise.uniform(seeds, stream, 1))
    index, _ = _flat_index(voxel, _shape_of(label))
    missed = label.flatten(1).gather(1, index)[:, 0]
    sign = torch.where(missed, FOREGROUND_LABEL, BACKGROUND_LABEL)
    return voxel[:, 0], torch.where(is_there, sign, PADDING_LABEL)


def _eroded(mask: Tensor) -> Tensor:
    """Return the voxels whose six neighbours belong to the mask, too; none at the border of the patch."""
    core = mask.clone()
    for axis in (2, 3, 4):
        last = mask.shape[axis] - 1
        core.narrow(axis, 1, last).logical_and_(mask.narrow(axis, 0, last))
        core.narrow(axis, 0, last).logical_and_(mask.narrow(axis, 1, last))
        core.narrow(axis, 0, 1).zero_()
        core.narrow(axis, last, 1).zero_()
    return core


def with_error_click(
    prompts: PointPrompts, predicted: Tensor, label: Tensor, seeds: Tensor, stream: int
) -> PointPrompts:
    """Put a click into the error of each sample into its first free slot; nothing where none is free.

    Args:
        prompts: so far.
        predicted: (B, 1, D, H, W) bool.
        label: (B, 1, D, H, W) bool.
        seeds: (B,).
        stream: of the noise.
    """
    voxel, sign = random_error_click(predicted, label, seeds, stream)
    is_free = prompts.labels == PADDING_LABEL
    slot = is_free.to(torch.int8).argmax(dim=1, keepdim=True)
    here = torch.zeros_like(is_free).scatter(1, slot, value=True) & is_free & (sign != PADDING_LABEL)[:, None]
    points = torch.where(here[:, :, None], voxel[:, None], prompts.points_dhw)
    return PointPrompts(points, torch.where(here, sign[:, None], prompts.labels), prompts.hints)


def _spoiled(soft: Tensor, seeds: Tensor, uniform: Tensor) -> Tensor:
    """Return what a coarser view might have shown: blurred, with a smooth error, (B, 1, D, H, W) in [-1, 1]."""
    d, h, w = soft.shape[2:]
    once = noise.box_mean(soft, 5)
    twice = noise.box_mean(once, 5)
    u = uniform[:, 48:50, None, None, None]
    blurred = torch.lerp(once, twice, u[:, :1])
    error = noise.smooth(seeds, 60, (d, h, w), 8)
    return (4 * (blurred + 0.3 * u[:, 1:] * error - 0.5)).clamp(-1, 1)


def _slice_masks(label: Tensor, click_voxel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slice with the click, or of the largest area where that shows nothing: (B, H, W), (B,)."""
    area = label.flatten(2).sum(2)
    at = click_voxel[:, 0].round().long().clamp(0, label.shape[1] - 1)
    shown = area.gather(1, at[:, None])[:, 0] > 0
    at = torch.where(shown, at, area.argmax(1))
    index = at[:, None, None, None].expand(-1, 1, *label.shape[2:])
    return label.gather(1, index)[:, 0], at


def _axes(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return voxel numbers along d, h, w, each broadcasting against (B, D, H, W)."""
    d, h, w = (torch.arange(n, device=label.device, dtype=torch.float32) for n in label.shape[1:])
    return d[:, None, None], h[None, :, None], w[None, None, :]


def _diameter(label: Tensor, click_voxel: Tensor, uniform: Tensor) -> Tensor:
    """Draw the longest diameter on a slice as a tube of 1.5 voxels: (B, D, H, W)."""
    plane, at = _slice_masks(label, click_voxel)
    d, h, w = _axes(label)
    angles = torch.arange(_NUM_DIRECTIONS, device=label.device) * (torch.pi / _NUM_DIRECTIONS)
    # (K, H, W): how far along each direction a pixel lies.
    along = torch.cos(angles)[:, None, None] * h[0] + torch.sin(angles)[:, None, None] * w[0]
    far = torch.where(plane[:, None], along[None], -torch.inf).flatten(2)
    near = torch.where(plane[:, None], along[None], torch.inf).flatten(2)
    (highest, last), (lowest, first) = far.max(2), near.min(2)
    best = (highest - lowest).argmax(1, keepdim=True)
    width = label.shape[3]
    ends = torch.stack([first.gather(1, best)[:, 0], last.gather(1, best)[:, 0]], dim=1)
    # A hand is off by about a voxel.
    jitter = 2 * uniform[:, 52:56] - 1
    end_h = (ends // width).float() + jitter[:, :2]
    end_w = (ends % width).float() + jitter[:, 2:]
    return segment_tube(d, h, w, at.float(), end_h, end_w)


def segment_tube(d: Tensor, h: Tensor, w: Tensor, at: Tensor, end_h: Tensor, end_w: Tensor) -> Tensor:
    """Draw segments that lie in a slice, exp(-distance^2 / (2 * 1.5^2)): (B, D, H, W).

    Args:
        d: voxel numbers along the axis, broadcasting.
        h: the same.
        w: the same.
        at: (B,) slice of each.
        end_h: (B, 2) of both ends.
        end_w: (B, 2) of both ends.
    """

    def spread(x: Tensor) -> Tensor:
        return x[:, None, None, None]

    from_h, from_w = spread(end_h[:, 0]), spread(end_w[:, 0])
    over_h, over_w = spread(end_h[:, 1]) - from_h, spread(end_w[:, 1]) - from_w
    length = (over_h.square() + over_w.square()).clamp(min=1e-6)
    part = (((h - from_h) * over_h + (w - from_w) * over_w) / length).clamp(0, 1)
    squared = (
        (h - from_h - part * over_h).square()
        + (w - from_w - part * over_w).square()
        + (d - spread(at)).square()
    )
    return torch.exp(-squared / (2 * 1.5**2))


def _bounds(shown: Tensor) -> tuple[Tensor, Tensor]:
    """Return first and last true place along the last axis: (B,) each."""
    places = torch.arange(shown.shape[1], device=shown.device, dtype=torch.float32)
    return (
        torch.where(shown, places, torch.inf).amin(1).clamp(max=shown.shape[1]),
        torch.where(shown, places, -torch.inf).amax(1).clamp(min=0),
    )


def _in_box(label: Tensor, uniform: Tensor, axis: int, places: Tensor) -> Tensor:
    """Tell what lies between the object's ends along an axis, give or take a voxel."""
    others = tuple(a for a in (1, 2, 3) if a != axis)
    low, high = _bounds(label.any(dim=others[1]).any(dim=others[0]))
    slack = 2 * uniform[:, 50 + 2 * axis : 52 + 2 * axis] - 0.7
    low, high = low - slack[:, 0] - 0.5, high + slack[:, 1] + 0.5
    return (places >= low[:, None, None, None]) & (places <= high[:, None, None, None])


def _box(label: Tensor, click_voxel: Tensor, uniform: Tensor) -> Tensor:  # noqa: ARG001
    """Draw a box in space: 1 inside, -1 outside."""
    inside = torch.ones_like(label)
    for axis, places in enumerate(_axes(label), start=1):
        inside = inside & _in_box(label, uniform, axis, places)
    return torch.where(inside, 1.0, -1.0)


def _slice_box(label: Tensor, click_voxel: Tensor, uniform: Tensor) -> Tensor:
    """Draw a box on a slice: 1 inside, -1 outside, on the three planes around it, for coarse grids."""
    plane, at = _slice_masks(label, click_voxel)
    d, h, w = _axes(label)
    flat = plane[:, None]
    inside = _in_box(flat, uniform, 2, h) & _in_box(flat, uniform, 3, w)
    on_slice = (d - at[:, None, None, None].float()).abs() <= 1
    return torch.where(inside, 1.0, -1.0) * on_slice


def _scribble(label: Tensor, click_voxel: Tensor, uniform: Tensor) -> Tensor:
    """Draw a straight stroke through the object on a slice: 1 on it."""
    plane, at = _slice_masks(label, click_voxel)
    d, h, w = _axes(label)
    angle = uniform[:, 60] * torch.pi
    total = plane.flatten(1).sum(1).clamp(min=1)
    middle_h = (plane * h[0]).flatten(1).sum(1) / total
    middle_w = (plane * w[0]).flatten(1).sum(1) / total

    def spread(x: Tensor) -> Tensor:
        return x[:, None, None, None]

    off = spread(torch.cos(angle)) * (h - spread(middle_h)) + spread(torch.sin(angle)) * (w - spread(middle_w))
    stroke = (off.abs() < 1.2) & plane[:, None] & ((d - spread(at.float())).abs() <= 1)
    return stroke.float()
