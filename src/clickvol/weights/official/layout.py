"""The layout of the official ProMISe-3D and 3DSAM-adapter checkpoints: every name, its shape and its axes.

The official network keeps its tokens in (H, W, D) order; ours are (d, h, w) throughout. So the spatial axes
of 3D kernels are turned on the way. Some tensors have no counterpart here, because the official network
stores but never uses them (prompt encoders 0 to 2, the Fourier matrix, token-to-image attention), or because
they follow from the sizes (shift masks).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.layers.state import state_faults
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.sam3d_adapter import METHOD_ID as SAM3D_ADAPTER
from clickvol.prompt_encoders.feature_sampling import FeatureSamplingConfig
from clickvol.weights.official.sizes import OfficialMethod, Shape, lifted_sam, sizes_of_network

NUM_PROMPT_ENCODERS = 4
"""Prompt encoders in an official checkpoint, one per feature map; only the last is ever called."""

MASKED = -100.0
"""What the official network adds to the logits of two tokens that the shift brought together."""

GAUSSIAN_MATRIX = "positional_encoding_gaussian_matrix"
TOKEN_TO_IMAGE = "cross_attn_token_to_image"

# Names of the last stage: of today's code, and of the files that its authors have released.
_LAST_STAGES = {"promise3d": ("head", "cls_hao"), "sam3d_adapter": ("cls",)}

_Names = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class OfficialTensor:
    """One tensor of an official checkpoint.

    Attributes:
        key: its name in its part of the file.
        ours: its name in our network; None where ours has no such tensor.
        shape: as in the file, 3D kernels in (H, W, D) order.
    """

    key: str
    ours: str | None
    shape: Shape


@dataclass(frozen=True, slots=True)
class OfficialLayout:
    """All tensors of an official checkpoint, in its order: encoder, each prompt encoder, decoder."""

    encoder: tuple[OfficialTensor, ...]
    prompt: tuple[OfficialTensor, ...]
    decoder: tuple[OfficialTensor, ...]


def official_layout(method: OfficialMethod, config: LiftedSegmenterConfig) -> OfficialLayout:
    """Return the layout of a published network; ConfigError when the encoder is no lifted SAM."""
    sizes = sizes_of_network(config)
    with torch.device("meta"):
        state = LiftedSegmenter(config).state_dict()
    shapes: dict[str | None, Shape] = {n: tuple(to_hwd(t).shape) for n, t in state.items()}
    windows, places = (sizes.tokens // sizes.window) ** 3, sizes.window**3

    def entries(names: _Names) -> tuple[OfficialTensor, ...]:
        listed = []
        for key, ours in names:
            if ours is not None:
                shape = shapes[ours]
            elif key == GAUSSIAN_MATRIX:
                shape = (3, sizes.feature_width // 2)
            elif TOKEN_TO_IMAGE in key:
                # Of the same widths as the attention the other way round, which is used.
                other = key.replace(TOKEN_TO_IMAGE, "image_to_query")
                shape = shapes[other.replace("transformer.", "prompt_encoder.", 1)]
            else:
                shape = (windows, places, places)
            listed.append(OfficialTensor(key, ours, shape))
        return tuple(listed)

    return OfficialLayout(
        encoder=entries(_encoder_names(lifted_sam(config))),
        prompt=entries([] if config.prompt is None else _prompt_names(config.prompt)),
        decoder=entries(_decoder_names(method, config.decoder.num_levels)),
    )


def to_dhw(tensor: Tensor) -> Tensor:
    """Turn the (H, W, D) axes of an official 3D kernel into (D, H, W); leave anything else."""
    return torch.movedim(tensor, -1, -3) if tensor.ndim == 5 else tensor


def to_hwd(tensor: Tensor) -> Tensor:
    """Turn the (D, H, W) axes of one of our 3D kernels into (H, W, D); leave anything else."""
    return torch.movedim(tensor, -3, -1) if tensor.ndim == 5 else tensor


def with_current_names(method: OfficialMethod, decoder: Mapping[str, object]) -> dict[str, object]:
    """Return `decoder_dict` with the last stage named as today, where a released file has an older name."""
    current, *older = _LAST_STAGES[method]
    renamed = {f"{old}.{i}.weight": f"{current}.{i}.weight" for old in older for i in (0, 3)}
    return {
        # Both names at once are one too many, and the older one then is then listed as unknown.
        key if renamed.get(key) in decoder else renamed.get(key, key): value
        for key, value in decoder.items()
    }


def misfits(part: str, content: Mapping[str, object], expected: tuple[OfficialTensor, ...]) -> list[str]:
    """Return what is wrong with a part of a checkpoint, one clause each: empty when all is as expected."""
    wanted = {tensor.key: torch.empty(tensor.shape, device="meta") for tensor in expected}
    return state_faults(content, wanted, f"{part}.")


def our_state(layout: OfficialLayout, parts: tuple[Mapping[str, Tensor], ...]) -> dict[str, Tensor]:
    """Return the state of our network; nothing is copied, 3D kernels are views with their axes turned.

    Args:
        layout: that the parts have been compared with.
        parts: encoder, the last prompt encoder (empty for the automatic variant), decoder.
    """
    tables = (layout.encoder, layout.prompt, layout.decoder)
    return {
        entry.ours: to_dhw(tensors[entry.key])
        for table, tensors in zip(tables, parts, strict=True)
        for entry in table
        if entry.ours is not None
    }


def shift_mask(tokens: int, window: int) -> Tensor:
    """Return what the official network stores per block with windows shifted by half their side.

    Returns:
        (windows, window^3, window^3) float32: 0 between tokens that may see each other, else `MASKED`.
    """
    place = torch.arange(tokens)
    region = (place >= tokens - window).long() + (place >= tokens - window // 2).long()
    code = 9 * region[:, None, None] + 3 * region[None, :, None] + region[None, None, :]
    n = tokens // window
    cut = code.view(n, window, n, window, n, window).permute(0, 2, 4, 1, 3, 5).reshape(n**3, -1)
    apart = cut[:, :, None] != cut[:, None, :]
    return torch.zeros(apart.shape).masked_fill_(apart, MASKED)


def _encoder_names(config: LiftedVitConfig) -> _Names:
    names: _Names = [("pos_embed", "pos_embed"), ("depth_embed", "depth_embed")]
    names += _both("patch_embed.proj", "embedding.patch_embed")
    names += _both("slice_embed", "embedding.slice_embed")
    for index in range(config.depth):
        block = f"blocks.{index}"
        if index % 2 == 0:
            names.append((f"{block}.attn_mask", None))
        names += [(f"{block}.{key}", f"{block}.{ours}") for key, ours in _block_names(config)]
    for tap in range(len(config.taps)):
        names.append((f"neck_3d.{tap}.0.weight", f"necks.{tap}.0.weight"))
        names += _both(f"neck_3d.{tap}.1", f"necks.{tap}.1")
        names.append((f"neck_3d.{tap}.2.weight", f"necks.{tap}.2.weight"))
        names += _both(f"neck_3d.{tap}.3", f"necks.{tap}.3")
    return _prefixed("image_encoder", names)


def _block_names(config: LiftedVitConfig) -> _Names:
    names: _Names = _both("norm1", "norm1")
    names += [(f"attn.rel_pos_{axis}", f"attn.rel_pos_{axis}") for axis in "hwd"]
    names.append(("attn.lr", "attn.relative_scale"))
    for layer in ("attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2"):
        names += _both(layer, layer)
    adapters = ("adapter",) if config.second_adapter == "none" else ("adapter", "adapter_back")
    for adapter in adapters:
        for key, ours in (("linear1", "down"), ("conv", "mix"), ("linear2", "up")):
            names += _both(f"{adapter}.{key}", f"{adapter}.{ours}")
    return names


def _prompt_names(config: FeatureSamplingConfig) -> _Names:
    names: _Names = [(GAUSSIAN_MATRIX, None)]
    for index in range(config.depth):
        official, ours = f"transformer.layers.{index}", f"layers.{index}"
        names.append((f"{official}.global_query", f"{ours}.global_query"))
        names += _attention(f"{official}.self_attn", f"{ours}.self_attn")
        names += _both(f"{official}.norm1", f"{ours}.norm1")
        names += [(key, None) for key, _ in _attention(f"{official}.{TOKEN_TO_IMAGE}", "")]
        for layer in ("norm2", "mlp.lin1", "mlp.lin2", "norm3", "norm4"):
            names += _both(f"{official}.{layer}", f"{ours}.{layer}")
        names += _attention(f"{official}.cross_attn_image_to_token", f"{ours}.image_to_query")
    return _prefixed("prompt_encoder", names)


def _decoder_names(method: OfficialMethod, num_levels: int) -> _Names:
    """Return the decoder's names; its levels are numbered from 2, shallow to deep."""
    names: _Names = []
    for level in range(num_levels):
        for official, ours in ((0, 0), (3, 2)):
            key = f"mlahead.head{level + 2}.{official}.weight"
            names.append((key, f"level_convs.{level}.{ours}.weight"))
    if method != SAM3D_ADAPTER:
        for level in range(num_levels):
            names += _both(f"mlahead.up{level + 2}", f"level_ups.{level}")
    last = _LAST_STAGES[method][0]
    # The joined channels are in our order: the levels, the image branch, the image.
    names += [(f"{last}.0.weight", "join.weight"), (f"{last}.3.weight", "classify.weight")]
    if method != SAM3D_ADAPTER:
        names += [
            ("image_feature_extractor.0.weight", "image_branch.0.weight"),
            ("image_feature_extractor.3.weight", "image_branch.2.weight"),
        ]
    return _prefixed("mask_decoder", names)


def _both(official: str, ours: str) -> _Names:
    return [(f"{official}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def _attention(official: str, ours: str) -> _Names:
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    return [pair for p in projections for pair in _both(f"{official}.{p}", f"{ours}.{p}")]


def _prefixed(prefix: str, names: _Names) -> _Names:
    return [(key, None if ours is None else f"{prefix}.{ours}") for key, ours in names]
