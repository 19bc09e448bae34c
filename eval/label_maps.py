"""Label maps and masks from PNG files: exact, bounded, and as fast as the files allow.

A label map is a greyscale or paletted PNG whose pixel values are object ids: 0 background, often 255 void. Most
benchmarks store its rows unfiltered, so inflating the file already gives the ids; only what is stored otherwise goes
through Pillow, with the same result. Inflating takes most of the time. Where the optional package `zlib-ng` can be
imported it does that, 20 times faster; the ids are the same.

Files may be anyone's submission, so nothing in them is trusted: sizes are checked before memory is allocated, and
inflating stops at the size declared. Sums (CRC-32) of the chunks are checked, so damage is found before any pixel is.

Source: PNG specification, third edition, https://www.w3.org/TR/png-3/, sections 5 (chunks), 9 (filters), 10 (deflate).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trackgpt.errors import InputError
from trackgpt.geometry.masks import MAX_PIXELS

ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_COLOURS = {0: "greyscale", 2: "RGB", 3: "paletted", 4: "greyscale with alpha", 6: "RGB with alpha"}
_EXPANSION = 1032  # deflate makes no byte into more
_HARMLESS = 2**26  # bytes that may be made before they are counted
_SHOWN = "a greyscale or paletted PNG whose pixel values are object ids"


def _stdlib_inflate(packed: bytes, size: int) -> bytes:
    return zlib.decompress(packed, -zlib.MAX_WBITS, size)


def _fastest_inflate() -> Callable[[bytes, int], bytes]:
    """Inflates a raw deflate stream whose result has about `size` bytes; raises `zlib.error` or zlib-ng's."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return _stdlib_inflate
    # A buffer that is exactly full is grown and copied once more, which takes ten times as long as inflating does.
    return lambda packed, size: zlib_ng.decompress(packed, -zlib.MAX_WBITS, size + 64)


_inflate = _fastest_inflate()


def uses_stdlib() -> bool:
    """Whether Python's own zlib inflates, because zlib-ng cannot be imported."""
    return _inflate is _stdlib_inflate


class _Header(NamedTuple):
    """IHDR: size in pixels, bits a sample, colour type, and whether rows come in seven passes."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


def read_label_map(path: str | Path, shape: tuple[int, ...] | None = None, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Object ids of a label map.

    Args:
        path: a PNG, paletted with 1, 2, 4 or 8 bits, or greyscale with 8; a palette's colours do not matter.
        shape: height and width it must have, for a prediction those of the truth; None for any.
        max_pixels: height x width above which a file is refused unread.

    Returns:
        uint8 (height, width), read-only; its rows may lie further apart than they are long.

    Raises:
        InputError: the file is missing, no PNG, damaged, of another kind or size, or holds more than it declares.
    """
    data, header = _open(path, shape, max_pixels)
    if header.colour not in (_GREY, _PALETTE):
        raise InputError(
            f"{path}: a {_COLOURS[header.colour]} image, wanted {_SHOWN}; convert its colours to ids, or save ids"
            " with Image.fromarray(ids) and putpalette(colours)"
        )
    if header.colour == _GREY and header.depth != 8:
        raise InputError(f"{path}: a greyscale image of {header.depth} bits, wanted 8 bits; save ids as uint8")
    return _pixels(path, data, header)


def read_mask(path: str | Path, shape: tuple[int, ...] | None = None, max_pixels: int = MAX_PIXELS) -> BoolArray:
    """A binary mask: every pixel whose value is not 0 belongs to the object, whether written as 1 or as 255.

    So the scripts of the benchmarks count. A file with several values beside 0, such as a probability or a label map,
    is probably not meant so: `soft_masks` tells of it.

    Args:
        path: a PNG, greyscale or paletted, of 1 to 8 bits.
        shape: height and width it must have; None for any.
        max_pixels: height x width above which a file is refused unread.

    Returns:
        bool (height, width).

    Raises:
        InputError: as `read_label_map`.
    """
    data, header = _open(path, shape, max_pixels)
    if header.colour not in (_GREY, _PALETTE) or header.depth == 16:
        raise InputError(
            f"{path}: a {_COLOURS[header.colour]} image of {header.depth} bits, wanted a greyscale or paletted PNG"
            " of at most 8 bits; save masks as uint8 (height, width) of 0 and 255"
        )
    pixels = _pixels(path, data, header)
    mask: BoolArray = pixels != 0
    highest = int(pixels.max())
    if highest and not _soft and not np.array_equal(pixels == highest, mask):
        held = [str(value) for value in np.unique(pixels) if value]
        _soft.append(f"{path} holds {', '.join(held[:4])}{', ...' if len(held) > 4 else ''}")
    return mask


_soft: list[str] = []


def soft_masks() -> str:
    """The first mask since the last call that held several values beside 0, with some of them; "" for none."""
    return _soft.pop() if _soft else ""


