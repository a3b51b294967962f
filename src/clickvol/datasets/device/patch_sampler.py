"""Batches of training patches, made on the device from scans that lie there.

One gather reads a batch of patches from different scans, turned, stretched, mirrored and bent; the rest of this
page changes what was read: surroundings that a set does not have, synthetic images and lesions, and everything
that a scanner might do to grey values. Nothing is read back from the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device import noise
from clickvol.datasets.device.prompts import PatchPrompts, draw_prompts, on_device
from clickvol.datasets.device.sample_plan import PatchSampling, SamplePlan, SamplePlanner
from clickvol.datasets.device.scan_store import NORMALISED_RANGE, ScanStore

_SPAN = NORMALISED_RANGE[1] - NORMALISED_RANGE[0]

# Normalised values up to this are air, lung, or the background of MR and PET.
_AIR = -1.1


@dataclass(frozen=True, slots=True, eq=False)
class PatchBatch:
    """A batch of samples.

    Attributes:
        patch: (B, 1, D, H, W) float32, normalised.
        label: (B, 1, D, H, W) uint8.
        prompts: what the simulated user has said.
        noise_seed: (B,) int64, for what is drawn later.
    """

    patch: Tensor
    label: Tensor
    prompts: PatchPrompts
    noise_seed: Tensor


class PatchSampler:
    """Makes batches by number.

    Args:
        store: the scans.
        sampling: how patches are drawn.
        patch_side: voxels per side; patches are cubes.
        seed: of the run.
    """

    def __init__(self, store: ScanStore, sampling: PatchSampling, patch_side: int, seed: int) -> None:
        self.store = store
        self.planner = SamplePlanner(store, sampling, patch_side, seed)
        self._side = patch_side
        device = store.images.device
        axis = torch.arange(patch_side, device=device, dtype=torch.float32) - (patch_side - 1) / 2
        # (3, D * H * W): every voxel's offset from the middle.
        self._offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)

    def batch(self, numbers: range) -> PatchBatch:
        """Return the samples with these numbers."""
        return self.make(self.planner.plan(numbers))

    def make(self, plan: SamplePlan) -> PatchBatch:
        """Carry out a plan."""
        device = self.store.images.device
        side = self._side
        shape = (side, side, side)
        seeds = on_device(plan.noise_seed, device)
        uniform = on_device(plan.uniform, device)
        offsets = self._bent(plan, seeds)
        image, inside = self._read_image(plan, offsets)
        image = image.view(-1, 1, *shape)
        inside = inside.view(-1, 1, *shape)
        soft = self._read_label(plan, offsets).view(-1, 1, *shape)
        _for_some(plan.is_lung, image, lambda rows: _lung_around(image[rows], inside[rows], seeds[rows]))
        _for_some(plan.synthesis, image, lambda rows: _random_regions(seeds[rows], shape, uniform[rows]))
        click_voxel = self._click(plan, offsets)
        self._add_lesions(plan, image, soft, click_voxel, seeds, uniform)
        label = _thresholded(soft)
        _for_some(plan.remap, image, lambda rows: _remapped(image[rows], seeds[rows]))
        _for_some(plan.grey, image, lambda rows: _as_scanned(image[rows], seeds[rows], uniform[rows]))
        prompts = draw_prompts(plan, label, soft, click_voxel, seeds, uniform)
        return PatchBatch(image, label.to(torch.uint8), prompts, seeds)

    def _bent(self, plan: SamplePlan, seeds: Tensor) -> Tensor:
        """Return where every voxel is read, as an offset from the middle: (B, 3, N)."""
        offsets = self._offsets[None].expand(len(plan.elastic), -1, -1)
        strength = on_device(plan.elastic, seeds.device)
        if not plan.elastic.any():
            return offsets
        side = self._side
        bend = noise.smooth(seeds, 1, (side, side, side), 5, channels=3).flatten(2)
        return offsets + bend * strength[:, None, None]

    def _read_image(self, plan: SamplePlan, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised values and which voxels lie in the scan: (B, N) each."""
        device = offsets.device
        places = torch.baddbmm(
            on_device(plan.image_origin, device)[:, :, None], on_device(plan.image_matrix, device), offsets
        )
        # A place is inside up to half a voxel, of the coarser of patch and scan, past the outermost centres.
        step = np.linalg.norm(plan.image_matrix, axis=2)
        more = np.maximum(0.5, 0.5 * step) - 0.5 + 1e-3
        low, high = on_device(plan.image_low - more, device), on_device(plan.image_high + more, device)
        inside = ((places >= low[:, :, None]) & (places <= high[:, :, None])).all(dim=1)
        shape = on_device(plan.image_shape, device)
        values = _trilinear(self.store.images, on_device(plan.image_start, device), shape, places, None)
        values = values * (_SPAN / 255) + NORMALISED_RANGE[0]
        return torch.where(inside, values, on_device(plan.outside, device)[:, None]), inside

    def _read_label(self, plan: SamplePlan, offsets: Tensor) -> Tensor:
        """Return how much of each voxel is the object: (B, N) in [0, 1]."""
        device = offsets.device
        places = torch.baddbmm(
            on_device(plan.label_origin, device)[:, :, None], on_device(plan.label_matrix, device), offsets
        )
        low, high = on_device(plan.label_low, device), on_device(plan.label_high, device)
        inside = ((places >= low[:, :, None]) & (places <= high[:, :, None])).all(dim=1)
        number = on_device(plan.label_number, device)
        start, shape = on_device(plan.label_start, device), on_device(plan.label_shape, device)
        return _trilinear(self.store.labels, start, shape, places, number) * inside

    def _click(self, plan: SamplePlan, offsets: Tensor) -> Tensor:
        """Return the first click in patch voxels: the voxel that is read nearest to it. (B, 3)."""
        wanted = on_device(plan.click_offset, offsets.device)
        side = self._side
        if not plan.elastic.any():
            return wanted + (side - 1) / 2
        # The bend at the click, to first order the way back.
        voxel = (wanted + (side - 1) / 2).round().long().clamp(0, side - 1)
        index = (voxel[:, 0] * side + voxel[:, 1]) * side + voxel[:, 2]
        read_at = offsets.gather(2, index[:, None, None].expand(-1, 3, 1))[:, :, 0]
        bend = read_at - (voxel - (side - 1) / 2)
        return wanted - bend + (side - 1) / 2

    def _add_lesions(
        self,
        plan: SamplePlan,
        image: Tensor,
        soft: Tensor,
        click_voxel: Tensor,
        seeds: Tensor,
        uniform: Tensor,
    ) -> None:
        """Paint the synthetic lesions, in place; the mask becomes what was painted."""
        rows = _rows_of(plan.lesion, image.device)
        if rows is None:
            return
        ellipsoids = _rows_of(plan.is_ellipsoid, image.device)
        side = self._side
        if ellipsoids is not None:
            chosen = plan.is_ellipsoid
            centre = on_device(plan.lesion_centre[chosen], image.device)[:, :, None]
            radii = on_device(plan.radii[chosen], image.device)[:, :, None]
            distance = ((self._offsets[None] - centre) / radii).square().sum(1).sqrt()
            bumps = noise.smooth(seeds[ellipsoids], 2, (side, side, side), 9).flatten(1)
            bumps = bumps * (0.25 * uniform[ellipsoids, 0:1])
            outline = (0.5 + 4 * (1 - distance - bumps)).clamp(0, 1)
            soft[ellipsoids] = outline.view(-1, 1, side, side, side)
        painted, mask = _painted(image[rows], soft[rows], click_voxel[rows], seeds[rows], uniform[rows])
        image[rows] = painted
        soft[rows] = mask


