"""The configuration of a training run: a TOML file, every field documented here."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from clickvol.datasets.device.stored_scan import Objects
from clickvol.datasets.sampling import (
    PatchSampling,
    PublishedSampling,
    SliceSampling,
    WindowSampling,
)
from clickvol.io.volume import SaidModality
from clickvol.methods.promise2d import Mode
from clickvol.methods.registry import valid_trained_method
from clickvol.preprocessing.channels import OrganMaskSource
from clickvol.prompt_encoders.auto_prompt import Form


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """Which network.

    Attributes:
        id: id of the model that comes out.
        title: one line for lists.
        method: id of a published system or of a network without clicks, see `methods.registry`.
        preset: a preset of the method, see its page in `methods`: network, loss and training clicks.
        size: size of the network, see `methods.sizes`; of promise2d its foundation's, see
            `methods.sam2d.sam2d_preset`.
        notes: limits that a user of the model should know, one sentence each.
    """

    id: str
    title: str
    method: Annotated[str, AfterValidator(valid_trained_method)] = "promise3d"
    preset: str = "clickvol"
    size: str = "small"
    notes: list[str] = []


class FolderSection(_Section):
    """One data set, or pictures of several.

    Attributes:
        path: folder below `data.root`: a prepared data set (`clickvol data prepare`); of a pack, a set in it.
        modality: of its scans; or "picture", for promise2d.
        source: its citation.
        tumour_label: that the set must have been prepared with; anything when not given.
        objects: what a sample is drawn around: the "tumour"; each value of the label by itself, "labels", as of
            several organs; or each connected part of the tumour, "parts". The last two on the wide scale.
        only: of pictures, the data sets in the folder that are used; all of them when not given.
    """

    path: str
    modality: SaidModality | Literal["picture"]
    source: str
    tumour_label: int | None = Field(default=None, gt=0)
    objects: Objects = "tumour"
    only: tuple[str, ...] | None = None


class DataSection(_Section):
    """Where the samples come from.

    Attributes:
        root: folder that the paths of `folders` are relative to, or a file that carries scans, see
            `stored_scan.write_pack` (for "clicked" and "windows"); relative to the working folder.
        folders: labelled data sets; may be empty for phantoms only.
        validation_patients: never trained on, even in the training part: cases whose id ends with one of these.
        fold: which split of prepared data sets.
        intensity: "scan" for this package's own scale; "set" for the constants of prepared data sets:
            published ones or those of their fingerprint; "wide" for the scale that knows CT from air to metal,
            MR, and PET in SUV (`preprocessing.intensity.wide_intensity_scale`): all scans are read at the start
            as they came, at 8 bit, and a group of `sampling` is then a data set, by its `path`.
        phantoms: number of synthetic scans, half CT and half MR; made once per run.
        phantom_share: part of the samples that come from phantoms.
        voxels_in_memory: a training set of at most so many voxels stays on the device once it was read (a byte
            each, and a third for coarser levels); of a larger one, every sample is read from the disk. On the
            wide scale a larger one is refused.
    """

    root: Path = Path()
    folders: list[FolderSection] = []
    validation_patients: tuple[str, ...] = ()
    fold: int = Field(default=0, ge=0)
    intensity: Literal["scan", "set", "wide"] = "scan"
    phantoms: int = Field(default=0, ge=0)
    phantom_share: float = Field(default=0.0, ge=0, le=1)
    voxels_in_memory: int = Field(default=400_000_000, ge=0)

    @model_validator(mode="after")
    def _objects_need_the_wide_scale(self) -> Self:
        several = [folder.path for folder in self.folders if folder.objects != "tumour"]
        if several and self.intensity != "wide":
            raise ValueError(f"the objects of {several[0]} are drawn on the wide scale alone: intensity = wide")
        if self.phantoms and self.intensity == "wide":
            raise ValueError("phantoms are not on the wide scale; set phantoms to 0, or intensity to scan")
        return self


class OptimiserSection(_Section):
    """AdamW and its schedule.

    Attributes:
        steps: length of the run in optimiser steps; or `epochs`, one of the two.
        epochs: length in passes over the training scans, one sample per scan and pass.
        batch_size: samples per process and forward pass.
        accumulate: forward passes per optimiser step. A step sees batch_size x accumulate x processes
            samples, the same ones however they are split.
        learning_rate: highest rate.
        schedule: "cosine" falls to `final_rate` at the end; "linear" falls by whole epochs to `final_rate`
            after `linear_epochs`, as the published methods do, and the run may end before; "polynomial" is
            nnU-Net's, what is left of the run to the power of .9; "constant".
        warmup_steps: steps of a linear rise before; 0 for none.
        final_rate: last rate over the highest.
        linear_epochs: see `schedule`; 500 in the released ProMISe-3D, 3DSAM-adapter and TAGS.
        betas: how slowly AdamW forgets gradients and their squares.
        weight_decay: decoupled.
        max_gradient_norm: clipping.
        clipping: of the "whole" gradient, or of the image encoder's, the prompt encoder's and the decoder's
            by themselves, "parts", as published.
        average_decay: of the exponential moving average of the weights, which is what is kept; 0 keeps
            the last weights, as published.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=2, gt=0)
    accumulate: int = Field(default=1, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "polynomial", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=200, ge=0)
    final_rate: float = Field(default=0.01, ge=0, le=1)
    linear_epochs: int = Field(default=500, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    clipping: Literal["whole", "parts"] = "whole"
    average_decay: float = Field(default=0.998, ge=0, lt=1)

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give optimiser.steps or optimiser.epochs, one of the two")
        return self


class RunSection(_Section):
    """How it runs.

    Attributes:
        folder: where log, checkpoints and the model go.
        seed: of everything.
        checkpoint_every: steps between checkpoints.
        minutes: that the run may take, all its starts together: the rate falls with the time or the steps that
            are left, whichever are fewer, and a checkpoint is written each minute; for one process.
        validate_every: steps between evaluations of the validation scans; 0 for none.
        keep: the model that is written: the "last" weights, or the "best" by the validation loss.
        workers: processes that prepare samples.
        threads: CPU threads; 0 leaves it to torch.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; with several processes each takes its own CUDA device.
        precision: arithmetic of the forward pass.
        cuda_graphs: on one CUDA device launch steps as graphs, where that is the same as kernel by kernel.
        compiled: let torch.compile make the kernels of network and loss: the first steps take a minute or more;
            for methods for volumes.
        recompute_blocks: forget what the encoder's blocks computed and compute it again for the gradient:
            a third more time, a fraction of the memory (ViT-B on 128^3: 6.7 GiB instead of 31.8). "auto" does
            so and says so where a step would take more than four fifths of the memory that is free.
        start_from: a model (id or path) whose weights to begin with; "" for random ones. It may know less than
            the network: no drawn prompts or candidates, which then begin as no change and as the first mask.
        foundation: a 2D foundation (id or path, method "sam2d") whose image encoder is lifted into the
            network before training; "" for none. promise2d cannot do without: it is the network's frozen part.
        trained: "everything", or only the "adapters" and what else does not come from the foundation.
    """

    folder: Path
    seed: int = 0
    checkpoint_every: int = Field(default=200, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    validate_every: int = Field(default=0, ge=0)
    keep: Literal["last", "best"] = "last"
    workers: int = Field(default=1, ge=1)
    threads: int = 0
    device: str = "auto"
    precision: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    cuda_graphs: bool = True
    compiled: bool = False
    recompute_blocks: bool | Literal["auto"] = False
    start_from: str = ""
    foundation: str = ""
    trained: Literal["everything", "adapters"] = "everything"

    @model_validator(mode="after")
    def _best_needs_a_judge(self) -> Self:
        if self.keep == "best" and not self.validate_every:
            raise ValueError("run.keep is best, so run.validate_every must be above 0")
        return self


class BoundarySection(_Section):
    """ProMISe-3D's boundary loss, for a network of any method for volumes; see `methods.recipe.BoundaryTerm`.

    What is not given is as in the preset, or as in `BoundaryTerm` for a preset without.

    Attributes:
        weight: factor of the term; 0 takes the preset's out.
        kernel_dhw, border, channels, compared: see there.
    """

    weight: float | None = Field(default=None, ge=0)
    kernel_dhw: tuple[int, int, int] | None = None
    border: Literal["zeros_counted", "inside_only"] | None = None
    channels: Literal["both", "foreground"] | None = None
    compared: Literal["probabilities", "logits"] | None = None


class LossSection(_Section):
    """What the loss is besides the preset's.

    Attributes:
        boundary: adds the boundary loss or changes it: `boundary = {}` with the weight of the paper.
    """

    boundary: BoundarySection | None = None


class TagsSection(_Section):
    """What TAGS takes besides scan and clicks.

    Attributes:
        text: where the two text embeddings come from: a "file" of `weights.text_bank_file`, "clip" through
            `transformers` from local files, or a "stub" without meaning; a preset without texts needs none.
        text_file: the file; for "clip" the folder with the tower, else the one in the cache is taken.
        organ: what the texts call the object, "kidney".
        data_set: what the released form calls it instead, "kits".
        organ_mask: where organ masks come from, see `preprocessing.channels`. Phantoms have no organ: "file"
            and "gt" lay a stand-in around their tumour.
    """

    text: Literal["file", "clip", "stub"] | None = None
    text_file: Path | None = None
    organ: str = ""
    data_set: str = ""
    organ_mask: OrganMaskSource = "none"


class Promise2dSection(_Section):
    """Which ProMISe-2D.

    Attributes:
        mode: "apm" (the network predicts the points), "ips" (it is shifted towards the data, and given points:
            in training, from the truth) or "promise" (both; it predicts the points).
        form: of what predicts the points; the released scripts use "resnet".
        num_points: that are predicted, or drawn from the truth; 16 as released.
    """

    mode: Mode = "promise"
    form: Form = "resnet"
    num_points: int = Field(default=16, gt=0)


def _kind_of_sampling(content: object) -> str:
    kind = content.get("kind", "clicked") if isinstance(content, dict) else content.kind  # type: ignore[attr-defined]
    return str(kind)


Sampling = Annotated[
    Annotated[PatchSampling, Tag("clicked")]
    | Annotated[PublishedSampling, Tag("published")]
    | Annotated[WindowSampling, Tag("windows")]
    | Annotated[SliceSampling, Tag("slices")],
    Discriminator(_kind_of_sampling),
]
"""How samples are drawn; `kind` says which, "clicked" where it is not given."""


class TrainConfig(_Section):
    """A whole training run; the sections `tags` and `promise2d` belong to these methods alone."""

    model: ModelSection
    data: DataSection = DataSection()
    sampling: Sampling = PatchSampling()
    optimiser: OptimiserSection
    run: RunSection
    loss: LossSection = LossSection()
    tags: TagsSection | None = None
    promise2d: Promise2dSection | None = None

    @model_validator(mode="after")
    def _methods_have_their_sections(self) -> Self:
        method = self.model.method
        for name, section in (("tags", self.tags), ("promise2d", self.promise2d)):
            if method == name and section is None:
                raise ValueError(f"the method {name} needs a section [{name}]; see training/config.py")
            if method != name and section is not None:
                raise ValueError(f"the section [{name}] is for the method {name}, not {method}; leave it out")
        if method == "promise2d" and self.loss.boundary is not None:
            raise ValueError("loss.boundary is for volumes, which promise2d does not train on; leave it out")
        return self
