"""ProMISe-2D: a frozen SAM that is told where to look and shifted towards the images at hand.

Wang et al., arXiv 2403.04164. The auto-prompting module (APM) predicts points from the encoder's
intermediate maps; the pattern embedding (PaE) turns the image embedding into a shift of the decoder's mask
tokens (IPS). Each works alone or together; nothing of SAM is trained. "Released" below is the authors' code.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.sam_vit2d import SamVit2dConfig
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.mask_decoders.pattern_shift import LastLayer, PatternEmbedding, PatternEmbeddingConfig
from clickvol.methods.recipe import Method
from clickvol.methods.sam2d import Sam2d, Sam2dConfig, sam2d_preset
from clickvol.prompt_encoders.auto_prompt import AutoPrompter, AutoPrompterConfig, Form
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.prompts.simulate import sample_points

METHOD_ID = "promise2d"

Mode = Literal["apm", "ips", "promise"]
PointSource = Literal["auto"] | Prompts2d

PRESETS = ("released", "clickvol")
"""What the released code does, and our repaired form."""

# The released code reads the encoder after blocks 6, 9 and 12 of 12, the three deepest of four taps.
_NUM_TAPS_READ = 3

# The parts of `Promise2dConfig` that each mode adds to SAM.
_PARTS = {"apm": ("auto_prompter",), "ips": ("pattern",), "promise": ("auto_prompter", "pattern")}


@dataclass(frozen=True, kw_only=True)
class Promise2dConfig:
    """The whole network.

    Attributes:
        sam: the frozen foundation. Sizes that must agree with it are checked.
        mode: "apm" (predicted points), "ips" (shifted tokens, points given) or "promise" (both).
        auto_prompter: of the modes "apm" and "promise"; None in "ips".
        pattern: of the modes "ips" and "promise"; None in "apm".
        mask_token: which of SAM's masks is the answer: 1, the first of the three for ambiguous prompts
            (released).
    """

    sam: Sam2dConfig
    mode: Mode
    auto_prompter: AutoPrompterConfig | None = None
    pattern: PatternEmbeddingConfig | None = None
    mask_token: int = 1

    def __post_init__(self) -> None:
        parts = {"auto_prompter": self.auto_prompter, "pattern": self.pattern}
        if tuple(name for name, part in parts.items() if part is not None) != _PARTS[self.mode]:
            raise ConfigError(
                f"mode {self.mode!r} goes with {' and '.join(_PARTS[self.mode])} and nothing else; give "
                "exactly these"
            )
        num_masks = self.sam.decoder.num_multimask + 1
        if not 0 <= self.mask_token < num_masks:
            raise ConfigError(
                f"mask_token is {self.mask_token}, but this SAM has the masks 0 to {num_masks - 1}"
            )
        pairs: list[tuple[str, object, object]] = []
        if self.auto_prompter is not None:
            sizes = _tap_sizes(self.sam.image_encoder)
            if any(not 0 <= i < len(sizes) for i in self.auto_prompter.taps):
                raise ConfigError(
                    f"auto_prompter.taps is {self.auto_prompter.taps}, but the encoder has {len(sizes)} taps"
                )
            read = tuple(sizes[i] for i in self.auto_prompter.taps)
            prompter_taps = tuple(zip(self.auto_prompter.tap_widths, self.auto_prompter.tap_sides, strict=True))
            pairs.append(("widths and sides of the taps of auto_prompter", prompter_taps, read))
            side = self.auto_prompter.image_side
            pairs.append(("auto_prompter.image_side", side, self.sam.image_side))
        if self.pattern is not None:
            width = self.sam.image_encoder.feature_width
            pairs.append(("pattern.width", self.pattern.width, width))
            pairs.append(("pattern.num_mask_tokens", self.pattern.num_mask_tokens, num_masks))
        for name, value, expected in pairs:
            if value != expected:
                raise ConfigError(f"{name} is {value}, but sam asks for {expected}")


@dataclass(frozen=True, slots=True)
class Promise2dMasks:
    """The answer for B images.

    Attributes:
        logits: (B, 1, 4 s, 4 s), above 0 inside; s cells of the image embedding per side. They cover the
            whole square input, padding included (`methods.sam2d.logits_to_image` puts them back).
        iou: (B,), SAM's guess of the mask's intersection over union, not clamped and not trained.
        prompts: what was answered; the predicted points where these were asked for.
    """

    logits: Tensor
    iou: Tensor
    prompts: Prompts2d


class Promise2d(nn.Module):
    """Image, and points where they are given -> one mask. Only APM and PaE have gradients."""

    def __init__(self, config: Promise2dConfig) -> None:
        super().__init__()
        self.config = config
        self.sam = Sam2d(config.sam).requires_grad_(requires_grad=False)
        self.sam.eval()
        self.auto_prompter = AutoPrompter(config.auto_prompter) if config.auto_prompter else None
        self.pattern_embedding = PatternEmbedding(config.pattern) if config.pattern else None

    def train(self, mode: bool = True) -> "Promise2d":  # noqa: FBT001, FBT002 - nn.Module's signature
        """Set the mode of the trained parts; a frozen foundation stays as it is used."""
        super().train(mode)
        self.sam.eval()
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter of APM and PaE by its name in the state dict, and none of SAM."""
        parts = {"auto_prompter": self.auto_prompter, "pattern_embedding": self.pattern_embedding}
        return {
            f"{name}.{inner}": parameter
            for name, part in parts.items()
            if part is not None
            for inner, parameter in part.named_parameters()
        }

    def encode_image(self, image: Tensor) -> SliceFeatures:
        """Do the costly part: (B, 3, S, S) normalised -> features, which no training changes."""
        with torch.no_grad():
            return self.sam.encode_image(image)

    def decode(self, features: SliceFeatures, *, points: PointSource) -> Promise2dMasks:
        """Answer points, given or predicted ("auto"; ConfigError in mode "ips"), with mask `config.mask_token`.

        Given points are of the same B images, from a user or drawn from the truth (`prompts_from_truth`). In
        mode "apm" they are answered by SAM unchanged, in "promise" by SAM with shifted tokens (the paper's
        APM_IPS_GT).
        """
        prompts = self._predicted_prompts(features) if isinstance(points, str) else points
        shift = None
        if self.pattern_embedding is not None:
            shift = self.pattern_embedding(features.embedding)
        masks = self.sam.decode(features, prompts, mask_token_shift=shift)
        token = self.config.mask_token
        return Promise2dMasks(
            logits=masks.logits[:, token : token + 1], iou=masks.iou[:, token], prompts=prompts
        )

    def forward(self, image: Tensor, *, points: PointSource) -> Promise2dMasks:
        """(B, 3, S, S) normalised, and points as in `decode` -> one mask each."""
        return self.decode(self.encode_image(image), points=points)

    def _predicted_prompts(self, features: SliceFeatures) -> Prompts2d:
        if self.auto_prompter is None:
            raise ConfigError(f"mode {self.config.mode!r} predicts no points; give them, or use mode 'promise'")
        prompts: Prompts2d = self.auto_prompter(features.taps)
        return prompts


