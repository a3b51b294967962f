"""Scans of a training set as 8-bit tensors that stay on the device.

Every scan is kept at several resolutions (`datasets.levels`). All scans lie one after the other in one flat
tensor per kind; a batch of patches from different scans is then a single gather. Of the masks only the objects'
boxes are kept.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.device.stored_scan import BODY_VALUE, StoredScan
from clickvol.datasets.levels import coarser_levels, level_blocks
from clickvol.errors import ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import Triple, block_mean

if TYPE_CHECKING:
    from clickvol.datasets.device.sample_plan import SamplePlan

MAX_VOXELS_PER_OBJECT = 4096
"""Voxels of an object that clicks are drawn from; a random part of those of larger objects."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects that samples are drawn around; numpy, on the host.

    Attributes:
        group: (n,) index into `ScanStore.groups`.
        scan: (n,) index of the scan.
        number: (n,) value in the label.
        longest_mm: (n,) longest side of the bounding box along the patient's axes.
        low_dhw, high_dhw: (n, 3) first and last voxel of the bounding box.
        patient: (n,) index of the patient.
        mask_start: (n, l) where the object's box in a level is, for `ScanTable.read`.
        mask_shape_dhw: (n, l, 3) of the object's box in each level, with one empty voxel on every side.
        mask_low_dhw: (n, l, 3) voxel of the level at index (0, 0, 0) of that box.
    """

    group: NDArray[np.int64]
    scan: NDArray[np.int64]
    number: NDArray[np.int64]
    longest_mm: NDArray[np.float64]
    low_dhw: NDArray[np.int64]
    high_dhw: NDArray[np.int64]
    patient: NDArray[np.int64]
    mask_start: NDArray[np.int64]
    mask_shape_dhw: NDArray[np.int64]
    mask_low_dhw: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedVoxels:
    """What a batch is read from.

    Attributes:
        plan: the batch; its starts are positions in these tensors.
        images: (n,) levels of scans, flat, in the unit that the plan has the value of.
        masks: (m,) uint8, boxes of objects, flat: 255 where all of a voxel is object.
        organs: (n,) uint8 as `images`: 255 where all of a voxel is organ; None where there is none.
    """

    plan: "SamplePlan"
    images: Tensor
    masks: Tensor
    organs: Tensor | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScanTable(metaclass=ABCMeta):
    """On the host, what is needed to plan samples of s scans, and the way to their voxels.

    Attributes:
        device: where voxels are read.
        groups: names.
        has_organ: (s,).
        voxels_per_mm: (s, 3, 3) from the patient's (d, h, w) mm to voxels of the finest level.
        spacing_dhw_mm: (s, 3).
        shape_dhw: (s, 3) of the finest level.
        level_start: (s, l) where a level is, for `read`.
        level_shape_dhw: (s, l, 3).
        level_block_dhw: (s, l, 3) voxels of the finest level per voxel of this one.
        stored_low, stored_high: (s,) what stored values are clipped to before they are normalised.
        value_low, value_step: (s,) normalised value of a stored 0, and of one step.
        outside: (s,) normalised value outside each scan.
        objects: what clicks are drawn in.
    """

    device: torch.device
    groups: tuple[str, ...]
    has_organ: NDArray[np.bool_]
    voxels_per_mm: NDArray[np.float64]
    spacing_dhw_mm: NDArray[np.float64]
    shape_dhw: NDArray[np.int64]
    level_start: NDArray[np.int64]
    level_shape_dhw: NDArray[np.int64]
    level_block_dhw: NDArray[np.int64]
    stored_low: NDArray[np.float64]
    stored_high: NDArray[np.float64]
    value_low: NDArray[np.float64]
    value_step: NDArray[np.float64]
    outside: NDArray[np.float64]
    objects: ObjectTable

    @abstractmethod
    def object_voxels(self, objects: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return a voxel (B, 3) of each of these objects (B,), drawn by numbers (B,) in (0, 1)."""

    @abstractmethod
    def body_voxels(self, scans: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return a voxel (B, 3) for a synthetic lesion in each of these scans (B,), drawn in the same way."""

    @abstractmethod
    def read(self, plan: "SamplePlan", patch_shape_dhw: Triple, *, with_organs: bool) -> PlannedVoxels:
        """Return what a plan needs, on the device."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScanStore(ScanTable):
    """All scans on the device; see `PlannedVoxels` for the tensors.

    Attributes:
        images, masks, organs: every level of every scan, and of the box of every object.
        first_voxel, num_voxels: (n,) part of `object_voxels_dhw` that belongs to an object.
        object_voxels_dhw: (m, 3) int16.
        body_voxels_dhw: (s, k, 3) int16, random voxels that are not air.
    """

    images: Tensor
    masks: Tensor
    organs: Tensor | None
    first_voxel: NDArray[np.int64]
    num_voxels: NDArray[np.int64]
    object_voxels_dhw: NDArray[np.int16]
    body_voxels_dhw: NDArray[np.int16]

    def object_voxels(self, objects: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `ScanTable`."""
        place = self.first_voxel[objects] + (uniform * self.num_voxels[objects]).astype(np.int64)
        return np.asarray(self.object_voxels_dhw[place], dtype=np.int64)

    def body_voxels(self, scans: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `ScanTable`."""
        place = (uniform * self.body_voxels_dhw.shape[1]).astype(np.int64)
        return np.asarray(self.body_voxels_dhw[scans, place], dtype=np.int64)

    def read(self, plan: "SamplePlan", patch_shape_dhw: Triple, *, with_organs: bool) -> PlannedVoxels:  # noqa: ARG002
        """Return everything: it is there."""
        return PlannedVoxels(plan, self.images, self.masks, self.organs if with_organs else None)

    @classmethod
    def of(cls, scans: Sequence[StoredScan], device: torch.device) -> "ScanStore":
        """Lay scans out on a device.

        Raises:
            ConfigError: when there are none, or none has an object.
        """
        if not any(scan.label.any() for scan in scans):
            raise ConfigError("there is no labelled object to train on; give scans with masks")
        with ThreadPoolExecutor() as pool:
            levels = list(pool.map(_levels_of, scans))
        starts, images, organs = [], [], []
        offset = 0
        for scan, scan_levels in zip(scans, levels, strict=True):
            row: list[int] = []
            for number, (array, block) in enumerate(scan_levels):
                if number and array is scan_levels[number - 1][0]:
                    row.append(row[-1])
                    continue
                row.append(offset)
                offset += array.size
                images.append(torch.from_numpy(array.reshape(-1)))
                organs.append(_organ_level(scan, block, array.shape))
            starts.append(row)
        groups = tuple(sorted({scan.group for scan in scans}))
        has_organ = np.array([scan.organ is not None for scan in scans])
        ranges = np.array([scan.value_range for scan in scans])
        blocks = np.array([[block for _, block in scan_levels] for scan_levels in levels])
        return cls(
            device=device,
            groups=groups,
            images=torch.cat(images).to(device),
            organs=torch.cat(organs).to(device) if has_organ.any() else None,
            has_organ=has_organ,
            voxels_per_mm=np.stack([voxels_per_mm(_voxel_matrix(scan)) for scan in scans]),
            spacing_dhw_mm=np.array([scan.spacing_dhw_mm for scan in scans]),
            shape_dhw=np.array([scan.label.shape for scan in scans]),
            level_start=np.array(starts),
            level_shape_dhw=np.array([[array.shape for array, _ in scan_levels] for scan_levels in levels]),
            level_block_dhw=blocks,
            stored_low=np.zeros(len(scans)),
            stored_high=np.full(len(scans), 255.0),
            value_low=ranges[:, 0],
            value_step=(ranges[:, 1] - ranges[:, 0]) / 255,
            outside=np.array([_outside(scan) for scan in scans]),
            body_voxels_dhw=np.stack([_body_voxels(scan) for scan in scans]),
            **_objects_of(scans, groups, blocks, device),
        )


def _voxel_matrix(scan: StoredScan) -> NDArray[np.float64]:
    """Return the matrix from voxel steps to the patient's (d, h, w) mm."""
    axes = np.eye(3) if scan.axes_dhw is None else scan.axes_dhw
    return np.asarray(axes * np.array(scan.spacing_dhw_mm))


def voxels_per_mm(voxel_matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from the patient's (d, h, w) mm to voxel steps, for `levels.patient_matrix`."""
    affine = np.eye(4)
    affine[:3, :3] = voxel_matrix
    return VolumeGrid((1, 1, 1), affine).voxel_steps(np.eye(3)).T


def _outside(scan: StoredScan) -> float:
    """Return the normalised value of air, or of the background."""
    if scan.outside is not None:
        return scan.outside
    darkest = int(scan.image.min())
    low, high = scan.value_range
    # A crop of CT without air is still CT: only the backgrounds of MR and PET lie higher than 20 steps.
    return low + (high - low) / 255 * (darkest if darkest > 20 else 0)


def _levels_of(scan: StoredScan) -> list[tuple[NDArray[np.generic], Triple]]:
    """Return each level and its blocks; the very same array again where a coarser one would not differ."""
    levels = {(1, 1, 1): scan.image} | coarser_levels(scan.image, scan.spacing_dhw_mm)
    return [(levels[block], block) for block in level_blocks(scan.spacing_dhw_mm)]


def _organ_level(scan: StoredScan, block: Triple, shape: tuple[int, ...]) -> Tensor:
    """Return a level of an organ mask, flat; empty where there is none."""
    if scan.organ is None:
        return torch.zeros(int(np.prod(shape)), dtype=torch.uint8)
    share = 255 * block_mean(scan.organ, np.array(block))
    return torch.from_numpy(np.rint(share).astype(np.uint8).reshape(-1))


def _objects_of(
    scans: Sequence[StoredScan], groups: tuple[str, ...], blocks: NDArray[np.int64], device: torch.device
) -> dict[str, Any]:
    """List the objects, and lay their voxels and masks one after the other; return these fields of a store."""
    patients = sorted({f"{scan.group}/{scan.patient}" for scan in scans})
    order = {name: n for n, name in enumerate(patients)}
    rows: list[tuple[object, ...]] = []
    voxels: list[NDArray[np.int16]] = []
    masks: list[NDArray[np.uint8]] = []
    offset = 0
    for number, scan in enumerate(scans):
        rng = np.random.default_rng([7, number])
        places = np.argwhere(scan.label)
        values = scan.label[tuple(places.T)]
        for value in np.unique(values):
            mine = places[values == value]
            low, high = mine.min(axis=0), mine.max(axis=0)
            corners = np.abs(_voxel_matrix(scan)).sum(axis=1) + np.ptp(mine @ _voxel_matrix(scan).T, axis=0)
            starts: list[int] = []
            shapes: list[NDArray[np.int64]] = []
            lows: list[NDArray[np.int64]] = []
            for level, block in enumerate(blocks[number]):
                if level == 0 or (block != blocks[number, level - 1]).any():
                    mask, lowest = _object_level(scan.label, int(value), low, high, block)
                    start, shape = offset, np.array(mask.shape)
                    masks.append(mask.reshape(-1))
                    offset += mask.size
                starts.append(start)
                shapes.append(shape)
                lows.append(lowest)
            if len(mine) > MAX_VOXELS_PER_OBJECT:
                mine = mine[rng.choice(len(mine), MAX_VOXELS_PER_OBJECT, replace=False)]
            voxels.append(mine.astype(np.int16))
            patient = order[f"{scan.group}/{scan.patient}"]
            facts = (groups.index(scan.group), number, int(value), float(corners.max()), low, high, patient)
            rows.append((*facts, starts, shapes, lows))
    names = [field.name for field in fields(ObjectTable)]
    columns = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    num_voxels = np.array([len(mine) for mine in voxels])
    return {
        "objects": ObjectTable(**columns),
        "first_voxel": np.cumsum(num_voxels) - num_voxels,
        "num_voxels": num_voxels,
        "object_voxels_dhw": np.concatenate(voxels),
        "masks": torch.from_numpy(np.concatenate(masks)).to(device),
    }


def _object_level(
    label: NDArray[np.uint8],
    value: int,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    block: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return an object's box in a level with an empty voxel on every side, 0 to 255, and its first voxel."""
    first, last = low // block, high // block
    box = tuple(slice(a * b, (z + 1) * b) for a, z, b in zip(first, last, block, strict=True))
    share = block_mean(label[box] == value, block)
    return np.pad(np.rint(255 * share).astype(np.uint8), 1), first - 1


def _body_voxels(scan: StoredScan, count: int = 1024) -> NDArray[np.int16]:
    """Draw voxels for synthetic lesions: three quarters well above air, some in lung or background."""
    rng = np.random.default_rng(len(scan.name))
    flat = scan.image.reshape(-1)
    low, high = scan.value_range
    # Up to -1.1 is air, lung, the background of MR and PET; just above the lowest step, air and padding.
    inside = np.flatnonzero(flat > (BODY_VALUE - low) * 255 / (high - low))
    around = np.flatnonzero(flat > 4)
    picked = rng.integers(0, flat.size, count)
    if len(around):
        picked = rng.choice(around, count)
    if len(inside):
        picked[: count * 3 // 4] = rng.choice(inside, count * 3 // 4)
    return np.stack(np.unravel_index(picked, scan.image.shape), axis=1).astype(np.int16)
