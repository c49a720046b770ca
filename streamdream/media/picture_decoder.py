"""Decode picture files by Pillow: upright, in sRGB, 8 bits. What a file is decides how it is read, not its name."""
from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage, SourceError, StreamdreamError, UsageError, error_text
from streamdream.media.input_container import Rotation
from streamdream.media.opencv import cv2
from streamdream.media.picture_limits import check_pixels, max_pixels
from streamdream.media.pyav import open_av

if TYPE_CHECKING:
    from PIL import ImageCms
    from PIL.Image import Image

MAX_PIXELS = 210_000_000
"""Of one picture; cameras of phones have 200 million."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
"""Pillow's names of what is read, besides AVIF and HEIF. No other parser sees a file."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
AVIF_BRANDS = (b"avif", b"avis")
ANIMATED_FORMATS = ("WEBP", "AVIF", "GIF", "PNG")
"""Of other formats, several pictures in a file do not follow each other in time."""
MAX_PIXELS_PER_BYTE = 1000
"""Of a JPEG file; a picture of one colour has 341. libjpeg fills what is missing with grey and says nothing."""
CONVERTED = "is converted"
"""How the note on a colour profile begins."""
ORIENTATION_TAG = 0x0112
TIFF_OFFSETS = (273, 324)
"""Tags that tell where the strips or tiles of a TIFF file are."""
DEEP_PNG = {"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4}
"""FFmpeg's formats of PNG files with 16 bits -> samples of a pixel."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
PALETTE = {"P": "RGBA", "PA": "RGBA", "LA": "RGBA", "La": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "1": "L"}
"""Modes that are converted before anything else."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB, upright, in sRGB. Of a transparent pixel, its own colour."""
    alpha: NDArray[np.uint8] | None = None
    """[H, W], 255 is opaque; None where all of the picture is."""
    deep: NDArray[np.uint16] | None = None
    """[H, W, 3 or 4], the same with 16 bits, and alpha where there is one; None where the file has 8, or none was asked
    for."""
    notes: tuple[str, ...] = ()
    """What a user should know, each as the end of a sentence that begins with the file's name."""

    @property
    def flattened(self) -> NDArray[np.uint8]:
        """[H, W, 3]: before black."""
        if self.alpha is None:
            return self.image
        product = self.image.astype(np.uint16) * self.alpha[..., None]
        result: NDArray[np.uint8] = ((product + 127) // 255).astype(np.uint8)
        return result


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """What Pillow raises, whose parsers meet all kinds of damage, becomes a SourceError; its warnings are dropped."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StreamdreamError:
        raise
    except UnidentifiedImageError:
        raise SourceError(f"{name} is not a picture that can be read") from None
    except (Image.DecompressionBombError, MemoryError):
        raise SourceError(f"{name} is too large: a picture has at most {MAX_PIXELS // 10**6} million pixels") from None
    except Exception as error:
        raise SourceError(f"{name} is a damaged picture ({error_text(error) or type(error).__name__})") from None


def open_picture(path: str | Path, data: bytes | None = None) -> Image:
    """Open a picture file, or its ``data``: only the header is read. The caller closes it.

    Raises UsageError when there is no such file, SourceError when it is not a picture or claims too large a one,
    MissingPackage when the package that reads it is not installed.
    """
    from PIL import Image

    head = _read_head(Path(path)) if data is None else data[:64]
    if not head:
        raise SourceError(f"{path} is empty")
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns from here on, and refuses twice as many
    with one_line_errors(str(path)):
        image = Image.open(path if data is None else io.BytesIO(data), formats=_formats(head, str(path)))
    try:
        size = Path(path).stat().st_size if data is None else len(data)
        check_pixels(str(path), *image.size, max_pixels(size, MAX_PIXELS))
    except BaseException:
        image.close()
        raise
    return image


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a picture")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise UsageError(f"{path}: {error_text(error)}") from None
    except ValueError as error:  # a null byte
        raise UsageError(f"{path}: {error}") from None


def _formats(head: bytes, name: str) -> tuple[str, ...]:
    if head[4:8] != b"ftyp":
        return FORMATS
    brands = head[8:int.from_bytes(head[:4], "big")]
    found = [brands[place:place + 4] for place in range(0, len(brands) - 3, 4) if place != 4]  # 4: a version
    if any(brand in AVIF_BRANDS for brand in found):
        return ("AVIF",)
    if not any(brand in HEIF_BRANDS for brand in found):
        return FORMATS
    try:
        import pi_heif
    except ImportError:
        raise MissingPackage(f"{name} is a HEIC picture: pip install 'streamdream[heic]' (pi-heif) reads it") from None
    pi_heif.register_heif_opener()
    return ("HEIF",)


def is_picture(path: str) -> bool:
    """Whether a file is a picture by its content; also a HEIC picture that cannot be read here."""
    try:
        with open_picture(path):
            return True
    except MissingPackage:
        return True
    except StreamdreamError:
        return False


def read_picture(path: str | Path, deep: bool = False) -> Picture:
    """Decode the first, or main, picture of a file. A JPEG file that is cut off is used as far as it goes.

    With ``deep`` also the 16 bits of a PNG or TIFF file.

    Raises as ``open_picture``, and SourceError for a damaged picture.
    """
    name = str(path)
    notes: tuple[str, ...] = ()
    with open_picture(path) as image:
        is_jpeg, pixels = image.format in ("JPEG", "MPO"), image.width * image.height
        if is_jpeg and pixels > MAX_PIXELS_PER_BYTE * Path(path).stat().st_size:
            raise SourceError(f"{name} is a damaged picture: most of {image.width}x{image.height} pixels are missing")
        if (count := count_pictures(image, name)) > 1:
            notes = (f"holds {count} pictures; the first is used",)
        try:
            is_deep = deep and _has_16_bits(image)
            picture = decode(image, name, notes)
            return replace(picture, deep=_read_16_bits(image, path, picture)) if is_deep else picture
        except SourceError:
            if not is_jpeg:
                raise
    data = Path(path).read_bytes()
    with open_picture(path, data + b"\xff\xd9") as image:  # the marker of the end
        return decode(image, name, ("is damaged or cut off; it is used as far as it can be read",))


def count_pictures(image: Image, name: str) -> int:
    """Those in an open file that a user knows of: a phone's second picture of depth or light is none."""
    with one_line_errors(name):
        return int(getattr(image, "n_frames", 1)) if image.format in (*ANIMATED_FORMATS, "HEIF", "TIFF") else 1


def decode(image: Image, name: str, notes: tuple[str, ...] = ()) -> Picture:
    """The current picture of an open file; ``notes`` are added to its own. Raises SourceError when it is damaged."""
    with one_line_errors(name):
        if image.format == "TIFF" and not any(tag in getattr(image, "tag_v2", ()) for tag in TIFF_OFFSETS):
            raise SourceError(f"{name} is a damaged picture (it says not where its samples are)")  # libtiff prints it
        image.load()
        turn = _rotation_of(image)
        profile = image.info.get("icc_profile")
        image = _to_8_bits(image)
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        if alpha is not None and alpha.getextrema()[0] == 255:
            alpha = None
        image, converted = _to_srgb(image, profile)
        pixels = turn(_to_array(image))
        return Picture(pixels, None if alpha is None else turn(np.asarray(alpha)), notes=(*notes, *converted))


def _has_16_bits(image: Image) -> bool:
    """Of a file that is open but not loaded."""
    tiles: Any = getattr(image, "tile", ())
    return image.format in ("PNG", "TIFF") and any(";16" in str(tile[3]) for tile in tiles)


def _read_16_bits(image: Image, path: str | Path, picture: Picture) -> NDArray[np.uint16] | None:
    """Pillow has no mode for colours of 16 bits. None where those of ``picture`` were converted."""
    if image.mode not in (*SIXTEEN_BITS, "RGB", "RGBA") or any(note.startswith(CONVERTED) for note in picture.notes):
        return None
    stored = _decode_deep_png(path) if image.format == "PNG" else _decode_deep_tiff(path)
    if stored is None:
        return None
    deep: NDArray[np.uint16] = _rotation_of(image)(stored)
    return deep if deep.shape[:2] == picture.image.shape[:2] else None


def _decode_deep_png(path: str | Path) -> NDArray[np.uint16] | None:
    """[H, W, 3 or 4]. Of a damaged file libpng, which OpenCV calls, prints lines, and takes what memory it claims."""
    from av import FFmpegError

    try:
        with open_av(io.BytesIO(Path(path).read_bytes()), format="png_pipe") as container:
            picture: Any = next(container.decode(video=0), None)
    except FFmpegError:
        return None
    channels = DEEP_PNG.get(picture.format.name) if picture is not None else None
    if channels is None:
        return None
    plane = picture.planes[0]
    rows = np.frombuffer(plane, ">u2").reshape(-1, plane.line_size // 2)[:picture.height, :picture.width * channels]
    samples = rows.reshape(picture.height, picture.width, channels).astype(np.uint16)
    return samples if channels > 2 else np.dstack([samples[..., :1]] * 3 + [samples[..., 1:]])


def _decode_deep_tiff(path: str | Path) -> NDArray[np.uint16] | None:
    """[H, W, 3 or 4]"""
    cv = cv2()
    stored = cv.imdecode(np.fromfile(path, np.uint8), cv.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        return None
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    order = {1: cv.COLOR_GRAY2RGB, 3: cv.COLOR_BGR2RGB, 4: cv.COLOR_BGRA2RGBA}.get(channels)
    return None if order is None else cv.cvtColor(stored, order)


def _rotation_of(image: Image) -> Rotation:
    try:
        number = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged Exif says nothing of the picture
        number = 1
    return Rotation(number in (5, 6, 7, 8), number in (3, 4, 7, 8), number in (2, 3, 6, 7))


def _to_8_bits(image: Image) -> Image:
    """Mode L, RGB, RGBA, CMYK or LAB."""
    from PIL.Image import fromarray

    mode = image.mode
    if mode in SIXTEEN_BITS:
        return fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        full = 65535.0 if mode == "I" else max(1.0, float(values.max()))
        return fromarray(np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8))
    if mode in ("RGB", "L") and "transparency" in image.info:
        mode, image = "RGBA", image.convert("RGBA")
    if mode in PALETTE:
        return image.convert(PALETTE[mode])
    return image if mode in ("L", "RGB", "RGBA", "CMYK", "LAB") else image.convert("RGB")


def _to_srgb(image: Image, profile: bytes | None) -> tuple[Image, tuple[str, ...]]:
    """Mode RGB, and what a user should know."""
    mode = image.mode
    if mode == "RGBA":
        image, mode = image.convert("RGB"), "RGB"
    if not profile and mode != "LAB":
        return image.convert("RGB"), ()
    from PIL import ImageCms

    try:
        transform, description = _transform(profile if mode != "LAB" else None, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB"), ("has a damaged colour profile, which is ignored",)
    if transform is None:
        return image.convert("RGB"), ()
    converted: Any = ImageCms.applyTransform(image, transform, inPlace=mode == "RGB") or image
    return converted, (f"{CONVERTED} from the colours of {description} to sRGB",)


@lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """To sRGB, None where that changes nothing; and the name of the profile, where None is CIE L*a*b*.

    Raises PyCMSError or OSError for one that is damaged, or not of that mode.
    """
    from PIL import ImageCms
    from PIL.Image import fromarray

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB",
                                        ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION)
    name = ImageCms.getProfileDescription(source).strip() if profile else "L*a*b*"
    if mode in ("L", "RGB"):
        levels = np.arange(0, 256, 15).astype(np.uint8)
        chart = levels[:, None] if mode == "L" else np.stack(np.meshgrid(*[levels] * 3), -1).reshape(-1, levels.size, 3)
        before = fromarray(chart)
        after = np.asarray(ImageCms.applyTransform(before, transform)).astype(int)
        if np.abs(after - np.asarray(before.convert("RGB"))).max() <= 2:
            return None, name
    return transform, " ".join(filter(str.isprintable, name.split())) or "its profile"


def _to_array(image: Image, rows: int = 256) -> NDArray[np.uint8]:
    """[H, W, 3]; in strips, since NumPy's own way takes the memory twice."""
    result = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result[top:top + rows] = np.asarray(strip)
    return result