def prompts_from_truth(truth: Tensor, num_points: int, rng: np.random.Generator) -> Prompts2d:
    """Draw N points and labels, (B, N, 2) and (B, N), from masks (B, 1, S, S) of the network's square input.

    Above 0 is inside; images are drawn for in their order, as `prompts.simulate.sample_points` says.
    """
    drawn = [sample_points(mask, num_points, rng) for mask in (truth[:, 0] > 0).cpu().numpy()]
    points = np.stack([points for points, _ in drawn]).astype(np.float32)
    labels = np.stack([labels for _, labels in drawn])
    return Prompts2d(
        points_xy_pixel=torch.from_numpy(points).to(truth.device),
        labels=torch.from_numpy(labels).to(truth.device),
    )


def binary_mask(logits: Tensor, *, opening_side_pixel: int = 0) -> Tensor:
    """Threshold (B, 1, h, w) logits at probability one half; return (B, 1, h, w) bool.

    Where an odd side above 0 is given, else ConfigError, what a square of that side does not fit into is
    removed (a morphological opening). The image ends at its border as if the mask went on there.
    """
    mask = logits > 0
    if opening_side_pixel == 0:
        return mask
    if opening_side_pixel < 0 or opening_side_pixel % 2 == 0:
        raise ConfigError(f"opening_side_pixel is {opening_side_pixel}, but it must be odd and positive, or 0")
    half = opening_side_pixel // 2

    def dilated(values: Tensor) -> Tensor:
        return F.max_pool2d(values, opening_side_pixel, stride=1, padding=half)

    return dilated(-dilated(-mask.to(logits.dtype))) > 0.5


