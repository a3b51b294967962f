import numpy as np

from clickvol.io.volume import Mask


def test_a_mask_knows_its_volume_in_millilitres(plain_grid):
    array = np.zeros((4, 5, 6), dtype=np.uint8)
    array[1:3, 2, 0:5] = 1
    mask = Mask(array, plain_grid)
    assert mask.num_voxels == 10
    # 10 voxels of 0.7 x 1.3 x 5 mm
    np.testing.assert_allclose(mask.volume_ml, 0.0455)


def test_an_empty_mask_has_no_volume(plain_grid):
    mask = Mask(np.zeros((4, 5, 6), dtype=np.uint8), plain_grid)
    assert (mask.num_voxels, mask.volume_ml) == (0, 0.0)
