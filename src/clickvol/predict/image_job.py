"""The whole way from a picture or a slice of a scan on disk to its mask on disk."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError, ConfigError, ModelNotFoundError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.io.formats import check_output_path, read_volume, write_mask
from clickvol.io.pictures import (
    check_picture_output,
    is_picture,
    read_picture,
    write_mask_picture,
)
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.metrics.overlap import dice
from clickvol.preprocessing.intensity import recognise_modality, value_sample
from clickvol.preprocessing.slices2d import SliceAxis, SliceView, slice_view, unit_values
from clickvol.prompts.image_prompts import ImagePrompts, check_prompts, prompts_of_truth

if TYPE_CHECKING:
    from clickvol.predict.images2d import ImageSegmentation

PointsFrom = Literal["user", "auto", "gt"]

DEFAULT_IMAGE_MODEL_ID = "litemedsam"
"""The model for images that is used where none is named; has to be fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob:
    """What to segment, and where the results go.

    Attributes:
        image: a PNG or JPEG file, a scan, or a folder with DICOM files.
        output: file for the mask: .png, or for a scan also a format of scans.
        prompts: what the user points at; empty unless `points` is "user".
        points: given by the "user", predicted by the model ("auto"), or drawn from the truth ("gt").
        truth: mask to draw points from and to compare with: of the form and grid of the image.
        num_points: how many are drawn; 16 as in ProMISe-2D's released scripts.
        seed: of the drawing.
        model: id or path.
        device: "auto", "cpu", "cuda" or "mps".
        slice_index: which slice of a scan, from 0.
        axis: what the slice lies across, see `preprocessing.slices2d.slice_view`.
        modality: what the scan is, where the file does not say it or says it wrongly.
        series: which DICOM series of the folder.
        volume_index: which volume of a 4D file, from 0.
        preview: PNG file for the picture of the result; None for no file.
    """

    image: Path
    output: Path
    prompts: ImagePrompts
    points: PointsFrom = "user"
    truth: Path | None = None
    num_points: int = 16
    seed: int = 0
    model: str = DEFAULT_IMAGE_MODEL_ID
    device: str = "auto"
    slice_index: int | None = None
    axis: SliceAxis = "axial"
    modality: Modality | None = None
    series: str | None = None
    volume_index: int | None = None
    preview: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SliceOfScan:
    """Where an image was cut.

    Attributes:
        volume: the scan.
        view: the slice in it.
        modality: what the scan was taken for.
    """

    volume: Volume
    view: SliceView
    modality: Modality


@dataclass(frozen=True, slots=True, eq=False)
class ImageJobResult:
    """What came of a job; the files are written.

    Attributes:
        job: what was asked for.
        model_id: of the model that answered.
        segmentation: mask, probabilities and the prompts answered.
        slice_of_scan: where the image was cut; None for a picture.
        truth_dice: overlap with the truth in the image, where there is one.
        warnings: what a person should know, one sentence each.
        seconds: duration of the whole job.
    """

    job: ImageJob
    model_id: str
    segmentation: "ImageSegmentation"
    slice_of_scan: SliceOfScan | None
    truth_dice: float | None
    warnings: tuple[str, ...]
    seconds: float


def run_image_job(job: ImageJob, *, on_stage: Callable[[str], None] = lambda _stage: None) -> ImageJobResult:
    """Read, segment and write; either all files are written or none.

    What costs nothing to check is checked first, and the network is loaded last.

    Args:
        job: what to do.
        on_stage: told the name of each stage when it begins.

    Raises:
        ClickvolError: for anything that the user can mend; no file is left then.
    """
    started_at = time.perf_counter()
    _check_options(job)
    _check_outputs(job)
    _check_model(job.model)
    on_stage(f"reading {job.image}")
    image, cut, warnings = _read_image(job)
    truth = None if job.truth is None else _read_truth(job.truth, cut, image.shape[:2])
    prompts = _prompts(job, truth)
    if prompts != "auto":
        check_prompts(prompts, (image.shape[0], image.shape[1]))
    on_stage(f"loading {job.model}")
    # Not at the top: these pull in torch, which takes longer than finding a mistake.
    from clickvol.predict.images2d import load_image_model, segment_image

    model = load_image_model(job.model, device=job.device)
    on_stage("segmenting")
    found = segment_image(image, prompts, model)
    if job.points == "gt":
        warnings.append("the points were drawn from the truth; this is for evaluation only")
    if model.was_trained_with_boxes_only and found.prompts.box_xyxy_pixel is None:
        warnings.append(f"{model.card.id} was trained with boxes, clicks mean little to it; give --box")
    if not found.mask.any():
        warnings.append("nothing was found; the mask is empty")
    on_stage(f"writing {job.output}")
    _write(job, image, cut, found)
    return ImageJobResult(
        job=job,
        model_id=model.card.id,
        segmentation=found,
        slice_of_scan=cut,
        truth_dice=None if truth is None else dice(found.mask, truth),
        warnings=tuple(dict.fromkeys(warnings)),
        seconds=time.perf_counter() - started_at,
    )


