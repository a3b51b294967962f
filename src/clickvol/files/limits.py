"""How much a file may ask for, told from its header before its voxels are read."""

from dataclasses import dataclass

from clickvol.errors import ConfigError, ScanTooLargeError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Bounds for files of strangers, such as uploads; the user's own files are read without.

    With bounds a file must also hold its own voxels: one that names another file to read them from is refused.

    Attributes:
        max_voxels: voxels of the volume that is read.
        max_bytes_unpacked: bytes that a compressed file may unpack to, headers included; for an archive
            those of all its entries. Files that are not compressed are held to it as well.

    Raises:
        ConfigError: on construction, when a bound is below 1.
    """

    max_voxels: int
    max_bytes_unpacked: int

    def __post_init__(self) -> None:
        if min(self.max_voxels, self.max_bytes_unpacked) < 1:
            raise ConfigError(
                f"the limits {self.max_voxels} voxels and {self.max_bytes_unpacked} bytes let nothing be read; "
                "give numbers above zero"
            )

    def check_voxels(self, num_voxels: int, source: str) -> None:
        """Refuse a volume that is too large; ScanTooLargeError above `max_voxels`."""
        if num_voxels > self.max_voxels:
            raise ScanTooLargeError(
                f"{source} holds {num_voxels} voxels, but at most {self.max_voxels} are allowed here; crop or "
                "resample the scan, or raise the limit"
            )

    def check_bytes(self, num_bytes: int, source: str) -> None:
        """Refuse a file that unpacks to too much; ScanTooLargeError above `max_bytes_unpacked`."""
        if num_bytes > self.max_bytes_unpacked:
            raise ScanTooLargeError(
                f"{source} unpacks to {num_bytes} bytes or more, but at most {self.max_bytes_unpacked} are "
                "allowed here; give a smaller scan, or raise the limit"
            )
