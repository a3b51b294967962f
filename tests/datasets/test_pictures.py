import json

import numpy as np
import pytest
from PIL import Image

from clickvol.datasets.pictures import (
    PictureFolders,
    PicturePlan,
    object_of,
    prepare_pictures,
    read_data_set,
    read_pictures,
)
from clickvol.datasets.prepared import PICTURES_NAME, read_prepared_set
from clickvol.errors import ConfigError
from reference.picture_folders import ellipse, write_pictures

NAMES = [f"p{n}" for n in range(10)]


def prepared(tmp_path, *folders, **options):
    sources = tuple(
        PictureFolders(name, *pair) for name, pair in zip(("polyps", "skin"), folders, strict=False)
    )
    return prepare_pictures(PicturePlan(sources=sources, destination=tmp_path / "set", **options))


def values_of(levels, shape_hw=(20, 20)):
    values = np.zeros(shape_hw, np.uint8)
    for row, level in enumerate(levels):
        values[row, :10] = level
    return values


def test_a_picture_and_its_mask_come_back_as_they_were(tmp_path):
    made = prepared(tmp_path, write_pictures(tmp_path / "raw", NAMES))
    assert [len(made.part(name)) for name in ("train", "val", "test")] == [7, 1, 2]
    case = next(case for case in read_data_set(tmp_path / "set").cases if case.case_id == "p3")
    picture, mask = ellipse(3)
    pixels, kept = case.read()
    assert np.array_equal(pixels, picture)
    assert np.array_equal(kept, mask)
    volume, label = case.read_native()
    assert volume.array.shape == label.shape == (1, 48, 64)
    assert np.array_equal(label[0] > 0, mask)
    # Pillow's grey: .299 red, .587 green, .114 blue.
    assert np.abs(volume.array[0] - picture @ (0.299, 0.587, 0.114)).max() <= 1
    assert case.object_pixels == mask.sum()


def test_the_same_pictures_give_the_same_set_wherever_they_lie(tmp_path):
    first = prepared(tmp_path / "a", write_pictures(tmp_path / "a" / "raw", NAMES))
    second = prepared(tmp_path / "b", write_pictures(tmp_path / "b" / "raw", NAMES))
    assert first.content_hash == second.content_hash
    third = prepared(tmp_path / "c", write_pictures(tmp_path / "c" / "raw", NAMES, first_seed=1))
    assert third.content_hash != first.content_hash


def test_groups_are_never_split(tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("case,group\n" + "".join(f"p{n},g{n // 3}\n" for n in range(10)))
    made = prepared(tmp_path, write_pictures(tmp_path / "raw", NAMES), groups=groups)
    parts = {name: {case.group for case in made.part(name)} for name in ("train", "val", "test")}
    assert not parts["train"] & (parts["val"] | parts["test"])
    assert not parts["val"] & parts["test"]
    assert set.union(*parts.values()) == {"g0", "g1", "g2", "g3"}


def test_splits_that_tear_a_group_are_refused(tmp_path):
    groups, splits = tmp_path / "groups.csv", tmp_path / "splits.json"
    groups.write_text("case,group\n" + "".join(f"p{n},g{n // 2}\n" for n in range(10)))
    splits.write_text(json.dumps([{"train": ["p0"], "val": ["p1"]}]))
    with pytest.raises(ConfigError, match="the group 'g0' is in train and in val"):
        prepared(tmp_path, write_pictures(tmp_path / "raw", NAMES), groups=groups, splits=splits)


def test_a_picture_that_is_there_twice_stays_in_one_part_also_in_another_data_set(tmp_path):
    first = write_pictures(tmp_path / "a", NAMES)
    second = write_pictures(tmp_path / "b", NAMES, first_seed=100)
    for folder, name in ((first, "p9"), (second, "p5")):
        for kind in (0, 1):
            (folder[kind] / f"{name}.png").write_bytes((first[kind] / "p1.png").read_bytes())
    made = prepared(tmp_path, first, second)
    assert made.notes == ("polyps-p1, polyps-p9, skin-p5 have the same image and stay in one part.",)
    same = {"polyps-p1", "polyps-p9", "skin-p5"}
    assert len({case.group for case in made.cases if case.case_id in same}) == 1
    holding = [name for name in ("train", "val", "test") if same & {c.case_id for c in made.part(name)}]
    assert len(holding) == 1


def test_every_data_set_of_several_has_all_parts(tmp_path):
    made = prepared(
        tmp_path, write_pictures(tmp_path / "a", NAMES), write_pictures(tmp_path / "b", NAMES, first_seed=50)
    )
    assert made.data_sets() == ("polyps", "skin")
    for part in ("train", "val", "test"):
        assert {case.data_set for case in made.part(part)} == {"polyps", "skin"}
    only = read_pictures(tmp_path / "set", "train", 0, only=["skin"])
    assert {case.data_set for case in only} == {"skin"}
    with pytest.raises(ConfigError, match="no data set 'lungs'; it has polyps, skin"):
        read_pictures(tmp_path / "set", "train", 0, only=["lungs"])


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path):
    images, masks = write_pictures(tmp_path / "raw", NAMES)
    (images / "p0.png").write_bytes(b"rubbish")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(masks / "p1.png")
    Image.fromarray(np.full((64, 48), 255, np.uint8)).save(masks / "p2.png")
    Image.fromarray(values_of([1, 2, 3], (48, 64))).save(masks / "p3.png")
    Image.fromarray(ellipse(4)[0]).save(masks / "p4.png")
    (masks / "p5.png").unlink()
    made = prepared(tmp_path, (images, masks))
    reasons = {case.case_id: case.reason for case in made.rejected}
    words = {
        "p0": "p0.png is not a PNG, JPEG or TIFF",
        "p1": "p1.png has no object; its values are only 0",
        "p2": "p2.png has 48 x 64 pixels, its picture 64 x 48; they must agree",
        "p3": "p3.png holds the values 1, 2, 3; say which is the object with --label N",
        "p4": "p4.png is a coloured picture",
        "p5": "p5.png has no label",
    }
    assert reasons.keys() == words.keys()
    for case, text in words.items():
        assert text in reasons[case]
        assert "\n" not in reasons[case]
    assert [case.case_id for case in made.cases] == ["p6", "p7", "p8", "p9"]


