import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clickvol.datasets import preparation
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import read_prepared_set
from clickvol.errors import ConfigError
from reference.dask_processes import address_of, scheduler_and_worker
from reference.data_sets import OBJECT_IJK, SHAPE_IJK, label_ijk, write_msd, write_nifti

DATA = Path(__file__).parents[3] / "shared" / "data"
IDS = [f"p_{n}" for n in range(10)]
ORGAN_AND_TUMOUR = {"0": "background", "1": "pancreas", "2": "cancer"}


def _plan(source, destination, **options):
    return PreparationPlan(kind="msd", source=source, destination=destination, **options)


@pytest.fixture
def source(tmp_path):
    return write_msd(tmp_path / "src", IDS, values=[10 * n for n in range(10)])


def _splits(tmp_path, *folds):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(folds), encoding="utf-8")
    return path


def test_a_set_is_written_as_it_is_returned(source, tmp_path):
    made = prepare_data_set(_plan(source, tmp_path / "dst", seed=4))
    assert read_prepared_set(tmp_path / "dst") == made
    assert [case.case_id for case in made.cases] == IDS
    assert [len(made.part(name)) for name in ("train", "val", "test", "all")] == [7, 1, 2, 10]
    assert (made.name, made.kind, made.target_spacing_dhw_mm) == ("Tiny", "msd", "native")
    (fold,) = json.loads((tmp_path / "dst" / "splits.json").read_text())
    assert fold == {name: [case.case_id for case in made.part(name)] for name in ("train", "val", "test")}


def test_the_fingerprint_is_of_the_training_part_alone(source, tmp_path):
    splits = _splits(tmp_path, {"train": ["p_2", "p_4"], "val": ["p_9"], "test": ["p_8"]})
    made = prepare_data_set(_plan(source, tmp_path / "dst", splits=splits))
    known = made.intensity["CT"]
    assert (known.low, known.high, known.mean, known.deviation) == (20, 40, 30, 10)
    assert made.notes == ("6 usable cases are in no part of fold 0.",)


def test_published_constants_bring_spacing_and_label(tmp_path):
    source = write_msd(tmp_path / "src", IDS, labels=ORGAN_AND_TUMOUR)
    for case in IDS:
        write_nifti(label_ijk(2), source / "labelsTr" / f"{case}.nii.gz")
    made = prepare_data_set(_plan(source, tmp_path / "dst", constants="pancreas"))
    known = made.intensity["CT"]
    assert (known.low, known.high, known.source) == (-39, 204, "pancreas")
    assert made.target_spacing_dhw_mm == (1, 1, 1)
    assert {case.tumour_label for case in made.cases} == {2}
    assert made.cases[0].shape_dhw == (16, 10, 12)
    native = prepare_data_set(_plan(source, tmp_path / "dst", constants="pancreas", spacing_dhw_mm="native"))
    assert native.target_spacing_dhw_mm == "native"
    assert native.cases[0].shape_dhw == (8, 10, 12)


def test_bad_cases_are_listed_and_the_rest_is_prepared(source, tmp_path):
    (source / "imagesTr" / "p_1.nii.gz").unlink()
    (source / "imagesTr" / "p_5.nii.gz").write_bytes(b"rubbish")
    write_nifti(label_ijk(0), source / "labelsTr" / "p_7.nii.gz")
    seen = []
    made = prepare_data_set(
        _plan(source, tmp_path / "dst"),
        lambda done, total, last: seen.append((done, total, last.case_id)),
    )
    assert [case.case_id for case in made.rejected] == ["p_1", "p_5", "p_7"]
    assert [case.case_id for case in made.cases] == [i for i in IDS if i not in ("p_1", "p_5", "p_7")]
    assert [line[:2] for line in seen] == [(n, 10) for n in range(1, 11)]
    assert read_prepared_set(tmp_path / "dst").rejected == made.rejected


def test_rejected_cases_leave_an_imported_split(source, tmp_path):
    (source / "imagesTr" / "p_0.nii.gz").write_bytes(b"rubbish")
    splits = _splits(
        tmp_path,
        {"train": ["p_0", "p_1"], "val": ["p_2"], "test": ["p_3"]},
        {"train": ["p_2", "p_3"], "val": ["p_1"]},
    )
    made = prepare_data_set(_plan(source, tmp_path / "dst", splits=splits))
    assert [case.case_id for case in made.part("train", 0)] == ["p_1"]
    assert [case.case_id for case in made.part("train", 1)] == ["p_2", "p_3"]
    assert made.part("test", 1) == []


