import json

import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.records import RunKey
from clickvol.evaluation.result_log import (
    AUDIT_NAME,
    RESULTS_NAME,
    ResultLog,
    read_audit,
)
from reference.click_scores import click_score

SETTINGS = {"protocol": {"seeds": 2}, "models": {"ball": "r"}}


def key_of(case_id):
    return RunKey("ball", "set", case_id, 0, "random")


def rows_of(key, numbers=(1, 3)):
    return [
        click_score(**key._asdict(), num_clicks=number, hd95_mm=None, lesion_recall=None) for number in numbers
    ]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def audit_of(key, number=1):
    return {
        **key._asdict(), "click": number, "voxel_ijk": [1, 2, 3], "world_ras_mm": [0.5, 1.0, 1.5],
        "foreground": True, "drawn_from": "any voxel of the tumour", "region_voxels": 9, "label_sha256": "ab",
        "oracle": None,
    }  # fmt: skip


def open_log(folder, settings=SETTINGS):
    return ResultLog(folder, settings, lambda _, numbers: tuple(numbers) == (1, 3))


@pytest.fixture
def begun(tmp_path):
    log = open_log(tmp_path)
    for case_id in ("a", "b"):
        key = key_of(case_id)
        log.append(key, rows_of(key), [audit_of(key, 1), audit_of(key, 2)])
    return tmp_path


def test_runs_that_are_written_are_there_when_it_is_opened_again(begun):
    log = open_log(begun)
    assert key_of("a") in log
    assert key_of("c") not in log
    assert log.rows() == [*rows_of(key_of("a")), *rows_of(key_of("b"))]
    assert lines_of(begun / RESULTS_NAME) == log.rows()
    assert read_audit(begun)[1] == audit_of(key_of("a"), 2)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_cut_off_run_is_dropped_with_its_clicks(begun, cut):
    results = begun / RESULTS_NAME
    whole = results.read_bytes()
    results.write_bytes(whole[:-cut])
    audit = (begun / AUDIT_NAME).read_text()
    log = open_log(begun)
    assert key_of("a") in log
    assert key_of("b") not in log
    assert len(lines_of(results)) == 2
    assert len(read_audit(begun)) == 2
    log.append(key_of("b"), rows_of(key_of("b")), [audit_of(key_of("b"), n) for n in (1, 2)])
    assert results.read_bytes() == whole
    assert (begun / AUDIT_NAME).read_text() == audit


def test_clicks_without_their_run_are_dropped(begun):
    key = key_of("c")
    with (begun / AUDIT_NAME).open("a") as file:
        file.write((begun / AUDIT_NAME).read_text().splitlines()[0].replace('"a"', '"c"') + "\n")
        file.write('{"model": "ba')
    log = open_log(begun)
    assert key not in log
    assert len(read_audit(begun)) == 4
    assert (begun / AUDIT_NAME).read_text().endswith("\n")


@pytest.mark.parametrize("name", [RESULTS_NAME, AUDIT_NAME])
def test_a_damaged_line_that_ends_is_told(begun, name):
    path = begun / name
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ConfigError, match=f"{name}: line 1 is damaged"):
        open_log(begun)


def test_other_settings_are_refused_and_named(begun):
    changed = SETTINGS | {"models": {"ball": "R"}, "fold": 1}
    with pytest.raises(ConfigError, match="another fold and models; choose another folder"):
        open_log(begun, changed)
    (begun / "settings.json").unlink()
    with pytest.raises(ConfigError, match=r"settings\.json is missing"):
        open_log(begun)


def test_rows_of_another_form_are_refused(begun):
    path = begun / RESULTS_NAME
    path.write_text(path.read_text().replace('"nsd_1mm": 0.4', '"nsd": [0.4, 0.45, 0.5]'))
    with pytest.raises(ConfigError, match="is of another version of clickvol; choose another folder"):
        open_log(begun)
