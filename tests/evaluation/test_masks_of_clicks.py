"""Another program as a method: its masks per click, asked for round by round."""

import csv

import pytest

from clickvol.cli.app import main
from clickvol.errors import ClickError, ConfigError
from clickvol.evaluation.masks_of_clicks import wanted_mask
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompts.click import Click
from reference.evaluation_sets import write_phantoms
from reference.random_models import write_random_model


def test_a_file_is_named_by_its_clicks_in_their_order(tmp_path):
    clicks = [Click(VoxelPoint(41, 88, 120)), Click(VoxelPoint(40, 88, 7), foreground=False)]
    wanted = wanted_mask(tmp_path, "case_1", clicks)
    assert (wanted.output, wanted.click) == (
        "case_1_120-88-41_n7-88-40.nii.gz",
        "120,88,41;7,88,40:-",
    )
    assert wanted_mask(tmp_path, "case_1", clicks[::-1]).output != wanted.output
    with pytest.raises(ClickError, match="give clicks in voxels"):
        wanted_mask(tmp_path, "case_1", [Click(WorldPointRAS(1, 2, 3))])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "Lumps")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path_factory.mktemp("model"))


@pytest.mark.slow
def test_a_program_that_answers_round_by_round_has_the_scores_that_it_has_here(prepared, model, tmp_path):
    """The other program is `clickvol batch` with the same model."""
    folder = tmp_path / "masks"
    request = {
        "data": (str(prepared),),
        "protocol": read_protocol(num_clicks=(1, 2), seeds=2),
        "split": "all",
        "device": "cpu",
    }
    folder.mkdir()
    other = EvaluationRequest(methods=(f"net=click-masks:{folder}",), folder=tmp_path / "other", **request)
    rounds = []
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"still to be made by another program; make those that .*todo.csv"
        ):
            run_evaluation(other)
        rows = list(csv.DictReader((folder / "todo.csv").read_text().splitlines()))
        rounds.append({(row["output"].split("_")[1], row["click"].count(";") + 1) for row in rows})
        assert main(["batch", str(folder / "todo.csv"), "-o", str(folder), "--model", str(model)]) == 0
    theirs = run_evaluation(other)
    assert [{number for _, number in wanted} for wanted in rounds] == [{1}, {2}]
    ours = run_evaluation(EvaluationRequest(methods=(f"net={model}",), folder=tmp_path / "ours", **request))
    columns = ["case_id", "seed", "num_clicks", "dice", "mask_ml", "nsd_2mm"]
    assert theirs.table[columns].equals(ours.table[columns])


def test_a_folder_that_is_not_there_is_told(prepared, tmp_path):
    request = EvaluationRequest(
        methods=(f"click-masks:{tmp_path / 'none'}",),
        data=(str(prepared),),
        folder=tmp_path / "report",
        protocol=read_protocol(),
        device="cpu",
    )
    with pytest.raises(ConfigError, match="is not a folder; make it"):
        run_evaluation(request)
