"""The trainer file: run here against a stand-in for nnU-Net's trainer with the same few attributes."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from clickvol.bridges.nnunet_trainer import TRAINER_NAME, install_trainer, length_variables
from clickvol.errors import OutputError


class PlainTrainer:
    """What nnU-Net's trainer does as far as ours builds on it."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        self.num_epochs, self.num_iterations_per_epoch = 1000, 250
        self.num_val_iterations_per_epoch, self.save_every = 50, 50
        self.saved = None

    def save_checkpoint(self, filename):
        if self.saved is not None:
            with Path(filename).open("w") as file:
                file.write(self.saved[: len(self.saved) // 2])
                if self.saved == "killed half way":
                    raise KeyboardInterrupt
                file.write(self.saved[len(self.saved) // 2 :])

    def perform_actual_validation(self, save_probabilities=False):
        raise NotImplementedError


@pytest.fixture
def installed(tmp_path):
    """The trainer file in a package that looks like nnunetv2."""
    folder = tmp_path / "nnunetv2" / "training" / "nnUNetTrainer"
    folder.mkdir(parents=True)
    install_trainer(tmp_path / "nnunetv2")
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def trainer_of(installed, monkeypatch):
    """Import the trainer file where nnunetv2 seems to be installed."""
    parts = ["nnunetv2", "training", "nnUNetTrainer", "nnUNetTrainer"]
    for end in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:end]))
        module.nnUNetTrainer = PlainTrainer
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def make(**length):
        for name, value in (length_variables(**length) if length else {}).items():
            monkeypatch.setenv(name, value)
        names = {}
        exec(compile(installed.read_text(), installed, "exec"), names)
        return names[TRAINER_NAME]("plans", "3d_fullres", 0, {}, "cpu")

    return make


@pytest.mark.parametrize(
    ("epochs", "iterations", "validation_iterations", "save_every"),
    [(1000, 250, 50, 50), (100, 10, 2, 5), (2, 3, 1, 1)],
)
def test_the_length_is_as_asked(trainer_of, epochs, iterations, validation_iterations, save_every):
    trainer = trainer_of(epochs=epochs, iterations_per_epoch=iterations)
    assert trainer.num_epochs == epochs
    assert trainer.num_iterations_per_epoch == iterations
    assert trainer.num_val_iterations_per_epoch == validation_iterations
    assert trainer.save_every == save_every


def test_a_checkpoint_is_there_wholly_or_not_at_all(trainer_of, tmp_path):
    trainer = trainer_of()
    path = tmp_path / "checkpoint_latest.pth"
    trainer.saved = "first"
    trainer.save_checkpoint(str(path))
    assert path.read_text() == "first"
    trainer.saved = "killed half way"
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(path))
    assert path.read_text() == "first"


def test_where_checkpoints_are_switched_off_there_is_none(trainer_of, tmp_path):
    trainer_of().save_checkpoint(str(tmp_path / "x.pth"))
    assert list(tmp_path.glob("*.pth*")) == []


def test_the_scans_of_the_validation_are_not_predicted(trainer_of):
    assert trainer_of().perform_actual_validation() is None


def test_by_hand_the_length_is_nnunets_own(trainer_of):
    trainer = trainer_of()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (1000, 250)
    assert (trainer.num_val_iterations_per_epoch, trainer.save_every) == (50, 50)


def test_its_file_is_called_as_its_class_and_is_renewed_only_where_it_differs(installed):
    assert installed.name == f"{TRAINER_NAME}.py"
    first = installed.stat()
    install_trainer(installed.parents[2])
    assert installed.stat().st_ino == first.st_ino
    source = installed.read_text()
    installed.write_text("old")
    install_trainer(installed.parents[2])
    assert installed.read_text() == source


def test_a_package_that_cannot_be_written_to(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        install_trainer(tmp_path / "missing")
