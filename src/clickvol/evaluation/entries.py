"""Contestants from the words of a command line."""

from collections.abc import Sequence
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.evaluation.classical import (
    BALL_RADIUS_MM,
    Classical,
    ball,
    random_walker,
    region_growing,
)
from clickvol.evaluation.contestants import (
    CLICK_SUFFIX,
    AsItIs,
    AutomaticModel,
    Contestant,
    KeptUnderClicks,
    PromptableModel,
    UnclickedMask,
)
from clickvol.evaluation.predicted_masks import PredictedMasks
from clickvol.weights.load import load_model

_PREDICTIONS = "predictions:"


def make_contestants(words: Sequence[str], *, device: str = "auto") -> list[Contestant]:
    """Return the contestants that words name; one that takes no clicks gives two.

    Args:
        words: each a model's id or path, `ball` or `ball:MM`, `region-growing`, `random-walker`, or
            `predictions:DIR`; with NAME= before it to be called so in the report.
        device: where models compute.

    Raises:
        ConfigError: for no word, two contestants of one name, or what cannot be used.
        ModelNotFoundError, DamagedWeightsError, DeviceError: as `load_model`.
    """
    contestants = [entry for word in words for entry in _entries(word, device)]
    if not contestants:
        raise ConfigError("nothing to evaluate; name at least one model")
    names = [contestant.name for contestant in contestants]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two contestants are called {name!r}; put another name before one: NAME={name}")
    return contestants


def _entries(word: str, device: str) -> list[Contestant]:
    given_name, separator, what = word.partition("=")
    if not separator or "/" in given_name:  # the = belongs to a path
        given_name, what = "", word
    classical = _classical(what)
    if classical is not None:
        name = given_name or classical.name
        return [Classical(name, classical.fingerprint, classical.segment)]
    if what.startswith(_PREDICTIONS):
        folder = Path(what.removeprefix(_PREDICTIONS))
        return _scored_twice(given_name or folder.name, PredictedMasks(folder))
    model = load_model(what, device=device)
    name = given_name or model.card.id
    if model.network.config.is_automatic:
        return _scored_twice(name, AutomaticModel(model))
    return [PromptableModel(name, model)]


def _scored_twice(name: str, source: UnclickedMask) -> list[Contestant]:
    return [AsItIs(name, source), KeptUnderClicks(name + CLICK_SUFFIX, source)]


def _classical(word: str) -> Classical | None:
    kind, _, number = word.partition(":")
    if kind == "ball":
        try:
            return ball(float(number) if number else BALL_RADIUS_MM)
        except ValueError as error:
            raise ConfigError(f"cannot read the radius of {word!r}; give ball:MM, such as ball:50") from error
    if word == "region-growing":
        return region_growing()
    if word == "random-walker":
        return random_walker()
    return None
