"""A session again, from its log: the same masks, to the bit on the same device."""

from dataclasses import dataclass
from pathlib import Path

from clickvol.interactive.session import InteractiveSession, repeat_step
from clickvol.interactive.session_log import ClickStep, check_same, header_of, mask_hash, read_log
from clickvol.io.volume import Mask, Volume
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a log came to.

    Attributes:
        session: after its last step; it writes no log.
        num_answers: masks whose hash the log holds.
        differing: numbers of the clicks, from 1, whose mask has another hash now.
        conditions: what is different here, such as "device cpu, then cuda"; empty where nothing is.
    """

    session: InteractiveSession
    num_answers: int
    differing: tuple[int, ...]
    conditions: tuple[str, ...]


def replay_log(
    log: Path, volume: Volume, model: LoadedModel, *, organ_mask: Mask | Volume | None = None
) -> Replay:
    """Repeat every step of a log.

    Args:
        log: of a session.
        volume: the scan that it was made with.
        model: the model that it was made with.
        organ_mask: where it was made with one.

    Raises:
        ConfigError: when the log is damaged, or of another scan or model.
        ClickError: when its steps do not fit together.
    """
    read = read_log(log)
    modality = read.header.modality if read.header.modality != volume.modality else None
    ours = header_of(volume, model, modality=modality, organ_mask=organ_mask)
    check_same(ours, read.header, log)
    session = InteractiveSession(model)
    session.set_volume(volume, modality=modality, organ_mask=organ_mask)
    num_clicks, num_answers, differing = 0, 0, []
    for logged in read.steps:
        if not logged.counts:
            continue
        repeat_step(session, logged.step)
        if not isinstance(logged.step, ClickStep):
            continue
        num_clicks += 1
        if logged.outcome is not None:
            num_answers += 1
            if mask_hash(session.mask(logged.step.object_id)) != logged.outcome.mask_sha256:
                differing.append(num_clicks)
    names = ("device", "precision", "num_threads", "versions")
    then, here = read.header.model_dump(include=set(names)), ours.model_dump(include=set(names))
    conditions = tuple(f"{name} {then[name]}, here {here[name]}" for name in names if then[name] != here[name])
    return Replay(session, num_answers, tuple(differing), conditions)
