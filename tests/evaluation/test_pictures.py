"""Evaluation of 2D models on pictures: tiny networks with random weights, and masks of another program."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clickvol.cli.app import main
from clickvol.datasets.pictures import PictureFolders, PicturePlan, prepare_pictures
from clickvol.errors import ConfigError
from clickvol.evaluation.cases import open_data
from clickvol.evaluation.methods import parse_methods
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.evaluation.simulated_user import SimulatedUser, Truth
from clickvol.io.pictures import Picture, read_mask_values
from clickvol.methods.promise2d import Promise2d
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from reference.picture_folders import ellipse, write_pictures
from reference.random_models import write_random_model
from reference.tiny_models2d import tiny_promise2d_config, write_model2d


@pytest.fixture(scope="module")
def picture_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    sources = tuple(
        PictureFolders(name, *write_pictures(folder / name, [f"x{n}" for n in range(3)], first_seed=seed))
        for name, seed in (("polyps", 0), ("skin", 20))
    )
    prepare_pictures(PicturePlan(sources=sources, destination=folder / "set"))
    return folder / "set"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(0)
    made = {"sam": write_model2d(tmp_path_factory.mktemp("sam"), Sam2d(sam2d_preset("tiny")), "sam2d")}
    for mode in ("apm", "ips", "promise"):
        network = Promise2d(tiny_promise2d_config(mode))
        made[mode] = write_model2d(tmp_path_factory.mktemp(mode), network, "promise2d")
    return made


def test_one_command_scores_predicted_drawn_and_corrected_points(models, picture_set, tmp_path, capsys):
    report = tmp_path / "report"
    words = [f"{name}={path}" for name, path in models.items()]
    words += ["--data", str(picture_set), "--split", "all", "--limit", "2", "--protocol", "promise2d"]
    assert main(["evaluate", *words, "-o", str(report), "--reference", "sam", "--quiet"]) == 0
    table = pd.read_csv(report / "scores.csv")
    assert set(table["data"]) == {"polyps", "skin"}
    assert set(table["model"]) == {"sam", "apm", "apm + points", "ips", "promise", "promise + points"}
    assert {"dice", "iou", "mae", "boundary_f"} <= set(table)
    assert not {"hd95_mm", "truth_ml", "nsd_2mm"} & set(table)
    assert set(table["modality"]) == {"picture"}
    rows = table.groupby(["model", "placement", "num_clicks"]).size()
    for model in ("sam", "ips", "promise + points"):
        assert [rows[model, "points", n] for n in (3, 5, 16)] == [12, 12, 12]  # 4 pictures, 3 draws
        assert [rows[model, "centre", n] for n in (1, 3, 5)] == [4, 4, 4]
    assert rows["apm", "none", 0] == rows["promise", "none", 0] == 4
    audits = [json.loads(line) for line in (report / "audit.jsonl").read_text().splitlines()]
    drawn = [a for a in audits if (a["model"], a["case_id"], a["seed"]) == ("sam", "polyps-x0", 1)]
    assert sum(a["foreground"] for a in drawn) == 8
    mask = ellipse(0)[1]
    for audit in drawn:
        column, row, _ = audit["voxel_ijk"]
        assert mask[row, column] == audit["foreground"]
    kept = read_mask_values(report / "masks" / "sam" / "polyps" / "polyps-x0.png")
    assert kept.shape == (48, 64)
    page = (report / "report.md").read_text()
    assert "### polyps: mean scores" in page
    assert "boundary F" in page
    assert "(ml)" not in page
    assert sorted(path.suffix for path in (report / "pictures").iterdir()).count(".png") >= 4
    assert not (report / "volume_bland_altman.png").exists()
    assert capsys.readouterr().err == ""


def test_an_evaluation_goes_on_and_a_perfect_program_scores_one(picture_set, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for case in open_data([str(picture_set)], split="all")[0].cases:
        Image.fromarray(case.read()[1].astype(np.uint8) * 255).save(folder / f"{case.case_id}.png")
    request = EvaluationRequest(
        methods=(f"perfect=predictions:{folder}",),
        data=(str(picture_set),),
        folder=tmp_path / "report",
        protocol=read_protocol("promise2d"),
        split="all",
    )
    first, again = run_evaluation(request).table, run_evaluation(request).table
    pd.testing.assert_frame_equal(first, again)
    own = first[(first["model"] == "perfect") & (first["data"] == "polyps")]
    assert own[["dice", "iou", "boundary_f"]].to_numpy().min() == 1
    assert own["mae"].max() == 0
    # Nobody wrote masks of the other data set: failures, with the scores of an empty mask.
    missing = first[(first["model"] == "perfect") & (first["data"] == "skin")]
    assert missing["failure"].str.contains("there is no mask").all()
    assert missing["dice"].max() == 0


def test_models_of_the_other_kind_are_refused(picture_set, tmp_path):
    request = EvaluationRequest(
        methods=(str(write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path)),),
        data=(str(picture_set),),
        folder=tmp_path / "a",
        protocol=read_protocol("clickvol"),
        split="all",
    )
    with pytest.raises(ConfigError, match="is a model for scans, but polyps holds pictures"):
        run_evaluation(request)


def test_the_published_procedure_opens_masks_and_is_another_method(models, picture_set):
    one, other = (
        parse_methods([str(models["ips"])], device="cpu", procedure=procedure)[0]
        for procedure in ("published", None)
    )
    assert one.fingerprint == f"{other.fingerprint} opened"
    assert read_protocol("promise2d").procedure == "published"


@pytest.mark.parametrize("num_points", [1, 2, 3, 5, 16])
def test_half_of_the_drawn_points_lie_inside_for_every_number(num_points):
    mask = ellipse(3)[1]
    truth = Truth.of(mask[None])
    grid = Picture.of(mask.astype(np.uint8), "").grid
    user = SimulatedUser(truth, grid, case_id="a", seed=0, placement="points", next_clicks="error")
    empty = np.zeros((1, *mask.shape), np.uint8)
    placed = [user.first_click(), *(user.next_click(empty) for _ in range(num_points - 1))]
    inside = [one.click.foreground for one in placed]
    assert sum(inside) == max(1, num_points // 2)
    for one in placed:
        column, row, _ = one.voxel_ijk
        assert mask[row, column] == one.click.foreground


def test_a_user_of_a_picture_clicks_its_middle_and_its_edge_in_two_dimensions():
    mask = np.zeros((60, 80), bool)
    mask[10:41, 20:61] = True  # the middle row is 25, and the deepest pixels of it are equal
    truth = Truth.of(mask[None])
    grid = Picture.of(mask.astype(np.uint8), "").grid

    def first(placement, seed=0):
        user = SimulatedUser(truth, grid, case_id="a", seed=seed, placement=placement, next_clicks="error")
        return user.first_click().voxel_ijk

    assert first("centre") == (40, 25, 0)
    for seed in range(20):
        column, row, _ = first("edge", seed)
        assert min(column - 20, 60 - column, row - 10, 40 - row) <= 1
        column, row, _ = first("inside", seed)
        assert min(column - 20, 60 - column, row - 10, 40 - row) >= 7
        column, row, _ = first("outside", seed)
        assert not mask[row, column]
