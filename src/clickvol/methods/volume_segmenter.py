"""What inference and training ask of a network for volumes, whichever method it is of."""

from abc import ABCMeta, abstractmethod
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from clickvol.prompt_encoders.feature_sampling import PointPrompts

EncodedT = TypeVar("EncodedT")


class VolumeSegmenterConfig(Protocol):
    """What every configuration of such a network says; the rest is the method's own."""

    @property
    def patch_shape_dhw(self) -> tuple[int, int, int]:
        """(D, H, W) of the patch that the network is made for."""

    @property
    def patch_step_dhw(self) -> tuple[int, int, int]:
        """What every side of a patch must be a multiple of."""

    @property
    def num_channels(self) -> int:
        """Channels of a patch: 1, the scan; 2 with an organ mask."""

    @property
    def is_automatic(self) -> bool:
        """Tell whether the network takes no clicks."""


class VolumeSegmenter(nn.Module, Generic[EncodedT], metaclass=ABCMeta):
    """Patch and clicks -> two-class logits, in two steps: what no click changes, and the rest.

    `EncodedT` is what the first step leaves for the second.
    """

    config: VolumeSegmenterConfig

    @abstractmethod
    def encode_image(self, patch: Tensor) -> EncodedT:
        """Do what no click changes, once per patch (B, C, D, H, W); channel 0 is the normalised scan."""

    @abstractmethod
    def decode(self, encoded: EncodedT, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """Answer clicks, (B, N), which an automatic network ignores: (B, 2, D, H, W) logits, background first.

        `prior` is (B, 1, D, H, W) in [-1, 1]: 2 p - 1 of an earlier mask's probability p, 0 where nothing is
        known.
        """

    def forward(self, patch: Tensor, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W) and (B, N) clicks -> (B, 2, D, H, W) logits."""
        return self.decode(self.encode_image(patch), prompts, prior)
