"""A run against a stand-in for nnU-Net: every command and variable, what is skipped, and how it fails."""

import fcntl
import json
import os

import nibabel
import numpy as np
import pytest

from clickvol.bridges.nnunet_environment import check_environment
from clickvol.bridges.nnunet_run import (
    NnunetRun,
    NnunetSettings,
    choose_nnunet_device,
    run_nnunet,
)
from clickvol.bridges.nnunet_trainer import EPOCHS_VARIABLE, ITERATIONS_VARIABLE
from clickvol.datasets.splits import Split
from clickvol.errors import ConfigError, DeviceError, ExternalProgramError
from reference.prepared_sets import affine_of, prepare_lesions, scan_of


@pytest.fixture
def run_of(tmp_path, venv):
    """Make a run in one folder."""

    def make(*, device="cpu", workers=1, on_stage=lambda _stage: None, **settings):
        return NnunetRun(
            folder=tmp_path / "out",
            environment=check_environment(venv),
            settings=NnunetSettings(**settings),
            device=device,
            workers=workers,
            on_stage=on_stage,
        )

    return make


def calls_of(venv):
    path = venv / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def programs_called(venv):
    return [call["program"].removeprefix("nnUNetv2_") for call in calls_of(venv)]


def test_the_masks_come_home_on_exactly_the_grids_of_the_scans(prepared, run_of, tmp_path):
    masks = run_nnunet(prepared, run_of())
    assert masks == [tmp_path / "out" / "predictions" / f"case_{n}.nii.gz" for n in (3, 4)]
    for number, path in zip((3, 4), masks, strict=True):
        mask, scan = nibabel.load(path), nibabel.load(prepared.cases[number].source_image.path)
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(mask.dataobj), scan_of(number)[0] > 0)
        np.testing.assert_array_equal(mask.affine, scan.affine)
        np.testing.assert_array_equal(mask.get_qform(), scan.get_qform())


def test_the_commands(prepared, run_of, venv, tmp_path):
    run_nnunet(prepared, run_of())
    out = tmp_path / "out"
    raw = out / "nnUNet_raw" / "Dataset501_LesionsMR"
    assert [[call["program"], *call["words"]] for call in calls_of(venv)] == [
        [
            *("nnUNetv2_plan_and_preprocess", "-d", "501", "-c", "3d_fullres", "-npfp", "1"),
            *("-np", "1", "--verify_dataset_integrity", "--clean", "--no_pbar"),
        ],
        [
            *("nnUNetv2_train", "501", "3d_fullres", "0", "-tr", "nnUNetTrainerClickvol"),
            *("-p", "nnUNetPlans", "-device", "cpu"),
        ],
        [
            *("nnUNetv2_predict", "-d", "501", "-f", "0", "-i", str(raw / "imagesTs")),
            *("-o", str(out / "nnUNet_predictions"), "-c", "3d_fullres"),
            *("-tr", "nnUNetTrainerClickvol", "-p", "nnUNetPlans", "-device", "cpu"),
            *("-npp", "1", "-nps", "1", "--continue_prediction", "--disable_progress_bar"),
        ],
    ]


