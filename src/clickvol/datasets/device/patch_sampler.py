"""Batches of training patches, made on the device from scans that lie there.

One gather reads a batch of patches from different scans, turned, stretched, mirrored and bent; the rest of this
page changes what was read: surroundings that a set does not have, synthetic images and lesions, and everything
that a scanner might do to grey values. Nothing is read back from the device.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device import noise
from clickvol.datasets.device.prompts import draw_prompts, on_device
from clickvol.datasets.device.sample_plan import SamplePlan, SamplePlanner
from clickvol.datasets.device.scan_store import PlannedVoxels, ScanTable
from clickvol.datasets.device.stored_scan import BODY_VALUE, NORMALISED_RANGE
from clickvol.datasets.samples import PatchBatch, joined
from clickvol.datasets.sampling import PatchSampling, WindowSampling


class PatchSampler:
    """Makes batches by number.

    Args:
        store: the scans.
        sampling: how patches are drawn.
        patch_shape_dhw: voxels per side; one number for cubes.
        seed: of the run.
        num_channels: that the network takes; of two, the second is the organ.
        with_hints: whether the network takes hints.
        group_shares: in place of those of `sampling`.
    """

    def __init__(
        self,
        store: ScanTable,
        sampling: PatchSampling | WindowSampling,
        patch_shape_dhw: tuple[int, int, int] | int,
        seed: int,
        *,
        num_channels: int = 1,
        with_hints: bool = True,
        group_shares: Mapping[str, float] | None = None,
    ) -> None:
        self.store = store
        self.planner = SamplePlanner(store, sampling, patch_shape_dhw, seed, group_shares)
        d, h, w = np.broadcast_to(patch_shape_dhw, 3).tolist()
        self._shape: tuple[int, int, int] = (d, h, w)
        self._num_channels, self._with_hints = num_channels, with_hints
        device = store.device
        axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in (d, h, w)]
        # (3, D * H * W): every voxel's offset from the middle.
        self._offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        self._middle = torch.tensor([(d - 1) / 2, (h - 1) / 2, (w - 1) / 2], device=device)

    def batch(self, numbers: Sequence[int], objects: Sequence[int] | None = None) -> PatchBatch:
        """Return the samples with these numbers, around given objects of the store or any."""
        plan = self.planner.plan(numbers, objects)
        if self.store.device.type != "cpu":
            return self.make(plan)
        # A processor's caches hold one sample, and what a sample does not need is left out.
        return joined([self.make(plan.part(slice(n, n + 1))) for n in range(len(numbers))])

    def make(self, plan: SamplePlan) -> PatchBatch:
        """Carry out a plan."""
        device = self.store.device
        shape = self._shape
        seeds = on_device(plan.noise_seed, device)
        uniform = on_device(plan.uniform, device)
        offsets = self._bent(plan, seeds)
        wants_organs = self._num_channels > 1 and bool(plan.has_organ.any())
        voxels = self.store.read(plan, shape, with_organs=wants_organs)
        image, inside, organ = self._read_image(voxels, offsets)
        soft = self._read_label(voxels, offsets)
        _for_some(plan.is_lung, image, lambda rows: _lung_around(image[rows], inside[rows], seeds[rows]))
        _for_some(plan.synthesis, image, lambda rows: _random_regions(seeds[rows], shape, uniform[rows]))
        click_voxel = self._click(plan, offsets)
        self._add_lesions(plan, image, soft, click_voxel, seeds, uniform)
        label = _thresholded(soft)
        _for_some(plan.remap, image, lambda rows: _remapped(image[rows], seeds[rows]))
        image = _as_scanned(image, plan, seeds, uniform)
        prompts = draw_prompts(plan, label, soft, click_voxel, seeds, uniform, with_hints=self._with_hints)
        if self._num_channels > 1:
            image = torch.cat(
                [
                    image,
                    image
                    if organ is None
                    else torch.where(
                        on_device(plan.has_organ & ~plan.lesion, device)[:, None, None, None, None],
                        organ,
                        image,
                    ),
                ],
                dim=1,
            )
        return PatchBatch(image, label.to(torch.uint8), prompts, seeds)

    def _bent(self, plan: SamplePlan, seeds: Tensor) -> Tensor:
        """Return where every voxel is read, as an offset from the middle: (B, 3, N)."""
        offsets = self._offsets[None].expand(len(plan.elastic), -1, -1)
        strength = on_device(plan.elastic, seeds.device)
        if not plan.elastic.any():
            return offsets
        bend = noise.smooth(seeds, 1, self._shape, 5, channels=3).flatten(2)
        return torch.addcmul(offsets, bend, strength[:, None, None])

    def _read_image(self, voxels: PlannedVoxels, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return normalised values, which voxels lie in the scan, and the organ: (B, 1, D, H, W) each."""
        device, plan = offsets.device, voxels.plan
        places = torch.baddbmm(
            on_device(plan.image_origin, device)[:, :, None], on_device(plan.image_matrix, device), offsets
        )
        # A place is inside up to half a voxel, of the coarser of patch and scan, past the outermost centres.
        step = np.linalg.norm(plan.image_matrix, axis=2)
        more = np.maximum(0.5, 0.5 * step) - 0.5 + 1e-3
        low, high = on_device(plan.image_low - more, device), on_device(plan.image_high + more, device)
        inside = ((places >= low[:, :, None]) & (places <= high[:, :, None])).all(dim=1)
        sources = [voxels.images] if voxels.organs is None else [voxels.images, voxels.organs]
        read = _trilinear(sources, plan.image_start, plan.image_shape, places)

        def column(facts: NDArray[np.float64]) -> Tensor:
            return on_device(facts, device)[:, None]

        value = read[0].clamp(column(plan.stored_low), column(plan.stored_high))
        value = torch.addcmul(column(plan.value_low), value, column(plan.value_step))
        value = torch.where(inside, value, column(plan.outside))
        organ = None
        if len(read) > 1:
            organ = ((read[1] > 127.5) & inside).to(value.dtype).view(-1, 1, *self._shape)
        return value.view(-1, 1, *self._shape), inside.view(-1, 1, *self._shape), organ

    def _read_label(self, voxels: PlannedVoxels, offsets: Tensor) -> Tensor:
        """Return how much of each voxel is the object: (B, 1, D, H, W) in [0, 1]."""
        device, plan = offsets.device, voxels.plan
        soft = torch.zeros(len(plan.label_start), 1, *self._shape, device=device)
        region = soft
        if len(soft) == 1:
            # One sample is read where its object can be alone.
            where = _object_region(plan, self._shape)
            region = soft[0, 0][where][None, None]
            offsets = offsets.view(1, 3, *self._shape)[0, :, *where].reshape(1, 3, -1)
        places = torch.baddbmm(
            on_device(plan.label_origin, device)[:, :, None], on_device(plan.label_matrix, device), offsets
        )
        # Round the box of an object is an empty voxel, which goes on for ever.
        (value,) = _trilinear([voxels.masks], plan.label_start, plan.label_shape, places)
        region.copy_((value * (1 / 255)).view(region.shape))
        return soft

    def _click(self, plan: SamplePlan, offsets: Tensor) -> Tensor:
        """Return the first click in patch voxels: the voxel that is read nearest to it. (B, 3)."""
        wanted = on_device(plan.click_offset, offsets.device)
        if not plan.elastic.any():
            return wanted + self._middle
        # The bend at the click, to first order the way back.
        voxel = torch.minimum((wanted + self._middle).round().clamp(min=0), 2 * self._middle)
        d, h, w = voxel.long().unbind(1)
        index = (d * self._shape[1] + h) * self._shape[2] + w
        read_at = offsets.gather(2, index[:, None, None].expand(-1, 3, 1))[:, :, 0]
        return wanted - read_at + voxel

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
        if ellipsoids is not None:
            chosen = plan.is_ellipsoid
            centre = on_device(plan.lesion_centre[chosen], image.device)[:, :, None]
            radii = on_device(plan.radii[chosen], image.device)[:, :, None]
            distance = ((self._offsets[None] - centre) / radii).square().sum(1).sqrt()
            bumps = noise.smooth(seeds[ellipsoids], 2, self._shape, 9).flatten(1)
            bumps = bumps * (0.25 * uniform[ellipsoids, 0:1])
            outline = (0.5 + 4 * (1 - distance - bumps)).clamp(0, 1)
            soft[ellipsoids] = outline.view(-1, 1, *self._shape)
        painted, mask = _painted(image[rows], soft[rows], click_voxel[rows], seeds[rows], uniform[rows])
        image[rows] = painted
        soft[rows] = mask


