"""What a simulated user says of an object, drawn on the device for a whole batch.

Clicks, the longest diameter on a slice, a box on a slice or in space, a scribble. Prompts other than clicks are
drawn as maps on the patch, one channel for each kind of meaning (`HintChannel`).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device import noise
from clickvol.datasets.device.sample_plan import SamplePlan
from clickvol.prompts.hints import NUM_HINTS, HintChannel
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL

MAX_CLICKS = 10
"""Slots for clicks in a sample; those that are not drawn with it are free for corrections."""

_MAX_EXTRA = 4
_NUM_DIRECTIONS = 16


@dataclass(frozen=True, slots=True, eq=False)
class PatchPrompts:
    """The prompts of a batch.

    Attributes:
        points_dhw: (B, N, 3) float32, patch voxels.
        labels: (B, N) int64: 1 inside, 0 outside the object, padding where there is no click.
        prior: (B, 1, D, H, W) in [-1, 1], 2 p - 1 of an earlier mask; 0 where nothing is known.
        hints: (B, NUM_HINTS, D, H, W), see `HintChannel`.
    """

    points_dhw: Tensor
    labels: Tensor
    prior: Tensor
    hints: Tensor


def draw_prompts(
    plan: SamplePlan, label: Tensor, soft: Tensor, click_voxel: Tensor, seeds: Tensor, uniform: Tensor
) -> PatchPrompts:
    """Draw everything that the plan asks for.

    Args:
        plan: of the batch.
        label: (B, 1, D, H, W) bool.
        soft: (B, 1, D, H, W) in [0, 1].
        click_voxel: (B, 3) the first click.
        seeds: (B,).
        uniform: (B, 64).
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
        places, signs = _extra_clicks(label[rows], wanted, seeds[rows], uniform[rows])
        points[rows, 1 : 1 + _MAX_EXTRA] = places
        labels[rows, 1 : 1 + _MAX_EXTRA] = signs
    prior = torch.zeros_like(soft)
    spoiled = np.flatnonzero(plan.prior)
    if len(spoiled):
        rows = on_device(spoiled, device)
        prior[rows] = _spoiled(soft[rows], seeds[rows], uniform[rows])
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


def _extra_clicks(label: Tensor, wanted: Tensor, seeds: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw clicks inside and near the object: places (B, 4, 3), signs (B, 4), padding beyond those wanted."""
    near = label.float()
    for axis in range(3):
        window = [1, 1, 1]
        window[axis] = 13
        near = F.max_pool3d(near, tuple(window), stride=1, padding=tuple(n // 2 for n in window))
    shell = (near > 0) & ~label
    places, signs = [], []
    for number in range(_MAX_EXTRA):
        inside, _ = random_voxel(label, seeds, 100 + number)
        outside, has_outside = random_voxel(shell, seeds, 110 + number)
        is_inside = (uniform[:, 40 + number] < 0.5) | ~has_outside
        places.append(torch.where(is_inside[:, None], inside, outside))
        sign = torch.where(is_inside, FOREGROUND_LABEL, BACKGROUND_LABEL)
        signs.append(torch.where(wanted > number, sign, PADDING_LABEL))
    return torch.stack(places, dim=1), torch.stack(signs, dim=1)


def random_voxel(mask: Tensor, seeds: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Draw one voxel of each mask, all alike.

    Args:
        mask: (B, 1, D, H, W) bool.
        seeds: (B,).
        stream: of the noise.

    Returns:
        (B, 3) float32 voxels (anything where the mask is empty), and (B,) whether there is one.
    """
    voxel, _, is_there = _best_voxel(mask, noise.uniform(seeds, stream, mask[0].numel()))
    return voxel, is_there


def _best_voxel(mask: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the voxel of each mask with the highest score.

    Args:
        mask: (B, 1, D, H, W) bool.
        score: (B, D * H * W), at least 0.

    Returns:
        (B, 3) float32 voxels, (B,) their places in the flat mask, and (B,) whether the mask has any.
    """
    best, index = torch.where(mask.flatten(1), score + 1, 0.0).max(dim=1)
    height, width = mask.shape[3], mask.shape[4]
    voxel = torch.stack([index // (height * width), index // width % height, index % width], dim=1)
    return voxel.to(torch.float32), index, best > 0


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
    core = -F.max_pool3d(-wrong.to(torch.float32), 3, stride=1, padding=1)
    score = noise.uniform(seeds, stream, wrong[0].numel()) + core.flatten(1)
    voxel, index, is_there = _best_voxel(wrong, score)
    missed = label.flatten(1).gather(1, index[:, None])[:, 0]
    sign = torch.where(missed, FOREGROUND_LABEL, BACKGROUND_LABEL)
    return voxel, torch.where(is_there, sign, PADDING_LABEL)


def _spoiled(soft: Tensor, seeds: Tensor, uniform: Tensor) -> Tensor:
    """Return what a coarser view might have shown: blurred, with a smooth error, (B, 1, D, H, W) in [-1, 1]."""
    d, h, w = soft.shape[2:]
    once = F.avg_pool3d(soft, 5, stride=1, padding=2, count_include_pad=False)
    twice = F.avg_pool3d(once, 5, stride=1, padding=2, count_include_pad=False)
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
