"""Files that hold several volumes: which one to read."""

from pathlib import Path

from clickvol.errors import UnreadableVolumeError


def choose_volume(path: Path | str, shape_ijkt: tuple[int, int, int, int], index: int | None) -> int:
    """Return which volume to read, of a file with three sizes and a number of volumes.

    UnreadableVolumeError for several volumes and no index, or an index out of range.
    """
    num_volumes = shape_ijkt[3]
    if index is None:
        if num_volumes == 1:
            return 0
        raise UnreadableVolumeError(
            f"{path} is 4D with shape {shape_ijkt}: its fourth axis holds {num_volumes} volumes, "
            "but one 3D scan is expected; pick one with --volume N or volume_index=N "
            f"(N from 0 to {num_volumes - 1})"
        )
    if not 0 <= index < num_volumes:
        valid = "only 0 is valid" if num_volumes == 1 else f"valid are 0 to {num_volumes - 1}"
        raise UnreadableVolumeError(
            f"{path} has no volume {index}; it holds {num_volumes}, so {valid} for --volume"
        )
    return index