def test_the_environment_of_the_commands(prepared, run_of, venv, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/ours")
    run_nnunet(prepared, run_of(workers=3))
    out = tmp_path / "out"
    for call in calls_of(venv):
        assert call["variables"] == {
            "nnUNet_raw": str(out / "nnUNet_raw"),
            "nnUNet_preprocessed": str(out / "nnUNet_preprocessed"),
            "nnUNet_results": str(out / "nnUNet_results"),
            "nnUNet_n_proc_DA": "3",
            "nnUNet_def_n_proc": "3",
            "nnUNet_compile": "f",
        }
        assert call["path"] == str(venv / "bin")


def test_other_settings_reach_the_commands(prepared, run_of, venv):
    settings = {"fold": 1, "memory_gb": 2.5, "mirroring": False, "epochs": 7}
    run = run_of(device="cuda", iterations_per_epoch=9, **settings)
    run_nnunet(prepared, run)
    plan, train, predict = (call["words"] for call in calls_of(venv))
    assert plan[-4:] == ["-gpu_memory_target", "2.5", "-overwrite_plans_name", "nnUNetPlansMemory"]
    assert train[2:] == [
        *("0", "-tr", "nnUNetTrainerClickvol", "-p", "nnUNetPlansMemory", "-device", "cuda"),
    ]
    assert predict[-1] == "--disable_tta"
    assert predict[predict.index("-p") + 1] == "nnUNetPlansMemory"
    assert run.variables[EPOCHS_VARIABLE] == "7"
    assert run.variables[ITERATIONS_VARIABLE] == "9"
    assert "nnUNet_compile" not in run.variables  # on a GPU as nnU-Net has it


def test_our_split_and_trainer_are_there_before_the_training(prepared, run_of, venv, tmp_path):
    run_nnunet(prepared, run_of(fold=1))
    folder = tmp_path / "out" / "nnUNet_preprocessed" / "Dataset501_LesionsMR"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert splits == [{"train": ["case_1", "case_2"], "val": ["case_0"]}]
    trainers = venv / "lib" / "nnunetv2" / "training" / "nnUNetTrainer"
    assert [path.name for path in trainers.iterdir()] == ["nnUNetTrainerClickvol.py"]


def test_the_plan_is_told(prepared, run_of, tmp_path):
    run_nnunet(prepared, run_of())
    planned = json.loads((tmp_path / "out" / "planned.json").read_text())
    assert planned == {"spacing": None, "patch_size": [4, 5, 6], "batch_size": 2}


def test_what_is_complete_is_skipped(prepared, run_of, venv):
    run_nnunet(prepared, run_of())
    assert len(calls_of(venv)) == 3
    masks = run_nnunet(prepared, run_of(workers=2))  # another number of workers is the same run
    assert len(masks) == 2
    assert len(calls_of(venv)) == 3


def test_a_training_that_was_stopped_goes_on(prepared, run_of, venv, tmp_path):
    (venv / "fail").write_text("nnUNetv2_train")
    with pytest.raises(ExternalProgramError) as caught:
        run_nnunet(prepared, run_of())
    log = tmp_path / "out" / "nnunet.log"
    assert str(caught.value).startswith(
        f"nnU-Net's training failed: RuntimeError: it broke; everything it said is in {log}; "
        "the same command goes on"
    )
    assert "Epoch 1" in log.read_text()
    (venv / "fail").unlink()
    run_nnunet(prepared, run_of())
    assert programs_called(venv) == ["plan_and_preprocess", "train", "train", "predict"]
    assert ["--c" in call["words"] for call in calls_of(venv)] == [False, False, True, False]


def test_a_plan_that_failed_is_made_again(prepared, run_of, venv):
    (venv / "fail").write_text("nnUNetv2_plan_and_preprocess")
    with pytest.raises(ExternalProgramError, match="nnU-Net's planning failed: RuntimeError"):
        run_nnunet(prepared, run_of())
    (venv / "fail").unlink()
    run_nnunet(prepared, run_of())
    assert programs_called(venv)[:2] == ["plan_and_preprocess"] * 2


def test_a_half_written_prediction_is_made_again(prepared, run_of, venv, tmp_path):
    """nnU-Net leaves alone what is there; a killed process leaves half a file there."""
    (venv / "fail").write_text("nnUNetv2_predict")
    with pytest.raises(ExternalProgramError, match="nnU-Net's prediction failed"):
        run_nnunet(prepared, run_of())
    (venv / "fail").unlink()
    folder = tmp_path / "out" / "nnUNet_predictions"
    folder.mkdir()
    whole = prepared.cases[3].source_label.path.read_bytes()
    (folder / "case_3.nii.gz").write_bytes(whole[: len(whole) // 2])
    masks = run_nnunet(prepared, run_of())
    np.testing.assert_array_equal(np.asarray(nibabel.load(masks[0]).dataobj), scan_of(3)[0] > 0)


def test_an_empty_mask_is_a_mask(run_of, tmp_path):
    """The stand-in marks voxels above 0; this scan has none."""
    split = Split(train=("case_0",), val=("case_1",), test=("case_2",))
    dark = {2: scan_of(0)[0] - np.int16(500)}
    (mask,) = run_nnunet(prepare_lesions(tmp_path, 3, splits=(split,), scans=dark), run_of())
    assert not np.asarray(nibabel.load(mask).dataobj).any()


def test_a_mask_on_another_grid_is_refused(prepared, run_of, tmp_path):
    folder = tmp_path / "out" / "nnUNet_predictions"
    folder.mkdir(parents=True)
    affine = affine_of(3)
    affine[0, 3] += 0.5
    nibabel.save(nibabel.Nifti1Image(scan_of(3)[1], affine), folder / "case_3.nii.gz")
    with pytest.raises(ExternalProgramError, match=r"its corners lie up to 0\.5 mm away"):
        run_nnunet(prepared, run_of())


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"epochs": 3}, "epochs 1000, not 3"),
        ({"configuration": "2d"}, "configuration '3d_fullres', not '2d'"),
        ({"fold": 1}, "fold 0, not 1"),
    ],
)
def test_a_folder_holds_one_run(prepared, run_of, settings, what):
    run_nnunet(prepared, run_of())
    with pytest.raises(ConfigError, match=f"holds a run with {what}; give another folder"):
        run_nnunet(prepared, run_of(**settings))


