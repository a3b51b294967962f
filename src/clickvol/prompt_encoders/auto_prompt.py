"""The auto-prompting module of ProMISe-2D: points predicted from the encoder's intermediate maps.

Wang et al., arXiv 2403.04164 (APM). P = side * sigmoid(regressor(maps)), in pixels of the network input;
the points go into SAM's own prompt encoder with labels fixed by slot. Nothing tells the points where to
lie: they learn from the loss of the mask, through the frozen decoder.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.prompt_encoders.auto_prompt_cross import PointQueries
from clickvol.prompt_encoders.auto_prompt_resnet import PointResNet
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.prompts.simulate import num_positive_points
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL

Form = Literal["resnet", "cross"]


@dataclass(frozen=True, kw_only=True)
class AutoPrompterConfig:
    """Sizes of the auto-prompting module. The defaults are those of the released code with SAM ViT-B.

    Attributes:
        form: "resnet" (used by the released scripts) or "cross" (cross-attention, also released).
        image_side: side of the square network input in pixels.
        taps: which of the encoder's `SliceFeatures.taps` are read, shallow to deep; SAM's are taken after
            blocks 3, 6, 9 and 12, and the three deepest are used.
        mixed_width: channels between maps and ResNet ("resnet").
        stage_widths, stage_depths: of the ResNet, ResNet-34 as published ("resnet").
    """

    form: Form = "resnet"
    num_points: int = 16
    image_side: int = 1024
    taps: tuple[int, ...] = (1, 2, 3)
    tap_widths: tuple[int, ...] = (768, 768, 768)
    tap_sides: tuple[int, ...] = (64, 64, 64)
    mixed_width: int = 256
    stage_widths: tuple[int, ...] = (64, 128, 256, 512)
    stage_depths: tuple[int, ...] = (3, 4, 6, 3)
    query_width: int = 768
    num_heads: int = 12

    def __post_init__(self) -> None:
        if self.num_points < 1:
            raise ConfigError(f"num_points is {self.num_points}, but at least 1 is needed")
        if not self.taps or {len(self.tap_widths), len(self.tap_sides)} != {len(self.taps)}:
            raise ConfigError(
                f"taps {self.taps}, tap_widths {self.tap_widths} and tap_sides {self.tap_sides} must have "
                "one value per tap, and one tap at least"
            )
        deepest = self.tap_sides[-1]
        if any(side < deepest for side in self.tap_sides):
            raise ConfigError(
                f"tap_sides is {self.tap_sides}, but the last must be the smallest: list shallow taps first"
            )
        if len(self.stage_widths) != len(self.stage_depths) or not self.stage_widths:
            raise ConfigError(
                f"stage_widths {self.stage_widths} and stage_depths {self.stage_depths} must have one value "
                "per stage, and one stage at least"
            )
        if self.query_width % self.num_heads or self.query_width % 4:
            raise ConfigError(
                f"query_width is {self.query_width}, but must be a multiple of 4 and of num_heads "
                f"{self.num_heads}"
            )

    @property
    def num_doublings(self) -> tuple[int, ...]:
        """How often the "cross" form enlarges each map by 2, shallow to deep.

        Published: the deepest map stays, the next is attended to at twice and the next at four times its
        side. A map that has part of this resolution already is enlarged that much less (ours).
        """
        deepest = self.tap_sides[-1]
        wanted = range(len(self.taps) - 1, -1, -1)
        return tuple(
            max(0, n - (side // deepest).bit_length() + 1)
            for n, side in zip(wanted, self.tap_sides, strict=True)
        )


class AutoPrompter(nn.Module):
    """The encoder's maps -> point prompts inside the image."""

    def __init__(self, config: AutoPrompterConfig) -> None:
        super().__init__()
        self.config = config
        self.regressor: PointResNet | PointQueries
        if config.form == "resnet":
            self.regressor = PointResNet(
                config.tap_widths,
                config.num_points,
                mixed_width=config.mixed_width,
                stage_widths=config.stage_widths,
                stage_depths=config.stage_depths,
            )
        else:
            self.regressor = PointQueries(
                config.tap_widths,
                config.num_doublings,
                config.num_points,
                width=config.query_width,
                num_heads=config.num_heads,
            )

    def forward(self, taps: tuple[Tensor, ...]) -> Prompts2d:
        """Predict the points from all of the encoder's taps, (B, E_i, h_i, w_i) each, shallow to deep.

        Returns:
            Points (B, N, 2) in the order (x, y) in [0, image_side] pixels, and labels (B, N): 1 in the first
            floor(N / 2) slots (in the only one of one), 0 in the others.
        """
        place = torch.sigmoid(self.regressor(tuple(taps[i] for i in self.config.taps)))
        labels = slot_labels(self.config.num_points).to(place.device)
        return Prompts2d(
            points_xy_pixel=self.config.image_side * place, labels=labels.expand(place.shape[0], -1)
        )


def slot_labels(num_points: int) -> Tensor:
    """Return the labels of N predicted points, (N,) int64: the same for every image, as published."""
    labels = torch.full((num_points,), BACKGROUND_LABEL)
    labels[: num_positive_points(num_points)] = FOREGROUND_LABEL
    return labels
