"""A study with folds, training seeds and claims, from phantoms to the decided table."""

import csv
import itertools
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clickvol.datasets.prepared import read_prepared_set
from clickvol.errors import ConfigError
from clickvol.report.statistics import paired_tests
from clickvol.report.tables import MISSING
from clickvol.reproduction.claims import claim_rows, write_claims
from clickvol.reproduction.scoring import scored_rows
from clickvol.reproduction.steps import reproduce, steps_of, tables_from_records
from clickvol.reproduction.study import read_study
from clickvol.reproduction.workspace import Reproduction
from clickvol.weights.card import read_card
from reference.studies import STUDY, write_study

pytestmark = pytest.mark.slow

CLAIMS = """
[[arms]]
kind = "method"
name = "random"
title = "told a random voxel"
method = "random-click:{clicked}"

[[claims]]
name = "beats-ball"
title = "It beats a ball"
arm = "clicked"
against = "ball"

[[claims]]
name = "click"
title = "The click helps"
arm = "clicked"
against = "random"
"""

BUDGET = """
[[budgets]]
name = "less"
reason = "no time"
arms = ["clicked", "ball"]
seeds = [3]
users = 2
overrides = ["optimiser.steps=2"]
arm_overrides = { clicked = ["optimiser.batch_size=2"] }
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two folds and two seeds of a clicked network, a ball, and the network told another click."""
    study = write_study(tmp_path_factory.mktemp("study"))
    cases = [f"case_{n:03d}" for n in range(4)]
    folds = [
        {"train": cases[2:], "val": [], "test": cases[:2]},
        {"train": cases[:2], "val": [], "test": cases[2:]},
    ]
    (study.path.parent / "splits.json").write_text(json.dumps(folds))
    before, windows = STUDY.split('[[arms]]\nkind = "train"\nname = "windows"')
    text = before + "[[arms]]" + windows.split("[[arms]]")[1] + CLAIMS
    text = text.replace('reference = "clicked"', 'reference = "clicked"\nfolds = [0, 1]\nseeds = [3, 8]')
    study.path.write_text(text)
    folder = tmp_path_factory.mktemp("out")
    job = Reproduction(file=read_study(str(study.path)), raw=study.raw, folder=folder, device="cpu", steps=1)
    titles = []
    reproduce(job, on_step=lambda step, _: titles.append(step.title))
    return job, titles


def test_every_fold_and_seed_is_trained_and_scored_by_itself_one_seed_after_the_other(done):
    job, titles = done
    assert titles == [
        "prepare lump",
        *(f"{what} clicked-fold{fold}-seed3 on lump" for fold in (0, 1) for what in ("train", "score")),
        *(f"score ball-fold{fold} on lump" for fold in (0, 1)),
        *(f"score random-fold{fold}-seed3 on lump" for fold in (0, 1)),
        *(f"{what} clicked-fold{fold}-seed8 on lump" for fold in (0, 1) for what in ("train", "score")),
        *(f"score random-fold{fold}-seed8 on lump" for fold in (0, 1)),
    ]
    assert all(step.is_done() for step in steps_of(job))
    runs = job.results / "runs"
    hashes = {read_card(runs / f"clicked-fold{f}-seed{s}").sha256 for f in (0, 1) for s in (3, 8)}
    assert len(hashes) == 4


def test_each_patient_is_scored_by_models_that_never_saw_it(done):
    job, _ = done
    folds = read_prepared_set(job.prepared(job.study.data[0])).splits
    rows = scored_rows(job, job.study.tasks[0])
    assert len(rows) == 4 * 2 + 4 + 4 * 2
    for fold, ids in rows.groupby("fold")["case_id"]:
        assert set(ids) == set(folds[fold].test)
        path = job.results / "runs" / f"clicked-fold{fold}-seed3" / "config.json"
        config = json.loads(path.read_text())
        assert (config["data"]["fold"], config["run"]["seed"]) == (fold, 3 + 1000 * fold)


