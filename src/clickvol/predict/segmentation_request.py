"""From files to files: read a scan or an image, segment it, write the mask; either all files or none."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError, ConfigError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.io.dicom.reading.gantry_tilt import GantryTilt
from clickvol.io.export import (
    PROBABILITY_SUFFIXES,
    ExportFormat,
    check_export,
    check_export_grid,
    check_probability_path,
    export_masks,
    export_probability,
)
from clickvol.io.formats import (
    WRITABLE_SUFFIXES,
    check_compression,
    check_output_path,
    read_volume,
    write_mask,
)
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.mask_files import read_label
from clickvol.io.pictures import check_picture_output, is_picture, write_mask_picture
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.metrics.overlap import dice
from clickvol.predict.segmentation import Procedure, Segmentation, Stages
from clickvol.predict.slice_of_scan import SliceOfScan, read_image, read_truth
from clickvol.preprocessing.slices2d import SliceAxis
from clickvol.prompts.click import Click
from clickvol.prompts.drawing_files import DrawingFile
from clickvol.prompts.image_prompts import ImagePrompts, check_prompts, prompts_of_truth
from clickvol.prompts.spatial import Box, Line, Prompt, check_any_prompt_inside, check_prompt

if TYPE_CHECKING:
    from clickvol.predict.image_predictor import ImageSegmentation
    from clickvol.weights.card import ModelCard
    from clickvol.weights.load import LoadedModel

PointsFrom = Literal["user", "auto", "gt"]

DEFAULT_IMAGE_MODEL_ID = "litemedsam"
"""The model for images that is used where none is named; has to be fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What all requests have.

    Attributes:
        mask: file for the mask; the suffix chooses the format.
        volume_index: which volume of a 4D file, from 0.
        modality: what the scan is, where the file does not say it or says it wrongly.
        model: id or path; None takes the default model.
    """

    mask: Path
    preview: Path | None = None
    series: str | None = None
    volume_index: int | None = None
    modality: Modality | None = None
    model: str | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationRequest(_Request):
    """A scan to segment, and where the results go; `mask` and so on as in `_Request`.

    Attributes:
        clicks: an automatic model needs none; to others at least one of all prompts is on the object.
        organ_mask: file with the organ above 0, for a model that takes one; None for none.
        probability: file for the probabilities, float32; None for no file. As .dcm a DICOM Parametric Map.
        compression_level: of all files that are compressed, from 0 (none) to 9 (small); None for 1.
        dicom: what a .dcm mask is, a Segmentation or an RT Structure Set; None for a Segmentation. It refers to
            the images of a DICOM scan.
        deidentify: a .dcm mask names neither patient nor scan; other formats never do.
        candidates: write the other masks that the model offers, too, see `candidate_path`.

    Raises:
        ConfigError: on construction, for `dicom` with a mask that is no .dcm, or `candidates` with one.
        ClickError: on construction, when there are prompts and none is on the object.
    """

    scan: Path
    clicks: tuple[Click, ...]
    lines_and_boxes: tuple[Line | Box, ...] = ()
    drawings: tuple[DrawingFile, ...] = ()
    organ_mask: Path | None = None
    probability: Path | None = None
    dicom: Literal["seg", "rtstruct"] | None = None
    deidentify: bool = False
    gantry_tilt: GantryTilt = "keep"
    procedure: Procedure = "clickvol"
    resample_gaps: bool = False
    candidates: bool = False
    compression_level: int | None = None

    def __post_init__(self) -> None:
        prompts = (*self.clicks, *self.lines_and_boxes, *self.drawings)
        if prompts:
            check_any_prompt_inside(prompts)
        if self.dicom is not None and self.dicom_format is None:
            raise ConfigError(
                f"a mask as DICOM {self.dicom} ends in .dcm, not {self.mask.name!r}; rename one or the other"
            )
        if self.candidates and self.dicom_format is not None:
            raise ConfigError("candidates are not written as DICOM; choose one first, from .nii.gz files")

    def candidate_path(self, number: int) -> Path:
        """Return where a candidate goes: mask.nii.gz has mask-1.nii.gz, mask-2.nii.gz and so on beside it."""
        is_packed = self.mask.suffix.lower() in (".gz", ".zst")
        suffixes = "".join(self.mask.suffixes[-2:]) if is_packed else self.mask.suffix
        return self.mask.with_name(f"{self.mask.name.removesuffix(suffixes)}-{number}{suffixes}")

    @property
    def dicom_format(self) -> ExportFormat | None:
        """Which DICOM format the mask is written in; None for the other formats."""
        if self.mask.suffix.lower() != ".dcm":
            return None
        return "rtstruct" if self.dicom == "rtstruct" else "dicom-seg"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest(_Request):
    """A 2D image to segment, and where the results go; `mask` and so on as in `_Request`.

    Attributes:
        image: a PNG, JPEG or TIFF file, a scan, or a folder with DICOM files. The mask is a .png file, or for a
            scan also one in a format of scans.
        prompts: what the user points at; empty unless `points` is "user".
        points: given by the "user", predicted by the model ("auto"), or drawn from the truth ("gt").
        truth: mask to draw points from and to compare with: of the form and grid of the image.
        num_points: how many are drawn; 16 as in ProMISe-2D's released scripts.
        axis: what the slice lies across, see `preprocessing.slices2d.slice_view`.

    Raises:
        ClickError, ConfigError, OutputError: on construction, for what contradicts itself.
    """

    image: Path
    prompts: ImagePrompts
    points: PointsFrom = "user"
    truth: Path | None = None
    num_points: int = 16
    seed: int = 0
    slice_index: int | None = None
    axis: SliceAxis = "axial"

    def __post_init__(self) -> None:
        clicks, box = self.prompts.clicks, self.prompts.box_xyxy_pixel
        if self.points != "user" and (clicks or box):
            raise ClickError(
                f"clicks and boxes go with the points of a user, not with {self.points!r}; leave them out"
            )
        if self.points == "gt" and self.truth is None:
            raise ConfigError("points 'gt' are drawn from a known mask; give it with --truth")
        if self.points == "user" and not box and not any(click.foreground for click in clicks):
            raise ClickError("nothing says where the object is; give a --click inside it or a --box around it")
        if self.is_picture and self.slice_index is not None:
            raise ConfigError(f"{self.image} is a picture and has no slices; leave out --slice")
        if self.is_picture and not is_picture(self.mask):
            raise OutputError(
                f"the mask of a picture is a .png file, which {self.mask.name!r} is not; rename it"
            )

    @property
    def is_picture(self) -> bool:
        """Whether the image is a PNG, JPEG or TIFF file, not a slice of a scan."""
        return is_picture(self.image) and not self.image.is_dir()


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationResult:
    """What a request gave; the files are written.

    `seconds` are the duration of "read", "load_model", "first_click", "write" and "total"; warnings are what a
    person should know, one sentence each.
    """

    request: SegmentationRequest
    volume: Volume
    segmentation: Segmentation
    warnings: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What a request gave, as `SegmentationResult`; where the image was cut is None for a picture."""

    request: ImageRequest
    model_id: str
    segmentation: "ImageSegmentation"
    slice_of_scan: SliceOfScan | None
    truth_dice: float | None
    warnings: tuple[str, ...]
    seconds: dict[str, float]


