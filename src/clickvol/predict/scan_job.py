"""The whole way from a scan on disk to a mask on disk."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from clickvol.errors import ConfigError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.io.dicom.gantry_tilt import GantryTilt
from clickvol.io.dicom.sources import read_source_images
from clickvol.io.export import ExportFormat, check_export, export_masks
from clickvol.io.formats import (
    WRITABLE_SUFFIXES,
    check_output_path,
    read_volume,
    write_mask,
    write_volume,
)
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.mask_files import read_label
from clickvol.io.pictures import check_picture_output
from clickvol.io.volume import Modality, Volume
from clickvol.prompts.click import Click, check_any_inside

if TYPE_CHECKING:
    from clickvol.predict.segmentation import Segmentation
    from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """What to segment, and where the results go.

    Attributes:
        scan: a file, or a folder with DICOM files.
        clicks: at least one inside the object; an automatic model needs none.
        mask: file for the mask; the suffix chooses the format. A .dcm refers to the images of a DICOM scan.
        series: which DICOM series of the folder.
        volume_index: which volume of a 4D file, from 0.
        modality: what the scan is, where the file does not say it or says it wrongly.
        model: id or path; None takes the default model.
        device: "auto", "cpu", "cuda" or "mps".
        organ_mask: file with the organ above 0, for a model that takes one; None for none.
        probability: file for the probabilities, float32; None for no file.
        preview: PNG file for the picture; None for no file.
        dicom: what a .dcm mask is, a Segmentation or an RT Structure Set; None for a Segmentation.
        deidentify: a .dcm mask names neither patient nor scan; other formats never do.
        gantry_tilt: what becomes of a tilted DICOM series; see `read_volume`.

    Raises:
        ConfigError: on construction, for `dicom` with a mask that is no .dcm.
    """

    scan: Path
    clicks: tuple[Click, ...]
    mask: Path
    series: str | None = None
    volume_index: int | None = None
    modality: Modality | None = None
    model: str | None = None
    device: str = "auto"
    organ_mask: Path | None = None
    probability: Path | None = None
    preview: Path | None = None
    dicom: Literal["seg", "rtstruct"] | None = None
    deidentify: bool = False
    gantry_tilt: GantryTilt = "keep"

    def __post_init__(self) -> None:
        if self.dicom is not None and self.dicom_format is None:
            raise ConfigError(
                f"a mask as DICOM {self.dicom} ends in .dcm, not {self.mask.name!r}; rename one or the other"
            )

    @property
    def dicom_format(self) -> ExportFormat | None:
        """Which DICOM format the mask is written in; None for the other formats."""
        if self.mask.suffix.lower() != ".dcm":
            return None
        return "rtstruct" if self.dicom == "rtstruct" else "dicom-seg"


@dataclass(frozen=True, slots=True, eq=False)
class ScanJobResult:
    """What came of a job; the files are written.

    Attributes:
        job: what was asked for.
        volume: the scan.
        segmentation: mask, probabilities and how they came about.
        warnings: what a person should know, one sentence each.
        seconds: duration of "read", "load_model", "first_click", "write" and "total".
    """

    job: ScanJob
    volume: Volume
    segmentation: "Segmentation"
    warnings: tuple[str, ...]
    seconds: dict[str, float]


def run_scan_job(
    job: ScanJob,
    *,
    on_stage: Callable[[str], None] = lambda _stage: None,
    load: "Callable[[], LoadedModel] | None" = None,
) -> ScanJobResult:
    """Read, segment and write; either all files are written or none.

    What costs nothing to check is checked first, and the network is loaded last, so that a mistake
    is told at once.

    Args:
        job: what to do.
        on_stage: told the name of each stage when it begins.
        load: gives the job's model on the job's device where jobs share it; None loads it for this job alone.

    Raises:
        ClickvolError: for anything that the user can mend; no file is left then.
    """
    # Not at the top: these pull in torch, which takes longer than finding a mistake.
    from clickvol.weights.card import DEFAULT_MODEL_ID, read_card

    clock = _Stages(on_stage)
    _check_outputs(job)
    model_name = job.model or DEFAULT_MODEL_ID
    card = read_card(model_name)
    with clock.stage("read", f"reading {job.scan}"):
        volume = read_volume(
            job.scan,
            series=job.series,
            volume_index=job.volume_index,
            gantry_tilt=job.gantry_tilt,
        )
        _check_clicks(job, volume, needs_click=not card.is_automatic)
        if job.dicom_format is not None:
            images = read_source_images(job.scan, series=job.series, grid=volume.grid)
            images.check_grid(volume.grid)
        organ_mask = None if job.organ_mask is None else read_label(job.organ_mask, volume)
    with clock.stage("load_model", f"loading {model_name}"):
        from clickvol.predict.scan_predictor import segment
        from clickvol.weights.load import load_model

        model = load_model(model_name, device=job.device) if load is None else load()
    with clock.stage("first_click", "segmenting"):
        segmentation = segment(volume, job.clicks, model, modality=job.modality, organ_mask=organ_mask)
    warnings = list(dict.fromkeys((*volume.notes, *segmentation.warnings)))
    if segmentation.mask.num_voxels == 0:
        where = "at the click" if job.clicks else "in the scan"
        warnings.append(f"nothing was found {where}; the mask is empty")
    with clock.stage("write", f"writing {job.mask}"):
        _write(job, volume, segmentation, model_version=card.weights_version)
    return ScanJobResult(job, volume, segmentation, tuple(warnings), clock.finish())


class _Stages:
    """Names the stages and measures how long each takes."""

    def __init__(self, on_stage: Callable[[str], None]) -> None:
        self._on_stage = on_stage
        self._started_at = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        self._on_stage(title)
        started_at = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started_at

    def finish(self) -> dict[str, float]:
        return {**self._seconds, "total": time.perf_counter() - self._started_at}


def _check_outputs(job: ScanJob) -> None:
    outputs = [job.mask] if job.probability is None else [job.mask, job.probability]
    inputs = [job.scan] if job.organ_mask is None else [job.scan, job.organ_mask]
    if job.dicom_format is not None:
        check_export(job.mask, job.scan, job.dicom_format)
    for path in outputs:
        is_dicom = job.dicom_format is not None and path == job.mask
        for given in inputs:
            check_output_path(path, given, suffixes=(".dcm",) if is_dicom else WRITABLE_SUFFIXES)
    if job.preview is not None:
        outputs.append(check_picture_output(job.preview, [job.scan]))
    places = [os.path.realpath(path) for path in outputs]
    for path, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise OutputError(f"{path} is named for two outputs; give each a file of its own")


def _check_clicks(job: ScanJob, volume: Volume, *, needs_click: bool) -> None:
    if needs_click or job.clicks:
        check_any_inside(job.clicks)
    for click in job.clicks:
        click.world(volume.grid)


def _write(job: ScanJob, volume: Volume, segmentation: "Segmentation", *, model_version: str) -> None:
    """Write every file under a temporary name, and only then move them all into place.

    The mask is moved last: where it is, the others are.
    """
    mask = segmentation.mask
    with contextlib.ExitStack() as files:
        _write_mask(job, volume, segmentation, files.enter_context(_temporary(job.mask)), model_version)
        if job.probability is not None:
            probability = segmentation.probability().astype(np.float32, copy=False)
            place = files.enter_context(_temporary(job.probability))
            write_volume(probability, volume.grid, place)
        if job.preview is not None:
            from clickvol.previews.preview import draw_preview

            caption = (
                f"{job.scan.name}   {segmentation.modality}   {mask.volume_ml:.1f} ml   {segmentation.model_id}"
            )
            picture = draw_preview(
                volume, mask.array, job.clicks, modality=segmentation.modality, caption=caption
            )
            picture.save(files.enter_context(_temporary(job.preview)), format="PNG")


def _write_mask(
    job: ScanJob, volume: Volume, segmentation: "Segmentation", path: Path, model_version: str
) -> None:
    if job.dicom_format is None:
        write_mask(segmentation.mask, path)
        return
    labelled = LabelledMask(
        name="tumour",
        mask=segmentation.mask,
        model_id=segmentation.model_id,
        model_version=model_version,
        made_by="model with clicks" if job.clicks else "model",
    )
    export_masks(
        [labelled],
        volume,
        path,
        file_format=job.dicom_format,
        deidentify=job.deidentify,
        series=job.series,
    )


def _temporary(path: Path) -> contextlib.AbstractContextManager[Path]:
    # Writers choose the format by all suffixes of a name ("nii.gz"), not by the last one.
    return atomic_path(path, "".join(path.suffixes[-2:]))
