"""Who is evaluated: anything that opens a scan and answers lists of clicks with masks, named on a command line.

A method sees a `Scan`, which holds nothing of the label, not even where the scan was read from; but for the
organ, where an evaluation was asked to show it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.evaluation.cases import split_name
from clickvol.evaluation.classical import BALL_RADIUS_MM, Classical, ball, random_walker, region_growing
from clickvol.evaluation.masks_of_clicks import MissingMaskError, wanted_mask
from clickvol.evaluation.other_clicks import OtherClicks, Told
from clickvol.evaluation.propagated_sam import segment_by_slices
from clickvol.geometry.box import bounding_box
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.mask_files import read_mask
from clickvol.io.pictures import Picture, read_mask_values
from clickvol.io.volume import Mask, Volume
from clickvol.methods.promise2d import METHOD_ID as PROMISE2D
from clickvol.predict.image_predictor import (
    EncodedImage,
    ImageModel,
    answer_prompts,
    encode_image,
    load_image_model,
)
from clickvol.predict.scan_predictor import ScanPredictor, segment
from clickvol.predict.segmentation import Procedure, keep_clicked
from clickvol.preprocessing.slices2d import unit_pixels
from clickvol.prompts.click import Click
from clickvol.prompts.image_prompts import ImagePrompts, prompts_on_picture
from clickvol.weights.card import ModelCard, read_card
from clickvol.weights.load import LoadedModel, load_model

CLICK_SUFFIX = " + click"
"""What is put behind the name of a method whose mask was kept only under the clicks."""

POINTS_SUFFIX = " + points"
"""What is put behind the name of a model that predicts its points, where it is given some."""

_PREDICTIONS = "predictions:"
_PROPAGATED = "sam2d-propagated:"
_CLICK_MASKS = "click-masks:"
_PROCEDURES: tuple[Procedure, ...] = get_args(Procedure)
_TOLD: dict[str, Told] = {"random-click:": "random", "no-click:": "none"}
_SUFFIX = ".nii.gz"
_DICOM_SUFFIX = ".dcm"
_PICTURE_SUFFIX = ".png"

_SUFFIXES = (_SUFFIX, _DICOM_SUFFIX, _PICTURE_SUFFIX)

_IMAGE_METHODS = ("sam2d", PROMISE2D)

# The released test of ProMISe-2D removes from masks of 256 x 256 what such a square does not fit into.
_PUBLISHED_OPENING = 5


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """All that a method sees of a case.

    Attributes:
        case_id: of the scan in it, by which masks of other programs are found.
        volume: the scan on its native grid; its `source` is empty, since labels lie beside scans.
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
    """A mask (D, H, W) uint8, 0 or 1, and the seconds from the click; the first ones with opening the scan."""

    mask: NDArray[np.uint8]
    seconds: float


AnswerClicks = Callable[[Sequence[Click]], Answer]
"""Answers all clicks of a list, the earlier ones first, an empty list where none are taken; ClickvolError when
there is no answer."""

MaskOfScan = Callable[[Scan], Answer]
"""Makes one mask of a scan without a click; ClickvolError when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Somebody who is evaluated.

    Attributes:
        name: in the report.
        fingerprint: a hash of the weights, or the parameters in words; another one is another method.
        open_scan: begins at a scan, for one user; cheap, or done with the first answer. ConfigError when this
            method cannot be asked about the scan at all, which stops the evaluation.
        takes_clicks: False for one that is scored once per scan, as it is.
        takes_organ_mask: True for one that sees an organ mask with the scan; others are never shown any.
        trained_on: marks of scans and patients that it was trained on, see `ModelCard`.
    """

    name: str
    fingerprint: str
    open_scan: Callable[[Scan], AnswerClicks]
    takes_clicks: bool = True
    takes_organ_mask: bool = False
    trained_on: frozenset[str] = frozenset()


