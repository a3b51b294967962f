import shutil

import pytest

from reference.studies import write_study


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


def test_a_dry_run_prints_every_step_and_writes_nothing(run, study, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run("reproduce", study.path, "--data", study.raw, "-o", tmp_path / "out", "--dry-run")
    assert done.code == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("to do")] == [
        "to do: prepare lump",
        "to do: train clicked on lump",
        "to do: score clicked on lump",
        "to do: train windows on lump",
        "to do: score windows on lump",
        "to do: score ball on lump",
    ]
    assert any(line.strip().startswith("clickvol data prepare msd") for line in lines)
    assert any("optimiser.learning_rate=2e-3" in line for line in lines)
    assert any(line.strip().startswith("clickvol evaluate ball=ball:25") for line in lines)


def test_the_published_tables_can_be_planned_without_data(run, tmp_path):
    done = run("reproduce", "promise3d-table1", "--data", tmp_path, "-o", tmp_path / "o", "--dry-run")
    assert done.code == 0
    assert "Task10_Colon is missing" in done.out
    assert "medicaldecathlon.com" in done.out
    assert "35 GB" in done.out
    assert "left out: nnunet on colon is not run without --venv" in done.out
    assert not (tmp_path / "o").exists()


def test_missing_data_are_one_line(run, tmp_path):
    done = run("reproduce", "promise3d-table2", "--data", tmp_path, "-o", tmp_path / "o")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert f"{tmp_path / 'Task10_Colon'} is missing" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "clickd"], "no arm 'clickd'; choose one of clicked, windows, ball"),
        (["--budget", "small"], "has no budget 'small'; it names none"),
        (["--records"], "holds no finished evaluation of the study tiny"),
        (["--splits", "lump"], "--splits takes DATA=FILE"),
    ],
)
def test_mistakes_are_answered(run, study, tmp_path, words, message):
    done = run("reproduce", study.path, "--data", study.raw, "-o", tmp_path / "out", *words)
    assert done.code == 2
    assert message in done.err


def test_one_arm_from_raw_data_to_the_table(run, study, tmp_path):
    words = ("reproduce", study.path, "--data", study.raw, "-o", tmp_path / "out", "--only", "ball")
    done = run(*words)
    assert done.code == 0, done.err
    assert done.err.splitlines() == ["now: prepare lump", "now: score ball on lump"]
    assert "table.md" in done.out
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| A clicked network | 1 | not run | 66.81 |" in text
    assert run(*words).err.splitlines() == [
        "done before: prepare lump",
        "done before: score ball on lump",
    ]
    before = (tmp_path / "out" / "table.md").read_bytes()
    shutil.rmtree(study.raw)
    shutil.rmtree(tmp_path / "out" / "data")
    done = run("reproduce", study.path, "-o", tmp_path / "out", "--records")
    assert done.code == 0, done.err
    assert "table.md: from the records alone" in done.out
    assert (tmp_path / "out" / "table.md").read_bytes() == before
