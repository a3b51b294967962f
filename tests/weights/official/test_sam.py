"""SAM's files as models: recognised by shapes, every tensor compared, honest about where they come from."""

import pytest
import torch

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.weights.load import load_network
from clickvol.weights.official import sam as foundation_module
from clickvol.weights.official.importing import import_checkpoint
from clickvol.weights.official.sam import import_foundation, recognise_preset
from clickvol.weights.registry import KnownFile, find_entry


@pytest.fixture(scope="module")
def state():
    """Random weights in the layout of LiteMedSAM."""
    torch.manual_seed(0)
    return Sam2d(sam2d_preset("litemedsam")).state_dict()


@pytest.fixture
def file(state, tmp_path):
    torch.save(state, tmp_path / "lite_medsam.pth")
    return tmp_path / "lite_medsam.pth"


def refused(state, tmp_path, preset="litemedsam"):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(DamagedWeightsError) as caught:
        import_foundation(tmp_path / "x.pth", preset, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_value_arrives(file, state, tmp_path):
    card_path = import_foundation(file, "litemedsam", tmp_path / "m")
    assert card_path == tmp_path / "m" / "litemedsam.json"
    card, network = load_network(card_path, Sam2d)
    result = network.state_dict()
    assert all(torch.equal(result[key], value) for key, value in state.items())
    assert {result[key].dtype for key in result} == {torch.float32, torch.int64}
    assert network.config == sam2d_preset("litemedsam")
    assert card.num_parameters == sum(p.numel() for p in network.parameters())


def test_other_values_than_the_published_have_no_known_licence(file, tmp_path):
    card, _ = load_network(import_foundation(file, "litemedsam", tmp_path / "m"), Sam2d)
    assert card.licence.startswith("not known")
    assert card.title == "weights in the layout of litemedsam"
    assert "names and shapes are those of litemedsam, the values are not" in card.notes


def test_the_published_file_has_the_licence_of_its_publisher(file, tmp_path, monkeypatch):
    sha256 = foundation_module.sha256_of_file(file)
    original = KnownFile(name=file.name, bytes=file.stat().st_size, sha256=sha256)
    entry = find_entry("litemedsam")
    source = entry.source.model_copy(update={"original": original})
    entry = entry.model_copy(update={"source": source})
    monkeypatch.setattr(foundation_module, "list_entries", lambda: (entry,))
    card, _ = load_network(import_foundation(file, "litemedsam", tmp_path / "m"), Sam2d)
    assert card.licence == "Apache-2.0"
    assert card.title == entry.title
    assert card.training_data == [f"see {entry.paper.citation}, {entry.paper.url}"]


@pytest.mark.parametrize("preset", ["vit_b", "vit_l", "vit_h", "litemedsam"])
def test_the_preset_is_told_by_the_shapes(preset):
    with torch.device("meta"):
        state = Sam2d(sam2d_preset(preset)).state_dict()
    assert recognise_preset(state) == preset


def test_a_sam_of_another_size_is_not_recognised(tmp_path):
    state = Sam2d(sam2d_preset("tiny")).state_dict()
    assert recognise_preset(state) is None
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(DamagedWeightsError, match="a SAM of no known size"):
        import_checkpoint(tmp_path / "x.pth", tmp_path / "m")


def test_all_faults_are_listed(state, tmp_path):
    changed = dict(state)
    tokens = "mask_decoder.mask_tokens.weight"
    counter = "image_encoder.patch_embed.seq.0.bn.num_batches_tracked"
    changed |= {
        "head.weight": torch.zeros(1),
        tokens: torch.zeros(5, 256),
        counter: torch.zeros(()),
    }
    del changed["mask_decoder.iou_token.weight"]
    message = refused(changed, tmp_path)
    assert "the size litemedsam; nothing was written; 4 faults: " in message
    for fault in (
        "mask_decoder.iou_token.weight is missing",
        "head.weight is unknown",
        f"{tokens} has shape (5, 256), expected (4, 256)",
        f"{counter} is no tensor of whole numbers",
    ):
        assert fault in message


def test_the_file_of_another_size(state, tmp_path):
    assert "is not the file of a SAM of the size vit_b" in refused(dict(state), tmp_path, "vit_b")


def test_an_unknown_preset(file, tmp_path):
    with pytest.raises(ConfigError, match="no preset 'vit_x'"):
        import_foundation(file, "vit_x", tmp_path / "m")


def test_models_import_takes_it_too_and_gives_it_a_name(file, tmp_path):
    imported = import_checkpoint(file, tmp_path / "m", model_id="mine")
    assert imported.card_path == tmp_path / "m" / "mine.json"
    assert imported.card.id == "mine"
    assert imported.dropped == ()
    with pytest.raises(ConfigError, match="a data set belongs to"):
        import_checkpoint(file, tmp_path / "n", dataset="colon")
    with pytest.raises(DamagedWeightsError, match="give --method sam2d"):
        import_checkpoint(file, tmp_path / "n", method="promise3d")
