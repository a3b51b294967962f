from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.image_encoders.sam_vit2d import SamVit2d, SamVit2dConfig
from reference.compare import deviation, noise, randomise
from reference.plain_attention2d import plain_block2d

TINY = SamVit2dConfig(
    image_side=40,
    patch_side=8,
    width=12,
    depth=3,
    num_heads=3,
    mlp_ratio=2.0,
    window=2,
    global_blocks=(1,),
    taps=(0, 2),
    feature_width=6,
)


def make_encoder():
    torch.manual_seed(0)
    return randomise(SamVit2d(TINY))


def plain_norm(x, norm):
    mean = x.mean(1, keepdim=True)
    scaled = (x - mean) / ((x - mean).square().mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_it_is_embedding_positions_blocks_and_neck():
    encoder, image = make_encoder(), noise(2, 3, 40, 40)
    result = encoder(image)
    kernel = encoder.patch_embed.proj.weight
    patches = image.unfold(2, 8, 8).unfold(3, 8, 8)
    tokens = torch.einsum("bchwyx,ecyx->bhwe", patches, kernel) + encoder.patch_embed.proj.bias
    tokens = tokens + encoder.pos_embed
    taps = []
    for block in encoder.blocks:
        tokens = torch.stack([plain_block2d(block, grid) for grid in tokens])
        taps.append(tokens.permute(0, 3, 1, 2))
    narrow = plain_norm(F.conv2d(taps[-1], encoder.neck[0].weight), encoder.neck[1])
    embedding = plain_norm(F.conv2d(narrow, encoder.neck[2].weight, padding=1), encoder.neck[3])
    assert deviation(result.embedding, embedding) < 1e-5
    assert deviation(result.taps[0], taps[0]) < 1e-5
    assert deviation(result.taps[1], taps[2]) < 1e-5
    assert len(result.taps) == 2


def test_rows_and_columns_are_not_exchanged():
    encoder, image = make_encoder(), noise(1, 3, 40, 40)
    turned = encoder(image.mT).embedding.mT
    assert deviation(encoder(image).embedding, turned) > 1e-2


@pytest.mark.parametrize("shape", [(1, 3, 48, 48), (1, 1, 40, 40), (1, 3, 40, 32), (3, 40, 40)])
def test_another_shape_is_refused_in_one_line(shape):
    with pytest.raises(ConfigError, match=r"takes \(B, 3, 40, 40\); resize"):
        make_encoder()(torch.zeros(shape))


def test_names_are_those_of_the_published_file():
    names = set(make_encoder().state_dict())
    block = {
        *(f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")),
        *(f"attn.{part}.{kind}" for part in ("qkv", "proj") for kind in ("weight", "bias")),
        *(f"mlp.lin{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")),
        "attn.rel_pos_h",
        "attn.rel_pos_w",
    }
    expected = {f"blocks.{n}.{name}" for n in range(3) for name in block}
    expected |= {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    expected |= {"neck.0.weight", "neck.1.weight", "neck.1.bias"}
    expected |= {"neck.2.weight", "neck.3.weight", "neck.3.bias"}
    assert names == expected


def test_tables_are_made_for_window_or_image():
    with torch.device("meta"):
        encoder = SamVit2d(SamVit2dConfig())
    rows = [block.attn.rel_pos_w.shape[0] for block in encoder.blocks]
    assert rows == [27, 27, 127] * 4
    assert encoder.pos_embed.shape == (1, 64, 64, 768)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_side": 42}, "image_side 42 is not a multiple of patch_side 8"),
        ({"num_heads": 5}, "width 12 is not a multiple of num_heads 5"),
        ({"window": 0}, "window is 0"),
        ({"taps": (2, 0)}, r"taps \(2, 0\)"),
        ({"taps": (0, 3)}, r"taps \(0, 3\)"),
        ({"global_blocks": (-1,)}, r"global_blocks \(-1,\)"),
    ],
)
def test_a_contradiction_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)
