"""Stage 0: points, grids and boxes. Pure numpy; the only place where affines are handled."""
