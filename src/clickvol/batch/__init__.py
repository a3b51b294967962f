"""Many scans from a list."""
