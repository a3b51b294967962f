"""The commands under `clickvol models`."""
