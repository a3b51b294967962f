import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.records import ClickScore
from clickvol.evaluation.result_log import (
    AUDIT_NAME,
    RESULTS_NAME,
    ClickAudit,
    ResultLog,
    RunKey,
    read_audit,
    read_scores,
)

SETTINGS = {"protocol": {"seeds": 2}, "models": {"ball": "r"}}


def key_of(case_id):
    return RunKey("ball", "set", case_id, 0, "random")


def records_of(key, numbers=(1, 3)):
    return [
        ClickScore(
            **key._asdict(), group="p", modality="CT", num_clicks=number, dice=0.5, iou=0.25,
            nsd=(0.1, 0.2, 0.3), hd95_mm=None, assd_mm=1.5, truth_ml=2.0, mask_ml=3.0,
            lesion_recall=1.0, seconds=0.5,
        )
        for number in numbers
    ]  # fmt: skip


def audit_of(key, number=1):
    return ClickAudit(
        **key._asdict(), click=number, voxel_ijk=(1, 2, 3), world_ras_mm=(0.5, 1.0, 1.5),
        foreground=True, drawn_from="any voxel of the tumour", region_voxels=9, label_sha256="ab",
    )  # fmt: skip


def open_log(folder, settings=SETTINGS):
    return ResultLog(folder, settings, lambda _, numbers: tuple(numbers) == (1, 3))


@pytest.fixture
def begun(tmp_path):
    log = open_log(tmp_path)
    for case_id in ("a", "b"):
        key = key_of(case_id)
        log.append(key, records_of(key), [audit_of(key, 1), audit_of(key, 2)])
    return tmp_path


def test_an_audit_of_an_earlier_version_tells_of_no_oracle(begun):
    path = begun / AUDIT_NAME
    path.write_text(path.read_text().replace(', "oracle": null', ""))
    assert "oracle" not in path.read_text()
    assert read_audit(begun)[0] == audit_of(key_of("a"), 1)


def test_runs_that_are_written_are_there_when_it_is_opened_again(begun):
    log = open_log(begun)
    assert key_of("a") in log
    assert key_of("c") not in log
    assert log.records() == [*records_of(key_of("a")), *records_of(key_of("b"))]
    assert read_scores(begun) == log.records()
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
    assert len(read_scores(begun)) == 2
    assert len(read_audit(begun)) == 2
    log.append(key_of("b"), records_of(key_of("b")), [audit_of(key_of("b"), n) for n in (1, 2)])
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


def test_a_folder_without_an_evaluation_is_told(tmp_path):
    with pytest.raises(ConfigError, match="holds no evaluation"):
        read_scores(tmp_path)