def run_request(
    request: SegmentationRequest,
    *,
    on_stage: Callable[[str], None] = lambda _: None,
    load: "Callable[[], LoadedModel] | None" = None,
    fetch: Callable[[], None] = lambda: None,
) -> SegmentationResult:
    """Read a scan, segment it and write the mask.

    What costs nothing to check is checked first, and the network is loaded last: a mistake is told at once.

    Args:
        request: what to do.
        on_stage: told the name of each stage when it begins.
        load: gives the request's model on its device where requests share it; None loads it for this one.
        fetch: brings the scan to where the request says, once the rest of the request was checked.

    Raises:
        ClickvolError: for anything that the user can fix; no file is left then.
    """
    # Not at the top: these pull in torch, which takes longer than finding a mistake.
    from clickvol.weights.card import DEFAULT_MODEL_ID, read_card

    stages = Stages(on_stage)
    model_name = request.model or DEFAULT_MODEL_ID
    card = read_card(model_name)
    _check_scan_outputs(request, card)
    with stages.stage("read", f"reading {request.scan}"):
        fetch()
        volume = read_volume(
            request.scan,
            series=request.series,
            volume_index=request.volume_index,
            gantry_tilt=request.gantry_tilt,
            resample_gaps=request.resample_gaps,
        )
        prompts = _read_prompts(request, volume, needed=not card.is_automatic)
        _check_grid(request, volume)
        organ_mask = None if request.organ_mask is None else read_label(request.organ_mask, volume)
    with stages.stage("load_model", f"loading {model_name}"):
        from clickvol.predict.scan_predictor import segment
        from clickvol.weights.load import load_model

        model = load_model(model_name, device=request.device) if load is None else load()
    with stages.stage("first_click", "segmenting"):
        segmentation = segment(
            volume,
            prompts,
            model,
            modality=request.modality,
            organ_mask=organ_mask,
            procedure=request.procedure,
        )
    warnings = _warnings(volume, segmentation)
    with stages.stage("write", f"writing {request.mask}"):
        _write_scan_files(request, volume, segmentation, card.weights_version)
    return SegmentationResult(request, volume, segmentation, warnings, stages.finish())


