"""Builds the sprite atlas of SynthTrack from a colour emoji font: ``python -m data_tools atlas FONT FOLDER``.

The atlas is one RGBA image of square cells and a small JSON index. Only the glyphs of the catalog are taken; shapes are
drawn by the package itself. The font of record is NotoColorEmoji (SIL Open Font License 1.1), which holds bitmaps of
one size, so that the cells are scaled pictures of 136 x 128 pixels, not outlines.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trackgpt.errors import InputError
from trackgpt.files import writing
from trackgpt.synthtrack.catalog import CATEGORIES

CELL = 96
COLUMNS = 9
SPECK = 0.02  # pieces below this share of the picture are left out
BITMAP_SIZE = 109  # the only strike of NotoColorEmoji


def glyph_picture(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image:
    """One emoji, trimmed to its visible pixels.

    Args:
        font: a colour font opened at its bitmap size.
        glyph: one emoji code point; the emoji presentation is asked for.

    Returns:
        An RGBA picture with no empty border.

    Raises:
        InputError: the font draws nothing, or nothing in colour, for this glyph.
    """
    canvas = Image.new("RGBA", (3 * BITMAP_SIZE, 3 * BITMAP_SIZE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((BITMAP_SIZE, BITMAP_SIZE), glyph, font=font, embedded_color=True, fill=(0, 0, 0, 255))
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise InputError(f"font: nothing is drawn for U+{ord(glyph[0]):04X}, wanted a colour glyph; use NotoColorEmoji")
    return canvas.crop(box)


def without_specks(picture: Image.Image) -> Image.Image:
    """Clears the sparks and drops round a thing: loose pieces of less than 2 % of it, which would swell its box."""
    pixels = np.array(picture.convert("RGBA"))
    _, labels, stats, _ = cv2.connectedComponentsWithStats((pixels[..., 3] > 0).astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    kept = area >= SPECK * area[1:].sum()
    pixels[~kept[labels] | (labels == 0)] = 0
    out = Image.fromarray(pixels)
    return out.crop(out.getchannel("A").getbbox())


def fit_cell(picture: Image.Image, cell: int = CELL) -> Image.Image:
    """Scales a picture to fill a square cell but for one pixel all round, centred, its proportions kept."""
    room = cell - 2
    scale = room / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    out = Image.new("RGBA", (cell, cell), (0, 0, 0, 0))
    small = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    out.paste(small, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return out


def build_atlas(font_path: str | Path, out: str | Path) -> Path:
    """Renders every glyph of the catalog into ``atlas.png`` and ``atlas.json``.

    Args:
        font_path: NotoColorEmoji.ttf.
        out: folder to write into; made when missing.

    Returns:
        The path of the atlas image.

    Raises:
        InputError: the font cannot be opened at its bitmap size, or lacks a glyph.
    """
    try:
        font = ImageFont.truetype(str(font_path), BITMAP_SIZE)
    except OSError as error:
        raise InputError(
            f"{font_path}: cannot open as a font of size {BITMAP_SIZE} ({error}); install fonts-noto-color-emoji"
        ) from error
    names = [category.name for category in CATEGORIES if category.glyph]
    glyphs = [category.glyph for category in CATEGORIES if category.glyph]
    rows = -(-len(names) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL), (0, 0, 0, 0))
    for index, glyph in enumerate(glyphs):
        corner = (index % COLUMNS * CELL, index // COLUMNS * CELL)
        atlas.paste(fit_cell(without_specks(glyph_picture(font, glyph))), corner)
    folder = Path(out)
    path = folder / "atlas.png"
    index_text = json.dumps({"cell": CELL, "columns": COLUMNS, "names": names}, indent=1)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atlas.save(path, optimize=True)
        (folder / "atlas.json").write_text(index_text + "\n", encoding="utf-8")
    return path
