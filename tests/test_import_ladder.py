"""Imports go one way: a stage knows the stages before it, never those after it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "clickvol"

# These three stand at the foot and import nothing of the package.
FOOT = ("errors", "version", "shapes")
NUMPY_STAGES = (
    "files",
    "parallel",
    "geometry",
    "io",
    "phantoms",
    "preprocessing",
    "patches",
    "prompts",
    "metrics",
    "previews",
)
NETWORK_STAGES = (
    "layers",
    "image_encoders",
    "prompt_encoders",
    "mask_decoders",
    "baselines",
    "methods",
)
JOINED_STAGES = (
    "weights",
    "predict",
    "interactive",
    "batch",
    "datasets",
    "bridges",
    "training",
    "evaluation",
    "adapt",
    "report",
    "reproduction",
    "server",
    "cli",
)
LADDER = (*NUMPY_STAGES, *NETWORK_STAGES, *JOINED_STAGES)

# A network sees tensors; what a scan is it need not know.
UNKNOWN_TO_NETWORKS = ("io", "phantoms", "preprocessing", "patches")

# __init__ names the public interface and __main__ starts the command line: both are above the ladder.
ABOVE = ("__init__", "__main__")

TORCH_FREE_WEIGHTS = (
    "weights.cache",
    "weights.card",
    "weights.download",
    "weights.expected_dice",
    "weights.fetch",
    "weights.registry",
)
TORCH_FREE_METHODS = ("methods.registry",)
TORCH_FREE_SERVER = ("server.client", "server.settings", "server.wire")
TORCH_FREE = (*FOOT, *NUMPY_STAGES, *TORCH_FREE_METHODS, *TORCH_FREE_WEIGHTS, *TORCH_FREE_SERVER)


def _modules():
    return sorted(PACKAGE.rglob("*.py"))


def _stage(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _dotted(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("clickvol", *(p for p in parts if p != "__init__")))


def imported_modules(source):
    """Return every module of the package that a source names, at the top or inside functions."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError("imports are absolute")
            if node.module == "clickvol":
                imported |= {f"clickvol.{alias.name}" for alias in node.names}
            else:
                imported.add(node.module)
    return {name for name in imported if name.split(".")[0] == "clickvol"}


def violations(stage, source):
    """Return the imports of a module that its stage may not have."""
    bad = []
    for name in sorted(imported_modules(source)):
        target = (*name.split("."), "")[1]
        if target in FOOT:
            allowed = stage not in FOOT
        elif target not in LADDER or stage in FOOT:
            allowed = False
        else:
            allowed = LADDER.index(target) <= LADDER.index(stage)
            if stage in NETWORK_STAGES and target in UNKNOWN_TO_NETWORKS:
                allowed = False
        if not allowed:
            bad.append(name)
    return bad


def test_every_module_has_its_place_on_the_ladder():
    assert {_stage(path) for path in _modules()} == {*FOOT, *LADDER, *ABOVE}


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_below_it(path):
    if _stage(path) in ABOVE:
        return
    assert violations(_stage(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("stage", "source", "bad"),
    [
        ("geometry", "from clickvol.io.volume import Volume", ["clickvol.io.volume"]),
        ("geometry", "def f():\n    import clickvol.cli.app", ["clickvol.cli.app"]),
        ("layers", "from clickvol.patches import field_of_view", ["clickvol.patches"]),
        ("layers", "from clickvol.geometry.box import VoxelBox", []),
        ("errors", "from clickvol.version import __version__", ["clickvol.version"]),
        ("cli", "from clickvol import segment", ["clickvol.segment"]),
        ("weights", "if True:\n    from clickvol.predict import zoom_refinement", ["clickvol.predict"]),
        ("cli", "from clickvol.predict import zoom_refinement\nimport numpy", []),
        ("io", "from clickvol.files.atomic import atomic_path", []),
        ("datasets", "import clickvol.utils", ["clickvol.utils"]),
    ],
)
def test_the_check_sees_what_it_should(stage, source, bad):
    assert violations(stage, source) == bad


def test_the_numpy_side_runs_without_torch():
    """Every module of it is imported in one process, where an import of torch fails."""
    names = [
        name
        for name in map(_dotted, _modules())
        if any(f"{name}.".startswith(f"clickvol.{free}.") for free in TORCH_FREE)
    ]
    assert len(names) > 25
    assert {
        f"clickvol.{name}" for name in (*TORCH_FREE_METHODS, *TORCH_FREE_WEIGHTS, *TORCH_FREE_SERVER)
    } <= set(names)
    code = "\n".join(
        [
            "import importlib, sys",
            "sys.modules['torch'] = None",  # any import of torch now raises
            f"for name in {names!r}:",
            "    importlib.import_module(name)",
            "assert sys.modules['torch'] is None",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
