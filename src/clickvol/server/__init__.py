"""Clicks over HTTP: sessions for the viewer and for scripts, and the calls that 3D Slicer and OHIF make."""