def test_a_claim_is_the_mean_over_patients_of_their_mean_over_trainings(done):
    job, _ = done
    rows = claim_rows(job).set_index("claim")
    scores = scored_rows(job, job.study.tasks[0])
    means = scores.groupby(["arm", "group"])["dice"].mean()
    for claim, against in (("beats-ball", "ball"), ("click", "random")):
        wanted = (means["clicked"] - means[against]).to_numpy()
        row = rows.loc[claim]
        assert (row["patients"], row["trainings"]) == (4, 4)
        assert row["difference"] == pytest.approx(wanted.mean())
        assert row["t_p"] == pytest.approx(paired_tests(wanted).t_p)
    table = list(csv.DictReader((job.results / "claims.csv").read_text().splitlines()))
    assert [row["claim"] for row in table] == ["beats-ball", "click"]
    # Holm: the smaller of two p values doubled.
    smaller = min(rows["model_p"])
    assert min(rows["model_p_holm"]) == pytest.approx(min(1.0, 2 * smaller))
    text = (job.results / "claims.md").read_text()
    assert text.startswith("**A REHEARSAL: every training was ended after 1 steps.**")
    assert "| It beats a ball | 4 | 4 |" in text
    assert "| 6 of 6 |" in text  # four of the network, two of the ball
    assert "so far" not in text.split("Claims were named")[0]
    table = (job.results / "table.md").read_text()
    assert "| told a random voxel (ONLY 1 STEPS) | 1 |" in table
    assert "| A ball | 1 |" in table


def test_users_of_further_trainings_have_further_numbers(done):
    job, _ = done
    rows = scored_rows(job, job.study.tasks[0])
    users = rows[rows["arm"] == "clicked"].groupby("training")["seed"].unique().map(list)
    assert users.to_dict() == {0: [0], 1: [1]}
    report = pd.read_csv(job.report_folder(job.study.tasks[0]) / "scores.csv")
    assert len(report) == len(rows)
    np.testing.assert_allclose(sorted(report["dice"]), sorted(rows["dice"]))


def test_claims_are_told_while_the_study_goes_on_and_a_p_value_never_counts_too_few_claims(done, tmp_path):
    job, _ = done
    begun = replace(job, folder=tmp_path)
    shutil.copytree(job.folder / "data", tmp_path / "data")
    told = []

    def stop(step, _is_done):
        path = begun.results / "claims.md"
        told.append(path.read_text() if path.is_file() else "")
        if step.title == "score random-fold0-seed3 on lump":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(begun, on_step=stop)
    assert [bool(text) for text in told] == [False] * 3 + [True] * 5
    rows = claim_rows(begun).set_index("claim")
    assert rows[["scored", "wanted"]].to_numpy().tolist() == [[4, 6], [2, 8]]
    first = rows.loc["beats-ball"]
    assert first["model_p_holm"] == pytest.approx(min(1.0, 2 * first["model_p"]))  # the other has no scores
    assert pd.isna(rows.loc["click", "model_p_holm"])
    assert "| 4 of 6 | so far: " in told[-1]
    assert f"| 2 of 8 | {MISSING} |" in told[-1]


def test_the_records_alone_give_every_table_again(done, tmp_path):
    job, _ = done
    shutil.copytree(job.results / "evaluations", tmp_path / job.results.name / "evaluations")
    shutil.copy(job.results / "splits-note.json", tmp_path / job.results.name)
    alone = replace(job, folder=tmp_path, raw=tmp_path / "nowhere")
    path = tables_from_records(alone)
    assert path == alone.results / "table.md"
    names = ["table.md", "table.csv", "claims.md", "claims.csv"]
    names += [f"reports/lump/{name}" for name in ("report.md", "summary.csv", "summary.json", "scores.csv")]
    for name in names:
        assert (alone.results / name).read_bytes() == (job.results / name).read_bytes(), name
    assert not (tmp_path / "data").exists()
    settings = alone.results / "evaluations" / "lump" / "ball-fold0" / "settings.json"
    settings.write_text(settings.read_text().replace('"fold": 0', '"fold": 1'))
    tables_from_records(alone)
    rows = claim_rows(replace(alone, records_only=True)).set_index("claim")
    assert rows[["scored", "wanted"]].to_numpy().tolist() == [[5, 6], [8, 8]]
    assert "NOT COMPLETE" not in (job.results / "table.md").read_text()
    assert "- NOT COMPLETE: A ball, 1 of 2 evaluations (" in (alone.results / "table.md").read_text()
    with pytest.raises(ConfigError, match="holds no finished evaluation of the study tiny; give -o"):
        tables_from_records(replace(alone, steps=None))


def test_a_training_that_the_other_arm_does_not_have_yet_is_not_compared_with_another_one(done, tmp_path):
    job, _ = done
    folder = tmp_path / job.results.name / "evaluations"
    shutil.copytree(job.results / "evaluations", folder)
    for fold in (0, 1):
        shutil.rmtree(folder / "lump" / f"random-fold{fold}-seed8")
    rows = claim_rows(replace(job, folder=tmp_path, records_only=True)).set_index("claim")
    assert rows["trainings"].to_dict() == {"beats-ball": 4, "click": 2}  # the ball goes with all


