"""What a batch of training samples is to be, decided on the host from the numbers of the samples alone.

Everything that is drawn for a sample comes from one row of uniform numbers that its number seeds, so a sample
is the same in whatever batch, process or device it is made. What is dense (noise, smooth fields) is left to the
device, which makes it from `noise_seed` by integer arithmetic (`datasets/device/noise.py`).

All shares and ranges are choices of ours: no paper trains on several scales or on synthetic lesions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from clickvol.datasets.device.scan_store import ScanTable
from clickvol.datasets.levels import LEVEL_VOXELS_MM
from clickvol.datasets.sampling import PatchSampling, WindowSampling
from clickvol.errors import ConfigError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_COLUMNS = 256

_LESION_VOXELS = 3.0
"""A lesion that would not be seen at a voxel side grows to so many voxels."""

_MAX_OFF_MIDDLE = 0.45
"""So far from the middle a click may lie in each direction, as part of the side: it is in the patch."""


@dataclass(frozen=True, slots=True, eq=False)
class SamplePlan:
    """A batch of B samples. Matrices take (d, h, w) offsets in patch voxels.

    Attributes:
        noise_seed: (B,) seeds of what the device draws.
        image_start, image_shape, image_matrix, image_origin: (B,), (B, 3), (B, 3, 3), (B, 3): which level of
            which scan is read, and how offsets from the patch's middle become its voxels.
        image_low, image_high: (B, 3) what of the level is inside.
        stored_low, stored_high: (B,) what stored values are clipped to.
        value_low, value_step: (B,) normalised value of a stored 0, and of one step.
        outside: (B,) normalised value outside the scan.
        has_organ: (B,).
        label_start, label_shape, label_matrix, label_origin: the same of the box of the object's mask.
        click_offset: (B, 3) of the first click from the middle, before bending.
        elastic: (B,) patch voxels, 0 for none.
        is_lung: (B,) whose surroundings are made up.
        lesion: (B,) with a synthetic one; its mask is the label of another object, or an ellipsoid.
        is_ellipsoid: (B,).
        radii, lesion_centre: (B, 3) of the ellipsoid, patch voxels.
        synthesis, remap, grey, prior: (B,) flags.
        extra_clicks: (B,) number of further clicks.
        hint: (B,) 0 none, 1 diameter, 2 box on a slice, 3 box, 4 scribble.
        click_kept: (B,) whether the first click is there.
        uniform: (B, 64) for everything else that the device needs a number for.
        voxel_mm: (B,).
    """

    noise_seed: Ints
    image_start: Ints
    image_shape: Ints
    image_matrix: Array
    image_origin: Array
    image_low: Array
    image_high: Array
    stored_low: Array
    stored_high: Array
    value_low: Array
    value_step: Array
    outside: Array
    has_organ: Flags
    label_start: Ints
    label_shape: Ints
    label_matrix: Array
    label_origin: Array
    click_offset: Array
    elastic: Array
    is_lung: Flags
    lesion: Flags
    is_ellipsoid: Flags
    radii: Array
    lesion_centre: Array
    synthesis: Flags
    remap: Flags
    grey: Flags
    prior: Flags
    extra_clicks: Ints
    hint: Ints
    click_kept: Flags
    uniform: Array
    voxel_mm: Array

    def part(self, rows: slice) -> "SamplePlan":
        """Return some of the samples."""
        return SamplePlan(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class SamplePlanner:
    """Plans batches of samples of one store.

    Args:
        store: the scans.
        sampling: how patches are drawn.
        patch_shape_dhw: voxels of a patch; one number for a cube.
        seed: of the run.
        group_shares: in place of those of `sampling`.

    Raises:
        ConfigError: when no group with scans is drawn from.
    """

    def __init__(
        self,
        store: ScanTable,
        sampling: PatchSampling | WindowSampling,
        patch_shape_dhw: tuple[int, int, int] | int,
        seed: int,
        group_shares: Mapping[str, float] | None = None,
    ) -> None:
        self._store, self._seed = store, seed
        self._shape = np.broadcast_to(patch_shape_dhw, 3).astype(np.float64)
        self._side = float(self._shape.max())
        self._is_clicked = isinstance(sampling, PatchSampling)
        self._background_share = 0.0 if self._is_clicked else 1 - sampling.foreground_share  # type: ignore[union-attr]
        self._sampling = sampling if isinstance(sampling, PatchSampling) else sampling.as_patches()
        sampling = self._sampling
        table = store.objects
        wanted = group_shares or sampling.group_shares or dict.fromkeys(store.groups, 1.0)
        shares = np.array([wanted.get(name, 0.0) for name in store.groups])
        present = np.isin(np.arange(len(store.groups)), table.group)
        shares = np.where(present, shares, 0.0)
        if shares.sum() <= 0:
            raise ConfigError(
                f"no group is drawn from; name some of {', '.join(store.groups)} with shares above 0"
            )
        self._group_bounds = np.cumsum(shares / shares.sum())
        self._members, self._member_bounds = [], []
        for number in range(len(store.groups)):
            members = np.flatnonzero(table.group == number)
            # Patients are drawn alike, however many objects they have.
            _, owner, counts = np.unique(table.patient[members], return_inverse=True, return_counts=True)
            weights = table.longest_mm[members] ** -sampling.small_object_exponent / counts[owner]
            self._members.append(members)
            self._member_bounds.append(np.cumsum(weights / max(weights.sum(), 1e-12)))
        self._is_lung_group = np.array([name in sampling.lung_groups for name in store.groups])

    def plan(self, numbers: Sequence[int], objects: Sequence[int] | None = None) -> SamplePlan:
        """Plan the samples with these numbers.

        Args:
            numbers: of the samples.
            objects: rows of the store's table to draw around, one per sample; None draws them, too.
        """
        rows = _Rows(np.stack([_uniform_row(self._seed, n) for n in numbers]))
        s, table = self._sampling, self._store.objects
        chosen, shape_of = self._objects(rows), self._objects(rows)
        chosen = chosen if objects is None else np.array(objects, dtype=np.int64)
        synthesis = rows.flags(s.synthesis_share)
        lesion = synthesis | rows.flags(s.lesion_share)
        is_ellipsoid = ~rows.flags(s.real_shape_share) & lesion
        # The mask is the object's own, or for a lesion that of any object, scaled.
        owner = np.where(lesion, shape_of, chosen)
        lesion_mm = rows.log_uniform(*s.lesion_mm)
        longest_mm = np.where(lesion, lesion_mm, table.longest_mm[chosen])
        is_first = rows.flags(s.first_view_share)
        first_mm = s.first_voxel_mm * rows.log_uniform(*s.first_zoom)
        fitted_mm = longest_mm * rows.log_uniform(*s.fitted_extents) / self._side
        fitted_mm = np.clip(fitted_mm, s.finest_voxel_mm, s.coarsest_voxel_mm)
        voxel_mm = np.where(is_first, first_mm, fitted_mm)
        longest_mm = np.where(lesion, np.maximum(longest_mm, _LESION_VOXELS * voxel_mm), longest_mm)
        click_voxel = self._store.object_voxels(owner, rows.one()) + (rows.many(3) - 0.5)
        shift = (2 * rows.many(3) - 1) * s.max_shift * self._shape
        to_mm = _turns(rows, s) * voxel_mm[:, None, None]
        # A lesion has the shape of an object, but not its size.
        scale = np.where(lesion, table.longest_mm[owner] / longest_mm, 1.0)
        if s.fitted_around == "object":
            off_middle = self._off_middle(owner, click_voxel, to_mm * scale[:, None, None])
            shift = self._within(shift + off_middle * ~is_ellipsoid[:, None])
        shift *= ~is_first[:, None]
        anywhere = rows.many(3) * self._store.shape_dhw[table.scan[chosen]] - 0.5
        in_background = rows.flags(self._background_share) & ~lesion
        click_voxel = np.where(in_background[:, None], anywhere, click_voxel)
        image = self._image(rows, chosen, lesion, click_voxel, to_mm, shift, voxel_mm)
        label = self._label(owner, click_voxel, to_mm * scale[:, None, None], shift, voxel_mm * scale)
        radii = (longest_mm / 2 / voxel_mm)[:, None] * np.exp(0.3 * rows.normal(3) - 0.2)
        direction = rows.normal(3)
        direction *= rows.one()[:, None] ** (1 / 3) / np.linalg.norm(direction, axis=1, keepdims=True)
        return SamplePlan(
            noise_seed=(rows.one() * 2**31).astype(np.int64),
            **image,
            **label,
            click_offset=shift,
            elastic=rows.flags(s.elastic_share) * 2 * s.elastic_voxels * rows.one(),
            lesion=lesion,
            is_ellipsoid=is_ellipsoid,
            radii=radii,
            lesion_centre=shift - 0.85 * direction * radii,
            synthesis=synthesis,
            uniform=rows.many(64),
            voxel_mm=voxel_mm,
            **self._prompts_and_changes(rows, chosen, is_first),
        )

    def _prompts_and_changes(self, rows: "_Rows", chosen: Ints, is_first: Flags) -> dict[str, Any]:
        """Return the parts of the plan that say what the user does, and what is done to the image."""
        s = self._sampling
        shares = [s.diameter_share, s.slice_box_share, s.box_share, s.scribble_share]
        hint = np.searchsorted(np.cumsum(shares), rows.one(), "right")
        hint = np.where(hint == len(shares), 0, hint + 1)
        return {
            "is_lung": self._is_lung_group[self._store.objects.group[chosen]] & rows.flags(s.lung_fill_share),
            "remap": rows.flags(s.remap_share),
            "grey": rows.flags(s.grey_share),
            "prior": rows.flags(s.prior_share) & ~is_first,
            "extra_clicks": rows.flags(s.extra_click_share) * (1 + (rows.one() * 4).astype(np.int64)),
            "hint": hint,
            "click_kept": (rows.flags(s.click_kept_share) | (hint == 0)) & self._is_clicked,
        }

    def _image(
        self,
        rows: "_Rows",
        chosen: Ints,
        lesion: Flags,
        click_voxel: Array,
        to_mm: Array,
        shift: Array,
        voxel_mm: Array,
    ) -> dict[str, Any]:
        """Return the parts of the plan that say what is read of the scan, and its cuts in finest voxels."""
        store = self._store
        scan = store.objects.scan[chosen]
        body = store.body_voxels(scan, rows.one())
        place = np.where(lesion[:, None], body, click_voxel)
        cut_low, cut_high = self._cuts(rows, chosen, lesion)
        level = np.searchsorted(LEVEL_VOXELS_MM, voxel_mm + 1e-9) - 1
        block = store.level_block_dhw[scan, level]
        matrix = store.voxels_per_mm[scan] @ to_mm / block[:, :, None]
        return {
            "image_start": store.level_start[scan, level],
            "image_shape": store.level_shape_dhw[scan, level],
            "image_matrix": matrix,
            # The click lies at the middle plus the shift, so the middle is the place less the shift.
            "image_origin": (place - (block - 1) / 2) / block - np.einsum("bij,bj->bi", matrix, shift),
            "image_low": (cut_low - (block - 1) / 2) / block,
            "image_high": (cut_high - (block - 1) / 2) / block,
            "stored_low": store.stored_low[scan],
            "stored_high": store.stored_high[scan],
            "value_low": store.value_low[scan],
            "value_step": store.value_step[scan],
            "outside": store.outside[scan],
            "has_organ": store.has_organ[scan],
        }

    def _within(self, shift: Array) -> Array:
        return np.clip(shift, -_MAX_OFF_MIDDLE * self._shape, _MAX_OFF_MIDDLE * self._shape)

    def _off_middle(self, owner: Ints, click_voxel: Array, to_mm: Array) -> Array:
        """Return how far from the middle of its object a click lies, in patch voxels: (B, 3)."""
        table = self._store.objects
        off = click_voxel - (table.low_dhw[owner] + table.high_dhw[owner]) / 2
        to_voxels = self._store.voxels_per_mm[table.scan[owner]] @ to_mm
        return np.linalg.solve(to_voxels, off[:, :, None])[:, :, 0].astype(np.float64)

    def _label(
        self, owner: Ints, click_voxel: Array, to_mm: Array, shift: Array, voxel_mm: Array
    ) -> dict[str, Any]:
        """Return the parts of the plan that say what is read of a mask."""
        store, table = self._store, self._store.objects
        scan = table.scan[owner]
        level = np.searchsorted(LEVEL_VOXELS_MM, voxel_mm + 1e-9) - 1
        block = store.level_block_dhw[scan, level]
        matrix = store.voxels_per_mm[scan] @ to_mm / block[:, :, None]
        place = (click_voxel - (block - 1) / 2) / block - table.mask_low_dhw[owner, level]
        return {
            "label_start": table.mask_start[owner, level],
            "label_shape": table.mask_shape_dhw[owner, level],
            "label_matrix": matrix,
            "label_origin": place - np.einsum("bij,bj->bi", matrix, shift),
        }

    def _objects(self, rows: "_Rows") -> Ints:
        """Draw a group, then an object of it: (B,)."""
        groups = np.searchsorted(self._group_bounds, rows.one(), "right")
        place = rows.one()
        picked = [
            self._members[g][
                min(np.searchsorted(self._member_bounds[g], u, "right"), len(self._members[g]) - 1)
            ]
            for g, u in zip(groups.tolist(), place.tolist(), strict=True)
        ]
        return np.array(picked, dtype=np.int64)

    def _cuts(self, rows: "_Rows", chosen: Ints, lesion: Flags) -> tuple[Array, Array]:
        """Return first and last place inside the scan, finest level; sides are cut off in some samples."""
        s, store, table = self._sampling, self._store, self._store.objects
        scan = table.scan[chosen]
        shape = store.shape_dhw[scan]
        most = s.max_cut_mm / store.spacing_dhw_mm[scan] * (rows.flags(s.cut_share) & ~lesion)[:, None]
        low = np.minimum(np.floor(rows.many(3) * most), table.low_dhw[chosen])
        high = np.maximum(shape - 1 - np.floor(rows.many(3) * most), table.high_dhw[chosen])
        return low - 0.5, high + 0.5


def _uniform_row(seed: int, number: int) -> Array:
    """Return the random numbers of one sample, in (0, 1)."""
    row = np.random.Generator(np.random.Philox(key=[seed, number])).random(_COLUMNS)
    return np.clip(row, 1e-9, 1 - 1e-9)


class _Rows:
    """Hands out columns of uniform numbers, one after the other."""

    def __init__(self, rows: Array) -> None:
        self._rows, self._next = rows, 0

    def many(self, count: int) -> Array:
        columns = self._rows[:, self._next : self._next + count]
        self._next += count
        if columns.shape[1] < count:
            raise IndexError(f"a sample takes more than {_COLUMNS} numbers; draw more per row")
        return columns

    def one(self) -> Array:
        return self.many(1)[:, 0]

    def flags(self, share: float) -> Flags:
        return self.one() < share

    def normal(self, count: int) -> Array:
        return np.asarray(ndtri(self.many(count)))

    def log_uniform(self, low: float, high: float) -> Array:
        return np.asarray(np.exp(np.log(low) + self.one() * (np.log(high) - np.log(low))))


def _turns(rows: _Rows, sampling: PatchSampling) -> Array:
    """Return rotations about every axis with stretches and mirrorings: (B, 3, 3)."""
    angles = np.deg2rad((2 * rows.many(3) - 1) * sampling.rotation_degrees)
    result = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.broadcast_to(np.eye(3), (len(angles), 3, 3)).copy()
        turn[:, a, a] = turn[:, b, b] = np.cos(angles[:, axis])
        turn[:, a, b], turn[:, b, a] = -np.sin(angles[:, axis]), np.sin(angles[:, axis])
        result = result @ turn
    mirrored = np.where(rows.many(3) < sampling.mirror_share, -1.0, 1.0)
    factors = np.exp((2 * rows.many(3) - 1) * sampling.stretch) * mirrored
    return np.asarray(result * factors[:, None, :])