def _check_grid(request: SegmentationRequest, volume: Volume) -> None:
    """Refuse files that cannot hold the grid of the scan, before anything is computed for them."""
    check_export_grid(request.mask, volume, request.dicom_format or "dicom-seg", series=request.series)
    if request.probability is not None:
        check_export_grid(request.probability, volume, series=request.series)


def _read_prompts(request: SegmentationRequest, volume: Volume, *, needed: bool) -> list[Prompt]:
    """Return all prompts; refuse those outside the scan, and none on the object where one is needed."""
    prompts: list[Prompt] = [*request.clicks, *request.lines_and_boxes]
    for drawing in request.drawings:
        prompts += drawing.read(volume)
    if prompts or needed:
        check_any_prompt_inside(prompts)
    for prompt in prompts:
        check_prompt(prompt, volume.grid)
    return prompts


def _warnings(volume: Volume, segmentation: Segmentation) -> tuple[str, ...]:
    warnings = dict.fromkeys((*volume.notes, *segmentation.warnings))
    if segmentation.mask.num_voxels == 0:
        where = "at the click" if segmentation.prompts else "in the scan"
        warnings[f"nothing was found {where}; the mask is empty"] = None
    return tuple(warnings)


def run_image_request(
    request: ImageRequest, *, on_stage: Callable[[str], None] = lambda _: None
) -> ImageResult:
    """Read an image, segment it and write the mask, as `run_request` does for a scan.

    Raises:
        ClickvolError: for anything that the user can fix; no file is left then.
    """
    from clickvol.weights.card import read_card

    stages = Stages(on_stage)
    _check_outputs(request, [request.image, request.truth])
    model_name = request.model or DEFAULT_IMAGE_MODEL_ID
    read_card(model_name)
    with stages.stage("read", f"reading {request.image}"):
        image, cut, warnings = read_image(request)
        truth = None if request.truth is None else read_truth(request.truth, cut, image.shape[:2])
        prompts = request.prompts
        if request.points == "gt" and truth is not None:
            prompts = prompts_of_truth(truth, request.num_points, np.random.default_rng(request.seed))
        if request.points != "auto":
            check_prompts(prompts, (image.shape[0], image.shape[1]))
    with stages.stage("load_model", f"loading {model_name}"):
        from clickvol.predict.image_predictor import load_image_model, segment_image

        model = load_image_model(model_name, device=request.device)
    with stages.stage("first_click", "segmenting"):
        segmentation = segment_image(image, "auto" if request.points == "auto" else prompts, model)
    if request.points == "gt":
        warnings.append("the points were drawn from the truth; this is for evaluation only")
    if model.was_trained_with_boxes_only and segmentation.prompts.box_xyxy_pixel is None:
        warnings.append(f"{model.card.id} was trained with boxes, clicks mean little to it; give --box")
    if not segmentation.mask.any():
        warnings.append("nothing was found; the mask is empty")
    with stages.stage("write", f"writing {request.mask}"):
        _write_image_files(request, image, cut, segmentation)
    return ImageResult(
        request=request,
        model_id=model.card.id,
        segmentation=segmentation,
        slice_of_scan=cut,
        truth_dice=None if truth is None else dice(segmentation.mask, truth),
        warnings=tuple(dict.fromkeys(warnings)),
        seconds=stages.finish(),
    )