def parse_methods(
    words: Sequence[str], *, device: str = "auto", procedure: Procedure | None = None
) -> list[Method]:
    """Return the methods that words name; one that takes no clicks gives two.

    Args:
        words: each a model's id or path, `ball` or `ball:MM`, `region-growing`, `random-walker`,
            `published:MODEL` or `clickvol:MODEL` in that procedure whatever the protocol says,
            `sam2d-propagated:MODEL` with a 2D model, `random-click:MODEL` or `no-click:MODEL`,
            `predictions:DIR` or `click-masks:DIR`; with NAME= before it to be called so in the report.
        device: where models compute.
        procedure: of the protocol.

    Raises:
        ConfigError: for no word, two methods of one name, or what cannot be used.
        ModelNotFoundError, DamagedWeightsError, DeviceError: as `load_model`.
    """
    methods = [method for word in words for method in _parse(word, device, procedure)]
    if not methods:
        raise ConfigError("nothing to evaluate; name at least one model")
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two methods are called {name!r}; put another name before one: NAME={name}")
    return methods


def _parse(word: str, device: str, procedure: Procedure | None) -> list[Method]:
    given_name, what = split_name(word)
    classical = _classical(what)
    if classical is not None:
        open_scan = _anew(lambda scan, clicks: classical.segment(scan.volume, clicks))
        name = given_name or classical.name
        return [Method(name=name, fingerprint=classical.fingerprint, open_scan=open_scan)]
    if what.startswith(_PREDICTIONS):
        folder = Path(what.removeprefix(_PREDICTIONS))
        return masks_of_folder(folder, given_name or folder.name)
    if what.startswith(_CLICK_MASKS):
        folder = Path(what.removeprefix(_CLICK_MASKS)).absolute()
        return [masks_of_clicks(folder, given_name or folder.name)]
    if what.startswith(_PROPAGATED):
        image_model = load_image_model(what.removeprefix(_PROPAGATED), device=device)
        open_scan = _anew(lambda scan, clicks: segment_by_slices(scan.volume, clicks, image_model))
        name = given_name or f"{image_model.card.id} propagated"
        return [Method(name=name, fingerprint=f"{image_model.card.sha256} propagated", open_scan=open_scan)]
    for prefix, told in _TOLD.items():
        if what.startswith(prefix):
            model = load_model(what.removeprefix(prefix), device=device)
            return [_told_other_clicks(model, given_name or f"{model.card.id} {prefix[:-1]}", told)]
    for asked in _PROCEDURES:
        if what.startswith(f"{asked}:"):
            what, procedure = what.removeprefix(f"{asked}:"), asked
            given_name = given_name or f"{what} {asked}"
    card = read_card(what)
    if card.method in _IMAGE_METHODS:
        methods = methods_of_image_model(load_image_model(what, device=device), given_name, procedure)
    else:
        methods = methods_of_model(load_model(what, device=device), given_name or card.id, procedure)
    marks = frozenset((*card.training_scans, *card.training_patients))
    return [replace(method, trained_on=marks) for method in methods]


def _classical(word: str) -> Classical | None:
    kind, _, number = word.partition(":")
    if kind == "ball":
        try:
            return ball(float(number) if number else BALL_RADIUS_MM)
        except ValueError as error:
            raise ConfigError(f"cannot read the radius of {word!r}; give ball:MM, such as ball:50") from error
    known = {"region-growing": region_growing, "random-walker": random_walker}
    return known[word]() if word in known else None


def _timed(mask_of: Callable[[], NDArray[Any]]) -> Answer:
    started_at = time.perf_counter()
    mask = mask_of().astype(np.uint8, copy=False)
    return Answer(mask, time.perf_counter() - started_at)


def _anew(mask_of: Callable[[Scan, Sequence[Click]], NDArray[Any]]) -> Callable[[Scan], AnswerClicks]:
    """Answer every list of clicks anew."""
    return lambda scan: lambda clicks: _timed(lambda: mask_of(scan, clicks))


def _told_other_clicks(model: LoadedModel, name: str, told: Told) -> Method:
    """Return a model that looks into the published window of the clicks and is told others."""
    if model.card.is_automatic:
        raise ConfigError(f"{model.card.id} takes no clicks, so it can be told no others; name another model")

    def open_scan(scan: Scan) -> AnswerClicks:
        network = OtherClicks(model.network, told)
        asked = replace(model, network=network)

        @lru_cache(maxsize=1)
        def predictor() -> ScanPredictor:
            return ScanPredictor(scan.volume, asked, organ_mask=scan.organ, procedure="published")

        def answer(clicks: Sequence[Click]) -> Answer:
            network.begin(scan.case_id, clicks)
            return _timed(lambda: predictor().predict(clicks).mask.array)

        return answer

    takes_organ_mask = model.network.config.num_channels > 1
    fingerprint = f"{model.card.sha256} published, told {told}"
    return Method(name=name, fingerprint=fingerprint, open_scan=open_scan, takes_organ_mask=takes_organ_mask)


