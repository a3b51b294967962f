"""Who is evaluated: anything that opens a scan and answers lists of clicks with masks.

A contestant sees a `Scan`, which holds nothing of the label, not even where the scan was read from; but for the
organ, where an evaluation was asked to show it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import bounding_box
from clickvol.io.volume import Mask, Volume
from clickvol.predict.scan_predictor import ScanPredictor, segment
from clickvol.predict.segmentation import keep_clicked
from clickvol.prompts.click import Click
from clickvol.weights.load import LoadedModel

CLICK_SUFFIX = " + click"
"""What is put behind the name of a contestant whose answer was kept only under the clicks."""


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """All that a contestant sees of a case.

    Attributes:
        data: name of the data set.
        case_id: of the scan in it, by which masks of other programs are found.
        volume: the scan on its native grid; its `source` is empty, since labels lie beside scans.
        organ: mask of the organ on the same grid, for contestants that take one; None where none is shown.
    """

    data: str
    case_id: str
    volume: Volume
    organ: Mask | None = None

    @classmethod
    def blind(cls, data: str, case_id: str, volume: Volume) -> "Scan":
        """Take a scan without where it came from."""
        return cls(data, case_id, replace(volume, source="", notes=()))


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A mask, and what it took.

    Attributes:
        mask: (D, H, W) uint8, 0 or 1, on the scan's grid.
        seconds: from the click to the mask; the first answer includes opening the scan.
    """

    mask: NDArray[np.uint8]
    seconds: float


class OpenedScan(Protocol):
    """A contestant at one scan, for one user."""

    def answer(self, clicks: Sequence[Click]) -> Answer:
        """Answer all clicks of a list, the earlier ones first; an empty list where none are taken.

        Raises:
            ClickvolError: when there is no answer.
        """
        ...


class Contestant(Protocol):
    """Somebody who is evaluated.

    Attributes:
        name: in the report.
        fingerprint: a hash of the weights, or the parameters in words; another one is another contestant.
        takes_clicks: False for one that is scored once per scan, as it is.
        takes_organ_mask: True for one that looks at an organ mask beside the scan; others are never shown any.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def takes_clicks(self) -> bool: ...  # noqa: D102

    @property
    def takes_organ_mask(self) -> bool: ...  # noqa: D102

    def open_scan(self, scan: Scan) -> OpenedScan:
        """Begin at a scan; cheap, or done with the first answer.

        Raises:
            ConfigError: when this contestant cannot be asked about the scan at all, which stops the
                evaluation.
        """
        ...


class PromptableModel:
    """A model that takes clicks, through a `ScanPredictor` of its own for every user."""

    takes_clicks = True

    def __init__(self, name: str, model: LoadedModel) -> None:
        self.name = name
        self.fingerprint = model.card.sha256
        self.takes_organ_mask = _takes_organ_mask(model)
        self._model = model

    def open_scan(self, scan: Scan) -> OpenedScan:
        """Begin at a scan."""
        return _ModelAtScan(self._model, scan)


class _ModelAtScan:
    def __init__(self, model: LoadedModel, scan: Scan) -> None:
        self._model, self._scan = model, scan
        self._opened: ScanPredictor | None = None

    def answer(self, clicks: Sequence[Click]) -> Answer:
        """Answer; the features of the scan are kept."""
        started_at = time.perf_counter()
        if self._opened is None:
            self._opened = ScanPredictor(self._scan.volume, self._model, organ_mask=self._scan.organ)
        mask = self._opened.predict(clicks).mask.array
        return Answer(mask, time.perf_counter() - started_at)


def _takes_organ_mask(model: LoadedModel) -> bool:
    return model.network.config.num_channels > 1


class UnclickedMask(Protocol):
    """Something that makes one mask of a scan without a click."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def takes_organ_mask(self) -> bool: ...  # noqa: D102

    def mask_of(self, scan: Scan) -> Answer:
        """Return the mask.

        Raises:
            ClickvolError: when there is none.
        """
        ...


class AutomaticModel:
    """A model that takes no clicks; its last mask is kept, as it does not depend on the user."""

    def __init__(self, model: LoadedModel) -> None:
        self.fingerprint = model.card.sha256
        self.takes_organ_mask = _takes_organ_mask(model)
        self._model = model
        self._last: tuple[Scan, Answer] | None = None

    def mask_of(self, scan: Scan) -> Answer:
        """Slide the model over the scan, once for all users of it."""
        if self._last is None or self._last[0] is not scan:
            started_at = time.perf_counter()
            found = segment(scan.volume, [], self._model, organ_mask=scan.organ)
            self._last = (scan, Answer(found.mask.array, time.perf_counter() - started_at))
        return self._last[1]


@dataclass(frozen=True, slots=True)
class AsItIs:
    """A mask that knows no click, scored once per scan.

    Attributes:
        name: in the report.
        source: of the mask.
    """

    name: str
    source: UnclickedMask
    takes_clicks: bool = False

    @property
    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint

    @property
    def takes_organ_mask(self) -> bool:
        """Whether the source does."""
        return self.source.takes_organ_mask

    def open_scan(self, scan: Scan) -> OpenedScan:
        """Begin at a scan."""
        return _UnclickedAtScan(self.source, scan)


@dataclass(frozen=True, slots=True)
class KeptUnderClicks:
    """The same mask, of which only connected parts (26 neighbours) under a foreground click are kept.

    The nearest part where there is none under any click, as `clickvol segment` does. Background clicks have no
    effect.

    Attributes:
        name: in the report.
        source: of the mask.
    """

    name: str
    source: UnclickedMask
    takes_clicks: bool = True

    @property
    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint

    @property
    def takes_organ_mask(self) -> bool:
        """Whether the source does."""
        return self.source.takes_organ_mask

    def open_scan(self, scan: Scan) -> OpenedScan:
        """Begin at a scan."""
        return _UnclickedAtScan(self.source, scan)


class _UnclickedAtScan:
    def __init__(self, source: UnclickedMask, scan: Scan) -> None:
        self._source, self._scan = source, scan

    def answer(self, clicks: Sequence[Click]) -> Answer:
        """Return the mask; with clicks, the parts of it under them."""
        whole = self._source.mask_of(self._scan)
        if not clicks:
            return whole
        started_at = time.perf_counter()
        kept = _under_clicks(whole.mask, clicks, self._scan.volume)
        return Answer(kept, whole.seconds + time.perf_counter() - started_at)


def _under_clicks(mask: NDArray[np.uint8], clicks: Sequence[Click], volume: Volume) -> NDArray[np.uint8]:
    found = bounding_box(mask)
    if found is None:
        return mask
    # With a margin, so that a click beyond the box does not land on its border.
    box = found.grow(1).clip(volume.grid.shape_dhw)
    inside = [
        volume.grid.to_voxel(click.world(volume.grid)).as_array() - box.start_dhw
        for click in clicks
        if click.foreground
    ]
    kept = np.zeros_like(mask)
    kept[box.slices] = keep_clicked(mask[box.slices] > 0, inside)
    return kept
