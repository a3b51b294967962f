"""Habits of the source that ruff does not watch. A limit is lowered, never raised to let a file in."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _length(function):
    return function.end_lineno - function.lineno + 1


def _name_of(path):
    return str(path.relative_to(ROOT))


def test_the_sources_are_found():
    assert len(SOURCES) > 60
    assert len(TESTS) > 30


def test_no_file_is_longer_than_500_lines():
    lengths = {_name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines():
    too_long = {
        f"{_name_of(path)}:{node.lineno} {node.name}": _length(node)
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, FUNCTIONS) and _length(node) > MAX_FUNCTION_LINES
    }
    assert too_long == {}


def test_the_source_neither_prints_nor_asserts():
    result = [
        f"{_name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Assert)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("print", "pprint", "breakpoint")
        )
    ]
    assert result == []


def test_every_module_says_what_it_is():
    assert [_name_of(p) for p in SOURCES if not ast.get_docstring(_tree(p))] == []


def test_modules_are_nouns_of_the_flow():
    vague = re.compile(r"(^|_)(utils?|helpers?|common|misc|v\d|legacy|original)(_|$)")
    assert vague.search("my_utils")
    assert [_name_of(p) for p in SOURCES if vague.search(p.stem)] == []


def _imports(path):
    """Return every module of the package that a file may name, at the top or inside functions."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_is_tested_by_its_partner_or_through_what_uses_it():
    package = ROOT / "src" / "clickvol"
    modules = {
        ".".join(("clickvol", *path.relative_to(package).with_suffix("").parts)): path
        for path in SOURCES
        if not path.stem.startswith("__")
    }
    tested = {
        name
        for name, path in modules.items()
        if (ROOT / "tests" / path.relative_to(package).parent / f"test_{path.stem}.py").is_file()
    }
    for path in (ROOT / "tests").rglob("*.py"):
        tested |= _imports(path) & set(modules)
    used = {name for user in tested for name in _imports(modules[user])}
    assert sorted(set(modules) - tested - used) == []
    # The test can fail: nothing uses the command line itself.
    assert "clickvol.cli.app" not in used


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "types", "fmt", "wheel", "sbom", "ci"])
def test_the_makefile_has_its_targets_with_short_recipes(target):
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith(f"{target}:")]
    recipe = []
    for line in lines[start + 1 :]:
        if not line.startswith("\t"):
            break
        recipe.append(line)
    assert len(recipe) <= 3
    (phony,) = [line for line in lines if line.startswith(".PHONY:")]
    assert target in phony.split()


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    wanted = [line for line in project["dependencies"] + extras if "clickvol[" not in line]
    names = {re.split(r"[<>=~!\[ ]", line)[0].lower() for line in wanted}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in pins if "==" in line and line[0] != "#"}
    assert names - pinned == set()
    assert "torchvision" not in names | pinned
