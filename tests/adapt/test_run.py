"""The whole way, with a tiny network that has learned nothing."""

import csv

import nibabel
import numpy as np
import pytest

from clickvol.adapt.intake import Intake
from clickvol.adapt.run import AdaptRequest, _shortest, adapt
from clickvol.adapt.scoring import Comparison, Score
from clickvol.cli.app import main
from clickvol.errors import ConfigError
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.weights.card import read_card
from clickvol.weights.load import load_model
from clickvol.weights.safe_file import write_weights
from reference.random_models import random_card, random_model


@pytest.fixture(autouse=True, scope="module")
def little(tmp_path_factory):
    """Few steps, and a cache of their own."""
    with pytest.MonkeyPatch.context() as change:
        change.setattr("clickvol.adapt.budget._MIN_STEPS", 3)
        change.setattr("clickvol.adapt.cases._NUM_SYNTHETIC", 2)
        change.setenv("CLICKVOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model with random weights; return its card."""
    recipe = promise3d_recipe("clickvol", "tiny")
    network = random_model(recipe).network
    folder = tmp_path_factory.mktemp("models") / "base"
    folder.mkdir()
    weights = folder / "random.safetensors"
    sha256, size = write_weights(network.state_dict(), weights, dtype=next(network.parameters()).dtype)
    card = random_card(recipe, network, weights.name, sha256, size)
    path = folder / "random.json"
    path.write_text(card.model_dump_json())
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Four CT scans with a bright block each, of three patients."""
    folder = tmp_path_factory.mktemp("data") / "scans"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    for number in range(4):
        rng = np.random.default_rng(number)
        image = rng.normal(-80, 20, (24, 24, 12)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        i, j, k = (int(rng.integers(low, high)) for low, high in ((5, 12), (5, 12), (3, 6)))
        label[i : i + 7, j : j + 7, k : k + 4] = 1
        image[label > 0] += 180
        image[0, 0, 0] = -1000
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / f"c{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labels" / f"c{number}.nii.gz")
    with (folder / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), ("c0", "p"), ("c1", "p"), ("c2", "q"), ("c3", "r")])
    return folder


def request(scans, base, output, **changes):
    intake = Intake(source=scans, groups=scans / "groups.csv")
    words = {"intake": intake, "output": output, "base": str(base), "minutes": 0.01, "force": True, **changes}
    return AdaptRequest(**words)


@pytest.fixture(scope="module")
def whole(little, scans, base):
    """Adapt once without a stop; return the outcome and which part was done at each report."""
    stages = []
    return adapt(request(scans, base, base.parents[1] / "mine"), lambda _, part: stages.append(part)), stages


def test_a_model_is_written_with_its_table_and_can_be_used(whole, base):
    outcome, stages = whole
    mine = base.parents[1] / "mine"
    card = read_card(mine)
    assert outcome.card == mine.with_suffix(".json")
    assert (card.base.id, card.base.card) == ("random", "base/random.json")
    assert card.title == "random adapted to scans"
    assert [row["clicks"] for row in card.scores[:2]] == [1, 3]
    assert {row["case"] for row in card.scores[2:-1]} >= {"c2", "c3"}
    assert card.scores[-1] == outcome.elsewhere.row_elsewhere()
    assert any("On other objects (2 synthetic tumours" in note for note in card.notes)
    assert any("lie at 0.5 of the way" in note or "lie at 1 of the way" in note for note in card.notes)
    changed = load_model(mine, device="cpu").network.state_dict()
    before = load_model(base, device="cpu").network.state_dict()
    assert any((changed[name] - before[name]).abs().max() > 1e-4 for name in before)
    assert not mine.with_suffix(".work").exists()
    assert stages == sorted(stages)
    assert stages[-1] == 1


def test_a_run_that_was_stopped_goes_on_to_the_same_model(whole, scans, base, tmp_path):

    def stop(text, part):
        if part > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(request(scans, base, tmp_path / "b"), stop)
    assert not (tmp_path / "b.json").exists()
    assert not (tmp_path / "b.safetensors").exists()
    texts = []
    again = read_card(adapt(request(scans, base, tmp_path / "b"), lambda text, part: texts.append(text)).card)
    assert again.sha256 == read_card(whole[0].card).sha256
    assert "measuring the base" not in texts
    assert "training, part 1 of 3" not in texts


def test_what_is_not_better_is_not_written(scans, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("old")
    words = [
        "adapt",
        str(scans),
        "--groups",
        str(scans / "groups.csv"),
        "--base",
        str(base),
        "--minutes",
        "0.5",
    ]
    monkeypatch.setattr(Comparison, "is_better", False)
    monkeypatch.setattr("clickvol.adapt.budget._TRAINING_SHARE", 0.0)
    assert main([*words, "-o", "mine"]) == 3
    out, err = capsys.readouterr()
    assert "not better than random" in err
    assert out.startswith("clicks")
    assert (tmp_path / "mine.json").read_text() == "old"


@pytest.mark.parametrize(
    ("half", "whole", "share"),
    [((0.60, 0.70), (0.61, 0.705), 0.5), ((0.60, 0.70), (0.63, 0.70), 1.0), ((0.6, 0.9), (0.7, 0.7), 0.5)],
)
def test_the_shorter_way_is_gone_where_it_is_as_good(half, whole, share):
    before = [Score("c", "p", 1, (0.4, 0.5))]
    known = [Comparison.of(before, [Score("c", "p", 1, dice)]) for dice in (half, whole)]
    assert _shortest(known) == (share, known[0 if share == 0.5 else 1])


def test_two_patients_are_too_few(scans, base, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("case,group\nc0,p\nc1,p\nc2,q\nc3,q\n")
    with pytest.raises(ConfigError, match=r"usable scans \(4\) of 2 patients are too few"):
        adapt(request(scans, base, tmp_path / "mine", intake=Intake(source=scans, groups=groups)))
    assert not (tmp_path / "mine.work").exists()


def test_too_many_patients_are_refused_before_any_scan_is_read(base, tmp_path):
    rows = [f"s{number}.nii.gz,m{number}.nii.gz" for number in range(60)]
    for row in rows:
        for name in row.split(","):
            (tmp_path / name).write_bytes(b"never read")
    (tmp_path / "list.csv").write_text("\n".join(["scan,label", *rows]))
    with pytest.raises(ConfigError, match="cases of 60 patients; adapt takes 50 at most"):
        adapt(AdaptRequest(intake=Intake(source=tmp_path / "list.csv"), output=tmp_path / "m", base=str(base)))
    assert not (tmp_path / "m.work").exists()


def test_a_folder_is_no_name(scans, base, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; give the name of the model in it"):
        adapt(request(scans, base, tmp_path))


def test_a_missing_folder_is_named(base, tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not there"):
        adapt(AdaptRequest(intake=Intake(source=tmp_path / "nowhere"), output=tmp_path / "m", base=str(base)))
    assert not (tmp_path / "m.work").exists()


def test_a_folder_without_cases_leaves_no_work_folder(base, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        adapt(AdaptRequest(intake=Intake(source=tmp_path / "empty"), output=tmp_path / "m", base=str(base)))
    assert not (tmp_path / "m.work").exists()
