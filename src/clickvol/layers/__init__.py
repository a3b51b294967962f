"""Torch building blocks without opinions; every forward states its shapes."""