def test_groups_stay_together(source, tmp_path):
    groups = tmp_path / "g.csv"
    groups.write_text("case,group\n" + "".join(f"{c},{'AB'[n % 2]}\n" for n, c in enumerate(IDS)))
    made = prepare_data_set(_plan(source, tmp_path / "dst", groups=groups))
    assert {case.group for case in made.part("train")} | {"A"} in ({"A"}, {"A", "B"})
    assert len(made.part("train")) == len(made.part("test")) == 5
    assert made.cases[3].group == "B"


def test_scans_of_two_modalities_have_their_own_fingerprints(tmp_path):
    source = write_msd(tmp_path / "src", IDS, modality="T2")
    for number, case in enumerate(IDS[:5]):
        array = np.full((12, 10, 8), 300 + number, np.int16)
        array[:3] = 0
        array[OBJECT_IJK] = 900
        write_nifti(array, source / "imagesTr" / f"{case}.nii.gz")
    made = prepare_data_set(_plan(source, tmp_path / "dst", seed=1))
    assert made.intensity["MR"].mean == 900
    assert made.intensity["CT"].mean == 100
    assert made.notes == ("By their values the scans are 5 CT, 5 MR; --modality says what they are.",)
    told = prepare_data_set(_plan(source, tmp_path / "dst", seed=1, modality="MR"))
    assert set(told.intensity) == {"MR"}
    assert told.notes == ()


def test_the_same_scan_under_two_names_stays_in_one_part(source, tmp_path):
    for copy in ("p_4", "p_7"):
        name = source / "imagesTr" / f"{copy}.nii.gz"
        name.write_bytes((source / "imagesTr" / "p_1.nii.gz").read_bytes())
    note = "p_1, p_4, p_7 have the same image and stay in one part."
    for seed in range(6):
        made = prepare_data_set(_plan(source, tmp_path / "dst", seed=seed))
        assert made.notes == (note,)
        parts = {part for part in ("train", "val", "test") for case in made.part(part) if case.group == "p_1"}
        assert len(parts) == 1
    groups = tmp_path / "g.csv"
    groups.write_text("case,group\n" + "".join(f"{c},{'AB'[c in ('p_4', 'p_5')]}\n" for c in IDS))
    made = prepare_data_set(_plan(source, tmp_path / "dst", groups=groups))
    assert {case.group for case in made.cases} == {"A"}  # p_4 joins B to A
    splits = _splits(tmp_path, {"train": ["p_1", "p_2"], "val": ["p_3"], "test": ["p_7"]})
    with pytest.raises(ConfigError, match=rf"the group 'p_1' is in train and in test.*\. {note}"):
        prepare_data_set(_plan(source, tmp_path / "dst", splits=splits))


def test_several_labels_without_a_choice_are_all_the_object_and_noted(tmp_path):
    source = write_msd(tmp_path / "src", IDS[:3], labels=ORGAN_AND_TUMOUR)
    made = prepare_data_set(_plan(source, tmp_path / "dst"))
    assert made.notes == ("The labels hold 1 pancreas, 2 cancer; without --label all of them are the object.",)
    assert prepare_data_set(_plan(source, tmp_path / "dst", tumour_label="all")).notes == ()


def test_the_tumour_of_a_known_data_set_is_known(tmp_path):
    source = write_msd(tmp_path / "Task07_Pancreas", IDS[:3], labels=ORGAN_AND_TUMOUR)
    for case in IDS[:3]:
        label = label_ijk(2)
        label[0, 0, 0] = 1
        write_nifti(label, source / "labelsTr" / f"{case}.nii.gz")
    made = prepare_data_set(_plan(source, tmp_path / "dst"))
    assert {case.tumour_label for case in made.cases} == {2}
    everything = prepare_data_set(_plan(source, tmp_path / "dst", tumour_label="all"))
    assert everything.cases[0].tumour_ml == pytest.approx(made.cases[0].tumour_ml + 2e-3)


