import csv
import hashlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import pandas as pd
import pytest

from clickvol.datasets import published
from clickvol.datasets.prepared import read_prepared_set
from clickvol.datasets.sources import list_source
from clickvol.datasets.splits import Split
from clickvol.errors import ConfigError, OutputError
from clickvol.report.tables import MISSING
from clickvol.reproduction import preparation, steps
from clickvol.reproduction.steps import left_out, reproduce, steps_of, tables_from_records
from clickvol.reproduction.study import read_study
from clickvol.reproduction.workspace import Reproduction
from clickvol.training.run import train_from_config
from clickvol.weights.card import read_card
from reference.forked_program import ForkedProgram
from reference.studies import STUDY, write_study

pytestmark = pytest.mark.slow

TITLES = [
    "prepare lump",
    "train clicked on lump",
    "score clicked on lump",
    "train windows on lump",
    "score windows on lump",
    "score ball on lump",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


def job_of(study, out, **words):
    made = {"file": read_study(str(study.path)), "raw": study.raw, "folder": out, "device": "cpu"}
    return Reproduction(**made | words)


def run(job):
    """Do all steps; return the titles and whether each was done before."""
    seen = {}
    reproduce(job, on_step=lambda step, is_done: seen.update({step.title: is_done}))
    return seen


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """A study that was done from its beginning to its end in one go."""
    job = job_of(study, tmp_path_factory.mktemp("whole"))
    assert run(job) == dict.fromkeys(TITLES, False)
    return job


def rows_of(job):
    return list(csv.DictReader((job.results / "table.csv").read_text().splitlines()))


def test_the_table_has_our_numbers_beside_the_published(whole):
    rows = rows_of(whole)
    assert [(row["arm"], row["clicks"], row["published_dice_percent"]) for row in rows] == [
        ("clicked", "1", "66.81"),
        ("windows", "0", "40.0"),
        ("windows + click", "1", ""),
        ("ball", "1", ""),
    ]
    assert all(row["scans"] == "2" and 0 <= float(row["dice_mean"]) <= 1 for row in rows)
    ball = rows[-1]
    assert float(ball["dice_mean"]) > 0.2
    text = (whole.results / "table.md").read_text()
    mean, low, high = (100 * float(ball[f"dice_{what}"]) for what in ("mean", "low", "high"))
    star = "*" if float(ball["dice_t_p"]) < 0.05 else ""
    assert f"| A ball | 1 | {mean:.2f}{star} [{low:.2f}, {high:.2f}] | {MISSING} | {MISSING} |" in text
    ours = 100 * float(rows[0]["dice_mean"])
    assert f"| 66.81 | {ours - 66.81:+.2f} |" in text
    assert "lump: 1/1/2 scans train/validate/test" in text
    assert "REHEARSAL" not in text.upper()
    assert (whole.results / "reports" / "lump" / "report.md").is_file()


def test_a_model_is_asked_with_the_constants_it_was_trained_with(whole):
    made = read_prepared_set(whole.folder / "data" / "lump").intensity["CT"]
    plan = read_card(whole.results / "runs" / "clicked").intensity
    assert plan.clip == (made.low, made.high)
    assert (plan.mean, plan.deviation) == (made.mean, made.deviation)


def test_a_second_time_nothing_is_done_and_the_table_stays(whole):
    before = (whole.results / "table.md").read_bytes()
    card = whole.results / "runs" / "clicked" / "clicked.json"
    changed = card.stat().st_mtime_ns
    assert run(whole) == dict.fromkeys(TITLES, True)
    assert (whole.results / "table.md").read_bytes() == before
    assert card.stat().st_mtime_ns == changed


def test_stopped_after_the_first_arm_it_goes_on_to_the_same_table(study, whole, tmp_path):
    job = job_of(study, tmp_path / "out")

    def stop(step, _is_done):
        if step.title == "train windows on lump":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(job, on_step=stop)
    assert not (job.results / "table.md").exists()
    seen = run(job)
    assert [seen[title] for title in TITLES] == [True, True, True, False, False, False]
    for name in ("table.md", "table.csv"):
        assert (job.results / name).read_bytes() == (whole.results / name).read_bytes()


def test_the_records_alone_give_the_same_table_also_of_a_network_without_clicks(whole, tmp_path):
    job = replace(whole, folder=tmp_path, raw=tmp_path / "nowhere")
    shutil.copytree(whole.results / "evaluations", job.results / "evaluations")
    shutil.copy(whole.results / "splits-note.json", job.results)
    assert tables_from_records(job).read_bytes() == (whole.results / "table.md").read_bytes()


def kill_when(job, file):
    """Do `clickvol reproduce` and kill it, with all that it started, as soon as a file has something in it."""
    words = ["reproduce", job.file.path, "--data", job.raw, "-o", job.folder, "--device", "cpu"]
    program = ForkedProgram(words, prepare=os.setpgrp)
    try:
        while not file.is_file() or not file.stat().st_size:
            assert program.poll() is None, program.communicate()
            time.sleep(0.002)
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()
    assert program.poll() == -signal.SIGKILL


def test_killed_while_it_prepares_trains_and_scores_it_goes_on_to_the_same_records(study, whole, tmp_path):
    job = job_of(study, tmp_path / "out")
    scored = job.results / "evaluations" / "lump"
    kill_when(job, job.folder / "data" / "lump" / "prepared.json")
    kill_when(job, job.results / "runs" / "clicked" / "checkpoint.pt")
    kill_when(job, scored / "clicked" / "results.jsonl")
    assert not (job.results / "table.md").exists()
    assert list(run(job).values())[:2] == [True] * 2
    for name in ("table.md", "table.csv", "runs/clicked/clicked.safetensors"):
        assert (job.results / name).read_bytes() == (whole.results / name).read_bytes(), name
    for arm in ("clicked", "windows", "ball"):
        ours, theirs = (
            pd.read_parquet(one.results / "evaluations" / "lump" / arm / "scores.parquet").drop(
                columns="seconds"
            )
            for one in (job, whole)
        )
        pd.testing.assert_frame_equal(ours, theirs)


def test_a_rehearsal_says_so_and_stays_apart(study, whole):
    job = job_of(study, whole.folder, steps=2, only=("windows", "ball"))
    before = (whole.results / "table.md").read_bytes()
    seen = run(job)
    assert seen["prepare lump"] is True
    assert seen["train windows on lump"] is False
    text = (job.results / "table.md").read_text()
    assert text.count("NOT THE SCHEDULE OF THE STUDY") == 1
    assert "A network without clicks (ONLY 2 STEPS)" in text
    assert "A ball (ONLY" not in text
    row = f"| A clicked network (ONLY 2 STEPS) | 1 | not run | 66.81 | {MISSING} | not run |"
    assert row in text
    (first, *_) = rows_of(job)
    assert (first["dice_mean"], first["training_ended_after"]) == ("", "2")
    assert (whole.results / "table.md").read_bytes() == before
    assert all(step.is_done() for step in steps_of(job))


def test_a_mean_that_differs_from_the_reference_has_a_star_and_its_p_value(whole):
    (summary_file,) = (whole.results / "reports").glob("*/summary.json")
    tested = json.loads(summary_file.read_text())["comparisons"]
    wanted = {(row["model"], row["measure"]): row["t_p"] for row in tested}
    rows = {row["arm"]: row for row in rows_of(whole)}
    assert rows["clicked"]["dice_t_p"] == ""
    for arm in ("windows", "windows + click", "ball"):
        for measure in ("dice", "nsd_5mm"):
            assert float(rows[arm][f"{measure}_t_p"]) == wanted[arm, measure]
    text = (whole.results / "table.md").read_text()
    starred = sum(float(rows[arm][f"{m}_t_p"]) < 0.05 for arm in list(rows)[1:] for m in ("dice", "nsd_5mm"))
    assert len(re.findall(r"\d\* ", text)) == starred
    assert "*: differs from A clicked network, p < 0.05" in text


def test_as_the_text_says_is_trained_by_its_own_file_in_its_own_folder(study, whole, tmp_path):
    with pytest.raises(ConfigError, match="no arm of the study tiny has a training file for the text"):
        job_of(study, tmp_path, form="text")
    copy = write_study(tmp_path / "study")
    copy.path.write_text(STUDY.replace('config = "{task}', 'text_config = "text.toml"\nconfig = "{task}'))
    text = 'extends = "lump-clicked.toml"\n[optimiser]\nlearning_rate = 5e-4\n'
    (copy.path.parent / "text.toml").write_text(text)
    job = job_of(copy, whole.folder, raw=study.raw, form="text", only=("clicked",))
    (_, training, _) = steps_of(job)
    assert "text.toml" in training.command()
    assert "as-text/runs/clicked" in training.command()
    assert job.results == whole.folder / "as-text"


def test_a_model_scored_on_its_own_training_is_told_in_the_table_and_again_from_records(study, whole, tmp_path):
    copy = write_study(tmp_path / "study")
    copy.path.write_text(STUDY.replace('name = "promise3d"', 'name = "promise3d"\nsplit = "train"'))
    job = job_of(copy, tmp_path / "out", raw=study.raw, only=("clicked",))
    shutil.copytree(whole.folder / "data", tmp_path / "out" / "data")
    run(job)
    line = "- WARNING: clicked was trained on 1 of the 1 scans of lump: its scores there say little about new"
    assert line in (job.results / "table.md").read_text()
    assert "WARNING" not in (whole.results / "table.md").read_text()
    shutil.rmtree(tmp_path / "out" / "data")
    assert line in tables_from_records(job).read_text()


def test_a_training_that_clickvol_train_finished_is_taken(study, whole, tmp_path, monkeypatch):
    """Its data lie elsewhere, and have the same content."""
    monkeypatch.chdir(tmp_path)
    copy = write_study(tmp_path / "study")
    shutil.copytree(whole.folder / "data" / "lump", tmp_path / "mine" / "lump")
    config = copy.path.parent / "lump-clicked.toml"
    data = 'root = "mine"\n[[data.folders]]\npath = "lump"\nmodality = "CT"\nsource = "me"\n'
    config.write_text(config.read_text().replace("[sampling]", data + "[sampling]", 1))
    train_from_config(config, [])
    shutil.copytree(whole.folder / "data", tmp_path / "out" / "data")
    job = job_of(copy, tmp_path / "out", only=("clicked",), raw=study.raw)
    (_, training, _) = steps_of(job)
    assert training.is_done()
    assert "run.folder" not in training.command()
    config.write_text(config.read_text().replace("steps = 3", "steps = 4"))
    assert not training.is_done()
    assert "run.folder" in training.command()


def test_a_training_of_another_configuration_is_not_overwritten(study, whole, tmp_path):
    copy = write_study(tmp_path / "study")
    config = copy.path.parent / "lump-clicked.toml"
    config.write_text(config.read_text().replace("steps = 3", "steps = 5"))
    job = job_of(copy, whole.folder, raw=study.raw, only=("clicked",))
    with pytest.raises(ConfigError, match="runs/clicked holds a training with another config"):
        run(job)


def test_a_missing_data_set_is_asked_for_before_any_work(study, tmp_path):
    job = job_of(study, tmp_path / "out", raw=tmp_path)
    with pytest.raises(ConfigError, match=r"Task99_Lump is missing.*ask nobody.*--data"):
        run(job)
    assert not (tmp_path / "out").exists()


def test_a_missing_foundation_is_told_before_any_work_and_in_the_plan(study, tmp_path):
    copy = write_study(tmp_path / "study")
    config = copy.path.parent / "lump-clicked.toml"
    config.write_text(config.read_text().replace("[run]", '[run]\nfoundation = "no-such-sam"', 1))
    job = job_of(copy, tmp_path / "out", raw=study.raw, only=("clicked",))
    words = "clicked begins with no-such-sam: there is no model 'no-such-sam'"
    assert steps_of(job)[1].hint.startswith(words)
    with pytest.raises(ConfigError, match=words):
        run(job)
    assert not (tmp_path / "out" / "data").exists()


def test_a_foundation_with_damaged_weights_is_told_before_any_work_and_in_the_plan(study, whole, tmp_path):
    trained = whole.results / "runs" / "clicked"
    for name in ("clicked.json", "clicked.safetensors"):
        shutil.copy(trained / name, tmp_path / name)
    copy = write_study(tmp_path / "study")
    config = copy.path.parent / "lump-clicked.toml"
    words = f'[run]\nfoundation = "{tmp_path / "clicked.json"}"'
    config.write_text(config.read_text().replace("[run]", words, 1))
    job = job_of(copy, tmp_path / "out", raw=study.raw, only=("clicked",))
    assert steps_of(job)[1].hint == ""
    weights = tmp_path / "clicked.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    words = "clicked begins with .*clicked.json: .*clicked.safetensors"
    assert re.match(words, steps_of(job)[1].hint)
    with pytest.raises(ConfigError, match=words):
        run(job)
    assert not (tmp_path / "out").exists()


def test_scans_that_are_not_the_studys_are_refused_before_any_work(study, tmp_path):
    copy = write_study(tmp_path / "study")
    lines = []
    for number in range(4):
        files = [
            copy.raw / "Task99_Lump" / part / f"case_{number:03d}.nii.gz" for part in ("imagesTr", "labelsTr")
        ]
        hashes = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        lines.append(f"case_{number:03d} {hashes}\n")
    sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    copy.path.write_text(STUDY.replace('modality = "CT"', f'modality = "CT"\nsha256 = "{sha256}"'))
    job = job_of(copy, tmp_path / "out", raw=copy.raw, only=("ball",))
    assert steps_of(job)[0].hint == ""
    labels = copy.raw / "Task99_Lump" / "labelsTr"
    shutil.copy(labels / "case_000.nii.gz", labels / "case_001.nii.gz")
    assert "holds other scans or labels than the study was made with" in steps_of(job)[0].hint
    with pytest.raises(ConfigError, match=r"Task99_Lump holds other scans.*expected " + sha256[:12]):
        run(job)
    assert not (tmp_path / "out").exists()


def test_a_missing_model_of_an_arm_without_training_is_told_before_any_work(study, tmp_path):
    copy = write_study(tmp_path / "study")
    copy.path.write_text(copy.path.read_text().replace('"ball:25"', '"no-such-model"'))
    job = job_of(copy, tmp_path / "out", raw=study.raw, only=("ball",))
    words = "ball is no-such-model: there is no model 'no-such-model'"
    assert steps_of(job)[-1].hint.startswith(words)
    with pytest.raises(ConfigError, match=words):
        run(job)
    assert not (tmp_path / "out").exists()


def test_too_small_a_disk_is_told_before_any_work(study, tmp_path, monkeypatch):
    job = job_of(study, tmp_path / "out")
    assert steps.missing_space(job) is None
    monkeypatch.setattr(steps, "_BYTES_PER_TRAINING", 10**18)
    with pytest.raises(OutputError, match=r"about 20000000\.0 GB are to be written to .*out, but its disk has"):
        run(job)
    assert not (tmp_path / "out").exists()
    config = study.path.parent / "lump-clicked.toml"
    before = config.read_text()
    config.write_text(before.replace('size = "tiny"', 'size = "vit_b"'))
    try:
        assert "about 2000000000.0 GB" in steps.missing_space(job)  # a hundred times as much
    finally:
        config.write_text(before)


def test_arms_and_data_sets_that_are_not_there_are_named(study, tmp_path):
    with pytest.raises(ConfigError, match="no arm 'x'; choose one of clicked, windows, ball"):
        job_of(study, tmp_path, only=("x",))
    with pytest.raises(ConfigError, match="no data set 'x'; choose one of lump"):
        job_of(study, tmp_path, splits={"x": tmp_path})


def test_nnunet_without_its_environment_is_left_out_with_its_command(study, whole, tmp_path):
    path = study.path.with_name("with-nnunet.toml")
    path.write_text(
        STUDY + '\n[[arms]]\nkind = "nnunet"\nname = "nnunet"\ntitle = "nnU-Net"\nepochs = 5\n'
        'published = [{ data = "lump", clicks = 0, dice = 45.6, nsd = 53.01, source = "a paper" }]\n'
    )
    job = job_of(study, whole.folder, file=read_study(str(path)))
    assert [step.title for step in steps_of(job)] == TITLES
    (line,) = left_out(job)
    assert "clickvol nnunet run" in line
    assert "--epochs 5" in line
    run(job)
    text = (job.results / "table.md").read_text()
    row = f"| nnU-Net | 0 | not run | 45.60 | {MISSING} | not run | 53.01 | {MISSING} |"
    assert row in text
    assert f"- Not run: {line}" in text
    (job.results / "table.md").unlink()
    run(job_of(study, whole.folder))  # as it was, for other tests


def test_the_official_split_is_taken_and_told(study, tmp_path, monkeypatch):
    ids = [case.case_id for case in list_source("msd", study.raw / "Task99_Lump").cases]
    official = Split(train=tuple(ids[1:3]), val=(ids[3],), test=(ids[0],))
    monkeypatch.setattr(published, "official_split", lambda _: official)
    monkeypatch.setattr(preparation, "official_split", lambda _: official)
    text = STUDY.replace('splits = "splits.json"', 'constants = "colon"')
    path = tmp_path / "study.toml"
    path.write_text(text)
    job = job_of(study, tmp_path / "out", file=read_study(str(path)))
    (data,) = job.study.data
    preparation.prepare(job, data, lambda _: None)
    assert preparation.is_prepared(job, data)
    assert read_prepared_set(job.prepared(data)).splits == (official,)
    note = preparation.split_note(job, data)
    assert note == "lump: 2/1/1 scans train/validate/test, the published ones; 0 rejected."


def test_a_set_that_is_not_whole_is_split_by_shares(study, tmp_path):
    text = STUDY.replace('splits = "splits.json"', 'constants = "colon"')
    path = tmp_path / "study.toml"
    path.write_text(text)
    job = job_of(study, tmp_path / "out", file=read_study(str(path)))
    (data,) = job.study.data
    preparation.prepare(job, data, lambda _: None)
    assert preparation.is_prepared(job, data)
    note = preparation.split_note(job, data)
    assert note.startswith("lump: 2/1/1 scans train/validate/test, drawn with seed 0; 0 rejected.")
    assert "The published numbers are 89/11/26; these are not the published scans." in note
