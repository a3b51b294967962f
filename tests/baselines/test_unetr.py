import pytest
import torch

from clickvol.baselines.unetr import Unetr, UnetrConfig
from clickvol.errors import ConfigError
from reference.compare import num_parameters


def test_the_number_of_parameters_as_published():
    """92.8 M: table 1 of 3D UX-Net's paper."""
    with torch.device("meta"):
        assert num_parameters(Unetr(UnetrConfig(), (96, 96, 96))) == 92_783_842


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnetrConfig(num_heads=7), r"num_heads \(7\) must divide it"),
        (lambda: UnetrConfig().patch_step_dhw((64, 64, 40)), "does not suit UNETR"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
