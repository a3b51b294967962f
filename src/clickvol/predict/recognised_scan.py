"""What kind of scan it is, and how its values become what a model sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.io.volume import Modality, Volume
from clickvol.preprocessing.intensity import (
    IntensityScale,
    intensity_scale,
    recognise_modality,
    value_sample,
)
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True)
class RecognisedScan:
    """What is known about the values of a scan.

    Attributes:
        modality: the one it is treated as.
        scale: its intensity scale, for the model at hand.
        warnings: what a person should know, one sentence each.
    """

    modality: Modality
    scale: IntensityScale
    warnings: tuple[str, ...]


def recognise_scan(volume: Volume, model: LoadedModel, modality: Modality | None) -> RecognisedScan:
    """Look at a sample of the values.

    Args:
        volume: the scan.
        model: whose intensity constants count, where its card has some.
        modality: what the user says the scan is; None leaves it to the file and the values.
    """
    sample = value_sample(volume)
    told = Volume(volume.array, volume.grid, modality) if modality else volume
    recognised = recognise_modality(told, sample)
    warnings = (recognised.warning,) if recognised.warning else ()
    return RecognisedScan(recognised.modality, _scale(model, recognised.modality, sample), warnings)


def _scale(model: LoadedModel, modality: Modality, sample: NDArray[np.float32]) -> IntensityScale:
    """Return the constants that the model was trained with, else this package's own scale."""
    plan = model.card.intensity
    if plan is None:
        return intensity_scale(modality, sample)
    # The published networks pad with zeros after normalisation, which is the mean.
    return IntensityScale(*plan.clip, plan.mean, plan.deviation, outside=plan.mean)
