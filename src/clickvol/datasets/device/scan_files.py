"""Training on a prepared set, which is read when a sample needs it: nothing is at the start.

Of a set that fits into memory whole levels are read, each once, and stay on the device at 8 bit; of a larger
one each sample reads the voxels that it shows.
"""

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device.noise import MOST_NORMAL
from clickvol.datasets.device.sample_plan import SamplePlan
from clickvol.datasets.device.scan_store import ObjectTable, PlannedVoxels, ScanTable, voxels_per_mm
from clickvol.datasets.device.stored_scan import BODY_VALUE, to_steps
from clickvol.datasets.levels import along_patient, half_of, level_blocks, patient_matrix
from clickvol.datasets.samples import LabelledVolume
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.patches.field_of_view import Triple, block_mean

# Of synthetic lesions, three quarters lie well above air, some in lung or background.
_BODY_SHARE = 0.75

# Reading waits for the disk and decompresses; both leave Python's lock alone.
_READERS = 8


@dataclass(frozen=True, slots=True)
class _Box:
    """A part of a level: first voxel and one past the last, (3,) each."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def shape(self) -> NDArray[np.int64]:
        return self.stop - self.start

    def voxels(self, block: NDArray[np.int64]) -> tuple[slice, ...]:
        """Return the voxels of the finest level."""
        ends = zip((self.start * block).tolist(), (self.stop * block).tolist(), strict=True)
        return tuple(slice(first, stop) for first, stop in ends)


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """Memory for levels, one after the other, each filled when it is first needed.

    On a CPU, processes forked from the one that made it share it; two that fill one level write the same.

    Attributes:
        starts: (s, l) rising; equal for levels that do not differ.
        values: (n,) uint8.
        is_filled: (s * l,), by the first place of a start.
    """

    starts: NDArray[np.int64]
    values: Tensor
    is_filled: NDArray[np.uint8]

    @classmethod
    def empty(cls, starts: NDArray[np.int64], num_voxels: int, device: torch.device) -> "_Levels":
        """Make room; the system gives the memory when it is filled."""
        flags = np.frombuffer(mmap.mmap(-1, starts.size), dtype=np.uint8)
        if device.type != "cpu":
            return cls(starts, torch.empty(num_voxels, dtype=torch.uint8, device=device), flags)
        return cls(starts, torch.frombuffer(mmap.mmap(-1, num_voxels), dtype=torch.uint8), flags)

    def fill(self, needed: NDArray[np.int64], read: Callable[[int], NDArray[np.uint8]]) -> None:
        """Read the levels at these starts that are not there: `read` takes scan * l + level."""
        missing = [place for place in sorted({*_places(self.starts, needed)}) if not self.is_filled[place]]
        if not missing:
            return
        with ThreadPoolExecutor(_READERS) as pool:
            for place, level in zip(missing, pool.map(read, missing), strict=True):
                flat = torch.from_numpy(level.reshape(-1))
                self.values.narrow(0, int(self.starts.flat[place]), len(flat)).copy_(flat)
                self.is_filled[place] = 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScanFiles(ScanTable):
    """Labelled scans that stay where they are; starts are places in `_Levels`, whether there are any or not.

    Attributes:
        cases: the scans, one object each.
        images, masks, organs: at 8 bit, of a set that memory holds; the last for a network that sees organs.
            None where each sample reads its voxels, in the scan's own unit.
    """

    cases: tuple[LabelledVolume, ...]
    images: _Levels | None
    masks: _Levels | None
    organs: _Levels | None

    @classmethod
    def of(
        cls,
        cases: Sequence[LabelledVolume],
        groups: Sequence[str],
        device: torch.device,
        *,
        stays: bool = False,
    ) -> "ScanFiles":
        """Take scans without reading one.

        Args:
            cases: the scans.
            groups: of each.
            device: where patches are made.
            stays: whether what was read stays on the device, at 8 bit.
        """
        names = tuple(sorted(set(groups)))
        matrices = [patient_matrix(case.volume.grid) for case in cases]
        spacing = np.array([np.linalg.norm(matrix, axis=0) for matrix in matrices])
        blocks = np.array([level_blocks((d, h, w)) for d, h, w in spacing.tolist()])
        shape = np.array([along_patient(case.label, case.volume.grid).shape for case in cases])
        low, high = _object_boxes(cases)
        first = low[:, None] // blocks
        level_shape = -(-shape[:, None] // blocks)
        # An empty voxel on every side.
        mask_shape = high[:, None] // blocks - first + 3
        is_new = np.ones(blocks.shape[:2], dtype=bool)
        is_new[:, 1:] = (blocks[:, 1:] != blocks[:, :-1]).any(axis=2)
        level_start, num_voxels = _one_after_the_other(level_shape, is_new)
        mask_start, num_inside = _one_after_the_other(mask_shape, is_new)
        has_organ = np.array([case.organ is not None for case in cases])
        images = masks = organs = None
        if stays:
            images = _Levels.empty(level_start, num_voxels, device)
            masks = _Levels.empty(mask_start, num_inside, device)
            organs = _Levels.empty(level_start, num_voxels, device) if has_organ.any() else None
        return cls(
            device=device,
            cases=tuple(cases),
            images=images,
            masks=masks,
            organs=organs,
            groups=names,
            has_organ=has_organ,
            voxels_per_mm=np.stack([voxels_per_mm(matrix) for matrix in matrices]),
            spacing_dhw_mm=spacing,
            shape_dhw=shape,
            level_start=level_start,
            level_shape_dhw=level_shape,
            level_block_dhw=blocks,
            objects=_objects_of(cases, np.searchsorted(names, groups), mask_start, mask_shape, first - 1),
            **_values_of(cases, stays=stays),
        )

    def object_voxels(self, objects: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `ScanTable`."""
        return self._drawn(objects, [self.cases[n].index.object_voxels_dhw for n in objects.tolist()], uniform)

    def body_voxels(self, scans: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `ScanTable`."""
        places = []
        for scan, u in zip(scans.tolist(), uniform.tolist(), strict=True):
            case = self.cases[scan]
            is_body = case.scale.normalise(case.index.values) > BODY_VALUE
            is_wanted = is_body if u < _BODY_SHARE and is_body.any() else np.ones_like(is_body)
            places.append(case.index.places_dhw[is_wanted])
        rest = (uniform - _BODY_SHARE) / (1 - _BODY_SHARE)
        within = np.where(uniform < _BODY_SHARE, uniform / _BODY_SHARE, rest)
        return self._drawn(scans, places, within)

    def _drawn(
        self, scans: NDArray[np.int64], voxels: list[NDArray[np.int16]], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return one of the voxels (n, 3) of each scan, along the patient: (B, 3)."""
        drawn = []
        for scan, mine, u in zip(scans.tolist(), voxels, uniform.tolist(), strict=True):
            axes = PatientAxes.of(self.cases[scan].volume.grid)
            drawn.append(axes.index(mine[int(u * len(mine))].astype(np.float64))[::-1])
        return np.array(drawn, dtype=np.int64)

    def read(self, plan: SamplePlan, patch_shape_dhw: Triple, *, with_organs: bool) -> PlannedVoxels:
        """See `ScanTable`."""
        if self.images is not None and self.masks is not None:
            self.images.fill(plan.image_start, self._steps)
            self.masks.fill(plan.label_start, self._mask)
            if with_organs and self.organs is not None:
                self.organs.fill(plan.image_start, self._organ)
            organs = self.organs.values if with_organs and self.organs is not None else None
            return PlannedVoxels(plan, self.images.values, self.masks.values, organs)
        reach = (np.array(patch_shape_dhw) - 1) / 2 + (MOST_NORMAL * plan.elastic)[:, None]
        images = _shown(plan.image_matrix, plan.image_origin, reach, plan.image_shape)
        masks = _shown(plan.label_matrix, plan.label_origin, reach, plan.label_shape)
        image_at, mask_at = (
            _places(self.level_start, plan.image_start),
            _places(self.objects.mask_start, plan.label_start),
        )

        def parts(row: int) -> tuple[NDArray[Any], ...]:
            image = self._image(image_at[row], images[row])
            mask = self._mask(mask_at[row], masks[row])
            organ = self._organ(image_at[row], images[row]) if with_organs else mask[:0]
            return image, mask, organ

        rows = range(len(images))
        if len(images) == 1:
            read = [parts(0)]
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                read = list(pool.map(parts, rows))
        flat = [self._on_device([part[kind] for part in read]) for kind in range(3)]
        image_low, mask_low = (np.array([box.start for box in boxes]) for boxes in (images, masks))
        placed = replace(
            plan,
            image_start=_starts(images),
            image_shape=np.array([box.shape for box in images]),
            image_origin=plan.image_origin - image_low,
            image_low=plan.image_low - image_low,
            image_high=plan.image_high - image_low,
            label_start=_starts(masks),
            label_shape=np.array([box.shape for box in masks]),
            label_origin=plan.label_origin - mask_low,
        )
        return PlannedVoxels(placed, flat[0], flat[1], flat[2] if with_organs else None)

    def _on_device(self, parts: list[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts])).to(self.device)

    def _steps(self, place: int) -> NDArray[np.uint8]:
        """Return a level at 8 bit: its scan's clipped values in 256 steps."""
        scan, level = divmod(place, self.level_start.shape[1])
        scale = self.cases[scan].scale
        whole = _Box(np.zeros(3, dtype=np.int64), self.level_shape_dhw[scan, level])
        low, high = scale.normalise(np.array([scale.low, scale.high], dtype=np.float32)).tolist()
        return to_steps(scale.normalise(self._image(place, whole).astype(np.float32)), (low, high))

    def _image(self, place: int, box: _Box) -> NDArray[Any]:
        """Read a part of a level; one that no file holds is made of one with half the block."""
        scan, level = divmod(place, self.level_start.shape[1])
        d, h, w = self.level_block_dhw[scan, level].tolist()
        case, ratio = self.cases[scan], np.ones(3, dtype=np.int64)
        array = along_patient(case.volume.array, case.volume.grid)
        if (d, h, w) != (1, 1, 1):
            held = half_of((d, h, w), case.coarser)
            array = case.coarser[held or (d, h, w)]
            ratio = self.level_block_dhw[scan, level] // (held or (d, h, w))
        values = np.asarray(array[box.voxels(ratio)])
        return values if (ratio == 1).all() else block_mean(values, ratio)

    def _organ(self, place: int, box: _Box | None = None) -> NDArray[np.uint8]:
        """Return a part of a level of the organ mask, or all of it, 0 to 255; 0 of a scan without one."""
        scan, level = divmod(place, self.level_start.shape[1])
        organ = self.cases[scan].organ
        box = box or _Box(np.zeros(3, dtype=np.int64), self.level_shape_dhw[scan, level])
        if organ is None:
            return np.zeros(box.shape, dtype=np.uint8)
        return _share(organ, self.cases[scan], self.level_block_dhw[scan, level], box)

    def _mask(self, place: int, box: _Box | None = None) -> NDArray[np.uint8]:
        """Return a part of an object's box in a level, or all of it, 0 to 255, with empty voxels around it."""
        scan, level = divmod(place, self.level_start.shape[1])
        full = self.objects.mask_shape_dhw[scan, level]
        box = box or _Box(np.zeros(3, dtype=np.int64), full)
        result = np.zeros(box.shape, dtype=np.uint8)
        start, stop = np.maximum(box.start, 1), np.minimum(box.stop, full - 1)
        if (start < stop).all():
            first = self.objects.mask_low_dhw[scan, level]
            inner = tuple(slice(a, b) for a, b in zip(start - box.start, stop - box.start, strict=True))
            case = self.cases[scan]
            inside = _Box(start + first, stop + first)
            result[inner] = _share(case.label, case, self.level_block_dhw[scan, level], inside)
        return result


