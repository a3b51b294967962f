"""SAM on one 2D image: the frozen foundation of ProMISe-2D, and where the 3D methods take their weights from.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), and LiteMedSAM, which has the same prompt encoder
and mask decoder behind a TinyViT. The names in the state dict are those of the published files.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.sam_vit2d import SAM_SIZES, SamVit2d, SamVit2dConfig
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.image_encoders.tiny_vit import TinyVit, TinyVitConfig
from clickvol.mask_decoders.sam_mask_decoder import SamMaskDecoder, SamMaskDecoderConfig, SamMasks
from clickvol.methods.recipe import Method
from clickvol.prompt_encoders.sam_prompts import Prompts2d, SamPromptConfig, SamPrompts

Rgb = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Sam2dConfig:
    """The whole network and the scale of its input. The defaults are SAM ViT-B.

    Attributes:
        image_encoder: SAM's ViT or LiteMedSAM's TinyViT.
        prompt, decoder: the other two parts. Sizes that must agree are checked.
        input_range: values of an image before the two constants: "0..255" in SAM, "0..1" in LiteMedSAM.
        pixel_mean: subtracted from red, green and blue; the means of ImageNet in SAM's released build.
        pixel_std: what is left is divided by this; the same source.
    """

    image_encoder: SamVit2dConfig | TinyVitConfig = field(default_factory=SamVit2dConfig)
    prompt: SamPromptConfig = field(default_factory=SamPromptConfig)
    decoder: SamMaskDecoderConfig = field(default_factory=SamMaskDecoderConfig)
    input_range: Literal["0..255", "0..1"] = "0..255"
    pixel_mean: Rgb = (123.675, 116.28, 103.53)
    pixel_std: Rgb = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        pairs = (
            ("prompt.width", self.prompt.width, self.image_encoder.feature_width),
            ("decoder.width", self.decoder.width, self.image_encoder.feature_width),
            ("prompt.image_side", self.prompt.image_side, self.image_encoder.image_side),
            ("prompt.grid_side", self.prompt.grid_side, _grid_side(self.image_encoder)),
        )
        for name, value, expected in pairs:
            if value != expected:
                raise ConfigError(
                    f"{name} is {value}, but the image encoder of the configuration asks for {expected}"
                )
        if min(self.pixel_std) <= 0:
            raise ConfigError(
                f"pixel_std is {self.pixel_std}, but values are divided by it; give positive numbers"
            )

    @property
    def image_side(self) -> int:
        """Side of the square input in pixels."""
        return self.image_encoder.image_side


class Sam2d(nn.Module):
    """Image and prompts -> masks."""

    def __init__(self, config: Sam2dConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder: SamVit2d | TinyVit = (
            SamVit2d(config.image_encoder)
            if isinstance(config.image_encoder, SamVit2dConfig)
            else TinyVit(config.image_encoder)
        )
        self.prompt_encoder = SamPrompts(config.prompt)
        self.mask_decoder = SamMaskDecoder(config.decoder)

    def encode_image(self, image: Tensor) -> SliceFeatures:
        """Do the costly part, once per image: (B, 3, S, S) normalised -> SliceFeatures."""
        features: SliceFeatures = self.image_encoder(image)
        return features

    def decode(
        self, features: SliceFeatures, prompts: Prompts2d, *, mask_token_shift: Tensor | None = None
    ) -> SamMasks:
        """Answer the prompts of B images: all masks, (B, num_multimask + 1, 4 s, 4 s).

        `mask_token_shift`, (B, num_multimask + 1, E), is added to the mask tokens; None is SAM.
        """
        embedded = self.prompt_encoder(prompts, features.embedding.shape[0])
        masks: SamMasks = self.mask_decoder(
            features.embedding,
            self.prompt_encoder.grid_positions(),
            embedded,
            mask_token_shift=mask_token_shift,
        )
        return masks

    def forward(self, image: Tensor, prompts: Prompts2d) -> SamMasks:
        """(B, 3, S, S) normalised and the prompts of B images -> all masks."""
        return self.decode(self.encode_image(image), prompts)


@dataclass(frozen=True, slots=True)
class SquareFit:
    """How an image lies in the network's square input: enlarged or shrunk, at the top left.

    Pixel coordinates have centres at integers, in both. (SAM's own tool scales the numbers of pixels
    instead, which is (factor - 1) / 2 pixels of the input aside.)

    Attributes:
        image_shape_hw: (H, W) of the image.
        resized_shape_hw: (H, W) of what it was resized to; the longer is the side of the input.
        side_pixel: side of the input.
    """

    image_shape_hw: tuple[int, int]
    resized_shape_hw: tuple[int, int]
    side_pixel: int

    def to_network(self, xy_pixel: Tensor) -> Tensor:
        """Points (..., 2) or boxes (..., 4) in pixels of the image -> the same in those of the input."""
        factor = self._input_pixels_per_image_pixel(xy_pixel)
        return (xy_pixel + 0.5) * factor - 0.5

    def to_image(self, xy_pixel: Tensor) -> Tensor:
        """Points (..., 2) or boxes (..., 4) in pixels of the input -> the same in those of the image."""
        factor = self._input_pixels_per_image_pixel(xy_pixel)
        return (xy_pixel + 0.5) / factor - 0.5

    def _input_pixels_per_image_pixel(self, like: Tensor) -> Tensor:
        """Return the factors of x and y, once or twice."""
        (h, w), (resized_h, resized_w) = self.image_shape_hw, self.resized_shape_hw
        factor = torch.tensor([resized_w / w, resized_h / h], device=like.device)
        return factor.repeat(like.shape[-1] // 2)


def square_fit(image_shape_hw: tuple[int, int], side_pixel: int) -> SquareFit:
    """Return how an image of (H, W) fills a square: the longer side all of it; ConfigError without pixels."""
    longest = max(image_shape_hw)
    if min(image_shape_hw) < 1:
        raise ConfigError(f"the image has shape {image_shape_hw}, but it needs at least one pixel")
    h, w = (max(1, int(n * side_pixel / longest + 0.5)) for n in image_shape_hw)
    return SquareFit(image_shape_hw, (h, w), side_pixel)


def prepare_image(image: Tensor, config: Sam2dConfig) -> tuple[Tensor, SquareFit]:
    """Scale, normalise, resize and pad one image for the network; ConfigError for another shape or values.

    It is (H, W) grey or (H, W, 3) red, green, blue; uint8 in 0..255, or floating point in 0..1 (a slice of a
    scan after its window).

    Returns:
        (3, S, S) float32, zero at right or bottom where the image does not reach, and how it lies there.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ConfigError(f"the image has shape {tuple(image.shape)}, but (H, W) or (H, W, 3) is expected")
    top = 255.0 if config.input_range == "0..255" else 1.0
    fit = square_fit((image.shape[0], image.shape[1]), config.image_side)
    values = _in_unit_range(image) * top
    channels = values.expand(3, -1, -1) if image.ndim == 2 else values.permute(2, 0, 1)
    mean = torch.tensor(config.pixel_mean, device=image.device).view(3, 1, 1)
    std = torch.tensor(config.pixel_std, device=image.device).view(3, 1, 1)
    resized = _resized(((channels - mean) / std)[None], fit.resized_shape_hw)
    h, w = fit.resized_shape_hw
    return F.pad(resized[0], (0, fit.side_pixel - w, 0, fit.side_pixel - h)), fit


