"""The layout of the official ProMISe-3D checkpoints, as a table of names and axes.

The official network keeps its tokens in (H, W, D) order; ours are (d, h, w) throughout. So the spatial
axes of 3D kernels are turned on the way. Everything that the official network stores but does not use, or
that follows from the rest, is dropped: shift masks, prompt encoders 0 to 2, the Fourier matrix and the
token-to-image attention of prompt encoder 3.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError

_ENCODER_RULES = (
    (r"pos_embed", "pos_embed"),
    (r"depth_embed", "depth_embed"),
    (r"patch_embed\.proj\.(weight|bias)", r"embedding.patch_embed.\1"),
    (r"slice_embed\.(weight|bias)", r"embedding.slice_embed.\1"),
    (r"blocks\.(\d+)\.(norm1|norm2)\.(weight|bias)", r"blocks.\1.\2.\3"),
    (r"blocks\.(\d+)\.attn\.(rel_pos_[dhw])", r"blocks.\1.attn.\2"),
    (r"blocks\.(\d+)\.attn\.lr", r"blocks.\1.attn.relative_scale"),
    (r"blocks\.(\d+)\.attn\.(qkv|proj)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (r"blocks\.(\d+)\.mlp\.(lin1|lin2)\.(weight|bias)", r"blocks.\1.mlp.\2.\3"),
    (r"blocks\.(\d+)\.(adapter|adapter_back)\.linear1\.(weight|bias)", r"blocks.\1.\2.down.\3"),
    (r"blocks\.(\d+)\.(adapter|adapter_back)\.conv\.(weight|bias)", r"blocks.\1.\2.mix.\3"),
    (r"blocks\.(\d+)\.(adapter|adapter_back)\.linear2\.(weight|bias)", r"blocks.\1.\2.up.\3"),
    (r"neck_3d\.(\d+)\.([0-3])\.(weight|bias)", r"necks.\1.\2.\3"),
)
_ENCODER_DROPPED = re.compile(r"blocks\.\d+\.attn_mask")

_PROMPT_RULES = (
    (r"transformer\.layers\.(\d+)\.global_query", r"layers.\1.global_query"),
    (r"transformer\.layers\.(\d+)\.(self_attn\..+)", r"layers.\1.\2"),
    (r"transformer\.layers\.(\d+)\.(norm[1-4]\..+)", r"layers.\1.\2"),
    (r"transformer\.layers\.(\d+)\.(mlp\..+)", r"layers.\1.\2"),
    (
        r"transformer\.layers\.(\d+)\.cross_attn_image_to_token\.(.+)",
        r"layers.\1.image_to_query.\2",
    ),
)
_PROMPT_DROPPED = re.compile(
    r"positional_encoding_gaussian_matrix|transformer\.layers\.\d+\.cross_attn_token_to_image\..+"
)

# The official heads are numbered from 2 (shallow) to 5 (deepest).
_DECODER_RULES = (
    (r"mlahead\.head([2-5])\.0\.weight", r"level_convs.<\1>.0.weight"),
    (r"mlahead\.head([2-5])\.3\.weight", r"level_convs.<\1>.2.weight"),
    (r"mlahead\.up([2-5])\.(weight|bias)", r"level_ups.<\1>.\2"),
    (r"image_feature_extractor\.0\.weight", "image_branch.0.weight"),
    (r"image_feature_extractor\.3\.weight", "image_branch.2.weight"),
    (r"(?:head|cls_hao)\.0\.weight", "join.weight"),
    (r"(?:head|cls_hao)\.3\.weight", "classify.weight"),
)
# The official order of joined channels is four levels, image branch, image: the same as ours.


def from_official(
    encoder: Mapping[str, Tensor], prompt: Mapping[str, Tensor], decoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the state of our network from the three state dicts of an official checkpoint.

    Args:
        encoder: `encoder_dict`.
        prompt: the last of the four in `feature_dict`, the only one that the official network calls.
        decoder: `decoder_dict`.

    Raises:
        DamagedWeightsError: when a key is of none of the known kinds; the message lists them.
    """
    unknown: list[str] = []
    state: dict[str, Tensor] = {}
    parts = (
        ("image_encoder", encoder, _ENCODER_RULES, _ENCODER_DROPPED),
        ("prompt_encoder", prompt, _PROMPT_RULES, _PROMPT_DROPPED),
        ("mask_decoder", decoder, _DECODER_RULES, None),
    )
    for prefix, tensors, rules, dropped in parts:
        for key, tensor in tensors.items():
            if dropped is not None and dropped.fullmatch(key):
                continue
            name = _renamed(key, rules)
            if name is None:
                unknown.append(key)
            else:
                state[f"{prefix}.{name}"] = _turned(tensor)
    if unknown:
        msg = f"the checkpoint has keys that are not ProMISe-3D's: {', '.join(sorted(unknown))}"
        raise DamagedWeightsError(msg)
    return state


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, target in rules:
        match = re.fullmatch(pattern, key)
        if match:
            name = match.expand(target)
            return re.sub(r"<(\d)>", lambda found: str(int(found.group(1)) - 2), name)
    return None


def _turned(tensor: Tensor) -> Tensor:
    """Turn the (H, W, D) axes of an official 3D kernel into (D, H, W)."""
    return torch.movedim(tensor, -1, -3).contiguous() if tensor.ndim == 5 else tensor
