import itertools
from pathlib import Path

import pytest
from pydantic import ValidationError

from clickvol.datasets.published import read_published
from clickvol.datasets.splits import read_splits
from clickvol.errors import ConfigError
from clickvol.methods.registry import find_recipe
from clickvol.reproduction.study import Study, TrainArm, read_study, study_names
from clickvol.training.read_config import read_train_config
from clickvol.training.schedule import Schedule, learning_rate
from reference.studies import STUDY

PUBLISHED = Path(read_study("promise3d-table1").path.parents[1] / "published")

# ProMISe-3D, Table 1: Dice and NSD on colon, then on pancreas.
TABLE_1 = {
    "nnunet": (0, 45.60, 53.01, 39.12, 57.66),
    "uxnet3d": (0, 23.07, 32.84, 37.57, 55.25),
    "nnformer": (0, 21.36, 32.05, 35.98, 53.45),
    "swin_unetr": (0, 37.23, 51.16, 37.98, 56.42),
    "sam3d_adapter": (1, 57.32, 73.65, 54.41, 77.88),
    "promise3d": (1, 66.81, 81.24, 57.46, 79.76),
}

# Table 2, after one click and, for two rows, after ten.
TABLE_2 = {
    "baseline": (57.32, 73.65, 54.41, 77.88),
    "two-adapters": (61.61, 73.88, 56.08, 77.89),
    "up-conv": (62.92, 77.62, 55.37, 77.38),
    "r": (63.67, 79.96, 55.15, 79.02),
    "r-b": (64.75, 79.77, 56.57, 79.46),
    "c": (64.76, 77.59, 56.35, 78.01),
    "c-b": (66.81, 81.24, 57.46, 79.76),
}
TABLE_2_TEN = {
    "baseline": (63.09, 79.97, 55.94, 79.18),
    "c-b": (67.28, 81.63, 58.05, 80.36),
}


def published_of(arm):
    return {(s.data, s.clicks): (s.dice, s.nsd) for s in arm.published}


def test_the_first_table_has_the_papers_numbers():
    study = read_study("promise3d-table1").study
    result = {arm.name: published_of(arm) for arm in study.arms if arm.published}
    assert result == {
        name: {("colon", clicks): (a, b), ("pancreas", clicks): (c, d)}
        for name, (clicks, a, b, c, d) in TABLE_1.items()
    }
    assert all("Table 1" in score.source for arm in study.arms for score in arm.published)


def test_the_second_table_has_the_papers_numbers():
    study = read_study("promise3d-table2").study
    wanted = {name: {("colon", 1): (a, b), ("pancreas", 1): (c, d)} for name, (a, b, c, d) in TABLE_2.items()}
    for name, (a, b, c, d) in TABLE_2_TEN.items():
        wanted[name] |= {("colon", 10): (a, b), ("pancreas", 10): (c, d)}
    assert {arm.name: published_of(arm) for arm in study.arms} == wanted
    assert study.protocol.protocol().num_clicks == (1, 10)


@pytest.mark.parametrize("name", study_names())
def test_every_training_of_a_table_is_one_that_can_be_made(name):
    file = read_study(name)
    for arm in file.study.arms:
        if not isinstance(arm, TrainArm):
            continue
        for task, form in itertools.product(file.study.tasks, filter(None, (arm.config, arm.text_config))):
            path = file.next_to(form.replace("{task}", task.name))
            config = read_train_config(path, list(arm.overrides))
            recipe = find_recipe(config.model.method, config.model.preset, config.model.size)
            published = {s.clicks for s in arm.published}
            assert not published or (0 in published) == recipe.network.is_automatic
            assert config.data.folders == []
            assert config.data.intensity == "set"


def test_the_rows_of_the_second_table_are_the_presets_of_their_names():
    file = read_study("promise3d-table2")
    for arm in file.study.arms:
        config = read_train_config(file.next_to("../published/promise3d-colon.toml"), [*arm.overrides])
        assert config.model.preset == f"table2-{arm.name}"


@pytest.mark.parametrize(("data", "cases"), [("colon", 89), ("pancreas", 196)])
def test_the_text_has_its_own_schedule_clicks_and_patches(data, cases):
    """Section 3.1: 4e-4, less by 2e-6 per epoch, 200 epochs, 10 and 10 points, patches 1 : 1."""
    config = read_train_config(PUBLISHED / f"promise3d-text-{data}.toml", [])
    schedule = Schedule.of(config.optimiser, cases, 1)
    assert schedule.num_steps == 200 * cases
    for epoch in (0, 1, 7, 199):
        rate = learning_rate(epoch * cases + cases - 1, config.optimiser, schedule)
        assert rate == pytest.approx(4e-4 - 2e-6 * epoch, rel=1e-9)
    recipe = find_recipe(config.model.method, config.model.preset, config.model.size)
    assert (recipe.training_clicks.foreground, recipe.training_clicks.others) == (10, 10)
    assert recipe.training_clicks.others_from == "background"
    sampling = config.sampling
    assert (sampling.foreground_share, sampling.jitter_voxels, sampling.quarter_turn_share) == (0.5, 0, 0)
    assert (sampling.geometry, sampling.order, sampling.border) == ("in_plane", "epochs", "inside")
    assert config.run.validate_every == cases


