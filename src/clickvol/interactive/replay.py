"""A session again, from its record: the same masks, to the bit on the same device."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clickvol.interactive.interactions import Shaping
from clickvol.interactive.record import check_same, header_of, read_record
from clickvol.interactive.scene import Scene, SceneMasks, SessionObject
from clickvol.io.volume import Mask, Volume
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a record came to.

    Attributes:
        num_answers: masks whose hash the record holds.
        differing: numbers of the clicks, from 1, whose mask has another hash now.
        conditions: what is different here, such as "device cpu, here cuda"; empty where nothing is.
    """

    scene: Scene
    masks: SceneMasks
    num_answers: int
    differing: tuple[int, ...]
    conditions: tuple[str, ...]

    def mask(self, object_id: int | None = None) -> Mask:
        """Return the mask of an object, or the label map of all, as a session would."""
        return self.masks.mask(self.scene, object_id)

    @property
    def objects(self) -> tuple[SessionObject, ...]:
        """All objects, by id."""
        return self.masks.objects(self.scene)


def replay_record(
    path: Path, volume: Volume, model: LoadedModel, *, organ_mask: Mask | Volume | None = None
) -> Replay:
    """Answer every click of a record again.

    Raises:
        ConfigError: when the record is damaged, or of another scan or model.
        ClickError: when a click lies outside the scan.
    """
    record = read_record(path)
    modality = record.header.modality if record.header.modality != volume.modality else None
    ours = header_of(volume, model, modality=modality, organ_mask=organ_mask)
    check_same(ours, record)
    # On a CPU the number format is the faster one of that machine; a record is answered in its own.
    told = getattr(torch, record.header.precision, None)
    if isinstance(told, torch.dtype) and {record.header.device, ours.device} == {"cpu"}:
        model = replace(model, precision=told)
        ours = ours.model_copy(update={"precision": record.header.precision})
    masks = SceneMasks(ScanPredictor(volume, model, modality=modality, organ_mask=organ_mask))
    num_answers, differing = 0, []
    for number, (history, mask_sha256) in enumerate(record.answers(), start=1):
        if mask_sha256 is not None:
            num_answers += 1
            step = history.current[-1]
            object_id = step.object_id if isinstance(step, Shaping) else 1
            if masks.packed(Scene.after(history.current), object_id).sha256() != mask_sha256:
                differing.append(number)
    names = ("device", "precision", "num_threads", "versions")
    then, here = record.header.model_dump(include=set(names)), ours.model_dump(include=set(names))
    conditions = tuple(f"{name} {then[name]}, here {here[name]}" for name in names if then[name] != here[name])
    return Replay(Scene.after(record.history.current), masks, num_answers, tuple(differing), conditions)