def procedure_of(card: ModelCard, procedure: Procedure | None) -> Procedure:
    """Return how a model is asked: as the protocol says, else as suits the voxel sizes of its training."""
    plan = card.fields_of_view
    if procedure is not None or plan is None:
        return procedure or "clickvol"
    return "published" if plan.finest_voxel_mm == plan.coarsest_voxel_mm else "clickvol"


def model_fingerprint(card: ModelCard, procedure: Procedure | None) -> str:
    """Return the hash of the weights, with the procedure where it is not this package's own."""
    if card.is_automatic or procedure_of(card, procedure) == "clickvol":
        return card.sha256
    return f"{card.sha256} published"


def methods_of_model(model: LoadedModel, name: str, procedure: Procedure | None = None) -> list[Method]:
    """Return a model that takes clicks, with a `ScanPredictor` for each user; one without clicks gives two."""
    takes_organ_mask = model.network.config.num_channels > 1
    fingerprint = model_fingerprint(model.card, procedure)
    chosen = procedure_of(model.card, procedure)

    def mask_of(scan: Scan) -> Answer:
        return _timed(lambda: segment(scan.volume, [], model, organ_mask=scan.organ).mask.array)

    if model.network.config.is_automatic:
        return unclicked_methods(name, fingerprint, mask_of, takes_organ_mask=takes_organ_mask)

    def open_scan(scan: Scan) -> AnswerClicks:
        if isinstance(scan.volume, Picture):
            raise ConfigError(f"{name} is a model for scans, but {scan.data} holds pictures; choose a 2D model")

        @lru_cache(maxsize=1)
        def predictor() -> ScanPredictor:  # made with the first answer, whose time it counts in
            return ScanPredictor(scan.volume, model, organ_mask=scan.organ, procedure=chosen)

        return lambda clicks: _timed(lambda: predictor().predict(clicks).mask.array)

    return [Method(name=name, fingerprint=fingerprint, open_scan=open_scan, takes_organ_mask=takes_organ_mask)]


def methods_of_image_model(
    model: ImageModel, name: str = "", procedure: Procedure | None = None
) -> list[Method]:
    """Return a 2D model at pictures; one that predicts points gives two, by itself and with given points.

    A picture is encoded once for all users. The procedure "published" opens the masks, whosever they are.
    """
    name = name or model.card.id
    opens = procedure == "published"
    opening = _PUBLISHED_OPENING if opens else 0

    @lru_cache(maxsize=1)
    def encoded(scan: Scan) -> EncodedImage:
        pixels = scan.volume.pixels if isinstance(scan.volume, Picture) else scan.volume.array[0]
        return encode_image(unit_pixels(pixels), model)

    def mask_of(scan: Scan, clicks: Sequence[Click]) -> NDArray[np.bool_]:
        given = prompts_on_picture(clicks, scan.volume.grid)
        points: ImagePrompts | Literal["auto"] = given if clicks else "auto"
        return answer_prompts(encoded(scan), points, model, opening_side_pixel=opening).mask[None]

    def open_scan(scan: Scan) -> AnswerClicks:
        if not isinstance(scan.volume, Picture):
            raise ConfigError(
                f"{name} is a model for pictures, but {scan.data} holds scans; {_PROPAGATED}{model.card.id} "
                "carries it from slice to slice"
            )
        return _anew(mask_of)(scan)

    fingerprint = f"{model.card.sha256} opened" if opens else model.card.sha256
    clicked = Method(name=name, fingerprint=fingerprint, open_scan=open_scan)
    if not model.predicts_points:
        return [clicked]
    return [replace(clicked, takes_clicks=False), replace(clicked, name=name + POINTS_SUFFIX)]


