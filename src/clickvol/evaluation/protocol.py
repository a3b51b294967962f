"""How an evaluation is done: where clicks are put, how many, how often; presets with their sources."""

import itertools
import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from typing import Any, Literal, get_args

from clickvol.errors import ConfigError
from clickvol.metrics.scores import NSD_TOLERANCES_MM
from clickvol.predict.segmentation import Procedure

Placement = Literal["random", "centre", "inside", "edge", "outside", "box", "points"]
"""Where the first click is put, always as a click inside the object.

random: any voxel of the object, each as likely. centre: the deepest voxel of the largest connected part.
inside: a random voxel at least half as deep as the deepest. edge: a random voxel within 2 mm of the surface.
outside: a random voxel 2 to 5 mm beside the object. box: the centre of a box, see `evaluation.simulated_user`.
points: any pixel of the object, and the further ones at random too, whatever the mask is: half of N points,
rounded down, in the object and the others outside it, as ProMISe-2D is tested.
"""

NextClick = Literal["error", "random_foreground"]
"""Where further clicks are put.

error: the deepest place of the largest connected error, inside or beside the object as the error is.
random_foreground: any voxel of the object, with replacement, as the published methods are tested.
"""

NO_CLICK = "none"
"""Placement in the records of a model that was not clicked."""

ROBUSTNESS_PLACEMENTS: tuple[Placement, ...] = ("centre", "inside", "edge", "outside")
"""First clicks, one each, by which `--robustness` sees how much a place matters."""

DEFAULT_PROTOCOL = "clickvol"

_FOLDER = resources.files("clickvol.evaluation") / "protocols"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The rules of an evaluation.

    Attributes:
        name: id of the preset it began as.
        title: one line for the report.
        first_click: where the first click is put.
        next_clicks: where further clicks are put.
        num_clicks: numbers of clicks after which the mask is scored, rising. With "error" the mask is
            computed after every click; with "random_foreground", where no click depends on a mask, only for
            these numbers, all clicks at once.
        seeds: number of simulated users per scan: seeds 0, 1, ...
        nsd_tolerance_mm: which tolerance of the surface Dice is the protocol's own, and compared.
        nsd_tolerances_mm: rising, those that are recorded; the protocol's own is one of them.
        time_limit_seconds: an answer that took longer is a failure; None for no limit.
        procedure: how clicks become a mask; None for what suits each model: "published" for one that was
            trained on one voxel size, as the papers' are, "clickvol" for the others.
        corrected_clicks: numbers of clicks, rising, after which a second user is scored, who begins at the
            centre and then corrects; none for no such user.

    Raises:
        ConfigError: on construction, for values that contradict or that records cannot hold.
    """

    name: str
    title: str
    first_click: Placement
    next_clicks: NextClick
    num_clicks: tuple[int, ...]
    seeds: int
    nsd_tolerance_mm: float
    nsd_tolerances_mm: tuple[float, ...] = NSD_TOLERANCES_MM
    time_limit_seconds: float | None = None
    procedure: Procedure | None = None
    corrected_clicks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        numbers = self.num_clicks
        rises = all(a < b for a, b in itertools.pairwise(numbers))
        if not numbers or numbers[0] < 1 or not rises:
            raise ConfigError(f"numbers of clicks are {numbers}; give rising ones from 1, such as 1,3,5,10")
        if self.seeds < 1:
            raise ConfigError(f"the number of seeds is {self.seeds}; give at least 1")
        self._check_tolerances()
        choices = (None, *get_args(Procedure))
        if self.procedure not in choices:
            raise ConfigError(
                f"the procedure {self.procedure!r} is unknown; choose one of {', '.join(get_args(Procedure))}"
            )
        for value, allowed, what in (
            (self.first_click, get_args(Placement), "first click"),
            (self.next_clicks, get_args(NextClick), "next click"),
        ):
            if value not in allowed:
                raise ConfigError(f"the {what} {value!r} is unknown; choose one of {', '.join(allowed)}")
        if self.time_limit_seconds is not None and self.time_limit_seconds <= 0:
            raise ConfigError(f"the time limit is {self.time_limit_seconds:g} s; give more than 0")

    def _check_tolerances(self) -> None:
        tolerances = self.nsd_tolerances_mm
        known = ", ".join(f"{t:g}" for t in tolerances)
        rises = all(a < b for a, b in itertools.pairwise(tolerances))
        if not tolerances or not rises or tolerances[0] <= 0 or not math.isfinite(tolerances[-1]):
            raise ConfigError(
                f"the tolerances of the NSD are {known or 'none'}; give rising ones above 0 mm, such as 1,2,5"
            )
        if self.nsd_tolerance_mm not in tolerances:
            raise ConfigError(
                f"the tolerance {self.nsd_tolerance_mm:g} mm is not recorded; choose one of {known}"
            )

    def settings(self) -> dict[str, Any]:
        """Return the rules as plain values, by which a folder knows whose results it holds.

        What earlier versions did not know is left out where it has their value: their evaluations go on.
        """
        values = asdict(self)
        if self.nsd_tolerances_mm == NSD_TOLERANCES_MM:
            del values["nsd_tolerances_mm"]
        for name in ("procedure", "corrected_clicks"):
            if not values[name]:
                del values[name]
        return values


def protocol_names() -> list[str]:
    """Return the names of the presets."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_protocol(
    name: str = DEFAULT_PROTOCOL,
    *,
    num_clicks: tuple[int, ...] | None = None,
    seeds: int | None = None,
    nsd_tolerance_mm: float | None = None,
    nsd_tolerances_mm: tuple[float, ...] | None = None,
    procedure: Procedure | None = None,
) -> Protocol:
    """Return a preset, with some of its numbers replaced; ConfigError for an unknown one or contradictions."""
    if name not in protocol_names():
        raise ConfigError(f"there is no protocol {name!r}; choose one of {', '.join(protocol_names())}")
    content = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    unknown = sorted(set(content) - {field.name for field in fields(Protocol)})
    if unknown:
        raise ConfigError(f"the protocol {name} has the unknown key {unknown[0]}; install clickvol again")
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    preset = Protocol(name=name, **(content | lists))
    changes: dict[str, Any] = {
        "num_clicks": num_clicks,
        "seeds": seeds,
        "nsd_tolerance_mm": nsd_tolerance_mm,
        "nsd_tolerances_mm": nsd_tolerances_mm,
        "procedure": procedure,
    }
    return replace(preset, **{key: value for key, value in changes.items() if value is not None})