def test_classes_of_the_challenge_are_cases_of_one_group(tmp_path):
    labels = np.zeros((6, 8, 9), np.uint8)
    labels[1:3, 2:4, 2:4], labels[4, 5:7, 5:7] = 1, 3
    scan = np.random.default_rng(0).integers(0, 255, labels.shape, dtype=np.uint8)
    (tmp_path / "src").mkdir()
    np.savez(tmp_path / "src" / "CT_x.npz", imgs=scan, gts=labels, spacing=np.array([1.0, 2.0, 3.0]))
    plan = PreparationPlan(kind="npz", source=tmp_path / "src", destination=tmp_path / "dst")
    made = prepare_data_set(plan)
    assert [(c.case_id, c.group, c.tumour_label) for c in made.cases] == [
        ("CT_x-class1", "CT_x", 1),
        ("CT_x-class3", "CT_x", 3),
    ]
    assert made.notes == ()
    volume, mask = made.cases[1].read_native()
    assert np.array_equal(volume.array, scan)
    assert np.array_equal(mask, labels == 3)
    assert volume.grid.spacing_dhw_mm.tolist() == [3, 2, 1]


# -- again, and after a crash -------------------------------------------------------------------


def _stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in (folder / "cases").iterdir()}


def test_a_second_run_finds_everything_done(source, tmp_path):
    made = prepare_data_set(_plan(source, tmp_path / "dst"))
    before = _stamps(tmp_path / "dst")
    assert prepare_data_set(_plan(source, tmp_path / "dst")) == made
    assert _stamps(tmp_path / "dst") == before
    assert prepare_data_set(_plan(source, tmp_path / "dst", force=True)) == made
    after = _stamps(tmp_path / "dst")
    assert all(after[name] > before[name] for name in before if "native" not in name)  # those are links


