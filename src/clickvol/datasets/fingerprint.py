"""The intensity fingerprint of a data set: what the values inside its objects are like."""

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clickvol.datasets.published import PublishedConstants
from clickvol.preprocessing.intensity import IntensityScale

# nnU-Net draws 1e8 / number of scans per scan. A percentile over 30 scans does not move visibly between
# that and this many; chosen because it costs 40 kB per scan.
SAMPLE_VOXELS = 10_000

# Of all scans together; from 1,000 scans on each gives fewer.
_MAX_VOXELS = 10_000_000

# Of the draw, so that it depends on the case alone; nnU-Net fixes 1234, too.
_SEED = 1234

_PERCENTILES = (0.5, 99.5)


class IntensityConstants(BaseModel):
    """How values of one modality are clipped and normalised; `source` is "fingerprint" or a published name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    mean: float
    deviation: float = Field(gt=0)
    source: str

    @classmethod
    def of_published(cls, name: str, known: PublishedConstants) -> "IntensityConstants":
        """Take the constants of a published data set."""
        return cls(
            low=known.clip_low_hu,
            high=known.clip_high_hu,
            mean=known.mean_hu,
            deviation=known.deviation_hu,
            source=name,
        )

    def scale(self) -> IntensityScale:
        """Return the map of values; outside a scan is the mean, as the released code pads."""
        return IntensityScale(self.low, self.high, self.mean, self.deviation, outside=self.mean)


def foreground_sample(array: NDArray[np.generic], mask: NDArray[np.uint8], case_id: str) -> NDArray[np.float32]:
    """Draw `SAMPLE_VOXELS` float32 values inside an object, with replacement, so that all scans weigh alike.

    Scan and mask are (D, H, W); the mask is 0 and 1 and not empty. The id seeds the draw.
    """
    rng = np.random.default_rng([_SEED, zlib.crc32(case_id.encode())])
    return rng.choice(array[mask > 0], SAMPLE_VOXELS).astype(np.float32)


def fingerprint(samples: Iterable[NDArray[np.float32]], count: int) -> IntensityConstants:
    """Return what nnU-Net defines: percentiles 0.5 and 99.5, mean and standard deviation of all samples."""
    each = max(1, _MAX_VOXELS // count)
    # Copies, so that of a sample no more than its part stays in memory.
    values = np.concatenate([sample[:each].copy() for sample in samples]).astype(np.float64)
    low, high = np.percentile(values, _PERCENTILES)
    deviation = float(values.std())
    return IntensityConstants(
        low=float(low),
        high=float(high),
        mean=float(values.mean()),
        # Objects of one single value, as synthetic ones may be, still need something to divide by.
        deviation=deviation if deviation > 0 else 1.0,
        source="fingerprint",
    )