def _objects_of(
    cases: Sequence[LabelledVolume],
    groups: NDArray[np.int64],
    mask_start: NDArray[np.int64],
    mask_shape: NDArray[np.int64],
    mask_low: NDArray[np.int64],
) -> ObjectTable:
    """Return the objects, one of each scan: groups (s,) and masks as in `ObjectTable`."""
    low, high = _object_boxes(cases)
    # Between the outermost voxel centres, and a voxel more.
    voxel_mm = [np.abs(patient_matrix(case.volume.grid)).sum(axis=1).mean() for case in cases]
    numbers = np.arange(len(cases))
    return ObjectTable(
        group=groups,
        scan=numbers,
        number=np.ones(len(cases), dtype=np.int64),
        longest_mm=np.array([case.longest_side_mm for case in cases]) + voxel_mm,
        low_dhw=low,
        high_dhw=high,
        patient=numbers,
        mask_start=mask_start,
        mask_shape_dhw=mask_shape,
        mask_low_dhw=mask_low,
    )


def _values_of(cases: Sequence[LabelledVolume], *, stays: bool) -> dict[str, NDArray[np.float64]]:
    """Return the fields of `ScanTable` that tell what stored values mean: the scans' own, or 256 steps."""
    scales = [case.scale for case in cases]
    step = 1 / np.array([scale.deviation for scale in scales])
    zero = -np.array([scale.mean for scale in scales]) * step
    low, high = (np.array([getattr(scale, end) for scale in scales]) for end in ("low", "high"))
    outside = np.array([case.outside_value for case in cases]) * step + zero
    if stays:
        zero, step = zero + low * step, (high - low) * step / 255
        low, high = np.zeros(len(cases)), np.full(len(cases), 255.0)
    return {"stored_low": low, "stored_high": high, "value_low": zero, "value_step": step, "outside": outside}


