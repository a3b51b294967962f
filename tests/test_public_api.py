"""What users import is listed once, is there, and costs nothing until it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import clickvol
from reference.public_signatures import SNAPSHOT, digest, public_signatures

PUBLIC_NAMES = [
    "BoundaryTerm",
    "Box",
    "Click",
    "ClickvolError",
    "GivenMask",
    "InteractiveSession",
    "Lasso",
    "Line",
    "LoadedModel",
    "Mask",
    "Scribble",
    "Segmentation",
    "Volume",
    "__version__",
    "boundary_loss",
    "dice",
    "load_model",
    "nnInteractiveInferenceSession",
    "patch_logits",
    "read_volume",
    "segment",
    "write_mask",
]

HEAVY = ("torch", "scipy", "nibabel", "SimpleITK", "pydicom")

ROOT = Path(__file__).parents[1]


def _loaded_after(code):
    """Return the heavy packages that a fresh interpreter has loaded after some code."""
    report = f"\nimport sys; print('LOADED', *[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:], done.stdout


def test_the_list_is_the_documented_one():
    assert clickvol.__all__ == PUBLIC_NAMES
    assert dir(clickvol) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_name_resolves_to_something_documented(name):
    value = getattr(clickvol, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+", value)
        return
    assert value.__name__ == name
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")  # the signature that a dataclass makes up


@pytest.mark.parametrize("name", ["Clik", "_click", "torch"])
def test_another_name_is_not_there(name):
    with pytest.raises(AttributeError, match=f"module 'clickvol' has no attribute '{name}'"):
        getattr(clickvol, name)


def test_the_types_are_shipped():
    assert (Path(clickvol.__file__).parent / "py.typed").is_file()


def test_signatures_change_only_with_the_snapshot_and_the_changelog():
    kept = SNAPSHOT.read_text("utf-8")
    advice = (
        "in tests/, write them down by `python -m reference.public_signatures`, and tell users in CHANGELOG.md"
    )
    assert public_signatures() == kept, f"what users import has other signatures: {advice}"
    newest = (ROOT / "CHANGELOG.md").read_text("utf-8").split("\n## [")[1]
    named = f"public signatures {digest(kept)}"
    assert named in newest, f"the newest section of CHANGELOG.md must say what changed for users, and: {named}"


def test_the_snapshot_sees_what_a_user_would_meet():
    lines = public_signatures().splitlines()
    assert {
        "def load_model(id_or_path: str | Path=DEFAULT_MODEL_ID, *, device: str='auto') -> LoadedModel",
        "Click.foreground: bool = True",
        "def InteractiveSession.undo(self) -> bool",
        "property Mask.volume_ml -> float",
        "def Mask.to_sitk(self) -> 'SimpleITK.Image'",  # of a class that it shares
        "nnInteractiveInferenceSession.preferred_scribble_thickness = (2, 2, 2)",
        "class ClickError(ClickvolError)",
    } <= set(lines)
    assert [line for line in lines if "._" in line and "__init__" not in line] == []


def test_the_program_that_type_checkers_judge_uses_every_public_name():
    program = (ROOT / "tests" / "user_types" / "user_program.py").read_text("utf-8")
    imported = program.split("from clickvol import (")[1].split(")")[0]
    assert [name.strip() for name in imported.split(",") if name.strip()] == PUBLIC_NAMES


def test_every_error_is_a_clickvol_error():
    from clickvol import errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, clickvol.ClickvolError) for kind in kinds)


def test_importing_the_package_loads_nothing_heavy():
    assert _loaded_after("import clickvol")[0] == []


@pytest.mark.parametrize("words", [["--help"], ["segment", "--help"], ["--version"], ["models", "--help"]])
def test_help_loads_nothing_heavy(words):
    loaded, output = _loaded_after(f"from clickvol.cli.app import main; main({words!r})")
    assert loaded == []
    assert "clickvol" in output


def test_a_mistake_in_the_words_is_answered_without_loading_anything_heavy():
    loaded, _ = _loaded_after("from clickvol.cli.app import main; main(['segmnt', 'scan.nii'])")
    assert loaded == []


def test_reading_a_scan_needs_no_torch():
    code = "import clickvol; clickvol.read_volume, clickvol.Click, clickvol.Box"
    assert "torch" not in _loaded_after(code)[0]


def test_the_version_is_the_one_of_the_citation_and_the_changelog():
    assert f"\nversion: {clickvol.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## [{clickvol.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
