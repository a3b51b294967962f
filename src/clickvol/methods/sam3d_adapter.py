"""3DSAM-adapter: SAM adapted from 2D to 3D, one adapter per block.

Gong et al., arXiv 2306.13465. ProMISe-3D and TAGS are built on it. Two variants: prompted by clicks, and
automatic, which takes no click, looks at a patch of twice the side and is slid over the scan.
"""

from dataclasses import replace

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import LossRecipe, Method, Recipe, TrainingClicks
from clickvol.methods.sizes import network_size, published_encoder

METHOD_ID = "sam3d_adapter"

PRESETS = ("released", "automatic")
"""`released`: prompted. `automatic`: without clicks, by sliding window."""


def sam3d_adapter_recipe(preset: str = "released", size: str = "vit_b") -> Recipe:
    """Return a variant of 3DSAM-adapter, one of `PRESETS`, in a size of `network_size`; else ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"3DSAM-adapter has no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    prompted = sam3d_adapter_network(size)
    # Released training: Dice and cross-entropy, 10 clicks inside and 20 anywhere.
    recipe = Recipe(
        method=METHOD_ID, preset=preset, network=prompted, loss=LossRecipe(), training_clicks=TrainingClicks()
    )
    if preset == "released":
        return recipe
    return replace(recipe, network=_automatic(size), training_clicks=None)


def sam3d_adapter_network(size: str) -> LiftedSegmenterConfig:
    """Return the prompted network: one adapter per block, no image branch, maps enlarged by interpolation."""
    parts = network_size(size)
    return LiftedSegmenterConfig(
        patch_shape_dhw=parts.patch_shape_dhw,
        encoder=published_encoder(parts, "none"),
        prompt=parts.prompt,
        decoder=replace(parts.decoder, level_enlargement="trilinear", image_fusion="none", image_width=0),
    )


def _automatic(size: str) -> LiftedSegmenterConfig:
    """Return the network without clicks: twice the patch on the same tokens, so half the enlargement.

    Released: patches of 256^3 enlarged by 2 instead of 128^3 enlarged by 4, and a last enlargement of the
    logits of 4 instead of 2. LiteMedSAM's slices are not enlarged: there twice the patch has twice the tokens.
    """
    prompted = sam3d_adapter_network(size)
    d, h, w = prompted.patch_shape_dhw
    encoder, decoder = prompted.encoder, prompted.decoder
    if isinstance(encoder, LiftedVitConfig):
        encoder = replace(encoder, enlargement=encoder.enlargement // 2)
        stride = 2 * decoder.decoder_stride
        decoder = replace(decoder, token_stride=encoder.token_stride, decoder_stride=stride)
    return replace(
        prompted, patch_shape_dhw=(2 * d, 2 * h, 2 * w), encoder=encoder, prompt=None, decoder=decoder
    )


METHOD = Method(LiftedSegmenterConfig, LiftedSegmenter, sam3d_adapter_recipe)
