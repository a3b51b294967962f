import pytest

from clickvol.baselines.baseline import require_multiple, require_same
from clickvol.errors import ConfigError


@pytest.mark.parametrize("shape", [(8, 16, 16), (24, 16, 32)])
def test_multiples_pass(shape):
    require_multiple(shape, (8, 16, 16), "X-Net")


@pytest.mark.parametrize("shape", [(8, 16, 24), (4, 16, 16), (0, 16, 16)])
def test_anything_else_is_refused(shape):
    with pytest.raises(ConfigError, match=r"does not suit X-Net, .* multiples of \(8, 16, 16\)"):
        require_multiple(shape, (8, 16, 16), "X-Net")


def test_only_the_same_shape_passes():
    require_same((8, 8, 16), (8, 8, 16), "X-Net")
    with pytest.raises(ConfigError, match=r"\(8, 16, 8\) does not suit this X-Net"):
        require_same((8, 16, 8), (8, 8, 16), "X-Net")
