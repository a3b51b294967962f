"""nnU-Net's network as MONAI implements it: DynUNet, planned from patch and voxel size.

MONAI takes as long to import as torch, so it is imported where a network is built.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline, Triple, require_multiple, shape_dhw
from clickvol.errors import ConfigError

# nnU-Net (Isensee et al., Nature Methods 2021, supplement): an axis is halved while its bottleneck keeps
# four cells, and only together with axes whose voxels are at most twice as fine.
_SMALLEST_SIDE = 4
_LARGEST_SPACING_RATIO = 2.0


@dataclass(frozen=True, kw_only=True)
class DynUnetConfig:
    """nnU-Net's network (MONAI's DynUNet), planned from patch and voxel size. The defaults are nnU-Net's.

    Attributes:
        spacing_mm: (d, h, w) of a voxel; only the ratios matter.
        first_width: channels at full resolution; doubled at every further one.
        largest_width: where the doubling stops.
    """

    kind: Literal["dynunet"] = "dynunet"
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    first_width: int = 32
    largest_width: int = 320

    def __post_init__(self) -> None:
        if any(not side > 0 for side in self.spacing_mm):
            raise ConfigError(f"spacing_mm is {self.spacing_mm}, but voxels have positive sides")
        if not 0 < self.first_width <= self.largest_width:
            raise ConfigError(f"first_width is {self.first_width}, but 1 to {self.largest_width} is expected")

    def plan(self, patch_shape_dhw: Triple) -> "DynUnetPlan":
        """Return strides and kernels for a patch, as nnU-Net plans them."""
        return plan_dynunet(patch_shape_dhw, self.spacing_mm)

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return what the sides of patches are multiples of: the product of the planned strides."""
        d, h, w = (int(n) for n in np.prod(self.plan(patch_shape_dhw).strides, axis=0))
        return (d, h, w)


@dataclass(frozen=True, slots=True)
class DynUnetPlan:
    """Strides and kernels of a level's convolutions, the full resolution, which has no stride, first."""

    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]


def plan_dynunet(patch_shape_dhw: Triple, spacing_mm: tuple[float, float, float]) -> DynUnetPlan:
    """Plan the levels as nnU-Net does; ConfigError for a patch that cannot be halved twice.

    An axis is halved while at least four cells remain, and while its cells are at most twice as large as the
    smallest; along axes whose cells are larger than that the kernel is 1.
    """
    side, spacing = np.array(patch_shape_dhw), np.array(spacing_mm, dtype=float)
    strides, kernels = [(1, 1, 1)], []
    while True:
        near = spacing <= _LARGEST_SPACING_RATIO * spacing.min() + 1e-9
        kernels.append(_triple(np.where(near, 3, 1)))
        stride = np.where(near & (side >= 2 * _SMALLEST_SIDE) & (side % 2 == 0), 2, 1)
        if (stride == 1).all():
            break
        strides.append(_triple(stride))
        side, spacing = side // stride, spacing * stride
    if len(strides) < 3:
        raise ConfigError(
            f"a patch of {patch_shape_dhw} is too small for DynUNet, which halves it at least twice; take "
            "sides that are multiples of 16"
        )
    return DynUnetPlan(tuple(strides), tuple(kernels))


def _triple(values: np.ndarray[tuple[int, ...], np.dtype[np.int_]]) -> Triple:
    d, h, w = (int(n) for n in values)
    return (d, h, w)


class DynUnet(nn.Module):
    """MONAI's DynUNet without deep supervision, its blocks registered once.

    MONAI's own module registers every block twice, so that a state dict names each weight twice.
    """

    def __init__(self, config: DynUnetConfig, patch_shape_dhw: Triple, num_channels: int = 1) -> None:
        super().__init__()
        from monai.networks.nets.dynunet import DynUNet

        plan = config.plan(patch_shape_dhw)
        self._step_dhw = config.patch_step_dhw(patch_shape_dhw)
        widths = [
            min(config.first_width * 2**level, config.largest_width) for level in range(len(plan.strides))
        ]
        made = DynUNet(
            3,
            num_channels,
            NUM_CLASSES,
            kernel_size=plan.kernels,
            strides=plan.strides,
            upsample_kernel_size=plan.strides[1:],
            filters=widths,
        )
        self.input_block: nn.Module = made.input_block
        self.downsamples: nn.ModuleList = made.downsamples
        self.bottleneck: nn.Module = made.bottleneck
        self.upsamples: nn.ModuleList = made.upsamples
        self.output_block: nn.Module = made.output_block

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2, D, H, W) logits; multiples of the planned strides, else ConfigError."""
        require_multiple(shape_dhw(patch), self._step_dhw, "DynUNet")
        kept = [self.input_block(patch)]
        for down in self.downsamples:
            kept.append(down(kept[-1]))
        x = self.bottleneck(kept[-1])
        for up, skip in zip(self.upsamples, reversed(kept), strict=True):
            x = up(x, skip)
        return torch.as_tensor(self.output_block(x))


BASELINE = Baseline(
    config_type=DynUnetConfig,
    build=DynUnet,
    sizes={
        # nnU-Net plans its patch from the data; 128^3 is what it takes for cubic voxels.
        "paper": ((128, 128, 128), DynUnetConfig()),
        "small": ((64, 64, 64), DynUnetConfig(first_width=16, largest_width=256)),
        "tiny": ((32, 32, 32), DynUnetConfig(first_width=4, largest_width=16)),
    },
)
