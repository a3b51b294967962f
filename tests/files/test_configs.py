import tomllib
from pathlib import Path

import pytest

from clickvol.cli.app import main
from clickvol.errors import OutputError
from clickvol.files.configs import CONFIGS_FOLDER, copy_configs, list_configs, shipped_config

SMOKE = Path("configs/smoke.toml")


def test_a_file_of_the_working_folder_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_config(SMOKE) == CONFIGS_FOLDER / "smoke.toml"
    SMOKE.parent.mkdir()
    SMOKE.touch()
    assert shipped_config(SMOKE) == SMOKE


@pytest.mark.parametrize("name", ["smoke.toml", "configs/nothing.toml", "my/configs/smoke.toml", "configs"])
def test_no_other_path_is_taken_for_a_shipped_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert shipped_config(Path(name)) == Path(name)


def test_the_list_has_every_file_and_what_its_first_line_says():
    listed = list_configs()
    assert {name.removeprefix("configs/") for name in listed} == {
        path.relative_to(CONFIGS_FOLDER).as_posix() for path in CONFIGS_FOLDER.rglob("*.toml")
    }
    assert listed["configs/smoke.toml"].startswith("A network of two blocks on synthetic scans")
    assert listed["configs/sarcoma/promise3d.toml"] == ""


def test_copies_are_whole_and_nothing_is_overwritten(tmp_path):
    copy_configs(tmp_path / "mine")
    copied = {path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*.*")}
    assert copied == {path.relative_to(CONFIGS_FOLDER) for path in CONFIGS_FOLDER.rglob("*.*")}
    assert tomllib.loads((tmp_path / "mine" / "own-data.toml").read_text())["extends"] == "promise3d-small.toml"
    with pytest.raises(OutputError, match="may hold files of yours; name a new folder"):
        copy_configs(tmp_path / "mine")


def test_the_command_lists_and_copies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list_configs())
    assert main(["configs", "mine"]) == 0
    assert "clickvol train mine/own-data.toml" in capsys.readouterr().out
    assert main(["configs", "mine"]) == 2
    assert main(["configs", "no/such/place"]) == 0


@pytest.mark.parametrize("study", ["configs/sarcoma-study.toml", "configs/claims.toml"])
def test_a_shipped_study_and_the_files_it_names_are_read_where_there_is_no_checkout(
    tmp_path, monkeypatch, study
):
    from clickvol.reproduction.study import read_study
    from clickvol.training.read_config import read_train_config

    monkeypatch.chdir(tmp_path)
    file = read_study(study)
    trained = [arm.config for arm in file.study.arms if getattr(arm, "config", None)]
    assert trained
    for config in trained:
        read_train_config(file.next_to(config), [])
    assert all(file.next_to(data.splits).is_file() for task in file.study.tasks for data in task.data)