def test_nothing_left_is_one_line(tmp_path):
    images, masks = write_pictures(tmp_path / "raw", NAMES[:1])
    (images / "p0.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="no case can be used; 1 were rejected, the first, p0: "):
        prepared(tmp_path, (images, masks))
    assert not (tmp_path / "set" / PICTURES_NAME).exists()


def test_jpeg_tiff_and_names_of_masks(tmp_path):
    images, masks = write_pictures(tmp_path / "raw", ["a"], suffix=".jpg", mask_suffix=".jpg")
    (masks / "a.jpg").rename(masks / "a_segmentation.jpg")
    picture, mask = ellipse(7)
    Image.fromarray(picture).save(images / "b.tiff")
    Image.fromarray(mask).save(masks / "b_mask.tif")
    deep = (picture[..., 0].astype(np.uint16) * 200).copy()
    Image.fromarray(deep).save(images / "c.tif")
    Image.fromarray(mask.astype(np.uint8)).save(masks / "c.png")
    made = prepared(tmp_path, (images, masks))
    assert not made.rejected
    by_id = {case.case_id: case.read() for case in made.cases}
    assert (by_id["a"][1] != ellipse(0)[1]).sum() < 20  # JPEG moves a few pixels of the edge
    assert np.array_equal(by_id["b"][0], picture)
    assert np.array_equal(by_id["b"][1], mask)
    assert np.array_equal(by_id["c"][0], deep)


@pytest.mark.parametrize(
    ("levels", "wanted", "rows"),
    [
        ([255], None, [0]),
        ([1], None, [0]),
        ([7, 7], None, [0, 1]),
        ([1, 2], 2, [1]),
        ([1, 2], "all", [0, 1]),
    ],
)
def test_which_pixels_are_the_object(tmp_path, levels, wanted, rows):
    mask = object_of(values_of(levels), wanted, tmp_path / "m.png")
    assert sorted(np.flatnonzero(mask.any(axis=1))) == rows


def test_soft_edges_are_cut_in_the_middle_but_classes_are_not_taken_for_them(tmp_path):
    soft = np.zeros((20, 200), np.uint8)
    soft[:, 50:150] = 255
    soft[:, 40:50] = np.linspace(40, 220, 10)
    mask = object_of(soft, None, tmp_path / "m.png")
    assert np.array_equal(mask, soft > 127)
    # Classes 1 to 12 and 255 for what nobody labelled, as in VOC.
    classes = values_of([*range(1, 13), 255])
    with pytest.raises(
        ConfigError, match=r"m\.png holds the values 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.; say which"
    ):
        object_of(classes, None, tmp_path / "m.png")
    with pytest.raises(ConfigError, match="no pixel of value 4; its values are 255"):
        object_of(values_of([255]), 4, tmp_path / "m.png")


def test_a_palette_is_read_as_its_numbers(tmp_path):
    images, masks = write_pictures(tmp_path / "raw", ["a"])
    coloured = Image.fromarray(ellipse(0)[1].astype(np.uint8) * 2)
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 0, *[0] * (253 * 3)])
    assert coloured.mode == "P"
    coloured.save(masks / "a.png")
    made = prepared(tmp_path, (images, masks), object_value=2)
    assert np.array_equal(made.cases[0].read()[1], ellipse(0)[1])


def test_dark_borders_are_cut_off(tmp_path):
    images, masks = write_pictures(tmp_path / "raw", ["a"])
    picture, mask = ellipse(0)
    framed = np.zeros((80, 90, 3), np.uint8)
    framed[10:58, 5:69] = picture
    wide = np.zeros((80, 90), np.uint8)
    wide[10:58, 5:69] = mask * np.uint8(255)
    Image.fromarray(framed).save(images / "a.png")
    Image.fromarray(wide).save(masks / "a.png")
    made = prepared(tmp_path, (images, masks), crop_dark=True)
    pixels, kept = made.cases[0].read()
    assert np.array_equal(pixels, picture)
    assert np.array_equal(kept, mask)


def test_scans_and_pictures_are_not_taken_for_each_other(tmp_path):
    raw = write_pictures(tmp_path / "raw", NAMES)
    prepared(tmp_path, raw)
    with pytest.raises(ConfigError, match="holds pictures, but scans are expected"):
        read_prepared_set(tmp_path / "set")
    other = PicturePlan(sources=(PictureFolders("other", *raw),), destination=tmp_path / "set")
    with pytest.raises(ConfigError, match="holds other prepared pictures"):
        prepare_pictures(other)
    with pytest.raises(ConfigError, match="give each a --name of its own"):
        PicturePlan(sources=(PictureFolders("a", *raw), PictureFolders("a", *raw)), destination=tmp_path / "x")
    with pytest.raises(ConfigError, match="holds the pictures themselves"):
        PicturePlan(sources=(PictureFolders("a", *raw),), destination=raw[0])


def test_a_changed_file_is_noticed(tmp_path):
    made = prepared(tmp_path, write_pictures(tmp_path / "raw", NAMES))
    path = made.cases[0].path_of(made.cases[0].image)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="is not the file that was prepared"):
        made.cases[0].read()
