"""The loss on scans that are not trained on, from the same patches every time."""

from collections.abc import Sequence

import numpy as np
import torch

from clickvol.datasets.loader import draw_any_sample
from clickvol.datasets.samples import LabelledVolume, TrainingSample, stack
from clickvol.datasets.sampling import AnySampling, PublishedSampling
from clickvol.training.step import SampleNumbers, TrainingStep

# Patches per validation scan. The released code takes one, a new one every time.
_PATCHES_PER_CASE = 2


class Validator:
    """Fixed patches of the validation scans.

    The measure is the released code's: the mean soft Dice loss of the object, which is also what "best" means
    there. There the patches are drawn anew every time, so that the best is partly luck; here they are fixed.

    Args:
        cases: validation scans.
        patch_shape_dhw: shape of the patches.
        sampling: how training samples are drawn; here without augmentation.
        seed: of the run.
        device: where the network is.
        num_channels: of a patch.
    """

    def __init__(
        self,
        cases: Sequence[LabelledVolume],
        patch_shape_dhw: tuple[int, int, int],
        sampling: AnySampling,
        seed: int,
        device: torch.device,
        *,
        num_channels: int = 1,
    ) -> None:
        plain = _unaugmented(sampling)
        self._batches: list[TrainingSample] = []
        for number, case in enumerate(cases):
            rng = np.random.default_rng([seed, number, 3])
            drawn = [
                draw_any_sample(case, patch_shape_dhw, plain, rng, num_channels=num_channels)
                for _ in range(_PATCHES_PER_CASE)
            ]
            self._batches.append(stack(drawn))
        self._device = device

    @torch.no_grad()
    def loss(self, step: TrainingStep) -> float:
        """Return the mean soft Dice loss over the patches, with the network as it is."""
        step.network.eval()
        losses = []
        for number, batch in enumerate(self._batches):
            placed = batch.to(self._device)
            _, _, loss = step(placed, SampleNumbers(0, number * len(batch.label)))
            losses.append(loss.item())
        return float(np.mean(losses))


def _unaugmented(sampling: AnySampling) -> AnySampling:
    """Return the same way to draw without changes of the image; every patch shows the object."""
    if isinstance(sampling, PublishedSampling):
        nothing = {
            "shift_share": 0.0,
            "rotation_share": 0.0,
            "zoom_share": 0.0,
            "flip_share": 0.0,
            "quarter_turn_share": 0.0,
            "foreground_share": 1.0,
        }
        return sampling.model_copy(update=nothing)
    nothing = {"cut_share": 0.0, "rotation_degrees": 0.0, "stretch": 0.0, "elastic_voxels": 0.0}
    extra = {"implant_share": 0.0, "prior_share": 0.0} if sampling.kind == "clicked" else {}
    return sampling.model_copy(update=nothing | extra)