def _open(path: str | Path, shape: tuple[int, ...] | None, max_pixels: int) -> tuple[bytes, _Header]:
    """The bytes of a file and what it declares, both found acceptable."""
    limit = 2 * max_pixels + 2**20
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= limit else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); wanted {_SHOWN}") from error
    if size > limit:
        raise InputError(f"{path}: {size} bytes, wanted at most {limit}, enough for {max_pixels} pixels")
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise InputError(f"{path}: no PNG, or cut off after {len(data)} bytes; wanted {_SHOWN}")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    header = _Header(width, height, depth, colour, bool(interlaced))
    _check_sum(path, data, 8, 13)
    if colour not in _COLOURS or not width or not height:
        raise InputError(f"{path}: declares {width} x {height} pixels of colour type {colour}; wanted {_SHOWN}")
    if width * height > max_pixels:
        raise InputError(
            f"{path}: declares {width} x {height} pixels, wanted at most {max_pixels}; raise max_pixels if it is right"
        )
    if shape is not None and (height, width) != tuple(shape):
        raise InputError(
            f"{path}: {height} x {width} pixels (height x width), wanted the truth's {shape[0]} x {shape[1]};"
            " resize predictions to the truth, nearest neighbour"
        )
    return data, header


def _pixels(path: str | Path, data: bytes, header: _Header) -> ByteArray:
    stream = _deflate_stream(path, _image_data(path, data))
    if header.depth <= 8 and not header.interlaced and _begins_unfiltered(path, stream):
        rows = np.frombuffer(_unpacked(path, stream, header), np.uint8).reshape(header.height, -1)
        if not rows[:, 0].any():  # the filter of every row: none
            return rows[:, 1:] if header.depth == 8 else _separated(rows[:, 1:], header)
    return _through_pillow(path, data, header)


def _image_data(path: str | Path, data: bytes) -> bytes:
    """The IDAT chunks, joined, with every chunk's sum found right up to the end of the image."""
    parts, at = [], 33
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            break
        _check_sum(path, data, at, size)
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        elif kind == b"IEND":
            return parts[0] if len(parts) == 1 else b"".join(parts)
        at += 12 + size
    raise InputError(f"{path}: cut off after {len(data)} bytes, the PNG has no end; copy or write it again")


def _check_sum(path: str | Path, data: bytes, at: int, size: int) -> None:
    (declared,) = struct.unpack_from(">I", data, at + 8 + size)
    if zlib.crc32(data[at + 4 : at + 8 + size]) != declared:
        kind = data[at + 4 : at + 8].decode("latin-1")
        raise InputError(f"{path}: damaged, the sum of its chunk {kind!r} is wrong; copy or write it again")


def _deflate_stream(path: str | Path, packed: bytes) -> bytes:
    """What zlib's two bytes precede and its own sum follows, which the chunks' sums make superfluous."""
    method = struct.unpack_from(">H", packed)[0] if len(packed) > 6 else 0
    if method % 31 or method >> 8 & 15 != 8 or method & 32:
        raise InputError(f"{path}: damaged, its pixels are no zlib stream; write it again")
    return packed[2:-4]


def _begins_unfiltered(path: str | Path, stream: bytes) -> bool:
    """Whether the first row has no filter; a look at one byte, since most writers filter all rows or none."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream[:1024], 1) == b"\0"
    except zlib.error as error:
        raise InputError(f"{path}: damaged, its pixels cannot be inflated ({error}); write it again") from error


def _unpacked(path: str | Path, stream: bytes, header: _Header) -> bytes:
    """Rows with the filter byte before each. Never more bytes are made than declared, or than a small file can hold."""
    size = header.height * (1 + -(-header.width * header.depth // 8))
    try:
        if len(stream) * _EXPANSION <= max(size, _HARMLESS):
            rows = _inflate(stream, size)
        else:
            rows = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, size + 1)
    except Exception as error:  # zlib-ng has an error class of its own
        raise InputError(f"{path}: damaged, its pixels cannot be inflated ({error}); write it again") from error
    if len(rows) != size:
        amount = "more" if len(rows) > size else f"{len(rows)}"
        raise InputError(
            f"{path}: inflates to {amount} bytes, wanted {size} for the {header.width} x {header.height} pixels it"
            " declares; write it again"
        )
    return rows


def _separated(rows: ByteArray, header: _Header) -> ByteArray:
    """Pixels of 1, 2 or 4 bits (leftmost in the highest bits), one per byte; Pillow writes such for small palettes."""
    each = 8 // header.depth
    pixels = np.empty((header.height, rows.shape[1] * each), np.uint8)
    for place in range(each):
        pixels[:, place::each] = rows >> (8 - header.depth * (place + 1)) & (2**header.depth - 1)
    pixels.flags.writeable = False
    return pixels[:, : header.width]


def _through_pillow(path: str | Path, data: bytes, header: _Header) -> ByteArray:
    """Filtered rows and interlaced ones."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib.error and others on damage
        raise InputError(f"{path}: damaged ({error}); write it again") from error
    if pixels.shape != (header.height, header.width):
        raise InputError(f"{path}: decodes to the shape {pixels.shape}, wanted {_SHOWN}")
    pixels = pixels.astype(np.uint8, copy=False)
    pixels.flags.writeable = False
    return pixels
