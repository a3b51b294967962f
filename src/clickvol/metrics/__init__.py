"""Stage 8: how well a mask agrees with the truth. Numpy and scipy, never torch."""
