from pathlib import Path

import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.io.volume import choose_volume

PATH = Path("dwi.nii.gz")


def test_one_volume_needs_no_choice():
    assert choose_volume(PATH, (6, 5, 4, 1), None) == 0
    assert choose_volume(PATH, (6, 5, 4, 1), 0) == 0


def test_a_choice_is_taken():
    assert choose_volume(PATH, (6, 5, 4, 3), 2) == 2


def test_4d_names_shape_axis_and_flag():
    with pytest.raises(UnreadableVolumeError) as caught:
        choose_volume(PATH, (6, 5, 4, 3), None)
    assert str(caught.value) == (
        "dwi.nii.gz is 4D with shape (6, 5, 4, 3): its fourth axis holds 3 volumes, but one 3D "
        "scan is expected; pick one with --volume N or volume_index=N (N from 0 to 2)"
    )


@pytest.mark.parametrize("index", [3, -1])
def test_out_of_range_names_the_range(index):
    with pytest.raises(UnreadableVolumeError, match=f"no volume {index}; .* valid are 0 to 2"):
        choose_volume(PATH, (6, 5, 4, 3), index)
    with pytest.raises(UnreadableVolumeError, match="only 0 is valid"):
        choose_volume(PATH, (6, 5, 4, 1), 1)
