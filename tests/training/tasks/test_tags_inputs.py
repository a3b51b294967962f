import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError, ModelNotFoundError, WeightsUnavailableError
from clickvol.image_encoders.text_bank import TextBank, sentences_sha256
from clickvol.methods.tags import tags_recipe
from clickvol.training.config import TrainConfig
from clickvol.training.read_config import read_train_config
from clickvol.training.run import train_from_config
from clickvol.training.tasks.tags_inputs import load_text_bank, organ_source, tags_notes
from clickvol.weights.card import read_card
from clickvol.weights.load import load_model
from clickvol.weights.text_bank_file import write_text_bank
from reference.compare import noise

OURS, RELEASED = tags_recipe("clickvol", "tiny"), tags_recipe("released", "tiny")


def make_config(phantoms=0, **tags):
    return TrainConfig.model_validate(
        {
            "model": {"id": "t", "title": "t", "method": "tags", "size": "tiny"},
            "data": {"phantoms": phantoms},
            "optimiser": {"steps": 4},
            "run": {"folder": "unused"},
            "tags": {"organ": "kidney", "data_set": "kits"} | tags,
        }
    )


def write_bank(path, word="kidney", width=20):
    columns = F.normalize(noise(width, 2), dim=0)
    write_text_bank(TextBank(columns, word, "some encoder", sentences_sha256(word)), path)


# -- texts ------------------------------------------------------------------------------------------


def test_the_form_says_which_word_the_texts_use(tmp_path):
    for word in ("kidney", "kits"):
        write_bank(tmp_path / word, word)
    ours = make_config(text="file", text_file=tmp_path / "kidney")
    released = make_config(text="file", text_file=tmp_path / "kits")
    assert load_text_bank(ours, OURS).object_word == "kidney"
    assert load_text_bank(released, RELEASED).object_word == "kits"
    with pytest.raises(ConfigError, match="is about 'kidney', not 'kits'"):
        load_text_bank(ours, RELEASED)


def test_a_stub_is_seeded_by_the_run_and_as_wide_as_clip(caplog):
    with caplog.at_level(logging.WARNING):
        one, same = (load_text_bank(make_config(text="stub"), OURS) for _ in range(2))
    assert one.columns.shape == (768, 2)
    assert torch.equal(one.columns, same.columns)
    assert "the text bank is a stub" in caplog.text


def test_clip_is_looked_for_where_it_is_said(tmp_path):
    with pytest.raises(WeightsUnavailableError, match="there is no text encoder in"):
        load_text_bank(make_config(text="clip", text_file=tmp_path), OURS)


@pytest.mark.parametrize(
    ("recipe", "tags", "error", "message"),
    [
        (OURS, {}, ConfigError, "give tags.text as file, clip or stub"),
        (OURS, {"text": "file"}, ConfigError, "tags.text_file must name the file"),
        (OURS, {"text": "file", "text_file": "/no"}, ModelNotFoundError, "/no does not exist"),
        (OURS, {"text": "stub", "organ": " "}, ConfigError, "need a word: give tags.organ"),
        (RELEASED, {"text": "stub", "data_set": ""}, ConfigError, "give tags.data_set"),
    ],
)
def test_texts_that_are_missing_are_said(recipe, tags, error, message):
    with pytest.raises(error, match=message):
        load_text_bank(make_config(**tags), recipe)


@pytest.mark.parametrize("preset", ["no-text", "neither"])
def test_a_form_without_texts_asks_for_none(preset):
    assert load_text_bank(make_config(), tags_recipe(preset, "tiny")) is None


# -- organ masks ------------------------------------------------------------------------------------


def test_masks_are_for_networks_that_see_them():
    tags = make_config(organ_mask="file").tags
    assert organ_source(tags, 2) == "file"
    assert organ_source(tags, 1) is None
    assert organ_source(None, 1) is None


# -- the configuration ------------------------------------------------------------------------------


def test_the_section_belongs_to_the_method(write_config):
    path, _ = write_config("c")
    with pytest.raises(ConfigError, match=r"the method tags needs a section \[tags\]"):
        read_train_config(path, ["model.method=tags"])
    with pytest.raises(ConfigError, match=r"\[tags\] is for the method tags, not promise3d"):
        read_train_config(path, ["tags.text=stub"])
    overrides = ["model.method=tags", "tags.text=stub", "tags.organ=leg"]
    assert read_train_config(path, overrides).tags.organ_mask == "none"


# -- the card ---------------------------------------------------------------------------------------


def test_the_card_says_what_the_texts_and_masks_were():
    stub = load_text_bank(make_config(text="stub"), OURS)
    notes = tags_notes(make_config(), stub, "none")
    assert any(note.startswith("THE TEXT BANK WAS A STUB") for note in notes)
    assert notes[-1] == "Trained without organ masks: the scan stood in their place."
    notes = tags_notes(make_config(phantoms=2), None, "gt")
    assert "scores with such masks are too good" in notes[0]
    assert "within 20 mm of the tumour" in notes[1]
    assert tags_notes(make_config(), None, None) == []


# -- a run ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_from_configuration_to_model(write_config, tmp_path, precision):
    write_bank(tmp_path / "bank.safetensors", "leg")
    path, folder = write_config("tags")
    overrides = [
        "model.method=tags",
        "tags.text=file",
        f"tags.text_file={tmp_path / 'bank.safetensors'}",
        "tags.organ=leg",
        "tags.organ_mask=gt",
        f"run.precision={precision}",
        "optimiser.steps=2",
    ]
    card = read_card(train_from_config(path, overrides))
    assert card.method == "tags"
    assert card.notes[0] == "Texts about 'leg', encoded by some encoder."
    assert card.network["encoder"]["alignment"] == {"text_width": 20, "blend": 0.2}
    network = load_model(folder, device="cpu").network
    assert network.config.encoder.channel_sources == (0, 0, 1)
    assert all(np.isfinite(p.numpy()).all() for p in network.parameters())


@pytest.mark.slow
def test_the_alignment_is_part_of_what_is_minimised(write_config, log_every_second_step):
    """Two stages of focal and Dice loss stand on top of the loss of the logits."""
    result = {}
    for preset in ("clickvol", "no-text"):
        path, folder = write_config(preset)
        overrides = [
            "model.method=tags",
            f"model.preset={preset}",
            "tags.text=stub",
            "tags.organ=leg",
            "optimiser.steps=2",
        ]
        train_from_config(path, overrides)
        result[preset] = json.loads((folder / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert result["clickvol"] > result["no-text"] + 0.3
