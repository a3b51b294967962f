import numpy as np
import pytest

from clickvol.errors import ConfigError, OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.labelled_mask import LabelledMask, display_colour, label_map
from clickvol.io.volume import Mask

GRID = VolumeGrid((1, 2, 3), np.eye(4))


def labelled(name, *voxels, grid=GRID):
    array = np.zeros(grid.shape_dhw, np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    return LabelledMask(name=name, mask=Mask(array, grid))


@pytest.mark.parametrize("name", ["", "  ", "a\\b", "two\nlines", "x" * 65])
def test_names_that_no_file_can_hold(name):
    with pytest.raises(ConfigError, match="cannot be the name of an object"):
        labelled(name)


def test_names_that_files_can_hold():
    for name in ("a", "Läsion 3", "肿瘤", "x" * 64):
        assert labelled(name).name == name


def test_the_smaller_object_is_seen():
    small = labelled("small", (0, 0, 1))
    large = labelled("large", (0, 0, 0), (0, 0, 1), (0, 1, 2))
    assert label_map([small, large]).tolist() == [[[2, 1, 0], [0, 0, 2]]]
    assert label_map([large, small]).tolist() == [[[1, 2, 0], [0, 0, 1]]]


def test_many_objects_have_16_bits():
    masks = [labelled(f"{n}") for n in range(255)]
    assert label_map(masks).dtype == np.uint8
    masks.append(labelled("last", (0, 0, 0)))
    labels = label_map(masks)
    assert labels.dtype == np.uint16
    assert labels[0, 0, 0] == 256


def test_masks_that_make_no_label_map():
    other = labelled("other", grid=VolumeGrid((2, 2, 3), np.eye(4)))
    for masks in ([], [labelled("a"), other]):
        with pytest.raises(OutputError, match="make no label map"):
            label_map(masks)


def test_colours_differ():
    colours = [display_colour(n) for n in range(1, 13)]
    assert colours[0] == (242, 48, 48)
    apart = [
        max(abs(a - b) for a, b in zip(one, other, strict=True))
        for i, one in enumerate(colours)
        for other in colours[:i]
    ]
    assert min(apart) > 20
    assert all(0 <= value <= 255 for colour in colours for value in colour)
