"""An endless, seeded stream of batches that can begin anywhere."""

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from clickvol.datasets.implants import draw_implant_sample
from clickvol.datasets.published_samples import draw_published_sample
from clickvol.datasets.samples import LabelledVolume, TrainingSample, draw_sample
from clickvol.datasets.sampling import PublishedSampling, VolumeSampling, WindowSampling
from clickvol.datasets.window_samples import draw_window_sample
from clickvol.errors import ConfigError
from clickvol.phantoms.phantom import make_phantom
from clickvol.preprocessing.channels import stand_in_organ

SampleT = TypeVar("SampleT")
DrawnT_co = TypeVar("DrawnT_co", covariant=True)


class Draw(Protocol[DrawnT_co]):
    """How a sample is drawn from a case."""

    def __call__(self, case: LabelledVolume, *, rng: np.random.Generator) -> DrawnT_co:
        """Draw one sample; all that is random in it comes from `rng`."""


class SampleStream(Dataset[SampleT], Generic[SampleT]):
    """Sample number n of a run: the same whatever was drawn before it, so a run can be resumed.

    Args:
        cases: labelled scans; drawn with equal probability within each modality, and the modalities
            with equal probability.
        phantoms: synthetic ones; may be empty.
        phantom_share: part of the samples from them.
        draw: what is made of a case; handed to the loader's processes.
        small_object_exponent: see `SamplingSection`.
        seed: of the run.
        length: number of samples in the run.
    """

    def __init__(
        self,
        cases: Sequence[LabelledVolume],
        phantoms: Sequence[LabelledVolume],
        *,
        phantom_share: float,
        draw: Draw[SampleT],
        small_object_exponent: float,
        seed: int,
        length: int,
    ) -> None:
        if not cases and not phantoms:
            raise ConfigError("there is nothing to train on; give data.folders, or data.phantoms above 0")
        modalities = sorted({case.volume.modality for case in cases})
        self._pools = [[c for c in cases if c.volume.modality == m] for m in modalities]
        self._phantoms = list(phantoms)
        share = phantom_share if phantoms else 0.0
        self._phantom_share = share if cases else 1.0
        self._draw = draw
        self._small_object_exponent = small_object_exponent
        self._seed = seed
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> SampleT:
        rng = np.random.default_rng([self._seed, index])
        if rng.random() < self._phantom_share:
            pool = self._phantoms
        else:
            pool = self._pools[rng.integers(len(self._pools))]
        case = pool[rng.choice(len(pool), p=_shares(pool, self._small_object_exponent))]
        return self._draw(case, rng=rng)


def draw_any_sample(
    case: LabelledVolume,
    patch_shape_dhw: tuple[int, int, int],
    sampling: VolumeSampling,
    rng: np.random.Generator,
    *,
    num_channels: int = 1,
) -> TrainingSample:
    """Draw a sample the way that `sampling` says; see there."""
    shape, channels = patch_shape_dhw, num_channels
    if isinstance(sampling, WindowSampling):
        return draw_window_sample(case, shape, sampling, rng, num_channels=channels)
    if isinstance(sampling, PublishedSampling):
        return draw_published_sample(case, shape, sampling, rng, num_channels=channels)
    if sampling.implant_share and rng.random() < sampling.implant_share:
        implanted = draw_implant_sample(case, shape, sampling, rng, num_channels=channels)
        if implanted is not None:
            return implanted
    return draw_sample(case, shape, sampling, rng, num_channels=channels)


def _shares(pool: Sequence[LabelledVolume], exponent: float) -> NDArray[np.float64]:
    """Return the probability of each case: (len(pool),), sum 1."""
    weights = np.array([case.longest_side_mm for case in pool]) ** -exponent
    return np.asarray(weights / weights.sum())


def batch_indices(rounds: range, batch_size: int, *, rank: int = 0, count: int = 1) -> Iterator[list[int]]:
    """Yield the sample numbers of each forward pass of one process.

    Args:
        rounds: forward passes of the run, counted over all steps.
        batch_size: samples per pass and process.
        rank: number of the process.
        count: processes; in each pass together they take count x batch_size samples that follow one another.
    """
    for number in rounds:
        first = (number * count + rank) * batch_size
        yield list(range(first, first + batch_size))


def make_phantoms(count: int, seed: int, *, with_organ: bool = False) -> list[LabelledVolume]:
    """Make synthetic scans, every second one an MR, with voxels of 2 mm and tumours of all sizes.

    Phantoms have no organ; `with_organ` lays a stand-in around the tumour.
    """
    made = []
    for number in range(count):
        phantom = make_phantom(
            seed * 1000 + number,
            modality="MR" if number % 2 else "CT",
            shape_dhw=(72, 112, 112),
            spacing_dhw_mm=(3.0, 2.0, 2.0),
        )
        truth = phantom.truth.array
        organ = stand_in_organ(truth, phantom.volume.grid.spacing_dhw_mm) if with_organ else None
        made.append(LabelledVolume.of(phantom.volume, truth, organ))
    return made