def _check_outputs(
    request: _Request,
    inputs: Sequence[Path | None],
    probability: Path | None = None,
    mask_suffixes: tuple[str, ...] = WRITABLE_SUFFIXES,
) -> None:
    """Tell before any computing whether every file can be written, and none twice or over an input."""
    given = [path for path in inputs if path is not None]
    outputs = [path for path in (request.mask, probability, request.preview) if path is not None]
    for path in outputs:
        if path == request.preview or is_picture(path):
            check_picture_output(path, given)
            continue
        suffixes = mask_suffixes if path == request.mask else PROBABILITY_SUFFIXES
        check_output_path(path, *given, suffixes=suffixes)
    places = [os.path.realpath(path).casefold() for path in outputs]  # capitals make no other file everywhere
    for path, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise OutputError(f"{path} is named for two outputs; give each a file of its own")


def _check_scan_outputs(request: SegmentationRequest, card: "ModelCard") -> None:
    """Tell before any computing whether every file of a request can be written."""
    dicom_format = request.dicom_format
    suffixes = WRITABLE_SUFFIXES if dicom_format is None else (".dcm",)
    if dicom_format is not None:
        check_export(request.mask, request.scan, dicom_format)
    check_compression(request.mask, request.compression_level)
    if request.probability is not None:
        check_probability_path(request.probability, request.scan, request.compression_level)
    inputs = [request.scan, request.organ_mask, *(drawing.path for drawing in request.drawings)]
    _check_outputs(request, inputs, request.probability, suffixes)
    if not request.candidates:
        return
    if not card.num_candidates:
        raise ConfigError(
            f"{card.id} offers one mask; use --model promise3d-lesions, or leave out --candidates"
        )
    others = [path for path in (*inputs, request.probability, request.preview) if path is not None]
    for number in range(1, card.num_candidates + 1):
        check_output_path(request.candidate_path(number), *others)


def _temporary(path: Path) -> contextlib.AbstractContextManager[Path]:
    # Writers choose the format by all suffixes of a name ("nii.gz"), not by the last one.
    return atomic_path(path, "".join(path.suffixes[-2:]))


def _write_scan_files(
    request: SegmentationRequest, volume: Volume, segmentation: Segmentation, model_version: str
) -> None:
    """Write every file under a temporary name, and only then move them all into place.

    The mask is moved last: where it is, the others are.
    """
    mask = segmentation.mask
    with contextlib.ExitStack() as files:
        mask_path = files.enter_context(_temporary(request.mask))
        if request.dicom_format is None:
            write_mask(mask, mask_path, compression_level=request.compression_level)
        else:
            labelled = LabelledMask(
                name="tumour",
                mask=mask,
                model_id=segmentation.model_id,
                model_version=model_version,
                made_by="model with clicks" if segmentation.prompts else "model",
            )
            export_masks(
                [labelled],
                volume,
                mask_path,
                file_format=request.dicom_format,
                deidentify=request.deidentify,
                series=request.series,
            )
        for number, candidate in enumerate(segmentation.candidates[1:] if request.candidates else (), start=1):
            place = files.enter_context(_temporary(request.candidate_path(number)))
            write_mask(candidate.mask, place, compression_level=request.compression_level)
        if request.probability is not None:
            place = files.enter_context(_temporary(request.probability))
            export_probability(
                segmentation.probability(),
                volume,
                place,
                model_id=segmentation.model_id,
                series=request.series,
                deidentify=request.deidentify,
                compression_level=request.compression_level,
            )
        if request.preview is not None:
            from clickvol.previews.preview import draw_preview

            modality, model_id = segmentation.modality, segmentation.model_id
            caption = f"{request.scan.name}   {modality}   {mask.volume_ml:.1f} ml   {model_id}"
            picture = draw_preview(volume, mask.array, segmentation.prompts, modality=modality, caption=caption)
            picture.save(files.enter_context(_temporary(request.preview)), format="PNG")


def _write_image_files(
    request: ImageRequest,
    image: NDArray[np.generic],
    cut: SliceOfScan | None,
    segmentation: "ImageSegmentation",
) -> None:
    """Write as `_write_scan_files` does."""
    with contextlib.ExitStack() as files:
        mask_path = files.enter_context(_temporary(request.mask))
        if cut is None or is_picture(request.mask):
            write_mask_picture(segmentation.mask, mask_path)
        else:
            write_mask(Mask(cut.view.filled(segmentation.mask), cut.volume.grid), mask_path)
        if request.preview is not None:
            from clickvol.previews.preview2d import draw_image_preview

            picture = draw_image_preview(image, segmentation.mask, segmentation.prompts)
            picture.save(files.enter_context(_temporary(request.preview)), format="PNG")
