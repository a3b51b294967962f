"""Stage 1: files to volumes and masks to files."""
