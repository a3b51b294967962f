"""Models scored on labelled scans by a simulated user; the table that comes of it."""

from clickvol.errors import require

require("pandas", "pyarrow", "matplotlib", extra="evaluate", purpose="an evaluation")
