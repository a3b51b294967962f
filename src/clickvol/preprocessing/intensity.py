"""Modality and intensity: from Hounsfield units or MR values to what a network sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.io.volume import Modality, Volume

# CT: the soft-tissue window, in Hounsfield units. Its middle goes to 0 and its ends to -1.6 and 1.6.
# Not stated in any of the papers for a model of several organs; chosen because it is the usual
# soft-tissue window, a little wider than the published bounds (-57..247 HU).
CT_WINDOW_HU = (-160.0, 240.0)

_NORMALISED_END = 1.6

# Number of voxels that statistics are read from; more do not move a percentile visibly.
_MAX_SAMPLE_VOXELS = 200_000


@dataclass(frozen=True, slots=True)
class IntensityScale:
    """A linear map of clipped values.

    Attributes:
        mean: clipped value that goes to 0.
        deviation: clipped difference that goes to 1.
        outside: value of what lies outside the scan, in the scan's unit.
    """

    low: float
    high: float
    mean: float
    deviation: float
    outside: float

    @classmethod
    def of_window(cls, low: float, high: float) -> "IntensityScale":
        """Return the scale that maps a window to [-1.6, 1.6]; outside the scan is its low end."""
        half = (high - low) / 2
        return cls(low, high, low + half, half / _NORMALISED_END, outside=low)

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map values of any shape, float32."""
        clipped = np.clip(values, self.low, self.high)
        return ((clipped - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True, slots=True)
class KnottedScale:
    """A piecewise linear map between rising knots, constant beyond; outside the scan is a value in its unit."""

    values: tuple[float, ...]
    normalised: tuple[float, ...]
    outside: float

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map values of any shape, float32."""
        return np.interp(values, self.values, self.normalised).astype(np.float32)


Scale = IntensityScale | KnottedScale
"""Either map to what a network sees."""


@dataclass(frozen=True, slots=True)
class RecognisedModality:
    """As what a scan is treated, and a warning where it looks like nothing that is known, else ""."""

    modality: Modality
    warning: str


def value_sample(volume: Volume) -> NDArray[np.float32]:
    """Return some 200,000 voxels spread over the whole scan, float32 (n,)."""
    array = volume.array
    stride = max(1, int(np.cbrt(array.size / _MAX_SAMPLE_VOXELS)))
    steps = tuple(slice(None, None, min(stride, max(1, n // 4))) for n in array.shape)
    return np.asarray(array[steps], dtype=np.float32).ravel()


def recognise_modality(
    volume: Volume, sample: NDArray[np.float32], *, knows_pet: bool = False
) -> RecognisedModality:
    """Tell CT, MR and PET apart by the file's own word or by the values of `value_sample`.

    CT has values far below zero (air -1000, fat -100 HU); MR has practically none. Small positive numbers are
    standard uptake values, or MR scaled to 0..1, whose largest is 1. To a model that does not know PET it looks
    like no scan that it knows, and is treated as MR.
    """
    if volume.modality in ("CT", "MR", "other"):
        return RecognisedModality(volume.modality, "")
    low, high = np.percentile(sample, [1, 99.5])
    if volume.modality == "PT" or (knows_pet and low >= 0 and _LEAST_SUV < high < _MOST_SUV):
        if knows_pet:
            return RecognisedModality("PT", "")
        return RecognisedModality("MR", _IS_PET)
    if low < -50 and high > 0 and high < 10_000:
        return RecognisedModality("CT", "")
    if low < -0.02 * abs(high) or high < _MOST_SUV:
        return RecognisedModality("MR", _UNLIKE.format(f"has values {low:.4g} to {high:.4g}"))
    return RecognisedModality("MR", "")


# The 99.5th percentile of standard uptake values over a body lies between these; of MR scaled to 0..1 below.
_LEAST_SUV = 1.5
_MOST_SUV = 50.0

_IS_PET = (
    "the scan is PET, which this model was not trained on; it is treated as MR, so check the mask with care "
    "(--model promise3d-lesions was trained on PET, too)"
)

_UNLIKE = (
    "the scan {}, unlike the CT (HU) and MR that the model was trained on; it is treated as MR, so check "
    "the mask with care (--modality CT, MR or other says what it is)"
)


def intensity_scale(modality: Modality, sample: NDArray[np.float32]) -> IntensityScale:
    """Return the scale for a scan, from its `value_sample`.

    CT: the fixed soft-tissue window. Anything else has no unit: from the 0.5th percentile of all voxels to the
    99.5th of those above the mean (in T1 that is fat), so that air in the picture does not matter.
    """
    if modality == "CT":
        return IntensityScale.of_window(*CT_WINDOW_HU)
    low = float(np.percentile(sample, 0.5))
    bright = sample[sample > sample.mean()]
    high = float(np.percentile(bright, 99.5)) if bright.size else low
    # A constant sample still needs a scale that divides by something.
    return IntensityScale.of_window(low, high if high > low else low + 1.0)


# Beyond the soft-tissue window a wide scale goes on, flatter: lung and air differ, and so do bone and metal.
_CT_KNOTS_HU = (-1000.0, *CT_WINDOW_HU, 1500.0)

# Standard uptake values: normal tissue lies below 2.5, most tumours between 2.5 and 15.
_PET_KNOTS_SUV = (0.0, 2.5, 10.0, 40.0)
_PET_NORMALISED = (-_NORMALISED_END, 0.0, _NORMALISED_END, _NORMALISED_END + 1)


def wide_intensity_scale(modality: Modality, sample: NDArray[np.float32]) -> KnottedScale:
    """Return the scale of the models that know CT from air to metal, MR and PET, from a `value_sample`.

    CT: the soft-tissue window goes to -1.6..1.6 as in `intensity_scale`, and -1000 and 1500 HU to -2.6 and 2.6.
    PET: standard uptake values. All else as MR: its window goes to -1.6..1.6, as much again above it to 2.6.
    All choices of ours.
    """
    far = _NORMALISED_END + 1
    if modality == "CT":
        ends = (-far, -_NORMALISED_END, _NORMALISED_END, far)
        return KnottedScale(_CT_KNOTS_HU, ends, outside=_CT_KNOTS_HU[0])
    if modality == "PT":
        return KnottedScale(_PET_KNOTS_SUV, _PET_NORMALISED, outside=0.0)
    window = intensity_scale("MR", sample)
    knots = (window.low, window.high, 2 * window.high - window.low)
    return KnottedScale(knots, (-_NORMALISED_END, _NORMALISED_END, far), outside=window.low)
