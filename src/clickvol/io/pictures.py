"""2D images (PNG, JPEG, TIFF) in, mask pictures out. Torch-free."""

import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clickvol.errors import OutputError, UnreadableVolumeError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import check_output_path
from clickvol.io.input_path import kind_of_path
from clickvol.io.volume import Volume

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "TIFF")

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# What a header may claim before anything is unpacked: 8192 x 8192. Chosen: larger than any radiograph, and
# 200 MB in memory as red, green and blue.
_MAX_PIXELS = 1 << 26

# Deep grey in the words of Pillow, which differ by its version and by the file's byte order.
_DEEP_GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")

# So that no distance across a picture is ever the shortest.
_THICKNESS_MM = 100_000.0

# Red, green and blue of a grey mask that was packed as JPEG differ by less than this (chosen).
_ROUNDING = 8

# What Pillow raises for files that are cut off, damaged or hostile.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)


def is_picture(path: str | Path) -> bool:
    """Tell by its name whether a file is a 2D image."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture(Volume):
    """A 2D image as a volume of one slice, grey; pixels count as 1 mm, and the slice is too thick to cross.

    Attributes:
        pixels: (H, W) or (H, W, 3) uint8 red, green, blue; deep grey is uint16.
    """

    pixels: Pixels

    @classmethod
    def of(cls, pixels: Pixels, source: str) -> "Picture":
        """Take the pixels of a file."""
        grey = np.asarray(Image.fromarray(pixels).convert("L")) if pixels.ndim == 3 else pixels
        grid = VolumeGrid((1, *grey.shape), np.diag([_THICKNESS_MM, 1.0, 1.0, 1.0]))
        return cls(grey[None], grid, "other", source, pixels=pixels)


def read_picture(path: str | Path) -> Pixels:
    """Read a PNG, JPEG or TIFF file: (H, W) uint8, uint16 for deep grey; (H, W, 3) uint8 red, green, blue.

    The picture is turned as the camera's note in the file (EXIF) says, as viewers show it. What is transparent
    is laid on black. UnreadableVolumeError when it is missing, of another kind, damaged, larger than 67 million
    pixels, has several frames, or values that 16 bits do not hold.
    """
    return _read(Path(path), _as_array)


def read_mask_values(path: str | Path) -> Pixels:
    """Read a picture of a mask as its values (H, W), as `read_picture`; of a palette the colours' numbers.

    UnreadableVolumeError also for colours, which are no values.
    """

    def values(image: Image.Image, path: Path) -> Pixels:
        if image.mode in ("P", "PA"):
            return np.array(image.convert("P") if image.mode == "PA" else image)
        if image.mode in ("L", "1", *_DEEP_GREY_MODES):
            return _as_array(image, path)
        colours = np.array(image.convert("RGB"))
        if int(np.ptp(colours, axis=2).max()) >= _ROUNDING:
            raise UnreadableVolumeError(
                f"{path} is a coloured picture, but a mask is grey: one value per object; convert it"
            )
        return colours[..., 0]

    return _read(Path(path), values)


def _read(path: Path, unpack: Callable[[Image.Image, Path], Pixels]) -> Pixels:
    kind = kind_of_path(path)
    if kind != "file":
        what = "does not exist" if kind == "missing" else "is not a file"
        raise UnreadableVolumeError(f"{path} {what}; give the path of a PNG, JPEG or TIFF picture")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is a warning and lies above ours; what it says of tags changes no pixel.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check_header(image, path)
                return unpack(ImageOps.exif_transpose(image), path)
    except Image.DecompressionBombError as error:
        raise UnreadableVolumeError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise UnreadableVolumeError(
            f"{path} is not a PNG, JPEG or TIFF picture that can be read, whatever its name; save it as PNG"
        ) from error
    except _DAMAGE as error:
        raise UnreadableVolumeError(
            f"{path} cannot be read ({error}); the file is damaged or locked, get it again"
        ) from error


def write_mask_picture(mask: NDArray[np.bool_], path: str | Path) -> None:
    """Write a mask (H, W) as a grey PNG, 255 in the object and 0 outside it; as `write_picture`."""
    write_picture(np.where(mask, np.uint8(255), np.uint8(0)), path)


def write_picture(pixels: Pixels, path: str | Path) -> None:
    """Write a picture, (H, W) or (H, W, 3), as PNG, wholly or not at all; errors as `check_picture_output`."""
    path = check_picture_output(path, ())
    with atomic_path(path, ".png") as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def check_picture_output(path: str | Path, inputs: Sequence[Path]) -> Path:
    """Refuse a path where no PNG can be written, or one of the inputs, however it is spelled (OutputError)."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"a picture is written as PNG, but {path.name!r} does not end in .png; rename it")
    return check_output_path(path, *inputs, suffixes=(".png",))


def _check_header(image: Image.Image, path: Path) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise UnreadableVolumeError(_too_large(path))
    num_frames = getattr(image, "n_frames", 1)
    if num_frames != 1:
        raise UnreadableVolumeError(
            f"{path} has {num_frames} frames, but one picture is expected; save one of them"
        )


def _too_large(path: Path) -> str:
    return (
        f"{path} has more than {_MAX_PIXELS / 1e6:.0f} million pixels; reduce it or cut out the part "
        "that matters"
    )


def _as_array(image: Image.Image, path: Path) -> Pixels:
    """Unpack a picture of any mode that the formats have."""
    if image.mode in _DEEP_GREY_MODES:
        values = np.asarray(image)
        with np.errstate(invalid="ignore"):  # no number at all
            deep = values.astype(np.uint16)
        if not np.array_equal(values, deep):
            raise UnreadableVolumeError(f"{path} has values that are no whole numbers of 16 bits; convert it")
        return deep
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        black = Image.new("RGBA", drawn.size, (0, 0, 0, 255))
        opaque = Image.alpha_composite(black, drawn).convert("RGB")
        return np.array(opaque.convert("L") if image.mode in ("L", "LA", "1") else opaque)
    if image.mode in ("L", "1"):
        return np.array(image.convert("L"))
    return np.array(image.convert("RGB"))
