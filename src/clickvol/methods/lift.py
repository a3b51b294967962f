"""A 2D foundation's image encoder as the start of a lifted 3D one.

ProMISe-3D (arXiv 2310.19721) and 3DSAM-adapter (arXiv 2306.13465) take the positions, the patch embedding and
the blocks of a SAM ViT as they are, and give the third axis the mean of the other two axes' relative positions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d
from clickvol.layers.state import state_faults
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.sam2d import Sam2d

_NECK = "neck."

_BLOCK_NAMES = (
    *(f"{part}.{kind}" for part in ("norm1", "norm2") for kind in ("weight", "bias")),
    *(f"attn.{part}.{kind}" for part in ("qkv", "proj") for kind in ("weight", "bias")),
    "attn.rel_pos_h",
    "attn.rel_pos_w",
    *(f"mlp.{part}.{kind}" for part in ("lin1", "lin2") for kind in ("weight", "bias")),
)


def lift_foundation(foundation: Sam2d, network: LiftedSegmenter) -> None:
    """Copy SAM's or LiteMedSAM's image encoder into a 3D network, in place; DamagedWeightsError if unfit."""
    state = foundation.image_encoder.state_dict()
    if isinstance(network.image_encoder, LiftedVit3d):
        lift_sam(state, network.image_encoder)
    else:
        network.image_encoder.load_slice_encoder(state)


def lift_sam(sam_image_encoder_state: Mapping[str, Tensor], lifted: LiftedVit3d) -> None:
    """Copy a SAM image encoder into a lifted network, in place; what SAM does not have stays as it is.

    The state is that of ViT-B, L or H without the prefix `image_encoder.`. SAM's neck is not used: the 3D
    methods have their own. Either everything is copied or nothing: DamagedWeightsError lists what does not fit.
    """
    names = _our_names(lifted.config.depth)
    own = dict(lifted.named_parameters())
    given = {name: tensor for name, tensor in sam_image_encoder_state.items() if not name.startswith(_NECK)}
    faults = state_faults(given, {name: own[ours] for name, ours in names.items()})
    if faults:
        raise DamagedWeightsError(
            "these weights are not a SAM image encoder of this network's size; take the file of the "
            f"matching ViT: {'; '.join(faults)}"
        )
    with torch.no_grad():
        for name, ours in names.items():
            own[ours].copy_(sam_image_encoder_state[name])
        for index in range(lifted.config.depth):
            attention = f"blocks.{index}.attn"
            tables = [sam_image_encoder_state[f"{attention}.rel_pos_{axis}"] for axis in "hw"]
            own[f"{attention}.rel_pos_d"].copy_((tables[0] + tables[1]) / 2)


def _our_names(depth: int) -> dict[str, str]:
    names = {"pos_embed": "pos_embed"}
    for kind in ("weight", "bias"):
        names[f"patch_embed.proj.{kind}"] = f"embedding.patch_embed.{kind}"
    for index in range(depth):
        names |= {f"blocks.{index}.{name}": f"blocks.{index}.{name}" for name in _BLOCK_NAMES}
    return names