def _object_region(plan: SamplePlan, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """Return the part of the first sample's patch outside which nothing of the object's box is read."""
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in plan.label_shape[0]], indexing="ij")).reshape(3, -1)
    corners = np.linalg.solve(plan.label_matrix[0], ends - plan.label_origin[0][:, None])
    corners += (np.array(shape)[:, None] - 1) / 2
    reach = 1 + noise.MOST_NORMAL * plan.elastic[0]
    low = np.clip(np.floor(corners.min(axis=1) - reach), 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1) + reach) + 1, low + 1, shape).astype(int)
    d, h, w = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return d, h, w


def _rows_of(flags: NDArray[np.bool_], device: torch.device) -> Tensor | None:
    """Return the numbers of the samples with a flag; None for none. Known on the host, so nothing waits."""
    rows = np.flatnonzero(flags)
    return on_device(rows, device) if len(rows) else None


def _for_some(flags: NDArray[np.bool_], values: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the samples with a flag by what `change(rows)` returns."""
    rows = _rows_of(flags, values.device)
    if rows is not None:
        values[rows] = change(rows)


def _trilinear(
    sources: Sequence[Tensor], start: NDArray[np.int64], shape: NDArray[np.int64], places: Tensor
) -> list[Tensor]:
    """Read between voxels; beyond the outermost centres their value.

    Args:
        sources: (n,) of any real dtype each, all laid out alike.
        start: (B,) of each sample's array in them.
        shape: (B, 3) of that array.
        places: (B, 3, N) voxels of that array.

    Returns:
        (B, N) float32 for each source.
    """
    device = places.device
    if len(start) == 1:
        # One sample's array has small indices, which are read twice as fast.
        first = int(start[0])
        sources = [flat.narrow(0, first, int(np.prod(shape[0]))) for flat in sources]
        start = start * 0
    kind = torch.int32 if sources[0].numel() < 2**31 else torch.int64
    last = on_device(np.maximum(shape - 2, 0), device)[:, :, None].to(places.dtype)
    low = torch.minimum(places.floor().clamp_(min=0), last)
    weight = (places - low).clamp_(0, 1)
    sizes = on_device(np.maximum(shape - 1, 0), device)[:, :, None]
    d, h, w = low.to(kind).unbind(1)
    height, width = (on_device(shape[:, axis : axis + 1], device).to(kind) for axis in (1, 2))
    base = (d * height + h) * width + w + on_device(start[:, None], device).to(kind)
    # Where an axis has one voxel alone, the next one is the same.
    step_d, step_h, step_w = (sizes.clamp(max=1).to(kind)).unbind(1)
    step_d, step_h = step_d * height * width, step_h * width
    corners = [base + step for step in (step_h * 0, step_h, step_d, step_d + step_h)]
    results = []
    for flat in sources:

        def read(index: Tensor, flat: Tensor = flat) -> Tensor:
            return flat.index_select(0, index.view(-1)).view(index.shape).to(torch.float32)

        rows = [torch.lerp(read(corner), read(corner + step_w), weight[:, 2]) for corner in corners]
        results.append(
            torch.lerp(
                torch.lerp(rows[0], rows[1], weight[:, 1]),
                torch.lerp(rows[2], rows[3], weight[:, 1]),
                weight[:, 0],
            )
        )
    return results


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
    return noise.box_mean(image, 3).clamp(*NORMALISED_RANGE)


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
    in_body = soft * (image > BODY_VALUE)
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
    blurred = noise.box_mean(mask, 9, counts_outside=True)
    core = ((blurred - (0.5 + 0.4 * u[:, 7])) * 8).clamp(0, 1)
    values = values + core * (1.6 * u[:, 8] - 1.0) * (u[:, 9] < 0.4)
    edge = noise.box_mean(mask, 3, counts_outside=True)
    edge = torch.where(u[:, 10] < 0.3, noise.box_mean(edge, 3, counts_outside=True), edge)
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


def _as_scanned(image: Tensor, plan: SamplePlan, seeds: Tensor, uniform: Tensor) -> Tensor:
    """Change contrast, brightness, sharpness and noise, each in some of the samples: (B, 1, D, H, W)."""
    if not plan.grey.any():
        return image
    shape = _shape(image)
    u = uniform[:, :, None, None, None, None]
    # What is drawn on the host decides what is computed at all.
    drawn = plan.uniform
    is_grey = on_device(plan.grey, image.device)[:, None, None, None, None]
    gain = torch.where(is_grey, torch.exp((2 * u[:, 16] - 1) * 0.25), 1.0)
    image = image * gain + torch.where(is_grey, 0.4 * u[:, 17] - 0.2, 0.0)

    def some(column: int, share: float, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        _for_some(
            plan.grey & (drawn[:, column] < share),
            image,
            lambda rows: change(image[rows], u[rows], seeds[rows]),
        )

    def blurred(x: Tensor) -> Tensor:
        return noise.box_mean(x, 3)

    # A curve that bends the middle up or down: x + a (1 - (x / 2.6)^2).
    some(
        18,
        0.3,
        lambda x, v, _: x + (0.8 * v[:, 19] - 0.4) * (1 - (x / NORMALISED_RANGE[1]).square()).clamp(min=0),
    )
    some(20, 0.3, lambda x, v, seed: x + 0.25 * v[:, 21] * noise.smooth(seed, 50, shape, 3))
    some(22, 0.3, lambda x, v, _: torch.lerp(x, blurred(x), v[:, 23]))
    # Sharpened, as by another kernel of the scanner.
    some(24, 0.1, lambda x, v, _: torch.lerp(blurred(x), x, 1 + v[:, 25]))
    some(
        26,
        0.5,
        lambda x, v, seed: x + 0.2 * v[:, 27].square() * noise.normal(seed, 51, x[0].numel()).view_as(x),
    )
    # Low resolution along d, as in thick slices.
    some(
        28,
        0.15,
        lambda x, *_: F.interpolate(
            F.avg_pool3d(x, (2, 1, 1)), size=shape, mode="trilinear", align_corners=False
        ),
    )
    # A narrower window, whose ends are cut off.
    some(29, 0.1, lambda x, *_: (1.4 * x).clamp(-1.6, 1.6))
    return image
