"""A session in a process that is killed after its second click was written down."""

import os
import signal
from pathlib import Path

from clickvol import InteractiveSession
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from reference.random_models import random_model


def model_and_phantom():
    """Return what the session of this process, and the one that goes on with it, is about."""
    phantom = make_phantom(3, shape_dhw=(24, 48, 48), spacing_dhw_mm=(4.0, 3.0, 3.0), tumour_diameter_mm=50)
    return random_model(promise3d_recipe("clickvol", "tiny")), phantom


def click_and_be_killed():
    """Click twice in the current folder; does not return."""
    model, phantom = model_and_phantom()
    session = InteractiveSession(model, log_folder=Path.cwd())
    session.set_volume(phantom.volume)
    session.click(phantom.inside)
    session.click(phantom.inside, cancelled=lambda: os.kill(os.getpid(), signal.SIGKILL))
