"""What a 2D image encoder makes of slices."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class SliceFeatures:
    """Feature maps of a batch of 2D images.

    Attributes:
        embedding: (B, E, h, w), what prompts and mask decoder work with (after the neck).
        taps: (B, E_i, h_i, w_i) each, shallow to deep: outputs of some stages before the neck.
    """

    embedding: Tensor
    taps: tuple[Tensor, ...]
