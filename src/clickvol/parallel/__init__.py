"""Rows of work in this process, in several on this machine, or on the machines of a Dask cluster."""
