import pytest
import torch

from clickvol.mask_decoders.pattern_shift import PatternEmbedding, PatternEmbeddingConfig
from reference.compare import noise, randomise

TINY = PatternEmbeddingConfig(width=6, hidden_width=10, num_mask_tokens=3)


def test_it_has_the_published_number_of_parameters():
    embedding = PatternEmbedding(PatternEmbeddingConfig())
    expected = 256 * 1024 + 1024 + 1024 * 1024 + 1024
    assert sum(p.numel() for p in embedding.parameters()) == expected == 1_312_768
    assert embedding(noise(2, 256, 4, 4)).shape == (2, 4, 256)


def test_it_is_mean_linear_gelu_linear():
    torch.manual_seed(0)
    module = randomise(PatternEmbedding(TINY))
    fmap = noise(2, 6, 3, 5)
    mean = fmap.flatten(2).mean(-1)
    hidden = mean @ module.lin1.weight.T + module.lin1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = (hidden @ module.lin2.weight.T + module.lin2.bias).reshape(2, 3, 6)
    torch.testing.assert_close(module(fmap), expected)


def test_the_shift_depends_on_the_image_and_not_on_where_things_lie():
    torch.manual_seed(0)
    module = randomise(PatternEmbedding(TINY))
    fmap = noise(1, 6, 4, 4)
    torch.testing.assert_close(module(fmap.flip(-1)), module(fmap))
    assert (module(fmap + 1) - module(fmap)).abs().max() > 1e-2


@pytest.mark.parametrize(("last_layer", "is_zero"), [("default", False), ("zero", True)])
def test_a_last_layer_of_zeros_shifts_nothing_until_it_is_trained(last_layer, is_zero):
    torch.manual_seed(0)
    config = PatternEmbeddingConfig(width=6, hidden_width=10, last_layer=last_layer)
    module = PatternEmbedding(config)
    fmap = noise(2, 6, 3, 3)
    assert bool((module(fmap) == 0).all()) == is_zero
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (module(fmap) - 1).square().sum().backward()
        optimiser.step()
    # From the second step on the first layer learns, too.
    assert all((p.grad != 0).any() for p in module.parameters())
