"""TAGS: 3DSAM-adapter with an organ mask as a third channel and tokens aligned with texts.

arXiv 2505.17096. After the blocks whose output becomes a feature map, a linear layer brings the tokens into
the space of a text encoder; what comes out is blended back into the stream and, in training, compared with
texts of a healthy and of a diseased organ (`training/tasks/alignment_loss.py`). Clicks, prompt encoder and
decoder are 3DSAM-adapter's.
"""

from dataclasses import replace

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.image_encoders.text_alignment import TextAlignmentConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import AlignmentTerm, LossRecipe, Method, Recipe, TrainingClicks
from clickvol.methods.sam3d_adapter import sam3d_adapter_network

METHOD_ID = "tags"

PRESETS = ("released", "clickvol", "no-text", "no-organ-mask", "neither")
"""`released`: with the quirks of the released code. `clickvol`: our repaired form. The others take from the
released one the texts, the organ mask, or both, which leaves 3DSAM-adapter."""

_SCAN_SCAN_ORGAN = (0, 0, 1)
_SCAN_THREE_TIMES = (0, 0, 0)


def tags_recipe(preset: str = "released", size: str = "vit_b") -> Recipe:
    """Return a variant of TAGS, one of `PRESETS`, in a size of `network_size`; else ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"TAGS has no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if preset == "clickvol":
        return _clickvol(size)
    has_text = preset in ("released", "no-organ-mask")
    has_organ = preset in ("released", "no-text")
    network = sam3d_adapter_network(size)
    encoder = replace(
        network.encoder,
        channel_sources=_SCAN_SCAN_ORGAN if has_organ else _SCAN_THREE_TIMES,
        alignment=TextAlignmentConfig() if has_text else None,
    )
    # Released: the name of the data set stands where the organ's would; the focal loss applies softmax to
    # scores that have been through it.
    alignment = AlignmentTerm(focal_input="softmax_again", object_word="dataset")
    return Recipe(
        method=METHOD_ID,
        preset=preset,
        network=replace(network, encoder=encoder),
        loss=LossRecipe(alignment=alignment if has_text else None),
        # Released: 10 clicks inside and 20 anywhere, the tumour included, which it calls negative.
        training_clicks=TrainingClicks(),
    )


def with_text_width(recipe: Recipe, text_width: int) -> Recipe:
    """Return the recipe for another text encoder; unchanged where the recipe uses no text.

    `text_width` counts the values of a text embedding, 768 for CLIP ViT-L/14. ConfigError when it is not
    positive, or the network is not one of TAGS.
    """
    network = recipe.network
    if not isinstance(network, LiftedSegmenterConfig):
        raise ConfigError(f"{recipe.method} aligns nothing with texts; only TAGS does")
    encoder = network.encoder
    if encoder.alignment is None:
        return recipe
    encoder = replace(encoder, alignment=replace(encoder.alignment, text_width=text_width))
    return replace(recipe, network=replace(network, encoder=encoder))


def _clickvol(size: str) -> Recipe:
    """Return our form: organ's own name, usual focal loss, signed clicks, negatives outside the tumour."""
    network = sam3d_adapter_network(size)
    encoder = replace(
        network.encoder,
        channel_sources=_SCAN_SCAN_ORGAN,
        alignment=TextAlignmentConfig(),
        # As in our form of ProMISe-3D: adapters start as no change and may subtract, positions along the
        # depth start as none.
        adapter_initialisation="zero",
        adapter_final_relu=False,
    )
    if isinstance(encoder, LiftedVitConfig):
        encoder = replace(encoder, depth_position_start=0.0)
    if network.prompt is None:
        raise ConfigError("TAGS is prompted by clicks; this network takes none")
    prompt = replace(network.prompt, signed=True, positions="fourier")
    return Recipe(
        method=METHOD_ID,
        preset="clickvol",
        network=replace(network, encoder=encoder, prompt=prompt),
        loss=LossRecipe(alignment=AlignmentTerm()),
        training_clicks=TrainingClicks(others_from="background"),
    )


METHOD = Method(LiftedSegmenterConfig, LiftedSegmenter, tags_recipe)
