import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.io.challenge import read_challenge_label, read_challenge_scan

SHAPE = (6, 10, 12)
IMAGE = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def write(tmp_path):
    def make(**arrays):
        content = {"imgs": IMAGE, "gts": IMAGE % 3, "spacing": np.array([0.5, 1.5, 4.0])} | arrays
        np.savez_compressed(tmp_path / "CT_case.npz", **content)
        return tmp_path / "CT_case.npz"

    return make


def test_a_scan_has_its_spacing_and_its_values(write):
    volume = read_challenge_scan(write())
    assert volume.grid.spacing_dhw_mm.tolist() == [4.0, 1.5, 0.5]  # the file has x, y, z
    assert np.array_equal(volume.array, IMAGE)
    assert volume.modality == "MR"
    steps = volume.grid.affine_ras_mm[:3, :3]
    assert np.array_equal(steps, [[0, 0, -0.5], [0, -1.5, 0], [4, 0, 0]])


def test_a_label_has_its_classes_on_the_grid_of_the_scan(write):
    path = write()
    label = read_challenge_label(path)
    assert np.array_equal(label.array, IMAGE % 3)
    assert label.grid == read_challenge_scan(path).grid


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"gts": IMAGE[1:]}, r"gts has shape \(5, 10, 12\), imgs \(6, 10, 12\)"),
        ({"imgs": IMAGE[0]}, r"imgs has shape \(10, 12\)"),
        ({"imgs": np.full(SHAPE, np.nan)}, "but finite"),
        ({"imgs": np.full(SHAPE, "x")}, "numbers are expected"),
    ],
)
def test_arrays_of_another_form_are_refused(write, arrays, message):
    with pytest.raises(UnreadableVolumeError, match=message):
        read_challenge_label(write(**arrays))


def test_a_pickled_array_is_never_read(write, tmp_path):
    proof = tmp_path / "executed"
    path = write(imgs=np.array([Evil(proof)], dtype=object))
    with pytest.raises(UnreadableVolumeError, match="pickled object"):
        read_challenge_scan(path)
    assert not proof.exists()


def test_a_damaged_file_and_one_without_labels_are_refused(write):
    path = write()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableVolumeError, match="damaged"):
        read_challenge_scan(path)
    np.savez(path, imgs=IMAGE, spacing=np.ones(3))
    with pytest.raises(UnreadableVolumeError, match="has no array 'gts'"):
        read_challenge_label(path)
