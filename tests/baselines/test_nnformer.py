import pytest
import torch

from clickvol.baselines.nnformer import Embedding, NnFormer, NnFormerConfig, Resample
from clickvol.errors import ConfigError
from reference.compare import noise

PUBLISHED_PATCH = (64, 128, 128)


def test_the_published_number_of_parameters():
    """150.5 M in its paper, 149.3 M in that of 3D UX-Net; 14 classes and training heads make a part of it."""
    with torch.device("meta"):
        network = NnFormer(NnFormerConfig(), PUBLISHED_PATCH)
    result = sum(p.numel() for p in network.parameters())
    assert result == 149_461_274
    assert abs(result / 150.5e6 - 1) < 0.01
    assert abs(result / 149.3e6 - 1) < 0.01


def test_the_published_maps_and_where_attention_sees_all_of_them():
    config = NnFormerConfig()
    shapes = [config.map_shape_dhw(PUBLISHED_PATCH, level) for level in range(4)]
    assert shapes == [(32,) * 3, (16,) * 3, (8,) * 3, (4,) * 3]
    with torch.device("meta"):
        network = NnFormer(config, PUBLISHED_PATCH)
    # Windows of 4^3 tokens have 7^3 offsets; whole maps of 8^3 and 4^3 tokens have 15^3 and 7^3.
    rows = [[len(layer.attention.offset_bias) for layer in stage] for stage in network.encoder]
    assert rows == [[343, 343], [343, 343], [3375, 3375], [343, 343]]
    shifts = [[layer.attention._place.shift_dhw for layer in stage] for stage in network.encoder]
    local = [(0, 0, 0), (2, 2, 2)]
    assert shifts == [local, local, [(0, 0, 0)] * 2, [(0, 0, 0)] * 2]


def test_strides_of_the_parts():
    tokens = Embedding(1, 8, (1, 2, 4))(noise(2, 1, 8, 8, 8))
    assert tokens.shape == (2, 8, 4, 2, 8)
    halved = Resample(8, torch.nn.Conv3d(8, 16, 3, stride=2, padding=1))(tokens)
    assert halved.shape == (2, 4, 2, 1, 16)
    assert Resample(16, torch.nn.ConvTranspose3d(16, 8, 2, stride=2))(halved).shape == tokens.shape


def test_the_skips_reach_the_answer():
    """Without anything from below, what is left of the patch comes through the skips."""
    torch.manual_seed(0)
    config = NnFormerConfig(embedding_stride_dhw=(2, 2, 2), width=8, num_heads=(1, 2, 2, 4))
    network = NnFormer(config, (32, 32, 32)).eval()
    for up in network.up:
        torch.nn.init.zeros_(up.conv.weight)
    with torch.no_grad():
        one, other = (network(noise(1, 1, 32, 32, 32, seed=seed)) for seed in (1, 2))
    assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NnFormerConfig(embedding_stride_dhw=(2, 3, 4)), "each must be 1, 2 or 4"),
        (lambda: NnFormerConfig(width=100), "width is 100"),
        (lambda: NnFormerConfig(window=3), "window is 3"),
        (
            lambda: NnFormerConfig().patch_step_dhw((64, 64, 48)),
            r"multiples of \(16, 32, 32\)",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
