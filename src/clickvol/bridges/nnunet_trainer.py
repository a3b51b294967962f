"""The trainer file that nnU-Net is given: its own trainer, with the length of training that is asked for."""

from pathlib import Path

from clickvol.files.atomic import write_text

TRAINER_NAME = "nnUNetTrainerClickvol"

EPOCHS_VARIABLE = "CLICKVOL_NNUNET_EPOCHS"
ITERATIONS_VARIABLE = "CLICKVOL_NNUNET_ITERATIONS"

_SOURCE = f'''"""Written by clickvol nnunet run: nnU-Net's trainer of another length."""

import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class {TRAINER_NAME}(nnUNetTrainer):
    """nnU-Net's trainer, of the length in the environment; its checkpoints survive being killed."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("{EPOCHS_VARIABLE}", self.num_epochs))
        iterations = int(os.environ.get("{ITERATIONS_VARIABLE}", self.num_iterations_per_epoch))
        self.num_iterations_per_epoch = iterations
        self.num_val_iterations_per_epoch = max(1, iterations // 5)
        self.save_every = max(1, min(self.save_every, self.num_epochs // 20))

    def save_checkpoint(self, filename):
        part = filename + ".part"
        super().save_checkpoint(part)
        if os.path.isfile(part):
            os.replace(part, filename)

    def perform_actual_validation(self, save_probabilities=False):
        """Left out: the test scans are predicted in a step of their own."""
'''


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