@pytest.mark.parametrize(
    ("method", "data", "wanted"),
    [
        ("promise3d", "colon", (200, 4e-4, 0.0, "best", 89)),
        ("promise3d", "pancreas", (200, 4e-4, 0.0, "best", 196)),
        ("sam3d_adapter", "colon", (500, 4e-4, 0.0, "last", 0)),
        ("sam3d_adapter", "kits", (500, 4e-4, 0.0, "last", 0)),
        ("tags", "lits", (200, 1e-4, 1e-5, "best", 83)),
        ("tags", "kits", (200, 1e-4, 1e-5, "best", 209)),
    ],
)
def test_the_schedules_are_those_of_the_released_code(method, data, wanted):
    config = read_train_config(PUBLISHED / f"{method}-{data}.toml", [])
    optimiser, run = config.optimiser, config.run
    assert (
        optimiser.epochs, optimiser.learning_rate, optimiser.weight_decay, run.keep, run.validate_every
    ) == wanted  # fmt: skip
    assert (optimiser.batch_size, optimiser.accumulate, optimiser.warmup_steps) == (1, 1, 0)
    assert (optimiser.schedule, optimiser.final_rate, optimiser.linear_epochs) == (
        "linear", 0.01, 500
    )  # fmt: skip
    assert (optimiser.max_gradient_norm, optimiser.clipping) == (1.0, "parts")
    assert optimiser.average_decay == 0
    assert (run.precision, run.foundation, run.trained) == ("float32", "sam-vit-b", "adapters")
    known = read_published(data)
    in_plane = config.sampling.geometry == "in_plane"
    assert in_plane == known.slice_wise_augmentation
    assert config.sampling.zoom == ((0.9, 1.1) if in_plane else (0.85, 1.25))
    if run.validate_every:
        assert run.validate_every == known.train_cases


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "tiny"', 'name = "tiny"\ncolour = 1', ["colour is not known", "arms", "protocol"]),
        ('method = "ball:25"', 'methd = "ball"', ["study.toml: arms.2.method: Field required"]),
        (
            'config = "windows.toml"',
            'config = "windows.toml"\nconfg = 1',
            ["arms.1.confg is not known", "overrides", "config"],
        ),
        (
            'folder = "Task99_Lump"',
            'folder = "a"\nlable = 1',
            ["lable is not known", "tumour_label"],
        ),
        ('kind = "method"', 'kind = "robot"', ["robot", "nnunet", "method"]),
        ('reference = "clicked"', 'reference = "x"', ["'x' is no arm", "clicked, windows, ball"]),
        ('name = "ball"', 'name = "windows"', ["windows is there twice"]),
        (
            'published = [{ data = "lump", clicks = 0',
            'published = [{ data = "b", clicks = 0',
            ["'b'"],
        ),
        ('name = "promise3d"', 'name = "promise4d"', ["no protocol 'promise4d'", "promise3d"]),
        ('title = "A tiny study"', "title = ", ["not valid TOML"]),
    ],
)
def test_mistakes_in_a_study_are_named_in_one_line(tmp_path, old, new, words):
    assert old in STUDY
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_study(str(path))
    message = str(caught.value)
    assert str(path) in message or "protocol" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_four_tasks_of_3dsam_adapter_have_the_gains_of_its_abstract_alone():
    study = read_study("sam3d-adapter").study
    assert [data.constants for data in study.data] == ["kits", "lits", "pancreas", "colon"]
    assert not any(arm.published for arm in study.arms)
    gains = {g.data: g.percent for arm in study.arms for g in arm.published_gains}
    assert gains == {"kits": 8.25, "pancreas": 29.87, "colon": 10.11}
    assert all(g.source.endswith("abstract") for arm in study.arms for g in arm.published_gains)
    assert any("liver similar" in note for note in study.notes)


