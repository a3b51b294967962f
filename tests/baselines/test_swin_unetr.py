import pytest
import torch

from clickvol.baselines.swin_unetr import SwinUnetr, SwinUnetrConfig
from clickvol.errors import ConfigError
from reference.compare import num_parameters


@pytest.mark.slow
def test_the_number_of_parameters_as_published():
    """62.2 M: table 1 of 3D UX-Net's paper; MONAI draws them all."""
    assert num_parameters(SwinUnetr(SwinUnetrConfig())) == 62_186_708


def test_swin_unetr_keeps_as_weights_only_what_is_learned():
    config = SwinUnetrConfig(width=12, num_heads=(1, 2, 2, 4), window=4)
    with torch.device("meta"):
        network = SwinUnetr(config)
    assert {p.device.type for p in network.parameters()} == {"cpu"}
    names = set(network.state_dict())
    assert names == {name for name, _ in network.named_parameters()}
    assert any(name.endswith("relative_position_index") for name, _ in network.named_buffers())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SwinUnetrConfig(width=40), "width is 40"),
        (lambda: SwinUnetrConfig(width=12, num_heads=(5, 6, 12, 24)), "needs a multiple of 12"),
        (lambda: SwinUnetrConfig().patch_step_dhw((32, 32, 32)), "too small for Swin UNETR"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
