"""The page of the Python interface: every public name, with what its docstring says."""

import inspect

import clickvol

# Homes of what examples in the documents import beside the public names.
_ALSO = {
    "Places": ("clickvol.geometry.coordinates.VoxelPoint", "clickvol.geometry.coordinates.WorldPointRAS"),
    "Grids": ("clickvol.geometry.grid.VolumeGrid",),
    "A server from Python": ("clickvol.server.client.RemoteSession",),
    "Prepared data": ("clickvol.datasets.prepared.read_prepared_set", "clickvol.datasets.prepared.PreparedSet"),
}


def python_page() -> str:
    """Return the page."""
    names = [name for name in clickvol.__all__ if name != "__version__"]
    functions = [name for name in names if inspect.isfunction(getattr(clickvol, name))]
    classes = [name for name in names if name not in functions]
    parts = [
        "# Python",
        "`from clickvol import NAME`: these are the public interface. Arrays are (D, H, W), slowest first.",
        "## Functions",
        *(f"::: {_home(name)}" for name in functions),
        "## Classes",
        *(f"::: {_home(name)}" for name in classes),
    ]
    for title, homes in _ALSO.items():
        parts += [f"## {title}", *(f"::: {home}" for home in homes)]
    return "\n\n".join(parts) + "\n"


def _home(name: str) -> str:
    return f"{getattr(clickvol, name).__module__}.{name}"
