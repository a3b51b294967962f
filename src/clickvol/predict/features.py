"""What of a scan no click changes: its fields of view, encoded once and kept."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Volume
from clickvol.methods.lifted_segmenter import EncodedPatch
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.preprocessing.intensity import IntensityScale
from clickvol.weights.load import LoadedModel

Array32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedView:
    """A field of view after the image encoder.

    Attributes:
        encoded: what the decoder needs.
        inside: (D, H, W), which patch voxels lie in the scan.
    """

    encoded: EncodedPatch
    inside: NDArray[np.bool_]

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        return _num_bytes(self.encoded) + self.inside.nbytes


class ScanFeatures:
    """Encodes fields of view of one scan with one model, and keeps the ones used last.

    Args:
        volume: the scan.
        scale: its intensity scale.
        model: the model.
        organ_mask: on a grid of its own, for a model that takes one; without it such a model sees the
            scan in its place.
        max_bytes: memory for encoded fields of view. The one at hand is kept in any case.
    """

    def __init__(
        self,
        volume: Volume,
        scale: IntensityScale,
        model: LoadedModel,
        organ_mask: Mask | None = None,
        *,
        max_bytes: int,
    ) -> None:
        self.volume = volume
        self.model = model
        self._scale = scale
        self._organ_mask = organ_mask
        self._max_bytes = max_bytes
        self._views: OrderedDict[FieldOfView, EncodedView] = OrderedDict()
        self.num_bytes = 0

    def encode(self, field_of_view: FieldOfView) -> EncodedView:
        """Return a field of view, encoded now or earlier."""
        if field_of_view in self._views:
            self._views.move_to_end(field_of_view)
            return self._views[field_of_view]
        grid = self.volume.grid
        patch_grid = field_of_view.grid()
        image = extract(self.volume.array, grid, patch_grid, outside_value=self._scale.outside)
        channels = self._channels(self._scale.normalise(image), patch_grid)
        patch = torch.from_numpy(channels)[None].to(self.model.device)
        with arithmetic(self.model):
            encoded = self.model.network.encode_image(patch)
        # Tokens in text space are for the loss alone; kept, they would be the largest thing here.
        view = EncodedView(replace(encoded, aligned=()), _inside(patch_grid, grid))
        self._views[field_of_view] = view
        self.num_bytes += view.num_bytes
        while self.num_bytes > self._max_bytes and len(self._views) > 1:
            self.num_bytes -= self._views.popitem(last=False)[1].num_bytes
        return view

    def _channels(self, scan: Array32, patch_grid: VolumeGrid) -> Array32:
        """Return what the network takes: (C, D, H, W) from the normalised scan (D, H, W)."""
        if self.model.network.config.num_channels == 1:
            return scan[None]
        if self._organ_mask is None:
            return with_organ_channel(scan, None)
        mask = self._organ_mask
        return with_organ_channel(scan, extract(mask.array, mask.grid, patch_grid, outside_value=0.0))


@contextmanager
def arithmetic(model: LoadedModel) -> Iterator[None]:
    """Compute without gradients, in the model's number format, inside the block."""
    reduced = model.precision != torch.float32
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=reduced),
    ):
        yield


def _inside(patch_grid: VolumeGrid, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Tell which patch voxels lie in the scan: (D, H, W)."""
    to_scan = np.linalg.inv(grid.affine_ras_mm) @ patch_grid.affine_ras_mm
    unit = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corners = unit * (np.array(patch_grid.shape_dhw) - 1) @ to_scan[:3, :3].T + to_scan[:3, 3]
    if ((corners >= 0) & (corners <= np.array(grid.shape_dhw) - 1)).all():
        return np.ones(patch_grid.shape_dhw, dtype=bool)
    everywhere = np.broadcast_to(np.uint8(1), grid.shape_dhw)
    return extract(everywhere, grid, patch_grid, outside_value=0.0) > 0.5


def _num_bytes(held: object) -> int:
    """Return the memory of all tensors in a tree of dataclasses and tuples."""
    if isinstance(held, torch.Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, tuple):
        return sum(_num_bytes(part) for part in held)
    if is_dataclass(held):
        return sum(_num_bytes(getattr(held, part.name)) for part in fields(held))
    return 0
