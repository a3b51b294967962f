import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.weights import card as card_module
from clickvol.weights.card import ModelCard, find_card, list_cards, read_card


def test_a_card_comes_back_as_it_was_written(save_model):
    path = save_model(notes=["one"], scores=[{"dice": 0.5}])
    card = read_card(path)
    assert card.notes == ["one"]
    assert card.scores == [{"dice": 0.5}]
    assert card.fields_of_view.coarsest_voxel_mm == 6.0
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize("name", ["m.json", "m.safetensors", "."])
def test_a_model_is_named_by_its_card_its_weights_or_its_folder(save_model, tmp_path, name):
    path = save_model()
    assert find_card(tmp_path / name) == path
    assert find_card(str(tmp_path / name)) == path


def test_an_unknown_id_is_refused_with_the_shipped_ones(monkeypatch, save_model, tmp_path):
    save_model()
    monkeypatch.setattr(card_module, "_SHIPPED_FOLDER", tmp_path)
    with pytest.raises(ModelNotFoundError, match="there is no model 'x'; shipped models: m; give one"):
        find_card("x")


def test_without_any_shipped_model_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(card_module, "_SHIPPED_FOLDER", tmp_path)
    with pytest.raises(ModelNotFoundError, match="shipped models: none"):
        find_card("x")


def test_a_shipped_model_is_found_by_its_id_only(monkeypatch, save_model, tmp_path):
    path = save_model()
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(card_module, "_SHIPPED_FOLDER", tmp_path)
    assert find_card("m") == path
    assert [card.id for card in list_cards()] == ["m"]
    monkeypatch.setattr(card_module, "_SHIPPED_FOLDER", tmp_path / "shipped")
    # A path that leads out of the folder is no id.
    with pytest.raises(ModelNotFoundError):
        find_card("../m")


def test_the_cards_of_the_package_can_be_read():
    assert all(read_card(card.id) == card for card in list_cards())


def test_weights_without_a_card_are_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x")
    with pytest.raises(ModelNotFoundError, match=r"w\.json is missing beside it"):
        find_card(tmp_path / "w.safetensors")


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_must_hold_one_card(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.json").write_text("{}")
        (tmp_path / f"{number}.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=f"holds {count} cards with weights"):
        find_card(tmp_path)


def test_other_json_files_in_a_model_folder_are_no_cards(save_model, tmp_path):
    path = save_model()
    (tmp_path / "config.json").write_text("{}")
    assert find_card(tmp_path) == path


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe\x00", b'{"id": "m"}'])
def test_what_is_not_a_card_is_refused(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(DamagedWeightsError, match=r"m\.json is not a model card") as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "other"},
        {"dtype": "int8"},
        {"novelty": 1},
        {"fields_of_view": {"first_voxel_mm": 0, "finest_voxel_mm": 1, "coarsest_voxel_mm": 6}},
    ],
)
def test_a_card_with_a_wrong_value_is_refused(save_model, change):
    path = save_model()
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedWeightsError):
        read_card(path)


def test_a_card_cannot_be_changed(save_model):
    card = read_card(save_model())
    with pytest.raises(ValidationError):
        card.sha256 = "0"


def test_reading_cards_does_not_import_torch():
    code = (
        "import sys; from clickvol.weights.card import list_cards; list_cards(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