def logits_to_image(logits: Tensor, fit: SquareFit) -> Tensor:
    """Put logits back on the image: (B, M, h, w) over the whole input -> (B, M, H, W).

    They are resized to the input, cropped of its padding, and resized to the image; bilinear, averaging
    where they shrink.
    """
    side = (fit.side_pixel, fit.side_pixel)
    h, w = fit.resized_shape_hw
    return _resized(_resized(logits, side)[:, :, :h, :w], fit.image_shape_hw)


def sam2d_preset(name: str) -> Sam2dConfig:
    """Return SAM's "vit_b", "vit_l", "vit_h", or "litemedsam" or "tiny" (tests); else ConfigError."""
    if name in SAM_SIZES:
        width, depth, num_heads, blocks = SAM_SIZES[name]
        return Sam2dConfig(
            image_encoder=SamVit2dConfig(
                width=width, depth=depth, num_heads=num_heads, global_blocks=blocks, taps=blocks
            )
        )
    presets = {"litemedsam": _litemedsam_preset, "tiny": _tiny_preset}
    if name not in presets:
        raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join((*SAM_SIZES, *presets))}")
    return presets[name]()


def _grid_side(config: SamVit2dConfig | TinyVitConfig) -> int:
    if isinstance(config, SamVit2dConfig):
        return config.grid_side
    return -(-config.image_side // config.stage_strides[-1])


def _litemedsam_preset() -> Sam2dConfig:
    """Return LiteMedSAM: 256-pixel input in 0..1 as it is, 64 x 64 cells, so masks of 256 x 256."""
    return Sam2dConfig(
        image_encoder=TinyVitConfig(),
        prompt=SamPromptConfig(image_side=256, grid_side=64),
        input_range="0..1",
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    )


def _tiny_preset() -> Sam2dConfig:
    """Return a network for tests: 64-pixel input, 8 x 8 tokens that windows of 3 do not divide."""
    encoder = SamVit2dConfig(
        image_side=64,
        patch_side=8,
        width=24,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        window=3,
        global_blocks=(1,),
        taps=(0, 1),
        feature_width=32,
    )
    return Sam2dConfig(
        image_encoder=encoder,
        prompt=SamPromptConfig(width=32, image_side=64, grid_side=8, mask_channels=8),
        decoder=SamMaskDecoderConfig(width=32, num_heads=4, mlp_width=48, iou_width=24),
    )


def _in_unit_range(image: Tensor) -> Tensor:
    """uint8 in 0..255 or floating point in 0..1 -> float32 in 0..1."""
    if image.dtype == torch.uint8:
        return image.to(torch.float32) / 255
    if not image.is_floating_point():
        raise ConfigError(f"the image is stored as {image.dtype}, but uint8 or floating point is expected")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise ConfigError(
            f"the image has values from {low:g} to {high:g}, but 0..1 is expected; window it first"
        )
    return image.to(torch.float32)


def _resized(images: Tensor, shape_hw: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear; averages where it shrinks."""
    return F.interpolate(images, size=shape_hw, mode="bilinear", align_corners=False, antialias=True)


METHOD = Method(Sam2dConfig, Sam2d)
