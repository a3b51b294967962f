from dataclasses import fields, replace

import numpy as np
import pytest

from clickvol.errors import ConfigError, ModelNotFoundError, UnreadableVolumeError
from clickvol.evaluation.methods import (
    Answer,
    Scan,
    masks_of_folder,
    methods_of_model,
    model_fingerprint,
    parse_methods,
    procedure_of,
    unclicked_methods,
)
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.formats import write_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask, Volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import tags_recipe
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.click import Click
from clickvol.weights.card import FieldOfViewPlan
from clickvol.weights.load import load_model
from reference.dicom_series import write_series
from reference.evaluation_sets import oblique_grid
from reference.random_models import random_model, write_random_model


def fixed_mask(mask):
    return unclicked_methods("a", "fixed", lambda scan: Answer(mask, 2.0))


@pytest.fixture
def scan():
    array = np.random.default_rng(0).normal(0, 100, (8, 16, 16)).astype(np.float32)
    volume = Volume(array, oblique_grid(array.shape, (4.0, 4.0, 4.0)), "CT", "/data/images/x.nii")
    return Scan.blind("data", "x", volume)


def test_a_model_is_asked_in_both_procedures_beside_each_other(scan, tmp_path):
    card = write_random_model(sam3d_adapter_recipe("released", "tiny"), tmp_path)
    words = [f"published:{card}", f"clickvol:{card}", f"as-is=published:{card}"]
    methods = parse_methods(words, device="cpu", procedure="clickvol")
    assert [method.name for method in methods] == [f"{card} published", f"{card} clickvol", "as-is"]
    masks = [method.open_scan(scan)([click(4, 8, 8)]).mask for method in methods]
    assert (masks[0] == masks[2]).all()
    assert (masks[0] != masks[1]).any()
    for mask, procedure in zip(masks, ("published", "clickvol"), strict=False):
        alone = segment(scan.volume, [click(4, 8, 8)], load_model(card, device="cpu"), procedure=procedure)
        np.testing.assert_array_equal(mask, alone.mask.array)
    assert methods[0].fingerprint == f"{methods[1].fingerprint} published"


def test_a_model_of_one_voxel_size_is_asked_as_published_unless_told_otherwise(scan):
    model = random_model(sam3d_adapter_recipe("released", "tiny"))
    several = random_model(promise3d_recipe("clickvol", "tiny"))
    assert procedure_of(several.card, None) == "clickvol"
    assert model_fingerprint(several.card, None) == several.card.sha256
    assert model_fingerprint(several.card, "published") == f"{several.card.sha256} published"
    one_size = model.card.model_copy(
        update={"fields_of_view": FieldOfViewPlan(first_voxel_mm=1, finest_voxel_mm=1, coarsest_voxel_mm=1)}
    )
    model = replace(model, card=one_size)
    assert model_fingerprint(one_size, None) == f"{one_size.sha256} published"
    clicks = [click(4, 8, 8)]
    masks = {p: segment(scan.volume, clicks, model, procedure=p).mask.array for p in ("published", "clickvol")}
    assert (masks["published"] != masks["clickvol"]).any()
    for procedure, wanted in ((None, "published"), ("published", "published"), ("clickvol", "clickvol")):
        (method,) = methods_of_model(model, "one size", procedure)
        np.testing.assert_array_equal(method.open_scan(scan)(clicks).mask, masks[wanted])


def click(d, h, w, *, foreground=True):
    return Click(VoxelPoint(float(d), float(h), float(w)), foreground)


def test_a_blind_scan_does_not_say_where_it_came_from(scan):
    assert scan.volume.source == ""
    assert scan.volume.notes == ()
    assert scan.volume.modality == "CT"
    assert {field.name for field in fields(scan)} == {"data", "case_id", "volume", "organ"}
    assert scan.organ is None


def test_a_promptable_model_answers_as_segment_does(scan):
    model = random_model(promise3d_recipe("clickvol", "tiny"))
    (method,) = methods_of_model(model, "tiny")
    clicks = (click(4, 8, 8), click(2, 3, 3, foreground=False))
    answer = method.open_scan(scan)
    first = answer(clicks[:1])
    second = answer(clicks)
    assert np.array_equal(first.mask, segment(scan.volume, clicks[:1], model).mask.array)
    assert np.array_equal(second.mask, segment(scan.volume, clicks, model).mask.array)
    assert first.seconds > 0
    assert method.takes_clicks