def test_the_ablations_of_tags_are_its_presets():
    file = read_study("tags")
    assert file.study.protocol.organ_mask == "file"
    presets = {}
    for arm in file.study.arms:
        if isinstance(arm, TrainArm) and "tags" in arm.config:
            config = read_train_config(file.next_to(arm.config.replace("{task}", "kits")), [*arm.overrides])
            recipe = find_recipe("tags", config.model.preset, config.model.size)
            presets[arm.name] = (recipe.network.num_channels, recipe.loss.alignment is not None)
    assert presets == {
        "tags": (2, True),
        "no-text": (2, False),
        "no-organ-mask": (1, True),
        "neither": (1, False),
    }
    with pytest.raises(ValidationError, match=r"nnunet names 'nobody', which is no arm"):
        Study.model_validate(_with_a_gain_over("nobody", file.study))


def test_the_claims_on_the_sarcoma_are_named_beforehand_and_every_arm_can_be_made():
    file = read_study(str(Path(__file__).parents[2] / "configs" / "claims.toml"))
    study = file.study
    assert (study.folds, study.seeds) == ((0, 1, 2, 3, 4), (1, 2))
    assert study.protocol.protocol().procedure == "published"
    assert [(claim.arm, claim.against) for claim in study.claims] == [
        ("promise3d", "sam3d_adapter"),
        ("promise3d", "promise3d-random"),
        ("sam3d_adapter", "sam3d_adapter-random"),
        ("sam3d_adapter", "automatic"),
        ("lifted", "scratch"),
        ("c", "up-conv"),
        ("up-conv", "two-adapters"),
        ("promise3d", "c"),
    ]
    for arm in study.arms:
        if isinstance(arm, TrainArm):
            config = read_train_config(file.next_to(arm.config), [*arm.overrides])
            assert find_recipe(config.model.method, config.model.preset, config.model.size)
            assert (config.optimiser.steps, config.run.keep) == (600, "last")
    named = [claim.name for claim in study.claims]
    of_size = [name for name in named if name != "pretrained-beats-scratch"]
    for name, claims, steps in (("tiny", named[:3], 300), ("published-rate", of_size, 150)):
        less = file.with_budget(name).study
        assert [claim.name for claim in less.claims] == claims
        for arm in (arm for arm in less.arms if isinstance(arm, TrainArm)):
            config = read_train_config(file.next_to(arm.config), [*arm.overrides])
            assert (config.model.size, config.optimiser.steps, config.run.keep) == ("tiny", steps, "last")
            assert config.optimiser.learning_rate == (8e-4 if name == "tiny" else 4e-4)
            assert find_recipe(config.model.method, config.model.preset, config.model.size)
    less = file.with_budget("pretrained").study
    assert [claim.name for claim in less.claims] == ["pretrained-beats-scratch"]
    lifted, scratch = (read_train_config(file.next_to(arm.config), [*arm.overrides]) for arm in less.arms)
    assert (lifted.run.foundation, lifted.run.trained) == ("litemedsam", "adapters")
    assert (scratch.run.foundation, scratch.run.trained) == ("", "everything")
    assert lifted.optimiser == scratch.optimiser
    assert (lifted.optimiser.steps, lifted.optimiser.batch_size) == (600, 1)
    folds = read_splits(file.next_to(study.data[0].splits))
    tested = sorted(case for fold in folds for case in fold.test)
    assert len(tested) == len(set(tested)) == 34
    assert all(not set(fold.train) & set(fold.test) and len(fold.train + fold.test) == 34 for fold in folds)


def _with_a_gain_over(name, study):
    content = study.model_dump()
    content["arms"][0]["published_gains"] = [
        {"data": "kits", "clicks": 3, "over": [name], "percent": 1.0, "source": "x"}
    ]
    return content


def test_nnunet_needs_one_data_set_per_task(tmp_path):
    second = '[[tasks.data]]\nname = "b"\nfolder = "b"\nmodality = "CT"\nsource = "s"\n\n[[arms]]'
    text = STUDY.replace("[[arms]]", second, 1)
    text += '\n[[arms]]\nkind = "nnunet"\nname = "nnunet"\ntitle = "nnU-Net"\n'
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="one data set"):
        read_study(str(path))


def test_an_unknown_study_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="promise3d-table2, sam3d-adapter, tags, or a file"):
        read_study("promise3d-table3")


def test_the_study_of_the_sarcoma_can_be_read():
    file = read_study(str(Path(__file__).parents[2] / "configs" / "sarcoma-study.toml"))
    (task,) = file.study.tasks
    assert [data.name for data in task.data] == ["Sarcoma_CT", "Sarcoma_MR"]
    for arm in file.study.arms:
        if isinstance(arm, TrainArm):
            config = read_train_config(file.next_to(arm.config), list(arm.overrides))
            assert config.model.id == arm.name