def _rows_of(flags: NDArray[np.bool_], device: torch.device) -> Tensor | None:
    """Return the numbers of the samples with a flag; None for none. Known on the host, so nothing waits."""
    rows = np.flatnonzero(flags)
    return on_device(rows, device) if len(rows) else None


def _for_some(flags: NDArray[np.bool_], values: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the samples with a flag by what `change(rows)` returns."""
    rows = _rows_of(flags, values.device)
    if rows is not None:
        values[rows] = change(rows)


def _trilinear(flat: Tensor, start: Tensor, shape: Tensor, places: Tensor, number: Tensor | None) -> Tensor:
    """Read between voxels; beyond the outermost centres their value.

    Args:
        flat: (n,) uint8.
        start: (B,) of each sample's array in it.
        shape: (B, 3) of that array.
        places: (B, 3, N) voxels of that array.
        number: (B,) to read the part of voxels with this value instead of values; or None.

    Returns:
        (B, N) float32.
    """
    last = (shape - 1)[:, :, None]
    places = torch.minimum(places.clamp(min=0), last.to(places.dtype))
    low = places.floor()
    weight = places - low
    low = low.to(torch.int32)
    step_to_next = torch.minimum(low + 1, last.to(torch.int32)) - low
    d, h, w = low.unbind(1)
    width, height = shape[:, 2:3], shape[:, 1:2]
    base = start[:, None] + (d.long() * height + h.long()) * width + w.long()
    step_d = step_to_next[:, 0].long() * (height * width)
    step_h = step_to_next[:, 1].long() * width
    step_w = step_to_next[:, 2].long()
    result = torch.zeros_like(weight[:, 0])
    for along_d in (False, True):
        weight_d = weight[:, 0] if along_d else 1 - weight[:, 0]
        at_d = base + step_d if along_d else base
        for along_h in (False, True):
            weight_dh = weight_d * (weight[:, 1] if along_h else 1 - weight[:, 1])
            at_dh = at_d + step_h if along_h else at_d
            for along_w in (False, True):
                value = flat[at_dh + step_w if along_w else at_dh]
                if number is not None:
                    value = value == number[:, None]
                weight_dhw = weight_dh * (weight[:, 2] if along_w else 1 - weight[:, 2])
                result = torch.addcmul(result, value.to(torch.float32), weight_dhw)
    return result


def _thresholded(soft: Tensor) -> Tensor:
    """Return the object's voxels, at least one where there is any: (B, 1, D, H, W) bool."""
    # A lesion smaller than a voxel never fills one by half.
    most = soft.amax(dim=(1, 2, 3, 4), keepdim=True)
    return (soft > torch.minimum(torch.full_like(most, 0.5), 0.5 * most)) & (soft > 0)


def _shape(values: Tensor) -> tuple[int, int, int]:
    return (values.shape[2], values.shape[3], values.shape[4])


def _lung_around(image: Tensor, inside: Tensor, seeds: Tensor) -> Tensor:
    """Fill what lies outside a lung crop with something like lung, vessels, and often a chest wall."""
    shape = _shape(image)
    filled = -2.43 + 0.06 * noise.smooth(seeds, 10, shape, 9)
    grain = noise.normal(seeds, 11, image[0].numel()).view_as(image)
    filled = filled + 0.05 * grain
    # A vessel is where two smooth fields are near zero at once.
    ways = noise.smooth(seeds, 12, shape, 12, channels=2)
    near = ways.square().sum(1, keepdim=True)
    filled = torch.where(near < 0.03, -0.1 + 0.1 * grain, filled)
    # The wall: beyond a plane, 12 to 44 voxels from the middle, in half of the samples.
    u = noise.uniform(seeds, 13, 8)[:, :, None, None, None]
    axes = [torch.arange(n, device=image.device, dtype=torch.float32) - n / 2 for n in shape]
    d, h, w = torch.meshgrid(*axes, indexing="ij")
    direction = F.normalize(u[:, 1:4] - 0.5, dim=1)
    height = direction[:, 0:1] * d + direction[:, 1:2] * h + direction[:, 2:3] * w
    height = height + 2 * noise.smooth(seeds, 14, shape, 5)
    wall = (height > 12 + 32 * u[:, 4:5]) & (u[:, 5:6] < 0.5)
    tissue = 0.1 + 0.5 * noise.smooth(seeds, 15, shape, 7) + 0.1 * grain
    filled = torch.where(wall, tissue, filled)
    return torch.where(inside, image, filled)


def _random_regions(seeds: Tensor, shape: tuple[int, int, int], uniform: Tensor) -> Tensor:
    """Make an image of random regions, each with its own mean and texture: (B, 1, *shape)."""
    count = 6
    coarse = noise.smooth(seeds, 20, shape, 5, channels=count)
    fine = noise.smooth(seeds, 21, shape, 11, channels=count)
    region = (coarse + 0.5 * fine).argmax(dim=1, keepdim=True)
    means = 0.9 * noise.normal(seeds, 22, count)
    image = means.gather(1, region.flatten(1)).view(region.shape)
    grain = noise.normal(seeds, 23, image[0].numel()).view_as(image)
    texture = noise.smooth(seeds, 24, shape, 24)
    strength = uniform[:, 1:3, None, None, None]
    image = image + 0.3 * strength[:, :1] * grain + 0.3 * strength[:, 1:] * texture
    return F.avg_pool3d(image, 3, stride=1, padding=1, count_include_pad=False).clamp(*NORMALISED_RANGE)


def _painted(
    image: Tensor, soft: Tensor, click_voxel: Tensor, seeds: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Paint lesions: a value of their own, texture, often a core, a more or less sharp edge.

    Args:
        image: (B, 1, D, H, W).
        soft: (B, 1, D, H, W) outline in [0, 1].
        click_voxel: (B, 3).
        seeds: (B,).
        uniform: (B, 64).

    Returns:
        Image and mask.
    """
    shape = _shape(image)
    u = uniform[:, :, None, None, None, None]
    # In the air there is no lesion, unless the click lies there: in lung.
    in_body = soft * (image > _AIR)
    at = click_voxel.round().long().clamp(0, shape[0] - 1)
    index = (at[:, 0] * shape[1] + at[:, 1]) * shape[2] + at[:, 2]
    keeps_click = in_body.flatten(1).gather(1, index[:, None]) > 0.5
    mask = torch.where(keeps_click[:, :, None, None, None], in_body, soft)
    weight = mask.sum((2, 3, 4), keepdim=True).clamp(min=1e-3)
    own = (image * mask).sum((2, 3, 4), keepdim=True) / weight
    sign = torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    # Below -1, darker would be air: lesions in lung are brighter.
    sign = torch.where(own < -1.0, 1.0, sign)
    contrast = 0.15 * (10.0 ** u[:, 4]) + torch.where(own < -1.0, 1.2 + 0.8 * u[:, 5], 0.0)
    texture = noise.smooth(seeds, 30, shape, 8) + noise.smooth(seeds, 31, shape, 20)
    values = own + sign * contrast + texture * (0.25 * u[:, 6])
    # Deep inside, a blurred mask is near 1: a necrotic or bright core.
    blurred = F.avg_pool3d(mask, 9, stride=1, padding=4)
    core = ((blurred - (0.5 + 0.4 * u[:, 7])) * 8).clamp(0, 1)
    values = values + core * (1.6 * u[:, 8] - 1.0) * (u[:, 9] < 0.4)
    edge = F.avg_pool3d(mask, 3, stride=1, padding=1)
    edge = torch.where(u[:, 10] < 0.3, F.avg_pool3d(edge, 3, stride=1, padding=1), edge)
    edge = torch.where(u[:, 11] < 0.3, mask, edge)
    kept = 0.4 * u[:, 12]
    painted = image * (1 - edge) + (kept * image + (1 - kept) * values) * edge
    return painted.clamp(*NORMALISED_RANGE), mask


def _remapped(image: Tensor, seeds: Tensor) -> Tensor:
    """Map grey values by a random curve through 9 knots, so that unknown contrasts are not foreign."""
    knots = 9
    steps = noise.normal(seeds, 40, knots)
    rising = noise.uniform(seeds, 41, 1) < 0.5
    steps = torch.where(rising, steps.abs() + 0.1, steps)
    curve = steps.cumsum(1)
    low, high = curve.amin(1, keepdim=True), curve.amax(1, keepdim=True)
    curve = (curve - low) / (high - low).clamp(min=0.3) * 3.2 - 1.6
    place = ((image.flatten(1) + 1.6) / 3.2).clamp(0, 1) * (knots - 1)
    below = place.floor().clamp(max=knots - 2)
    part = place - below
    first = curve.gather(1, below.long())
    second = curve.gather(1, below.long() + 1)
    return (first + part * (second - first)).view_as(image)


def _as_scanned(image: Tensor, seeds: Tensor, uniform: Tensor) -> Tensor:
    """Change contrast, brightness, sharpness and noise, each in some of the samples: (B, 1, D, H, W)."""
    shape = _shape(image)
    u = uniform[:, :, None, None, None, None]
    image = image * torch.exp((2 * u[:, 16] - 1) * 0.25) + (0.4 * u[:, 17] - 0.2)
    # A curve that bends the middle up or down, in three of ten: x + a (1 - (x / 2.6)^2).
    bend = torch.where(u[:, 18] < 0.3, 0.8 * u[:, 19] - 0.4, 0.0)
    image = image + bend * (1 - (image / NORMALISED_RANGE[1]).square()).clamp(min=0)
    field = noise.smooth(seeds, 50, shape, 3)
    image = image + torch.where(u[:, 20] < 0.3, 0.25 * u[:, 21], 0.0) * field
    blurred = F.avg_pool3d(image, 3, stride=1, padding=1, count_include_pad=False)
    image = torch.lerp(image, blurred, torch.where(u[:, 22] < 0.3, u[:, 23], 0.0))
    # Sharpened, as by another kernel of the scanner.
    image = torch.lerp(blurred, image, torch.where(u[:, 24] < 0.1, 1 + u[:, 25], 1.0))
    grain = noise.normal(seeds, 51, image[0].numel()).view_as(image)
    image = image + torch.where(u[:, 26] < 0.5, 0.2 * u[:, 27].square(), 0.0) * grain
    # Low resolution along d, as in thick slices.
    coarse = F.interpolate(F.avg_pool3d(image, (2, 1, 1)), size=shape, mode="trilinear", align_corners=False)
    image = torch.where(u[:, 28] < 0.15, coarse, image)
    # A narrower window, whose ends are cut off.
    return torch.where(u[:, 29] < 0.1, (1.4 * image).clamp(-1.6, 1.6), image)
