"""Scans and masks, from and to files."""
