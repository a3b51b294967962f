"""A network that is told other clicks than the user's at their place: what a click itself is worth."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.click import Click

Told = Literal["random", "none"]
"""What the network is told in the place of a click: a random voxel of the same window, or nothing."""


class OtherClicks(VolumeSegmenter[Any]):
    """A network that looks where the clicks are and is told something else in the place of each."""

    def __init__(self, network: VolumeSegmenter[Any], told: Told) -> None:
        super().__init__()
        self.network = network
        self.config = network.config
        self._told = told
        self._seed = 0

    def begin(self, case_id: str, clicks: Sequence[Click]) -> None:
        """Seed what is random with the scan and the clicks so far."""
        self._seed = zlib.crc32(f"{case_id} {clicks}".encode())

    def encode_image(self, patch: Tensor) -> Any:  # noqa: ANN401  # whatever the network makes
        """See `VolumeSegmenter`."""
        return self.network.encode_image(patch)

    def decode(self, encoded: Any, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:  # noqa: ANN401
        """See `VolumeSegmenter`."""
        points = prompts.points_dhw
        if self._told == "none":
            nothing = PointPrompts(points[:, :0], prompts.labels[:, :0])
            return self.network.decode(encoded, nothing, prior)
        rng = np.random.default_rng(self._seed)
        drawn = rng.integers(0, self.config.patch_shape_dhw, size=tuple(points.shape)).astype(np.float32)
        return self.network.decode(
            encoded, replace(prompts, points_dhw=torch.from_numpy(drawn).to(points)), prior
        )