@dataclass(frozen=True, kw_only=True)
class Promise2dTraining:
    """What of its training belongs to the preset. The defaults are the released ones.

    Optimiser, schedule and augmentation belong to a training file: the released scripts have Adam at a constant
    1e-5, batches of 8 and 200 epochs; `configs/promise2d-litemedsam.toml` is ours.

    Attributes:
        num_sampled_points: points drawn from the truth in mode "ips", anew for every step; 16 (scripts).
        sigmoid: "twice": the model applies it and the loss again (released code; surely unintended).
    """

    num_sampled_points: int = 16
    sigmoid: Literal["once", "twice"] = "twice"


@dataclass(frozen=True, kw_only=True)
class Promise2dRecipe:
    """A system to train and to compare: its name, its network, and how it is trained and scored."""

    preset: str
    network: Promise2dConfig
    training: Promise2dTraining


def promise2d_preset(
    name: str = "released",
    foundation: str = "vit_b",
    mode: Mode = "promise",
    form: Form = "resnet",
    num_points: int = 16,
) -> Promise2dRecipe:
    """Return a variant of ProMISe-2D on a foundation of `sam2d_preset`, published "vit_b"; else ConfigError.

    "clickvol" differs from "released" by one sigmoid and a shift that begins at zero.
    """
    if name not in PRESETS:
        raise ConfigError(f"ProMISe-2D has no preset {name!r}; choose one of {', '.join(PRESETS)}")
    last_layer: LastLayer = "default" if name == "released" else "zero"
    network = promise2d_network(foundation, mode, form=form, last_layer=last_layer, num_points=num_points)
    sigmoid: Literal["once", "twice"] = "twice" if name == "released" else "once"
    training = Promise2dTraining(num_sampled_points=num_points, sigmoid=sigmoid)
    return Promise2dRecipe(preset=name, network=network, training=training)


def promise2d_network(
    foundation: str, mode: Mode, *, form: Form, last_layer: LastLayer, num_points: int = 16
) -> Promise2dConfig:
    """Return the network on a foundation; on SAM ViT-B it is the published one.

    On others the sizes follow the foundation (ours): the ResNet has a quarter of the embedding's width in its
    first stage, the PaE four times that width inside, the queries the width and heads of the deepest tap.
    """
    sam = sam2d_preset(foundation)
    encoder = sam.image_encoder
    sizes = _tap_sizes(encoder)
    taps = tuple(range(len(sizes)))[-_NUM_TAPS_READ:]
    first = encoder.feature_width // 4
    num_heads = encoder.num_heads
    prompter = AutoPrompterConfig(
        form=form,
        num_points=num_points,
        image_side=sam.image_side,
        taps=taps,
        tap_widths=tuple(sizes[i][0] for i in taps),
        tap_sides=tuple(sizes[i][1] for i in taps),
        mixed_width=encoder.feature_width,
        stage_widths=(first, 2 * first, 4 * first, 8 * first),
        query_width=sizes[-1][0],
        num_heads=num_heads if isinstance(num_heads, int) else num_heads[-1],
    )
    pattern = PatternEmbeddingConfig(
        width=encoder.feature_width,
        hidden_width=4 * encoder.feature_width,
        num_mask_tokens=sam.decoder.num_multimask + 1,
        last_layer=last_layer,
    )
    return Promise2dConfig(
        sam=sam,
        mode=mode,
        auto_prompter=prompter if "auto_prompter" in _PARTS[mode] else None,
        pattern=pattern if "pattern" in _PARTS[mode] else None,
    )


def _tap_sizes(encoder: SamVit2dConfig | TinyVitConfig) -> tuple[tuple[int, int], ...]:
    if isinstance(encoder, SamVit2dConfig):
        return ((encoder.width, encoder.grid_side),) * len(encoder.taps)
    sides = (-(-encoder.image_side // stride) for stride in encoder.stage_strides)
    return tuple(zip(encoder.widths, sides, strict=True))


METHOD = Method(Promise2dConfig, Promise2d)