def _one_after_the_other(shapes: NDArray[np.int64], is_new: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Return where arrays of these shapes (s, l, 3) begin, an old one where its like does; and the end."""
    sizes = shapes.prod(axis=2)
    ends = np.cumsum(sizes * is_new).reshape(sizes.shape)
    return ends - sizes, int(ends[-1, -1])


def _places(starts: NDArray[np.int64], wanted: NDArray[np.int64]) -> list[int]:
    """Return scan * l + level of the first array that begins at each of these starts."""
    return [int(place) for place in np.searchsorted(starts.ravel(), wanted)]


def _share(
    mask: NDArray[np.uint8], case: LabelledVolume, block: NDArray[np.int64], box: _Box
) -> NDArray[np.uint8]:
    """Return how much of each voxel of a level is in a mask of 0 and 1, 0 to 255."""
    inside = np.asarray(along_patient(mask, case.volume.grid)[box.voxels(block)])
    return np.rint(255 * block_mean(inside, block)).astype(np.uint8)


def _object_boxes(cases: Sequence[LabelledVolume]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first and last voxel of every object, along the patient: (n, 3) each."""
    lows, highs = [], []
    for case in cases:
        axes = PatientAxes.of(case.volume.grid)
        ends = np.array([(runs[0][0], runs[-1][1] - 1) for runs in case.object_runs_dhw], dtype=np.float64)
        corners = np.stack([axes.index(ends[:, side])[::-1] for side in (0, 1)])
        lows.append(corners.min(axis=0))
        highs.append(corners.max(axis=0))
    return np.array(lows, dtype=np.int64), np.array(highs, dtype=np.int64)


def _shown(
    matrix: NDArray[np.float64],
    origin: NDArray[np.float64],
    reach: NDArray[np.float64],
    shape: NDArray[np.int64],
) -> list[_Box]:
    """Return the voxels of arrays (B, 3) between which something within a patch's reach may lie."""
    extent = np.einsum("bij,bj->bi", np.abs(matrix), reach)
    start = np.clip(np.floor(origin - extent), 0, shape - 1).astype(np.int64)
    stop = np.clip(np.ceil(origin + extent) + 1, start + 1, shape).astype(np.int64)
    return [_Box(a, b) for a, b in zip(start, stop, strict=True)]


def _starts(boxes: Sequence[_Box]) -> NDArray[np.int64]:
    """Return where boxes begin that lie one after the other."""
    sizes = np.array([box.shape.prod() for box in boxes])
    return np.asarray(np.cumsum(sizes) - sizes)