def test_scores_made_by_hand_give_the_p_values_of_two_t_tests_corrected_for_two_claims(done, tmp_path):
    """Against the ball only patients differ, .1 to .4; against the other click only the four trainings do."""
    job, _ = done
    folder = tmp_path / job.results.name / "evaluations"
    shutil.copytree(job.results / "evaluations", folder)
    for fold, seed in itertools.product((0, 1), (3, 8)):
        patients = np.array([[0.1, 0.4], [0.2, 0.3]][fold])
        luck = {(0, 3): 0.1, (0, 8): 0.3, (1, 3): 0.2, (1, 8): 0.5}[fold, seed]
        for name, dice in (("clicked", patients), ("random", patients - luck), ("ball", 0 * patients)):
            which = f"{name}-fold{fold}" if name == "ball" else f"{name}-fold{fold}-seed{seed}"
            path = folder / "lump" / which / "scores.parquet"
            pd.read_parquet(path).sort_values("case_id").assign(dice=dice).to_parquet(path)
    rows = claim_rows(replace(job, folder=tmp_path, records_only=True)).set_index("claim")
    # Mean, error, t with 3 degrees: .25, .0645, 3.873 of the patients; .275, .0854, 3.220 of the trainings.
    ball, other = rows.loc["beats-ball"], rows.loc["click"]
    assert (ball["difference"], other["difference"]) == (pytest.approx(0.25), pytest.approx(0.275))
    assert ball["t_p"] == pytest.approx(0.0305, abs=1e-4)
    assert ball["model_p"] == pytest.approx(0.0305, abs=1e-3)
    assert other["model_p"] == pytest.approx(0.0486, abs=1.5e-3)
    assert [ball["model_p_holm"], other["model_p_holm"]] == pytest.approx([2 * ball["model_p"]] * 2)
    assert other["detectable"] == pytest.approx(2.8 * 0.0854, abs=3e-3)


@pytest.mark.parametrize("budget", ["tiny", "published-rate"])
def test_the_records_that_are_kept_of_the_sarcoma_give_its_claims_again(budget, tmp_path):
    root = Path(__file__).parents[2]
    kept = root / "benchmarks" / "results" / f"claims-{budget}"
    file = read_study(str(root / "configs" / "claims.toml")).with_budget(budget)
    job = Reproduction(file=file, raw=tmp_path, folder=tmp_path, records_only=True)
    with zipfile.ZipFile(kept / "evaluations.zip") as records:
        records.extractall(job.results)
    write_claims(job)
    again, before = (pd.read_csv(folder / "claims.csv") for folder in (job.results, kept))
    assert len(again) == len(file.study.claims)
    pd.testing.assert_frame_equal(again, before, rtol=1e-4, atol=1e-9)


def test_a_budget_is_the_study_with_less_in_a_folder_of_its_own(done, tmp_path):
    job, _ = done
    path = tmp_path / "study.toml"
    shutil.copytree(job.file.path.parent, tmp_path, dirs_exist_ok=True)
    path.write_text(path.read_text() + BUDGET)
    file = read_study(str(path))
    less = file.with_budget("less")
    assert [arm.name for arm in less.study.arms] == ["clicked", "ball"]
    assert [claim.name for claim in less.study.claims] == ["beats-ball"]
    assert less.study.seeds == (3,)
    assert (file.study.protocol.protocol().seeds, less.study.protocol.protocol().seeds) == (1, 2)
    assert less.study.notes[0] == "Budget less: no time"
    work = replace(job, file=less, folder=tmp_path, steps=None, only=())
    assert work.results == tmp_path / "budget-less"
    training = next(step for step in steps_of(work) if step.title == "train clicked-fold0-seed3 on lump")
    assert "--set optimiser.steps=2 --set optimiser.batch_size=2 " in training.command()
    assert "budget-less/runs/clicked-fold0-seed3" in training.command()
    with pytest.raises(ConfigError, match="has no budget 'more'; it names less"):
        file.with_budget("more")
    path.write_text(path.read_text().replace('arms = ["clicked", "ball"]', 'arms = ["random", "ball"]'))
    with pytest.raises(ConfigError, match="budget less: random names 'clicked', which is no arm"):
        read_study(str(path)).with_budget("less")
    path.write_text(path.read_text().replace("{ clicked = [", "{ cubes = ["))
    with pytest.raises(ConfigError, match="the budget less names 'cubes', which is no arm"):
        read_study(str(path))
    path.write_text(path.read_text().replace('arms = ["random", "ball"]', 'arms = ["cube"]'))
    with pytest.raises(ConfigError, match="the budget less names 'cube', which is no arm"):
        read_study(str(path))
