"""Points regressed from feature maps by a ResNet-34: the form of ProMISe-2D's auto-prompting that is used.

The block is the basic one of He et al., "Deep Residual Learning", CVPR 2016.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointResNet(nn.Module):
    """Feature maps -> N unbounded pairs: mixing convolutions, ResNet, mean over places, Linear.

    Maps of finer grids are averaged down to the deepest map's grid before they are joined (ours: SAM's ViT has
    one grid, TinyViT has not).
    """

    def __init__(
        self,
        map_widths: tuple[int, ...],
        num_points: int,
        *,
        mixed_width: int,
        stage_widths: tuple[int, ...],
        stage_depths: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(sum(map_widths), mixed_width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(mixed_width, mixed_width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(mixed_width, mixed_width, kernel_size=3, padding=1),
        )
        self.stem = nn.Sequential(
            *_conv3_norm(mixed_width, stage_widths[0]),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.blocks = _residual_blocks(stage_widths, stage_depths)
        self.head = nn.Linear(stage_widths[-1], 2 * num_points)
        for module in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(module, nn.Conv2d):
                # Not stated; chosen as in He et al. 2015, which the residual network was made with.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Regress (B, N, 2) points from maps (B, E_i, h_i, w_i), shallow to deep."""
        grid = (maps[-1].shape[2], maps[-1].shape[3])
        # Deepest first, as released.
        joined = torch.cat([F.adaptive_avg_pool2d(m, grid) for m in reversed(maps)], dim=1)
        features = self.blocks(self.stem(self.mix(joined)))
        places: Tensor = self.head(features.mean((2, 3)))
        return places.view(places.shape[0], -1, 2)


def _residual_blocks(widths: tuple[int, ...], depths: tuple[int, ...]) -> nn.Sequential:
    blocks: list[nn.Module] = []
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            # The very last block has a projection although it changes no shape: the released code does
            # so, and only then is the number of parameters the published one.
            is_last = stage == len(widths) - 1 and index == depth - 1
            projects = is_last or stride > 1 or inputs != width
            blocks.append(BasicBlock(inputs, width, stride=stride, projects=projects))
            inputs = width
    return nn.Sequential(*blocks)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))), every convolution followed by a BatchNorm.

    The shortcut `projects`, by a 1x1 convolution with BatchNorm, where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, projects: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv3_norm(inputs, outputs, stride), nn.ReLU(), *_conv3_norm(outputs, outputs)
        )
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if projects
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E', h / stride, w / stride), not negative."""
        return torch.relu(self.shortcut(x) + self.residual(x))


def _conv3_norm(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs)
