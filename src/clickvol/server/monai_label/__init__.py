"""The calls that 3D Slicer's and OHIF's clients for MONAI Label make."""
