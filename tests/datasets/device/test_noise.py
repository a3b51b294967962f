import torch

from clickvol.datasets.device import noise

SEEDS = torch.tensor([1, 2, 2**31 - 1])


def _plain_mix(x):
    """The mixer in whole numbers of Python."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_hashes_are_those_of_the_plain_form():
    drawn = noise.hashes(SEEDS, 3, 5).to(torch.int64) % 2**32
    for row, seed in enumerate(SEEDS.tolist()):
        key = _plain_mix(seed ^ (3 * 0x9E3779 + 0x5BD1))
        assert drawn[row].tolist() == [_plain_mix((place + key) % 2**32) for place in range(5)]


def test_a_sample_does_not_depend_on_its_company():
    assert torch.equal(noise.normal(SEEDS, 7, 100)[1], noise.normal(SEEDS[1:2], 7, 100)[0])
    assert not torch.equal(noise.normal(SEEDS, 7, 100), noise.normal(SEEDS, 8, 100))


def test_uniform_and_normal_have_their_moments():
    u = noise.uniform(SEEDS, 1, 200_000)
    assert u.min() >= 0
    assert u.max() < 1
    assert (u.mean(1) - 0.5).abs().max() < 0.003
    z = noise.normal(SEEDS, 2, 200_000)
    assert z.mean(1).abs().max() < 0.01
    assert (z.std(1) - 1).abs().max() < 0.01


def test_smooth_noise_is_linear_between_its_nodes():
    field = noise.smooth(SEEDS, 4, (5, 5, 5), 3)
    nodes = noise.normal(SEEDS, 4, 27).view(3, 3, 3, 3)
    assert torch.allclose(field[:, 0, ::2, ::2, ::2], nodes)
    assert torch.allclose(field[:, 0, 1, 0, 0], (nodes[:, 0, 0, 0] + nodes[:, 1, 0, 0]) / 2)