def test_a_model_that_looks_at_an_organ_is_given_it(scan):
    model = random_model(tags_recipe("clickvol", "tiny"))
    (method,) = methods_of_model(model, "tags")
    assert method.takes_organ_mask
    array = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    array[2:6, 4:12, 4:12] = 1
    organ = Mask(array, scan.volume.grid)
    clicks = (click(4, 8, 8),)
    shown = method.open_scan(replace(scan, organ=organ))(clicks).mask
    blind = method.open_scan(scan)(clicks).mask
    with_organ = segment(scan.volume, clicks, model, organ_mask=organ).mask.array
    assert np.array_equal(shown, with_organ)
    assert np.array_equal(blind, segment(scan.volume, clicks, model).mask.array)
    assert not np.array_equal(shown, blind)


def test_a_model_of_the_scan_alone_takes_no_organ():
    (method,) = methods_of_model(random_model(promise3d_recipe("clickvol", "tiny")), "tiny")
    assert not method.takes_organ_mask


def test_an_automatic_model_works_once_per_scan(scan, monkeypatch):
    calls, masks = [], []

    def answer(volume, clicks, model, *, organ_mask):
        calls.append(clicks)
        masks.append(organ_mask)
        return segment(volume, [click(4, 8, 8)], clicked)

    monkeypatch.setattr("clickvol.evaluation.methods.segment", answer)
    clicked = random_model(promise3d_recipe("clickvol", "tiny"))
    as_it_is, filtered = methods_of_model(random_model(sam3d_adapter_recipe("automatic", "tiny")), "a")
    as_it_is.open_scan(scan)(())
    filtered.open_scan(scan)((click(4, 8, 8),))
    assert calls == [[]]
    as_it_is.open_scan(Scan.blind("data", "y", scan.volume))(())
    assert calls == [[], []]
    assert masks == [None, None]
    organ = Mask(np.ones(scan.volume.grid.shape_dhw, np.uint8), scan.volume.grid)
    as_it_is.open_scan(replace(scan, organ=organ))(())
    assert masks[2] is organ


def test_as_it_is_the_mask_is_whole_and_under_clicks_only_their_parts(scan):
    mask = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    mask[0:2, 0:2, 0:2] = mask[4:6, 4:6, 4:6] = mask[7, 15, 15] = 1
    as_it_is, filtered = fixed_mask(mask)
    assert (as_it_is.name, filtered.name) == ("a", "a + click")
    whole = as_it_is.open_scan(scan)(())
    assert np.array_equal(whole.mask, mask)
    assert whole.seconds == 2.0
    kept = filtered.open_scan(scan)
    one = kept((click(5, 5, 5),))
    assert one.mask.sum() == 8
    assert one.mask[4, 4, 4] == 1
    assert one.seconds >= 2.0
    two = kept((click(5, 5, 5), click(0, 0, 0), click(7, 15, 15, foreground=False)))
    assert two.mask.sum() == 16


def test_where_no_part_is_under_the_click_the_nearest_is_kept(scan):
    mask = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    mask[3, 3, 3:6] = mask[3, 9, 3:6] = 1
    kept = fixed_mask(mask)[1].open_scan(scan)
    # Beyond the box around both parts, on the side of the second one.
    assert kept((click(3, 14, 4),)).mask[3].sum(axis=1).nonzero()[0].tolist() == [9]


def test_an_empty_mask_stays_empty_under_a_click(scan):
    empty = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    kept = fixed_mask(empty)[1].open_scan(scan)
    assert not kept((click(3, 3, 3),)).mask.any()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return write_random_model(promise3d_recipe("clickvol", "tiny"), folder)


def names(*words):
    return [method.name for method in parse_methods([str(word) for word in words], device="cpu")]


def test_words_name_classical_methods_and_models(model):
    assert names("ball", "ball:12.5", "region-growing", "random-walker", model) == [
        "ball 50 mm",
        "ball 12.5 mm",
        "region growing",
        "random walker",
        "random",
    ]


def test_a_name_can_be_given_and_a_path_may_hold_an_equals_sign(model, tmp_path):
    assert names("ours=" + str(model), "sphere=ball:30") == ["ours", "sphere"]
    odd = tmp_path / "rate=3"
    odd.mkdir()
    for suffix in (".json", ".safetensors"):
        file = model.with_suffix(suffix)
        (odd / file.name).write_bytes(file.read_bytes())
    assert names(odd / model.name) == ["random"]


def test_a_model_is_known_by_the_hash_of_its_weights(model):
    (method,) = parse_methods([str(model)], device="cpu")
    assert method.takes_clicks
    assert len(method.fingerprint) == 64


