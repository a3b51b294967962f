import numpy as np
import pytest
import torch

from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan, read_pack, to_steps, write_pack
from clickvol.errors import ConfigError
from reference.labelled import block_case
from reference.stored_scans import stored_scan as scan

CPU = torch.device("cpu")


def test_steps_span_the_range_and_fewer_bits_are_coarser():
    values = np.array([-9.0, -2.6, -0.01, 2.6, 9.0], dtype=np.float32)
    assert to_steps(values).tolist() == [0, 0, 127, 255, 255]
    assert set(np.diff(np.unique(to_steps(np.linspace(-2, 2, 1000, dtype=np.float32), bits=5)))) == {8}


def test_a_pack_gives_back_what_was_written(tmp_path):
    scans = [scan("a"), scan("bc", (1.0, 0.7, 0.7), (3, 5, 6), objects=1)]
    write_pack(scans, tmp_path / "pack.zip")
    for ours, theirs in zip(scans, read_pack(tmp_path / "pack.zip"), strict=True):
        assert (ours.name, ours.group, ours.patient) == (theirs.name, theirs.group, theirs.patient)
        assert ours.spacing_dhw_mm == theirs.spacing_dhw_mm
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.label, theirs.label)


def test_another_file_is_no_pack(tmp_path):
    (tmp_path / "pack.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match=r"cannot read the training pack .*; write it again"):
        read_pack(tmp_path / "pack.zip")


def test_levels_are_block_means():
    only = scan()
    store = ScanStore.of([only], CPU)
    # Voxel sides of 0, 1.5, 2.2, 3.2 and 4.5 mm over voxels of 3 x 1 x 1 mm.
    assert store.level_block_dhw[0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 2, 2], [1, 3, 3], [1, 4, 4]]
    # A level that does not differ from the finer one is not kept twice.
    assert store.level_start[0, 0] == store.level_start[0, 1] == 0
    assert store.images.numel() == 4 * (9 * 10 + 5 * 5 + 3 * 4 + 3 * 3)
    start, shape = store.level_start[0, 3], store.level_shape_dhw[0, 3]
    assert shape.tolist() == [4, 3, 4]
    level = store.images[start : start + shape.prod()].view(*shape.tolist())
    assert level[1, 2, 1] == round(float(only.image[1, 6:9, 3:6].mean()))
    # The tenth column stands alone in its block, and counts three times.
    assert level[0, 0, 3] == round(float(only.image[0, 0:3, 9].mean()))


def test_objects_are_listed_with_their_box_and_voxels():
    store = ScanStore.of([scan(objects=2), scan("bc")], CPU)
    table = store.objects
    assert table.number.tolist() == [1, 2, 1]
    assert table.scan.tolist() == [0, 0, 1]
    assert table.patient.tolist() == [0, 0, 1]
    assert table.low_dhw[1].tolist() == [1, 4, 3]
    assert table.high_dhw[1].tolist() == [2, 5, 6]
    assert table.longest_mm[0] == 6.0
    assert store.num_voxels.tolist() == [16, 16, 16]
    mine = store.object_voxels_dhw[store.first_voxel[1] :][:16]
    assert sorted(map(tuple, mine.tolist())) == sorted(
        map(tuple, np.argwhere(scan(objects=2).label == 2).tolist())
    )


def test_without_an_object_there_is_nothing_to_train_on():
    empty = scan(objects=0)
    with pytest.raises(ConfigError, match="no labelled object"):
        ScanStore.of([empty], CPU)


def test_masks_are_kept_in_their_boxes_as_shares_of_blocks():
    only = scan(shape=(4, 12, 12))
    store = ScanStore.of([only], CPU)
    table = store.objects
    assert table.mask_low_dhw[0, 0].tolist() == [0, 1, 2]
    assert table.mask_shape_dhw[0, 0].tolist() == [4, 4, 6]
    finest = store.masks[: 4 * 4 * 6].view(4, 4, 6)
    assert finest.sum() == 255 * 16
    assert (finest[1:3, 1:3, 1:5] == 255).all()
    # Blocks of (1, 3, 3): rows 2 and 3 of the label are a third of each of two blocks, columns 3 to 6 fill one.
    start, shape = table.mask_start[0, 3], table.mask_shape_dhw[0, 3]
    level = store.masks[start : start + shape.prod()].view(*shape.tolist())
    assert level.shape == (4, 4, 4)
    assert table.mask_low_dhw[0, 3].tolist() == [0, -1, 0]
    assert level[1, 1:3, 1:3].tolist() == [[85, 28], [85, 28]]


def test_a_case_is_turned_along_the_patient_and_normalised_over_its_own_range():
    case = block_case()
    stored = StoredScan.of(case, "a", "MR")
    # Its voxel axes run along d and, turned by 53 degrees, along w and h.
    assert stored.spacing_dhw_mm == pytest.approx((3, 2, 2))
    assert np.allclose(np.abs(stored.axes_dhw[0]), [1, 0, 0])
    assert (np.diag(stored.axes_dhw) > 0).all()
    assert stored.label.sum() == case.label.sum()
    assert np.linalg.det(stored.axes_dhw) != 0
    assert (stored.image[stored.label == 1] == 255).all()
    assert stored.value_range == pytest.approx((-1.6, 1.6))