def masks_of_folder(folder: Path, name: str) -> list[Method]:
    """Return masks that another program wrote, such as those of nnU-Net, with and without clicks.

    Masks are CASE.nii.gz on the grids of the scans, the object where they are not 0; or CASE.dcm, a DICOM
    Segmentation or RT Structure Set, the object being all that it holds; of pictures CASE.png. A scan without
    one is a failure; one on another grid ends the evaluation (ConfigError), as does a folder without masks. No
    time is counted.
    """
    files = [file for suffix in _SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    if not files:
        raise ConfigError(
            f"{folder} holds no masks; predictions:DIR takes a folder with files CASE{_SUFFIX}, "
            f"CASE{_DICOM_SUFFIX} or, of pictures, CASE{_PICTURE_SUFFIX}"
        )
    states = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
    fingerprint = hashlib.sha256(states.encode("utf-8")).hexdigest()
    return unclicked_methods(name, fingerprint, lambda scan: Answer(_read_prediction(folder, scan), 0.0))


def _read_prediction(folder: Path, scan: Scan) -> NDArray[np.uint8]:
    path, dicom, picture = (folder / f"{scan.case_id}{suffix}" for suffix in _SUFFIXES)
    grid = scan.volume.grid
    if isinstance(scan.volume, Picture) and picture.is_file():
        values = read_mask_values(picture)
        if values.shape != grid.shape_dhw[1:]:
            h, w = values.shape
            raise ConfigError(f"{picture} has {w} x {h} pixels, other than its picture; write it in its size")
        return (values > 0).astype(np.uint8)[None]
    if dicom.is_file() and not path.exists():
        array = np.zeros(grid.shape_dhw, np.uint8)
        for labelled in read_mask_file(dicom, grid):
            array |= labelled.mask.array
        return array
    if not path.is_file():
        raise UnreadableVolumeError(f"there is no mask of {scan.case_id} among the predictions")
    return _read_on_grid(path, scan)


def _read_on_grid(path: Path, scan: Scan) -> NDArray[np.uint8]:
    """Return the mask of a file; ConfigError where it lies on another grid than its scan."""
    mask, grid = read_mask(path), scan.volume.grid
    mask.grid.check_same_place(grid, str(path), ConfigError)
    return mask.array


def masks_of_clicks(folder: Path, name: str) -> Method:
    """Return masks that another program makes of the simulated user's clicks, a file per list of clicks.

    A mask that is not there yet is a `MissingMaskError`, which leaves the run open; a missing folder is a
    ConfigError. No time is counted.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; make it, and the masks that are wanted are listed in it")

    def open_scan(scan: Scan) -> AnswerClicks:
        def answer(clicks: Sequence[Click]) -> Answer:
            wanted = wanted_mask(folder, scan.case_id, clicks)
            path = folder / wanted.output
            if not path.is_file():
                raise MissingMaskError(wanted)
            return Answer(_read_on_grid(path, scan), 0.0)

        return answer

    return Method(name=name, fingerprint=f"masks per click in {folder}", open_scan=open_scan)


def unclicked_methods(
    name: str, fingerprint: str, mask_of: MaskOfScan, *, takes_organ_mask: bool = False
) -> list[Method]:
    """Return a mask that knows no click as two methods: as it is, and click-filtered (name + " + click").

    Click-filtered, only connected parts (26 neighbours) under a foreground click are kept, and the nearest part
    where there is none under any click, as `clickvol segment` does. Background clicks have no effect. The mask
    of the last scan is remembered, since it does not depend on the user.
    """
    remembered = lru_cache(maxsize=1)(mask_of)

    def open_scan(scan: Scan) -> AnswerClicks:
        def answer(clicks: Sequence[Click]) -> Answer:
            whole = remembered(scan)
            if not clicks:
                return whole
            kept = _timed(lambda: _under_clicks(whole.mask, clicks, scan.volume))
            return Answer(kept.mask, whole.seconds + kept.seconds)

        return answer

    as_it_is = Method(
        name=name,
        fingerprint=fingerprint,
        open_scan=open_scan,
        takes_clicks=False,
        takes_organ_mask=takes_organ_mask,
    )
    return [as_it_is, replace(as_it_is, name=name + CLICK_SUFFIX, takes_clicks=True)]


def _under_clicks(mask: NDArray[np.uint8], clicks: Sequence[Click], volume: Volume) -> NDArray[np.uint8]:
    occupied = bounding_box(mask)
    if occupied is None:
        return mask
    # With a margin, so that a click beyond the box does not land on its border.
    box = occupied.grow(1).clip(volume.grid.shape_dhw)
    inside = [
        volume.grid.to_voxel(click.world(volume.grid)).as_array() - box.start_dhw
        for click in clicks
        if click.foreground
    ]
    kept = np.zeros_like(mask)
    kept[box.slices] = keep_clicked(mask[box.slices] > 0, inside)
    return kept
