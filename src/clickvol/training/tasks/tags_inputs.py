"""What a training run of TAGS needs besides scans: texts, organ masks, and what its card must say of them."""

from clickvol.errors import ConfigError
from clickvol.image_encoders.text_bank import TextBank, make_text_bank, stub_text_bank
from clickvol.methods.recipe import Recipe
from clickvol.preprocessing.channels import OrganMaskSource
from clickvol.training.config import TagsSection, TrainConfig
from clickvol.weights.text_bank_file import read_text_bank
from clickvol.weights.text_tower import local_text_encoder

# Width of a stub: that of CLIP ViT-L/14, so that the network is the one that CLIP would have.
_STUB_WIDTH = 768


def load_text_bank(config: TrainConfig, recipe: Recipe) -> TextBank | None:
    """Return what the tokens are compared with; None where the recipe uses no text.

    Raises:
        ConfigError: when the configuration names no source of texts or no word for the object.
        ClickvolError: when the source is not there or damaged.
    """
    alignment, tags = recipe.loss.alignment, config.tags
    if alignment is None or tags is None:
        return None
    word = tags.organ if alignment.object_word == "organ" else tags.data_set
    if not word.strip():
        field = "organ" if alignment.object_word == "organ" else "data_set"
        raise ConfigError(f"the texts of the preset {recipe.preset} need a word: give tags.{field}")
    if tags.text == "file":
        if tags.text_file is None:
            raise ConfigError("tags.text is file, so tags.text_file must name the file")
        return read_text_bank(tags.text_file, word)
    if tags.text == "clip":
        encode, encoder = local_text_encoder(tags.text_file)
        return make_text_bank(encode, word, encoder)
    if tags.text == "stub":
        return stub_text_bank(_STUB_WIDTH, config.run.seed, word)
    raise ConfigError(f"the preset {recipe.preset} uses texts: give tags.text as file, clip or stub")


def organ_source(tags: TagsSection | None, num_channels: int) -> OrganMaskSource | None:
    """Return where organ masks come from; None where the network sees none."""
    return None if tags is None or num_channels == 1 else tags.organ_mask


def tags_notes(config: TrainConfig, bank: TextBank | None, organs: OrganMaskSource | None) -> list[str]:
    """Return what a user of the model should know of its texts and masks, one sentence each."""
    notes = []
    if bank is not None:
        notes.append(f"Texts about {bank.object_word!r}, encoded by {bank.text_encoder}.")
        if bank.is_stub:
            notes.append(
                "THE TEXT BANK WAS A STUB: no text had any part in the training; no result of this model says "
                "anything about text prompts."
            )
    if organs is None:
        return notes
    if organs == "none":
        notes.append("Trained without organ masks: the scan stood in their place.")
        return notes
    if organs == "gt":
        notes.append(
            "Organ masks were made from the labels, organ and tumour together, and give part of the tumour's "
            "outline away; scores with such masks are too good."
        )
    else:
        notes.append("Organ masks came from files.")
    if config.data.phantoms:
        notes.append("In synthetic scans the organ mask was everything within 20 mm of the tumour.")
    return notes
