"""The network on fields of view of one scan: image features are kept, clicks are cheap."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid
from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.placed_prompts import PlacedPrompts
from clickvol.predict.segmentation import Array32, Stopwatch
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class EncodedView:
    """A field of view after the image encoder, and which patch voxels (D, H, W) lie in the scan."""

    encoded: EncodedPatch
    inside: NDArray[np.bool_]


class PatchPredictor:
    """Predicts on fields of view of one scan, and keeps the encoded ones that were used last."""

    def __init__(self, scan: NormalisedScan, model: LoadedModel, *, max_bytes: int) -> None:
        self.scan = scan
        self.model = model
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._views: OrderedDict[FieldOfView, EncodedView] = OrderedDict()
        # Of the last answer without a prior: map, logits, where the object may be, and the probability.
        self._answered: tuple[torch.Tensor, torch.Tensor, NDArray[np.bool_], Array32] | None = None

    def probability(
        self,
        field_of_view: FieldOfView,
        prompts: PlacedPrompts,
        stopwatch: Stopwatch,
        *,
        prior: Array32 | None = None,
    ) -> Array32:
        """Return the probability of the object on a patch: (D, H, W) float32 in [0, 1].

        It is 0 outside the scan and where the prompts exclude the object; clicks outside the patch are left
        out. The prior (D, H, W) is the probability on this patch from an earlier view, or None. The stopwatch
        gets the time of "encode" and "decode".
        """
        with stopwatch.stage("encode"):
            view = self._encode(field_of_view)
        with stopwatch.stage("decode"), arithmetic(self.model):
            tensors = _to_tensors(prompts, field_of_view, self.model.device)
            known = None
            if prior is not None:
                known = torch.from_numpy(2 * prior - 1)[None, None].to(self.model.device)
            network, joined = self.model.network, None
            if isinstance(network, LiftedSegmenter) and network.candidates is not None:
                joined = network.joined_map(view.encoded, tensors, known)
                logits = network.mask_decoder.masks(joined)
            else:
                logits = network.decode(view.encoded, tensors, known)
            probability = torch.softmax(logits[0].float(), dim=0)[1].cpu().numpy()
            allowed = self._allowed(view, field_of_view, prompts)
            probability = np.where(allowed, probability, np.float32(0))
            if joined is not None and known is None:
                self._answered = joined, logits, allowed, probability
            return probability

    def candidates(self, stopwatch: Stopwatch) -> tuple[tuple[Array32, float], ...]:
        """Return several answers to what `probability` was last asked without a prior, its own first, and once.

        Each is a probability (D, H, W) and what the score head says of its Dice, in (0, 1); none where the
        network has one answer.
        """
        network, answered = self.model.network, self._answered
        if answered is None or not isinstance(network, LiftedSegmenter) or network.candidates is None:
            return ()
        self._answered = None
        joined, logits, allowed, probability = answered
        with stopwatch.stage("decode"), arithmetic(self.model):
            several = network.candidates(joined, logits, network.config.decoder.decoder_stride)
            others = torch.sigmoid(several.logits[0].float()).cpu().numpy()
            masks = [probability, *(np.where(allowed, other, np.float32(0)) for other in others)]
            return tuple(zip(masks, several.predicted_dice[0].float().cpu().tolist(), strict=True))

    def _allowed(
        self, view: EncodedView, field_of_view: FieldOfView, prompts: PlacedPrompts
    ) -> NDArray[np.bool_]:
        """Tell which patch voxels lie in the scan and may belong to the object."""
        if prompts.excluded is None:
            return view.inside
        excluded = prompts.excluded.view(np.uint8)
        grid, patch_grid = self.scan.volume.grid, field_of_view.grid()
        return view.inside & (extract(excluded, grid, patch_grid, outside_value=0.0) <= 0.5)

    def _encode(self, field_of_view: FieldOfView) -> EncodedView:
        """Return a field of view, encoded now or earlier."""
        if field_of_view in self._views:
            self._views.move_to_end(field_of_view)
            return self._views[field_of_view]
        patch_grid = field_of_view.grid()
        patch = torch.from_numpy(self.scan.sample(patch_grid))[None].to(self.model.device)
        with arithmetic(self.model):
            encoded = self.model.network.encode_image(patch)
        # Tokens in text space are for the loss alone; kept, they would be the largest thing here.
        view = EncodedView(replace(encoded, aligned=()), _inside(patch_grid, self.scan.volume.grid))
        self._views[field_of_view] = view
        self.num_bytes += num_bytes(view)
        while self.num_bytes > self._max_bytes and len(self._views) > 1:
            self.num_bytes -= num_bytes(self._views.popitem(last=False)[1])
        return view


@contextmanager
def arithmetic(model: LoadedModel) -> Iterator[None]:
    """Compute without gradients, in the model's number format, inside the block."""
    reduced = model.precision != torch.float32
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=reduced),
    ):
        yield


def _to_tensors(prompts: PlacedPrompts, field_of_view: FieldOfView, device: torch.device) -> PointPrompts:
    """Return the clicks that lie in the patch, and the maps on it, as tensors of a batch of one."""
    points, labels = [], []
    shape = np.array(field_of_view.shape_dhw)
    for click in prompts.clicks:
        place = field_of_view.to_patch(click.place).as_array()
        if ((place >= -0.5) & (place <= shape - 0.5)).all():
            points.append(place)
            labels.append(FOREGROUND_LABEL if click.foreground else BACKGROUND_LABEL)
    places = np.array(points, dtype=np.float32).reshape(1, -1, 3)
    hints = prompts.hints_on(field_of_view)
    return PointPrompts(
        torch.from_numpy(places).to(device),
        torch.tensor([labels], dtype=torch.int64, device=device).reshape(1, -1),
        None if hints is None else torch.from_numpy(hints)[None].to(device),
    )


def _inside(patch_grid: VolumeGrid, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Tell which patch voxels lie in the scan: (D, H, W)."""
    low, high = patch_grid.bounds_in(grid, patch_grid.box, reach_voxels=0.0)
    if (low >= 0).all() and (high <= np.array(grid.shape_dhw) - 1).all():
        return np.ones(patch_grid.shape_dhw, dtype=bool)
    everywhere = np.broadcast_to(np.uint8(1), grid.shape_dhw)
    return extract(everywhere, grid, patch_grid, outside_value=0.0) > 0.5


def num_bytes(held: object) -> int:
    """Return the memory of all tensors and arrays in a tree of dataclasses and tuples."""
    if isinstance(held, torch.Tensor | np.ndarray):
        return int(held.nbytes)
    parts = held if isinstance(held, tuple) else ()
    if is_dataclass(held):
        parts = tuple(getattr(held, part.name) for part in fields(held))
    return sum(map(num_bytes, parts))
