"""One look of the model: a field of view in, probabilities on its patch out."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.methods.lifted_segmenter import EncodedPatch
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.preprocessing.intensity import IntensityScale
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL
from clickvol.volumes.volume import Mask, Volume
from clickvol.weights.load import LoadedModel

Array32 = NDArray[np.float32]

# Fields of view kept encoded. Enough for the first look, its widenings and the tiles of a refinement.
_MAX_ENCODED = 24


@dataclass(frozen=True, slots=True)
class WorldClick:
    """A checked click.

    Attributes:
        place: in the patient.
        foreground: inside the object or beside it.
    """

    place: WorldPointRAS
    foreground: bool


@dataclass(slots=True)
class Stopwatch:
    """Seconds per stage, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started_at = time.perf_counter()
        yield
        spent = time.perf_counter() - started_at
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


class Looker:
    """Looks at one scan with one model, and keeps what no click changes.

    Args:
        volume: the scan.
        scale: its intensity scale.
        model: the model.
        organ_mask: on a grid of its own, for a model that takes one; without it such a model sees the
            scan in its place.
    """

    def __init__(
        self,
        volume: Volume,
        scale: IntensityScale,
        model: LoadedModel,
        organ_mask: Mask | None = None,
    ) -> None:
        self._volume = volume
        self._scale = scale
        self._model = model
        self._organ_mask = organ_mask
        self._encoded: OrderedDict[FieldOfView, tuple[EncodedPatch, NDArray[np.bool_]]] = (
            OrderedDict()
        )

    def probability(
        self,
        field_of_view: FieldOfView,
        clicks: list[WorldClick],
        stopwatch: Stopwatch,
        *,
        prior: Array32 | None = None,
    ) -> Array32:
        """Return the probability of the object on a patch.

        Args:
            field_of_view: where to look.
            clicks: all clicks; those outside the patch are left out.
            stopwatch: gets the time of "encode" and "decode".
            prior: (D, H, W) probability of an earlier look on this patch, or None.

        Returns:
            (D, H, W) float32 in [0, 1]; 0 outside the scan.
        """
        with stopwatch.stage("encode"):
            encoded, inside = self._encode(field_of_view)
        with stopwatch.stage("decode"), arithmetic(self._model):
            prompts = _to_prompts(clicks, field_of_view, self._model.device)
            known = None
            if prior is not None:
                known = torch.from_numpy(2 * prior - 1)[None, None].to(self._model.device)
            logits = self._model.network.decode(encoded, prompts, known)
            found = torch.softmax(logits[0].float(), dim=0)[1].cpu().numpy()
            return np.where(inside, found, np.float32(0))

    def _encode(self, field_of_view: FieldOfView) -> tuple[EncodedPatch, NDArray[np.bool_]]:
        if field_of_view in self._encoded:
            self._encoded.move_to_end(field_of_view)
            return self._encoded[field_of_view]
        grid = self._volume.grid
        patch_grid = field_of_view.grid()
        image = extract(self._volume.array, grid, patch_grid, outside_value=self._scale.outside)
        inside = _inside(patch_grid, grid)
        channels = self._channels(self._scale.normalise(image), patch_grid)
        patch = torch.from_numpy(channels)[None].to(self._model.device)
        with arithmetic(self._model):
            encoded = self._model.network.encode_image(patch)
        # Tokens in text space are for the loss alone; kept, they would be the largest thing here.
        encoded = replace(encoded, aligned=())
        self._encoded[field_of_view] = (encoded, inside)
        if len(self._encoded) > _MAX_ENCODED:
            self._encoded.popitem(last=False)
        return encoded, inside

    def _channels(self, scan: Array32, patch_grid: VolumeGrid) -> Array32:
        """Return what the network takes: (C, D, H, W) from the normalised scan (D, H, W)."""
        if self._model.network.config.num_channels == 1:
            return scan[None]
        if self._organ_mask is None:
            return with_organ_channel(scan, None)
        mask = self._organ_mask
        return with_organ_channel(
            scan, extract(mask.array, mask.grid, patch_grid, outside_value=0.0)
        )


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


def _to_prompts(
    clicks: list[WorldClick], field_of_view: FieldOfView, device: torch.device
) -> PointPrompts:
    """Return the clicks that lie in the patch, as tensors of a batch of one."""
    points, labels = [], []
    shape = np.array(field_of_view.shape_dhw)
    for click in clicks:
        place = field_of_view.to_patch(click.place).as_array()
        if ((place >= -0.5) & (place <= shape - 0.5)).all():
            points.append(place)
            labels.append(FOREGROUND_LABEL if click.foreground else BACKGROUND_LABEL)
    places = np.array(points, dtype=np.float32).reshape(1, -1, 3)
    return PointPrompts(
        torch.from_numpy(places).to(device),
        torch.tensor([labels], dtype=torch.int64, device=device).reshape(1, -1),
    )
