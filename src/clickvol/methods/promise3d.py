"""ProMISe-3D: prompt-driven 3D segmentation with a pretrained image foundation model.

Li et al., ISBI 2024, arXiv 2310.19721. 3DSAM-adapter with a second adapter per block, transposed
convolutions and a CNN on the image in the decoder, and a boundary loss.
"""

from dataclasses import replace

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import BoundaryTerm, LossRecipe, Method, Recipe, TrainingClicks
from clickvol.methods.sam3d_adapter import sam3d_adapter_network
from clickvol.methods.sizes import network_size, published_encoder
from clickvol.prompts.spatial import NUM_HINTS

METHOD_ID = "promise3d"

FIDELITIES = ("released", "paper", "clickvol")
"""What the released code does, what the paper's text says, and our repaired form."""

ABLATIONS = ("baseline", "two-adapters", "up-conv", "r", "r-b", "c", "c-b")
"""Rows of the paper's Table 2, each adding to the one before: 3DSAM-adapter, a second adapter, transposed
convolutions; then the CNN on the image, added (R) or concatenated (C), without and with the boundary loss
(B)."""

PROMPTS = "clickvol-prompts"
"""Our repaired form that also knows drawn prompts (line, box, scribble, lasso) and offers candidates."""

PRESETS = (*FIDELITIES, PROMPTS, *(f"table2-{name}" for name in ABLATIONS))
"""Fidelities of the whole system, ours with more prompts, and the rows of Table 2 (as released)."""

_CLICK_RADII_VOXEL = (2.0, 6.0, 18.0)

# Small, medium and large; chosen, as SAM has them.
_NUM_CANDIDATES = 3


def promise3d_recipe(preset: str = "released", size: str = "vit_b") -> Recipe:
    """Return a variant of ProMISe-3D, one of `PRESETS`, in a size of `network_size`; else ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"ProMISe-3D has no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if preset == "paper":
        return _paper(size)
    if preset in ("clickvol", PROMPTS):
        return _clickvol(preset, size)
    if preset == "released":
        return _table2("c-b", preset, size)
    return _table2(preset.removeprefix("table2-"), preset, size)


def _table2(row: str, preset: str, size: str) -> Recipe:
    """Return a row of Table 2 as the released code does it; the last one, C-B, is the system itself."""
    network = sam3d_adapter_network(size)
    done = ABLATIONS.index(row)
    if done >= ABLATIONS.index("two-adapters"):
        # The released block adds its input once more after the second adapter (doubled residual).
        network = replace(network, encoder=published_encoder(network_size(size), "doubled"))
    if done >= ABLATIONS.index("up-conv"):
        decoder = replace(network.decoder, level_enlargement="transposed")
        network = replace(network, decoder=decoder)
    if row in ("r", "r-b"):
        width = network.decoder.width
        decoder = replace(network.decoder, image_fusion="added", image_width=width)
        network = replace(network, decoder=decoder)
    if row in ("c", "c-b"):
        width = network_size(size).decoder.image_width
        decoder = replace(network.decoder, image_fusion="concatenated", image_width=width)
        network = replace(network, decoder=decoder)
    # Released code: weight 10, pooling window (5, 5, 1) over (D, H, W) with zeros counted in the mean, both
    # softmax channels against the one label.
    boundary = BoundaryTerm(kernel_dhw=(5, 5, 1), border="zeros_counted", channels="both")
    return Recipe(
        method=METHOD_ID,
        preset=preset,
        network=network,
        loss=LossRecipe(boundary=boundary if row.endswith("-b") else None),
        training_clicks=TrainingClicks(),
    )


def _paper(size: str) -> Recipe:
    """Return what the paper's text says where the released code does something else."""
    parts = network_size(size)
    network = LiftedSegmenterConfig(
        patch_shape_dhw=parts.patch_shape_dhw,
        # Section 2.2: the second adapter is identical to the first.
        encoder=published_encoder(parts, "plain"),
        # Figure 3: the positions of the points enter the prompt encoder.
        prompt=replace(parts.prompt, positions="fourier"),
        decoder=parts.decoder,
    )
    # Section 2.4: Dice + cross-entropy and the boundary loss as 1 : 10, a kernel of 5, taken of the logits.
    boundary = BoundaryTerm(weight=10.0, kernel_dhw=(5, 5, 5), compared="logits")
    return Recipe(
        method=METHOD_ID,
        preset="paper",
        network=network,
        loss=LossRecipe(dice_weight=1.0, cross_entropy_weight=1.0, boundary=boundary),
        # Section 3.1: 10 points in the foreground and 10 in the background.
        training_clicks=TrainingClicks(foreground=10, others=10, others_from="background"),
    )


def _clickvol(preset: str, size: str) -> Recipe:
    """Return our repaired form: signed clicks that the network can place, nothing doubled, no border effect."""
    parts = network_size(size)
    num_hints = NUM_HINTS if preset == PROMPTS else 0
    encoder = parts.encoder
    if isinstance(encoder, LiftedVitConfig):
        encoder = replace(
            encoder,
            second_adapter="plain",
            # Adapters start as no change and may subtract, positions along the depth start as none; those of
            # LiteMedSAM's size do by themselves, one after each stage.
            adapter_initialisation="zero",
            adapter_final_relu=False,
            depth_position_start=0.0,
        )
    network = LiftedSegmenterConfig(
        patch_shape_dhw=parts.patch_shape_dhw,
        encoder=encoder,
        prompt=replace(parts.prompt, signed=True, positions="fourier"),
        decoder=replace(
            parts.decoder,
            num_prompt_maps=2 * len(_CLICK_RADII_VOXEL) + 1 + num_hints,
            joined_scales=parts.joined_scales,
        ),
        click_radii_voxel=_CLICK_RADII_VOXEL,
        mask_prompt=True,
        num_hints=num_hints,
        num_candidates=_NUM_CANDIDATES if num_hints else 0,
    )
    return Recipe(method=METHOD_ID, preset=preset, network=network, loss=LossRecipe(boundary=BoundaryTerm()))


METHOD = Method(LiftedSegmenterConfig, LiftedSegmenter, promise3d_recipe)