def test_a_folder_holds_one_data_set(prepared, run_of):
    run_nnunet(prepared, run_of())
    other = prepared.model_copy(update={"content_hash": "other"})
    with pytest.raises(ConfigError, match=r"holds a run with data_hash '[0-9a-f]{64}', not 'other'"):
        run_nnunet(other, run_of())


def test_a_damaged_note_of_the_run(prepared, run_of, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run.json is damaged; give another folder"):
        run_nnunet(prepared, run_of())


def test_a_folder_in_use_is_refused(prepared, run_of, venv, tmp_path):
    (tmp_path / "out").mkdir()
    descriptor = os.open(tmp_path / "out" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match="another process is working in"):
            run_nnunet(prepared, run_of())
    finally:
        os.close(descriptor)
    assert calls_of(venv) == []


def test_a_configuration_that_nnunet_does_not_plan(prepared, run_of):
    """nnU-Net leaves 3d_lowres out where the scans are small."""
    with pytest.raises(ConfigError, match="plans no 3d_lowres for these scans, only 2d, 3d_full"):
        run_nnunet(prepared, run_of(configuration="3d_lowres"))


def test_stages_and_epochs_are_told(prepared, run_of):
    stages = []
    run_nnunet(prepared, run_of(epochs=5, on_stage=stages.append))
    assert [stage for stage in stages if not stage.startswith("exporting")] == [
        "planning and preprocessing",
        "training",
        "training, epoch 1 of 5",
        "training, epoch 2 of 5",
        "predicting the test scans",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"configuration": "3d_cascade_fullres"}, "choose 2d, 3d_fullres, 3d_lowres"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch is 0"),
        ({"memory_gb": 0.0}, r"memory_gb is 0\.0; it must be above 0"),
        ({"memory_gb": float("nan")}, "memory_gb is nan"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        NnunetSettings(**settings)


def test_the_device_is_one_that_nnunets_torch_sees(venv):
    environment = check_environment(venv)
    assert choose_nnunet_device(None, environment) == "cpu"
    assert choose_nnunet_device("cpu", environment) == "cpu"
    with pytest.raises(DeviceError, match="sees no GPU; use --device cpu"):
        choose_nnunet_device("cuda", environment)
    with pytest.raises(DeviceError, match="nnU-Net runs on cpu or cuda, not on 'tpu'"):
        choose_nnunet_device("tpu", environment)


def test_a_gpu_is_used_where_there_is_one(venv):
    facts = json.loads((venv / "facts.json").read_text())
    (venv / "facts.json").write_text(json.dumps(facts | {"cuda": True}))
    assert choose_nnunet_device(None, check_environment(venv)) == "cuda"
    assert choose_nnunet_device("cuda", check_environment(venv)) == "cuda"
