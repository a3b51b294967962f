"""A package, so that one page serves all its tests and is closed after the last."""
