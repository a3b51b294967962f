"""One look of the model: a field of view in, probabilities on its patch out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.errors import CancelledError
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.predict.features import Array32, ScanFeatures, arithmetic
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL


@dataclass(frozen=True, slots=True)
class WorldClick:
    """A checked click.

    Attributes:
        place: in the patient.
        foreground: inside the object or beside it.
    """

    place: WorldPointRAS
    foreground: bool


@dataclass(slots=True)
class Stopwatch:
    """Seconds per stage, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started_at = time.perf_counter()
        yield
        spent = time.perf_counter() - started_at
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


def never() -> bool:
    """Tell that nobody has cancelled."""
    return False


class PatchPredictor:
    """Looks at one scan for one answer.

    Args:
        features: of the scan.
        taken: (D, H, W) on the scan's grid, voxels that belong to other objects and so are never found; None
            for none.
        cancelled: asked before every look; True ends the answer.
    """

    def __init__(
        self,
        features: ScanFeatures,
        taken: NDArray[np.bool_] | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        self._features = features
        self._taken = taken
        self._cancelled = cancelled

    def probability(
        self,
        field_of_view: FieldOfView,
        clicks: list[WorldClick],
        stopwatch: Stopwatch,
        *,
        prior: Array32 | None = None,
    ) -> Array32:
        """Return the probability of the object on a patch.

        Args:
            field_of_view: where to look.
            clicks: all clicks; those outside the patch are left out.
            stopwatch: gets the time of "encode" and "decode".
            prior: (D, H, W) probability of an earlier look on this patch, or None.

        Returns:
            (D, H, W) float32 in [0, 1]; 0 outside the scan and where other objects are.

        Raises:
            CancelledError: when the answer is not wanted any more.
        """
        if self._cancelled():
            raise CancelledError("the click was cancelled before its answer was there; click again")
        model = self._features.model
        with stopwatch.stage("encode"):
            view = self._features.encode(field_of_view)
        with stopwatch.stage("decode"), arithmetic(model):
            prompts = _to_prompts(clicks, field_of_view, model.device)
            known = None
            if prior is not None:
                known = torch.from_numpy(2 * prior - 1)[None, None].to(model.device)
            logits = model.network.decode(view.encoded, prompts, known)
            found = torch.softmax(logits[0].float(), dim=0)[1].cpu().numpy()
            return np.where(view.inside & ~self._is_taken(field_of_view.grid()), found, np.float32(0))

    def _is_taken(self, patch_grid: VolumeGrid) -> NDArray[np.bool_]:
        """Tell which patch voxels mostly belong to other objects: (D, H, W)."""
        if self._taken is None:
            return np.zeros(patch_grid.shape_dhw, dtype=bool)
        grid = self._features.volume.grid
        return extract(self._taken.view(np.uint8), grid, patch_grid, outside_value=0.0) > 0.5


def _to_prompts(clicks: list[WorldClick], field_of_view: FieldOfView, device: torch.device) -> PointPrompts:
    """Return the clicks that lie in the patch, as tensors of a batch of one."""
    points, labels = [], []
    shape = np.array(field_of_view.shape_dhw)
    for click in clicks:
        place = field_of_view.to_patch(click.place).as_array()
        if ((place >= -0.5) & (place <= shape - 0.5)).all():
            points.append(place)
            labels.append(FOREGROUND_LABEL if click.foreground else BACKGROUND_LABEL)
    places = np.array(points, dtype=np.float32).reshape(1, -1, 3)
    return PointPrompts(
        torch.from_numpy(places).to(device),
        torch.tensor([labels], dtype=torch.int64, device=device).reshape(1, -1),
    )
