"""The trainer file that nnU-Net is given: its own trainer, with the length of training that is asked for."""

from pathlib import Path

from clickvol.files.atomic import write_text

TRAINER_NAME = "nnUNetTrainerClickvol"

EPOCHS_VARIABLE = "CLICKVOL_NNUNET_EPOCHS"
ITERATIONS_VARIABLE = "CLICKVOL_NNUNET_ITERATIONS"

_SOURCE = Path(__file__).with_name("nnunet_trainer.txt").read_text(encoding="utf-8")


def install_trainer(package: Path) -> None:
    """Put the trainer file where nnU-Net looks first for a trainer, in its own package.

    Its search imports one file after the other until it has found the name, and among the later ones are
    trainers that need a working torchvision. A trainer outside the package would come after them all.

    Everything that makes nnU-Net's result stays nnU-Net's. Changed are the number of epochs and of iterations,
    which `length_variables` hands over; the iterations that watch the validation part (of nnU-Net 50 to 250, so
    a fifth); how often a checkpoint is kept, because nnU-Net's 50 epochs may be longer than a short training;
    and the prediction of the validation scans at the end, which nothing here needs, is left out.
    """
    path = package / "training" / "nnUNetTrainer" / f"{TRAINER_NAME}.py"
    if path.is_file() and path.read_text(encoding="utf-8") == _SOURCE:
        return
    write_text(path, _SOURCE)


def length_variables(epochs: int, iterations_per_epoch: int) -> dict[str, str]:
    """Return the environment variables that the trainer reads; nnU-Net's own are 1000 and 250."""
    return {EPOCHS_VARIABLE: str(epochs), ITERATIONS_VARIABLE: str(iterations_per_epoch)}
