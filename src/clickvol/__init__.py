"""clickvol: one click in a CT or MR scan gives the tumour in 3D."""

from clickvol.version import __version__

__all__ = ["__version__"]
