"""Models scored on labelled scans by a simulated user; the table that comes of it."""

from importlib.util import find_spec

from clickvol.errors import ConfigError

_MISSING = [name for name in ("pandas", "pyarrow", "matplotlib") if find_spec(name) is None]
if _MISSING:
    raise ConfigError(f"an evaluation needs {' and '.join(_MISSING)}; pip install 'clickvol[evaluate]'")