def _check_options(job: ImageJob) -> None:
    """Refuse options that contradict each other, before anything is read."""
    pointed = bool(job.prompts.clicks) or job.prompts.box_xyxy_pixel is not None
    if job.points != "user" and pointed:
        raise ClickError(
            f"clicks and boxes go with the points of a user, not with {job.points!r}; leave them out"
        )
    if job.points == "gt" and job.truth is None:
        raise ConfigError("points 'gt' are drawn from a known mask; give it with --truth")
    has_inside = any(click.foreground for click in job.prompts.clicks)
    if job.points == "user" and not has_inside and job.prompts.box_xyxy_pixel is None:
        raise ClickError("nothing says where the object is; give a --click inside it or a --box around it")
    if is_picture(job.image) and not job.image.is_dir():
        if job.slice_index is not None:
            raise ConfigError(f"{job.image} is a picture and has no slices; leave out --slice")
        if not is_picture(job.output):
            raise OutputError(
                f"the mask of a picture is a .png file, which {job.output.name!r} is not; rename it"
            )


def _check_outputs(job: ImageJob) -> None:
    inputs = [job.image] if job.truth is None else [job.image, job.truth]
    if is_picture(job.output):
        check_picture_output(job.output, inputs)
    else:
        for given in inputs:
            check_output_path(job.output, given)
    if job.preview is None:
        return
    check_picture_output(job.preview, inputs)
    if os.path.realpath(job.preview) == os.path.realpath(job.output):
        raise OutputError(f"{job.preview} is named for two outputs; give each a file of its own")


def _check_model(name: str) -> None:
    """Tell before any computing whether there is such a model, and how to get one that is known."""
    from clickvol.weights.cache import cached_model_folder, cached_original
    from clickvol.weights.card import read_card
    from clickvol.weights.registry import PackageSource, UrlSource, list_entries

    try:
        read_card(name)
    except ModelNotFoundError as error:
        source = {entry.id: entry.source for entry in list_entries()}.get(name)
        if source is None or source.kind == "shipped":
            raise
        todo = f"clickvol models fetch {name}"
        if isinstance(source, UrlSource | PackageSource):
            original = cached_original(source.original.name)
            if original.is_file():
                folder = cached_model_folder(name)
                todo = f"clickvol models import {original} -o {folder} --id {name}"
        raise ModelNotFoundError(
            f"the model {name} is not ready on this machine; get it with: {todo}"
        ) from error


def _read_image(
    job: ImageJob,
) -> tuple[NDArray[np.generic], SliceOfScan | None, list[str]]:
    """Return the image as the network takes it, where it was cut, and what a person should know."""
    if is_picture(job.image) and not job.image.is_dir():
        pixels = read_picture(job.image)
        return unit_values(pixels, None) if pixels.dtype == np.uint16 else pixels, None, []
    volume = read_volume(job.image, series=job.series, volume_index=job.volume_index)
    if job.modality is not None:
        volume = replace(volume, modality=job.modality)
    if job.slice_index is None:
        last = volume.grid.shape_dhw[slice_view(volume.grid, job.axis, 0).normal_axis] - 1
        raise ConfigError(f"{job.image} is a scan; say which of its {job.axis} slices 0 to {last} with --slice")
    view = slice_view(volume.grid, job.axis, job.slice_index)
    recognised = recognise_modality(volume, value_sample(volume))
    warnings = [*volume.notes, *([recognised.warning] if recognised.warning else [])]
    values = unit_values(view.cut(volume.array), recognised.modality)
    return values, SliceOfScan(volume, view, recognised.modality), warnings


def _read_truth(path: Path, cut: SliceOfScan | None, shape_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the truth of the image: (H, W)."""
    if cut is not None:
        mask = read_volume(path)
        if not mask.grid.same_place(cut.volume.grid):
            raise ConfigError(
                f"the truth {path} does not lie on the grid of the scan: "
                f"{mask.grid.difference_from(cut.volume.grid)}; resample it to that grid"
            )
        return np.asarray(cut.view.cut(mask.array) != 0)
    pixels = read_picture(path)
    truth: NDArray[np.bool_] = np.atleast_3d(pixels).max(axis=2) > 0
    if truth.shape != shape_hw:
        raise ConfigError(
            f"the truth {path} has {truth.shape[1]} columns and {truth.shape[0]} rows, but the image "
            f"{shape_hw[1]} and {shape_hw[0]}; they must agree"
        )
    return truth


def _prompts(job: ImageJob, truth: NDArray[np.bool_] | None) -> ImagePrompts | Literal["auto"]:
    if job.points == "auto":
        return "auto"
    if job.points == "gt" and truth is not None:
        return prompts_of_truth(truth, job.num_points, np.random.default_rng(job.seed))
    return job.prompts


def _write(
    job: ImageJob,
    image: NDArray[np.generic],
    cut: SliceOfScan | None,
    found: "ImageSegmentation",
) -> None:
    """Write every file under a temporary name, and only then move them all into place; the mask last."""
    with contextlib.ExitStack() as files:
        # Writers choose the format by all suffixes of a name ("nii.gz"), not by the last one.
        mask_path = files.enter_context(atomic_path(job.output, "".join(job.output.suffixes[-2:])))
        if cut is None or is_picture(job.output):
            write_mask_picture(found.mask, mask_path)
        else:
            volume = cut.volume
            write_mask(Mask(cut.view.filled(found.mask), volume.grid), mask_path)
        if job.preview is not None:
            from clickvol.previews.preview2d import draw_image_preview

            picture = draw_image_preview(image, found.mask, found.prompts)
            picture.save(files.enter_context(atomic_path(job.preview, ".png")), format="PNG")
