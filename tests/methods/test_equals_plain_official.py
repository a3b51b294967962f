"""Imported checkpoints against the published networks written out plainly, from the file to the logits.

The plain form knows neither our names nor our order of axes, so an error in either shows here.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol import load_model, patch_logits
from clickvol.cli.app import main
from reference import seeded_official as so
from reference.plain_official import plain_official

TOLERANCE = 1e-4


def both(official, folder, clicks, *, prompted=True):
    """Return the logits by way of a user, and plainly."""
    content = so.make_checkpoint(official, prompted=prompted)
    file = folder / "best.pth.tar"
    torch.save(content, file)
    words = ["models", "import", file, "--method", official.method, "-o", folder / "model"]
    assert main([str(word) for word in words]) == 0
    model = load_model(folder / "model", device="cpu")
    patch = so.make_patch(official.patch_side)
    result = patch_logits(model, patch, clicks)
    return result, plain_official(content, patch, clicks, heads=official.heads)


@pytest.mark.parametrize("clicks", ["centre", "offcentre", "ten", "outside"])
@pytest.mark.parametrize("official", [so.TINY, so.TINY_SAM3D], ids=["promise3d", "sam3d_adapter"])
def test_the_prompted_networks(official, clicks, tmp_path):
    result, expected = both(official, tmp_path, so.make_clicks(official.patch_side)[clicks])
    assert result.shape == (2, 32, 32, 32)
    assert expected.std() > 0.3
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


def test_four_windows_a_side_as_at_the_published_size(tmp_path):
    result, expected = both(replace(so.TINY, tokens=16), tmp_path, [[9, 40, 55]])
    assert result.shape == (2, 64, 64, 64)
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


def test_the_automatic_network(tmp_path):
    automatic = replace(so.TINY_SAM3D, stride=8)
    result, expected = both(automatic, tmp_path, np.zeros((0, 3)), prompted=False)
    assert result.shape == (2, 64, 64, 64)
    assert expected.std() > 0.3
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_3dsam_adapter_with_blocks_of_the_width_of_vit_b(tmp_path):
    # Four of its twelve blocks: one of each kind and a plain one, a map behind each. Two windows a side.
    wide = replace(so.TINY_SAM3D, width=so.SAM3D.width, heads=so.SAM3D.heads, mlp=so.SAM3D.mlp)
    wide = replace(wide, feature_width=so.SAM3D.feature_width, decoder_width=so.SAM3D.decoder_width)
    wide = replace(wide, prompt_mlp=so.SAM3D.prompt_mlp)
    result, expected = both(wide, tmp_path, so.make_clicks(32)["offcentre"])
    assert result.shape == (2, 32, 32, 32)
    assert expected.std() > 0.3
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("change", ["swap h and w", "swap d and h", "other click", "no mask"])
def test_the_comparison_sees_mistakes(change):
    content = so.make_checkpoint(so.TINY_SAM3D)
    patch, clicks = so.make_patch(32), so.make_clicks(32)["offcentre"]
    expected = plain_official(content, patch, clicks, heads=4)
    weights = content["encoder_dict"]
    if change == "no mask":
        weights["blocks.0.attn_mask"].zero_()
    elif change == "other click":
        clicks = [[clicks[0][1], clicks[0][0], clicks[0][2]]]
    else:
        axes = (-3, -2) if change == "swap h and w" else (-1, -3)
        name = "blocks.1.adapter.conv.weight"
        weights[name] = weights[name].transpose(*axes)
    result = plain_official(content, patch, clicks, heads=4)
    assert np.abs(result - expected).max() > 20 * TOLERANCE