KILLED = """
import os, signal, sys
from pathlib import Path
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.files import atomic

whole = atomic._flush_to_disk
written = []
def flush(path):
    written.append(path)
    if len(written) == 23:  # a case writes seven files and links two: in the middle of the fourth one
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path)
atomic._flush_to_disk = flush
prepare_data_set(PreparationPlan(kind="msd", source=Path(sys.argv[1]), destination=Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(source, tmp_path):
    folder = tmp_path / "dst"
    done = subprocess.run([sys.executable, "-c", KILLED, source, folder], check=False)
    assert done.returncode == -9
    assert not (folder / "prepared.json").exists()
    before = _stamps(folder)
    assert sum(name.endswith(".json") for name in before) == 3
    assert any(name.startswith(".clickvol-") for name in before)
    made = prepare_data_set(_plan(source, folder))
    after = _stamps(folder)
    kept = [n for n in before if n.split(".")[0] in IDS[:3]]
    assert len(kept) == 27
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert not any(name.startswith(".clickvol-") for name in after)
    assert made.model_dump() == prepare_data_set(_plan(source, tmp_path / "fresh")).model_dump()


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(tmp_path):
    source = write_msd(tmp_path / "src", IDS)
    noise = np.random.default_rng(0)
    for case in IDS:
        image = noise.integers(-1000, 1000, SHAPE_IJK).astype(np.int16)
        write_nifti(image, source / "imagesTr" / f"{case}.nii.gz")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    try:
        command = [
            sys.executable,
            "-m",
            "clickvol",
            "data",
            "prepare",
            "msd",
            str(source),
            "-o",
            str(disk / "set"),
        ]
        full = subprocess.run(command, check=False, capture_output=True, text=True)
        assert full.returncode != 0
        assert "disk full" in full.stderr
        assert "Traceback" not in full.stderr
        assert not (disk / "set" / "prepared.json").exists()
        before = _stamps(disk / "set")
        assert sum(name.endswith(".json") for name in before) >= 2
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        made = prepare_data_set(_plan(source, disk / "set"))
        assert [case.case_id for case in made.cases] == IDS
        whole = {name.split(".")[0] for name in before if name.endswith(".json")}
        after = _stamps(disk / "set")
        assert all(after[name] == stamp for name, stamp in before.items() if name.split(".")[0] in whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_file_is_named_and_made_anew_once_it_is_deleted(source, tmp_path):
    made = prepare_data_set(_plan(source, tmp_path / "dst"))
    path = tmp_path / "dst" / "cases" / "p_3.image.b2nd"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes(20) + whole[-20:])
    case = next(c for c in read_prepared_set(tmp_path / "dst").cases if c.case_id == "p_3")
    with pytest.raises(ConfigError, match=r"image\.b2nd of the case p_3 is damaged; copy it from") as caught:
        np.asarray(case.open_arrays()[0].array)
    assert "delete it and run clickvol data prepare again" in str(caught.value)
    path.unlink()
    assert prepare_data_set(_plan(source, tmp_path / "dst")) == made
    assert path.read_bytes() == whole


def test_two_processes_make_the_same(source, tmp_path):
    (source / "imagesTr" / "p_1.nii.gz").write_bytes(b"rubbish")
    alone = prepare_data_set(_plan(source, tmp_path / "a"))
    both = prepare_data_set(_plan(source, tmp_path / "b", workers=2))
    assert both.model_dump() == alone.model_dump()


def test_workers_of_a_scheduler_write_into_the_shared_folder_and_this_process_the_index(source, tmp_path):
    alone = prepare_data_set(_plan(source, tmp_path / "a"))
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    with scheduler_and_worker(cluster) as (file, _):
        address_of(file)
        made = prepare_data_set(_plan(source, tmp_path / "b", scheduler=str(file)))
    assert made.model_dump() == alone.model_dump()
    for name in ("index.npy", "cases/p_3.image.b2nd", "cases/p_3.label.b2nd"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_content_hash_knows_what_a_model_sees(source, tmp_path):
    first = prepare_data_set(_plan(source, tmp_path / "a")).content_hash
    moved = source.rename(tmp_path / "moved")
    assert prepare_data_set(_plan(moved, tmp_path / "b")).content_hash == first
    other = {prepare_data_set(_plan(moved, tmp_path / "c", seed=1)).content_hash}
    other.add(prepare_data_set(_plan(moved, tmp_path / "c", spacing_dhw_mm=(2, 2, 2))).content_hash)
    write_nifti(label_ijk(), moved / "labelsTr" / "p_0.nii.gz")
    array = label_ijk()
    array[0, 0, 0] = 1
    write_nifti(array, moved / "labelsTr" / "p_3.nii.gz")
    other.add(prepare_data_set(_plan(moved, tmp_path / "d")).content_hash)
    assert len(other | {first}) == 4


# -- mistakes -----------------------------------------------------------------------------------


def test_mistakes_show_before_any_scan_is_read(source, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "prepare_case", None)
    splits = _splits(tmp_path, {"train": ["q"], "val": []})
    for options, message in (
        ({"splits": splits}, "the data set has no case 'q'"),
        ({"splits": tmp_path / "gone"}, "cannot read the splits"),
        ({"groups": tmp_path / "gone"}, "cannot read the groups"),
        ({"constants": "liver"}, "no published constants 'liver'"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare_data_set(_plan(source, tmp_path / "dst", **options))
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tumour_label": 3}, "no label of Tiny has the value 3; they are 1 pancreas, 2 cancer; choose one"),
        ({"constants": "colon"}, "Tiny has the published constants pancreas, not colon; give --constants panc"),
    ],
)
def test_what_contradicts_the_data_set_is_refused_before_any_scan_is_read(tmp_path, options, message):
    source = write_msd(tmp_path / "Task07_Pancreas", ["a"], labels=ORGAN_AND_TUMOUR)
    with pytest.raises(ConfigError, match=message):
        prepare_data_set(_plan(source, tmp_path / "dst", **options))
    assert not (tmp_path / "dst").exists()


def test_constants_of_another_organ_are_refused_where_their_label_is_no_label(source, tmp_path):
    with pytest.raises(ConfigError, match="no label of Tiny has the value 2; they are 1 tumour"):
        prepare_data_set(_plan(source, tmp_path / "dst", constants="kits"))


def test_constants_of_another_organ_are_refused_where_the_labels_name_theirs(tmp_path):
    source = write_msd(tmp_path / "ours", ["a"], labels={"0": "background", "1": "Pancreas", "2": "cancer"})
    with pytest.raises(ConfigError, match="kits are of the kidney, but the labels of Tiny are 1 Pancreas, 2"):
        prepare_data_set(_plan(source, tmp_path / "dst", constants="kits"))


def test_two_folders_with_several_labels_ask_which(source, tmp_path):
    def plan(**options):
        return PreparationPlan(kind="folder", source=source, destination=tmp_path / "dst", **options)

    index = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps(index | {"labels": {"liver": 1, "lesion": 2}}))
    with pytest.raises(ConfigError, match="the labels of src are 1 liver, 2 lesion; say which is the tumour"):
        prepare_data_set(plan())
    (source / "dataset.json").unlink()
    label = label_ijk(1)
    label[0, 0, 0] = 5
    write_nifti(label, source / "labelsTr" / "p_3.nii.gz")
    with pytest.raises(ConfigError, match=r"p_3\.nii\.gz holds the labels 1, 5; say which is the tumour"):
        prepare_data_set(plan())
    assert not (tmp_path / "dst" / "prepared.json").exists()
    write_nifti(label, source / "labelsTr" / "p_0.nii.gz")
    with pytest.raises(ConfigError, match=r"p_0\.nii\.gz holds the labels 1, 5; say which is the tumour"):
        prepare_data_set(plan())
    assert len(prepare_data_set(plan(tumour_label="all")).cases) == 10
    assert len(prepare_data_set(plan(tumour_label=5)).cases) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,group\np_0,A\n", r"no group for the case p_1 \(9 are missing\)"),
        ("a,b\np_0,A\n", "a line without case or group"),
        ("case,group\np_0,A\np_0,B\n", "puts the case p_0 into two groups, A and B"),
    ],
)
def test_groups_that_say_too_little_or_too_much_are_refused(source, tmp_path, text, message):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prepare_data_set(_plan(source, tmp_path / "dst", groups=tmp_path / "g.csv"))


def test_a_set_without_a_usable_case_is_refused(tmp_path):
    source = write_msd(tmp_path / "src", ["a", "b"])
    for case in "ab":
        write_nifti(label_ijk(0), source / "labelsTr" / f"{case}.nii.gz")
    with pytest.raises(ConfigError, match=r"no case can be used; 2 were rejected, the first, a"):
        prepare_data_set(_plan(source, tmp_path / "dst"))
    assert not (tmp_path / "dst" / "prepared.json").exists()


def test_a_split_whose_training_part_is_lost_is_refused(source, tmp_path):
    (source / "imagesTr" / "p_0.nii.gz").write_bytes(b"rubbish")
    splits = _splits(tmp_path, {"train": ["p_0"], "val": ["p_1"]})
    with pytest.raises(ConfigError, match="fold 0 has no usable case to train on"):
        prepare_data_set(_plan(source, tmp_path / "dst", splits=splits))


def test_a_folder_of_another_set_is_not_overwritten(source, tmp_path):
    prepare_data_set(_plan(source, tmp_path / "dst"))
    other = write_msd(tmp_path / "other", ["x"])
    (other / "dataset.json").write_text((other / "dataset.json").read_text().replace("Tiny", "Small"))
    with pytest.raises(ConfigError, match=r"holds the prepared set Tiny \(msd\), not Small"):
        prepare_data_set(_plan(other, tmp_path / "dst"))
    assert prepare_data_set(_plan(other, tmp_path / "dst", force=True)).name == "Small"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constants": "kits", "modality": "MR"}, "Hounsfield units of CT; leave out --modality MR"),
        ({"constants": "kits", "modality": "PT"}, "Hounsfield units of CT; leave out --modality PT"),
        ({"spacing_dhw_mm": (1.0, 0.0, 1.0)}, "not three lengths above 0"),
        ({"destination": Path("src")}, "is the data set itself"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PreparationPlan(**{"kind": "msd", "source": Path("src"), "destination": Path("dst")} | options)


# -- real patients ------------------------------------------------------------------------------


def test_three_real_patients(tmp_path):
    folder = DATA / "Sarcoma_CT"
    if not folder.is_dir():
        pytest.skip("Sarcoma_CT is not in ../shared/data")
    ids = ("sts_020", "sts_033", "sts_048")
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "src" / part).mkdir(parents=True)
        for case in ids:
            name = f"{case}.nii.gz"
            (tmp_path / "src" / part / name).symlink_to(folder / part / name)
    made = prepare_data_set(
        PreparationPlan(
            kind="folder",
            source=tmp_path / "src",
            destination=tmp_path / "dst",
            spacing_dhw_mm=(3, 3, 3),
        )
    )
    assert [case.case_id for case in made.cases] == list(ids)
    assert [len(made.part(name)) for name in ("train", "val", "test")] == [1, 1, 1]
    known = made.intensity["CT"]
    assert -200 < known.low < known.mean < known.high < 300
    for case in made.cases:
        volume, mask = case.open_arrays()
        image, mask = np.asarray(volume.array), np.asarray(mask)
        native, native_mask = case.read_native()
        assert volume.modality == native.modality == "CT"
        assert mask.sum() * 27e-3 == pytest.approx(case.tumour_ml, rel=0.02)
        assert native_mask.sum() * native.grid.voxel_volume_mm3 / 1e3 == pytest.approx(case.tumour_ml)
        inside = image[mask > 0].mean(), native.array[native_mask > 0].mean()
        assert inside[0] == pytest.approx(inside[1], abs=3)
