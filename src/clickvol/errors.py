"""What can go wrong, as types.

Every message is one line: what is wrong, what was expected, what to do.
"""

from importlib.util import find_spec


class ClickvolError(Exception):
    """The base of every error that a user can cause and correct. The command line exits with 2."""


class UnreadableVolumeError(ClickvolError):
    """A scan that cannot be read: missing, truncated, not an image, or of the wrong dimension.

    `volumes` says what tells the volumes apart where there are several and one is expected, "" for nothing.
    """

    def __init__(self, message: str, *, volumes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.volumes = volumes


class ScanTooLargeError(UnreadableVolumeError):
    """A scan that has more voxels, or unpacks to more bytes, than is allowed here."""


class BadGeometryError(ClickvolError):
    """A grid that maps no voxel to a place: zero or non-finite spacing, singular affine."""


class DicomSeriesError(UnreadableVolumeError):
    """A folder of DICOM files that does not make one regular volume."""


class ArchiveError(ClickvolError):
    """A DICOM archive that cannot be reached, refuses, has no such series, or not the whole of it."""


class ClickError(ClickvolError):
    """A click that cannot be used: malformed, not finite, outside the scan, or only background."""


class CancelledError(ClickvolError):
    """The request was cancelled; nothing has changed."""


class OutputError(ClickvolError):
    """A file that cannot be written where or how it was asked for."""


class BatchError(ClickvolError):
    """A batch in which rows failed; every other row is done."""


class ModelNotFoundError(ClickvolError):
    """A model id or path that names nothing."""


class DamagedWeightsError(ClickvolError):
    """Weights whose hash, keys or container are not what their card says."""


class WeightsUnavailableError(ClickvolError):
    """Weights that cannot be fetched: offline, not reachable, or not handed out to programs."""


class ConfigError(ClickvolError):
    """A configuration file or value that cannot be used."""


class TrainingError(ClickvolError):
    """A training run that cannot go on: a loss that is no number, or memory that ran out."""


class DeviceError(ClickvolError):
    """A compute device that is not there."""


class ExternalProgramError(ClickvolError):
    """A program of somebody else's that cannot be started, or that failed."""


def require(*modules: str, extra: str, purpose: str, error: type[ClickvolError] = ConfigError) -> None:
    """Check that the modules which an extra brings are there, and name the command that brings them.

    Raises:
        error: when one is missing.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise error(f'{purpose} needs {" and ".join(missing)}; run: pip install "clickvol[{extra}]"')
