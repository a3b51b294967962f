"""Affines are multiplied and inverted in geometry alone: everybody else asks the grid."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "clickvol"

AFFINES = {"affine_ras_mm", "affine_ijk_ras_mm", "affine_ijk_lps_mm"}
SOLVERS = {"inv", "pinv", "solve", "lstsq", "det"}

# The border: who reads or writes the header of a file deals in its matrix.
HEADERS = {
    "io/nifti/headers.py": "writes sform and qform",
    "io/itk/files.py": "writes spacing, direction and origin",
    "io/nifti/other_formats.py": "writes the matrix of .mgz",
    "io/itk/raw_nrrd.py": "writes space directions and origin",
}
# Kept as numbers, never computed with.
STORED = {
    "datasets/case_preparation.py": "writes the grid of a prepared scan into its record",
    "datasets/prepared.py": "reads it back",
    "interactive/record.py": "is hashed, to know the scan of a record again",
}

# Solves with a matrix of its own, which also bends and stretches.
PLANS = {
    "datasets/device/patch_sampler.py": "finds the part of a patch that an object can reach",
    "datasets/device/sample_plan.py": "finds how far from the middle of its object a click lies in a patch",
}


def _reads_affine(node):
    return any(isinstance(part, ast.Attribute) and part.attr in AFFINES for part in ast.walk(node))


def affine_reads(source):
    """Return the lines in which the matrix of a grid is read."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr in AFFINES and isinstance(node.ctx, ast.Load)
    ]


def arithmetic(source):
    """Return the lines that compute with the matrix of a grid, or solve any system of equations."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp):
            wrong = _reads_affine(node.left) or _reads_affine(node.right)
        elif isinstance(node, ast.AugAssign):
            wrong = _reads_affine(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            wrong = node.func.attr in SOLVERS and "linalg" in ast.unparse(node.func)
        elif isinstance(node, ast.ImportFrom):
            wrong = "linalg" in (node.module or "") and SOLVERS & {alias.name for alias in node.names}
        else:
            wrong = False
        if wrong:
            lines.append(node.lineno)
    return lines


def _outside_geometry():
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "geometry"
    }


def test_only_headers_and_stores_read_the_matrix_of_a_grid():
    readers = {name for name, source in _outside_geometry().items() if affine_reads(source)}
    assert readers - {*HEADERS, *STORED} == set()
    assert HEADERS.keys() <= readers


def test_nobody_outside_computes_with_it_or_inverts_a_matrix():
    computing = {name: arithmetic(source) for name, source in _outside_geometry().items()}
    assert {name: lines for name, lines in computing.items() if lines and name not in {*HEADERS, *PLANS}} == {}


def test_geometry_does():
    assert arithmetic((PACKAGE / "geometry" / "grid.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "p = grid.affine_ras_mm @ q",
        "p = (a - grid.affine_ras_mm[:3, 3]) * 2",
        "p = np.array(patch.grid.affine_ijk_ras_mm)[:3] * flip",
        "t += volume.grid.affine_ras_mm[:3, 0]",
        "m = np.linalg.inv(anything)",
        "m = numpy.linalg.solve(a, b)",
        "from scipy.linalg import lstsq",
    ],
)
def test_the_check_sees_arithmetic(source):
    assert set(arithmetic(source)) == {1}


@pytest.mark.parametrize(
    "source", ["a = grid.affine_ras_mm.tolist()", "n = np.linalg.norm(x)", "g = VolumeGrid(s, affine_ras_mm=m)"]
)
def test_the_check_leaves_alone_what_is_none(source):
    assert arithmetic(source) == []
    assert affine_reads(source) == ([1] if "grid.affine" in source else [])
