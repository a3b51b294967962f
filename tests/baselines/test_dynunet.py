"""Plans by hand, numbers of parameters as published, and MONAI's own module with the same weights."""

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet

from clickvol.baselines.dynunet import DynUnet, DynUnetConfig, plan_dynunet
from clickvol.errors import ConfigError
from reference.compare import deviation, noise, num_parameters, randomise

ONES, TWOS, THREES = (1, 1, 1), (2, 2, 2), (3, 3, 3)


def test_a_cube_is_halved_until_four_cells_are_left():
    plan = plan_dynunet((64, 64, 64), (1.0, 1.0, 1.0))
    assert plan.strides == (ONES, TWOS, TWOS, TWOS, TWOS)
    assert plan.kernels == (THREES,) * 5


def test_thick_slices_are_neither_halved_nor_looked_across_until_the_rest_is_as_coarse():
    """5 mm slices with pixels of 1 mm: in the plane alone until its cells have 4 mm."""
    plan = plan_dynunet((16, 64, 64), (5.0, 1.0, 1.0))
    assert plan.strides == (ONES, (1, 2, 2), (1, 2, 2), TWOS, TWOS)
    assert plan.kernels == ((1, 3, 3), (1, 3, 3), THREES, THREES, THREES)
    assert DynUnetConfig(spacing_mm=(5, 1, 1)).patch_step_dhw((16, 64, 64)) == (4, 16, 16)


def test_an_odd_number_of_cells_is_not_halved():
    assert plan_dynunet((24, 32, 32), ONES).strides == (ONES, TWOS, TWOS, (1, 2, 2))
    assert plan_dynunet((18, 32, 32), ONES).strides == (ONES, TWOS, (1, 2, 2), (1, 2, 2))


def test_the_number_of_parameters_as_published():
    """31.2 M: table 1 of 3D UX-Net's paper."""
    with torch.device("meta"):
        assert num_parameters(DynUnet(DynUnetConfig(), (128, 128, 128))) == 31_189_410


def test_dynunet_is_wired_as_monai_wires_it():
    config = DynUnetConfig(first_width=4, largest_width=8, spacing_mm=(3.0, 1.0, 1.0))
    shape = (8, 32, 32)
    ours = randomise(DynUnet(config, shape, num_channels=2))
    plan = config.plan(shape)
    theirs = DynUNet(3, 2, 2, plan.kernels, plan.strides, plan.strides[1:], filters=[4, 8, 8, 8])
    assert theirs.load_state_dict(ours.state_dict(), strict=False).unexpected_keys == []
    patch = noise(2, 2, *shape)
    with torch.no_grad():
        assert deviation(ours(patch), theirs(patch)) < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynUnetConfig(spacing_mm=(1, 0, 1)), "voxels have positive sides"),
        (lambda: DynUnetConfig(first_width=400), "first_width is 400, but 1 to 320"),
        (lambda: plan_dynunet((8, 8, 8), ONES), "too small for DynUNet"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