def test_an_automatic_model_is_scored_twice(tmp_path):
    path = write_random_model(sam3d_adapter_recipe("automatic", "tiny"), tmp_path)
    as_it_is, clicked = parse_methods([str(path)], device="cpu")
    assert (as_it_is.name, as_it_is.takes_clicks) == ("random", False)
    assert (clicked.name, clicked.takes_clicks) == ("random + click", True)
    assert as_it_is.fingerprint == clicked.fingerprint


def test_masks_of_another_program_are_scored_twice(tmp_path):
    grid = oblique_grid()
    write_volume(np.eye(24, dtype=np.uint8)[None].repeat(10, 0), grid, tmp_path / "a.nii.gz")
    assert names(f"predictions:{tmp_path}") == [tmp_path.name, f"{tmp_path.name} + click"]
    assert names(f"nnU-Net=predictions:{tmp_path}") == ["nnU-Net", "nnU-Net + click"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one"),
        (["ball", "ball:50"], "two methods are called 'ball 50 mm'"),
        (["ball:wide"], "give ball:MM"),
        (["ball:-3"], "radius above 0"),
        (["predictions:/nowhere"], "holds no masks"),
    ],
)
def test_words_that_name_nothing_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        parse_methods(words)


def test_an_unknown_model_is_refused():
    with pytest.raises(ModelNotFoundError, match="there is no model 'nobody'"):
        parse_methods(["nobody"])


GRID = oblique_grid()


@pytest.fixture
def mask():
    array = np.zeros(GRID.shape_dhw, np.uint8)
    array[3:6, 4:9, 4:9] = 2
    return array


def scan_of(case_id="case"):
    return Scan.blind("data", case_id, Volume(np.zeros(GRID.shape_dhw), GRID))


def prediction_of(folder, scan):
    return masks_of_folder(folder, "other")[0].open_scan(scan)(())


def test_a_mask_has_the_name_of_its_case(tmp_path, mask):
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    answer = prediction_of(tmp_path, scan_of())
    assert np.array_equal(answer.mask, mask > 0)
    assert answer.mask.dtype == np.uint8
    assert answer.seconds == 0.0


def test_an_empty_mask_is_one(tmp_path, mask):
    write_volume(mask * 0, GRID, tmp_path / "case.nii.gz")
    assert not prediction_of(tmp_path, scan_of()).mask.any()


def test_another_set_of_files_is_another_method(tmp_path, mask):
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    before = masks_of_folder(tmp_path, "other")[0].fingerprint
    assert masks_of_folder(tmp_path, "other")[0].fingerprint == before
    write_volume(mask, GRID, tmp_path / "other.nii.gz")
    assert masks_of_folder(tmp_path, "other")[0].fingerprint != before


@pytest.mark.parametrize("change", ["shape", "offset", "spacing"])
def test_a_mask_on_another_grid_is_refused(tmp_path, mask, change):
    affine, shape = np.array(GRID.affine_ras_mm), mask.shape
    if change == "offset":
        affine[0, 3] += 1.0
    elif change == "spacing":
        affine[2, 0] *= 1.01
    else:
        mask = mask[:-1]
        shape = mask.shape
    write_volume(mask, VolumeGrid(shape, affine), tmp_path / "case.nii.gz")
    with pytest.raises(ConfigError, match="does not lie on the grid of the scan"):
        prediction_of(tmp_path, scan_of())


def test_a_missing_mask_is_a_failure_and_a_folder_without_any_is_refused(tmp_path, mask):
    with pytest.raises(ConfigError, match="holds no masks"):
        masks_of_folder(tmp_path, "other")
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    with pytest.raises(UnreadableVolumeError, match="no mask of other"):
        prediction_of(tmp_path, scan_of("other"))


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_a_mask_as_dicom_is_all_that_it_holds(tmp_path, write):
    volume = read_dicom(write_series(tmp_path / "ct", "oblique"))
    arrays = np.zeros((2, *volume.array.shape), np.uint8)
    arrays[0, 1:3, 2:4, 1:4] = arrays[1, 2, 3:6, 3:5] = 1
    masks = [LabelledMask(name=f"o{n}", mask=Mask(a, volume.grid)) for n, a in enumerate(arrays)]
    (tmp_path / "predictions").mkdir()
    write(masks, tmp_path / "ct", tmp_path / "predictions" / "case.dcm")
    scan = Scan.blind("data", "case", volume)
    folder = tmp_path / "predictions"
    np.testing.assert_array_equal(prediction_of(folder, scan).mask, arrays.any(axis=0))
    with pytest.raises(UnreadableVolumeError, match="no mask of other"):
        prediction_of(folder, Scan.blind("data", "other", volume))
