"""Synthetic scans with known tumours."""
