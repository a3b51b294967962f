"""The figures of a run: JSON lines always, TensorBoard where it is installed."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from clickvol.files.atomic import write_text

LOG_NAME = "log.jsonl"


class RunLog:
    """Writes one line per report.

    Args:
        folder: of the run; the log is `log.jsonl`, TensorBoard's files go to `tensorboard`. None writes
            nothing: in all processes but the first.
        after_step: steps that are done; lines of later ones, which will be done again, are dropped.
    """

    def __init__(self, folder: Path | None, after_step: int) -> None:
        self._path = None if folder is None else folder / LOG_NAME
        self._curves: Any = None
        if folder is None or self._path is None:
            return
        _forget_after(after_step, self._path)
        if find_spec("tensorboard") is not None:
            # Not at the top: it takes a second to import.
            from torch.utils.tensorboard.writer import SummaryWriter

            self._curves = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the files."""
        if self._curves is not None:
            self._curves.close()

    def write(self, figures: dict[str, float]) -> None:
        """Add the figures of a step; "step" must be among them."""
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
        if self._curves is not None:
            for name, value in figures.items():
                if name != "step":
                    self._curves.add_scalar(name, value, int(figures["step"]))


def _forget_after(step: int, log: Path) -> None:
    """Drop the log's lines of steps that will be done again, and a line that a crash cut short."""
    if not log.is_file():
        return
    kept: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_text(log, "".join(kept))
