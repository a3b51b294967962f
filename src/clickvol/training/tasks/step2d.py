"""One forward pass of the training of ProMISe-2D: points, network, loss."""

import hashlib

import torch
from torch import Tensor

from clickvol.datasets.by_case.slice_samples import SliceSample
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.methods.promise2d import PointSource, Promise2d, Promise2dTraining
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.training.tasks.losses import hard_dice
from clickvol.training.tasks.losses2d import bce_dice, soft_dice_loss, truth_at
from clickvol.training.tasks.task import Step

# Bytes of features that are kept: 200 images of LiteMedSAM. Chosen: what a laptop can spare.
_MOST_BYTES = 2_000_000_000


class SliceStep(Step):
    """From a batch of slices to its loss. A module, so that it can be run by several processes at once.

    A network that predicts points is trained with these, in mode "ips" with those drawn from the truth, as
    published. Only the frozen encoder follows the run's precision: half precision would round points to pixels.

    Args:
        network: the network being trained.
        training: how; here which loss.
        repeats: whether the same images come again and again. What the frozen encoder makes of them is then
            kept, as always of those that validate; on a CPU alone, where encoding is the most of a step.
    """

    def __init__(self, network: Promise2d, training: Promise2dTraining, *, repeats: bool = False) -> None:
        super().__init__()
        self.network = network
        self._sigmoid = training.sigmoid
        self._repeats = repeats
        self._kept: dict[bytes, SliceFeatures] = {}
        self._bytes = 0

    def forward(self, batch: SliceSample, step: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """Return the loss, and without gradient the Dice of the masks and the soft Dice loss: scalars."""
        features = self._features(batch.image)
        points: PointSource = "auto"
        if self.network.auto_prompter is None:
            points = Prompts2d(batch.points_xy_pixel, batch.point_labels)
        with torch.autocast(batch.image.device.type, enabled=False):
            exact = SliceFeatures(features.embedding.float(), tuple(tap.float() for tap in features.taps))
            logits = self.network.decode(exact, points=points).logits
            loss = bce_dice(logits, batch.label, sigmoid=self._sigmoid)
        detached = logits.detach()
        truth = truth_at(batch.label, detached)
        overlap = hard_dice(detached > 0, truth > 0.5).mean()
        return loss, overlap, soft_dice_loss(torch.sigmoid(detached), truth)

    def _features(self, images: Tensor) -> SliceFeatures:
        """Encode (B, 3, S, S), what is known already from memory."""
        if images.device.type != "cpu" or (self.network.training and not self._repeats):
            return self.network.encode_image(images)
        parts = [self._kept_features(image) for image in images]
        taps = zip(*(part.taps for part in parts), strict=True)
        return SliceFeatures(
            torch.cat([part.embedding for part in parts]), tuple(torch.cat(list(tap)) for tap in taps)
        )

    def _kept_features(self, image: Tensor) -> SliceFeatures:
        key = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        if key in self._kept:
            return self._kept[key]
        features = self.network.encode_image(image[None])
        size = sum(part.nbytes for part in (features.embedding, *features.taps))
        if self._bytes + size <= _MOST_BYTES:
            self._kept[key] = features
            self._bytes += size
        return features
