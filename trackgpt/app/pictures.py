"""Pictures in terminals that show them, by what the terminal says of itself; elsewhere the path of a file."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trackgpt.export.overlay import draw
from trackgpt.export.records import PICTURE
from trackgpt.files import write_whole

if TYPE_CHECKING:
    from trackgpt.session.choices import Ambiguity
    from trackgpt.session.results import Result

CHUNK = 4096
"""Characters of a picture in one command of kitty's protocol, which takes no more."""


def protocol_of(environment: Mapping[str, str]) -> str:
    """How a terminal takes pictures, by its environment: "kitty", "inline", "sixel", or "" where it does not say."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX"):
        return ""  # takes the terminal's pictures for its own text
    if "kitty" in term or "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):  # codespell:ignore iterm
        return "inline"
    return "sixel" if "sixel" in term or term.startswith(("foot", "mlterm")) else ""


def shown_picture(result: Result, folder: Path) -> str:
    """A frame with what is tracked drawn on it: as the terminal takes it, else as a file in the run's folder.

    Returns:
        What is to be printed.
    """
    assert result.frame is not None
    return _printed(draw(result.frame, result.record), folder)


def picture_of_choice(choice: Ambiguity, folder: Path) -> str:
    """The frame with numbered boxes of what a person may choose from, as `shown_picture` gives it."""
    assert choice.frame.image is not None
    return _printed(draw(choice.frame.image, choice.after[1], choices=choice.boxes), folder)


def _printed(picture: np.ndarray, folder: Path) -> str:
    protocol = protocol_of(os.environ) if sys.stdout.isatty() else ""
    if not protocol:
        return f"  {write_whole(folder / PICTURE, [_png(picture)])}"
    return {"kitty": kitty, "inline": inline, "sixel": sixel}[protocol](picture)


def kitty(picture: np.ndarray) -> str:
    """uint8 RGB (height, width, 3) in kitty's graphics protocol."""
    data = base64.b64encode(_png(picture)).decode()
    parts = [data[k : k + CHUNK] for k in range(0, len(data), CHUNK)]
    heads = ["a=T,f=100," if k == 0 else "" for k in range(len(parts))]
    rest = [int(k + 1 < len(parts)) for k in range(len(parts))]
    return "".join(f"\x1b_G{head}m={more};{part}\x1b\\" for head, more, part in zip(heads, rest, parts, strict=True))


def inline(picture: np.ndarray) -> str:
    """uint8 RGB (height, width, 3) as iTerm2 takes inline images."""
    data = _png(picture)
    return f"\x1b]1337;File=inline=1;size={len(data)}:{base64.b64encode(data).decode()}\a"


def sixel(picture: np.ndarray) -> str:
    """uint8 RGB (height, width, 3) as sixels: bands of six rows, a line per colour of a palette of 64."""
    image = Image.fromarray(picture).quantize(64)
    colours = np.array(image.getpalette(), int).reshape(-1, 3)
    values = np.asarray(image)
    known = [f"#{k};2;{r * 100 // 255};{g * 100 // 255};{b * 100 // 255}" for k, (r, g, b) in enumerate(colours)]
    bands = []
    for top in range(0, len(values), 6):
        band = values[top : top + 6]
        weights = 1 << np.arange(len(band))
        lines = [f"#{k}" + _runs((weights[:, None] * (band == k)).sum(axis=0)) for k in np.unique(band)]
        bands.append("$".join(lines))
    return f'\x1bPq"1;1;{values.shape[1]};{values.shape[0]}{"".join(known)}{"-".join(bands)}\x1b\\'


def _runs(columns: np.ndarray) -> str:
    """Columns of six pixels as run lengths."""
    ends = np.flatnonzero(np.diff(columns, append=-1)) + 1
    lengths = np.diff(ends, prepend=0)
    return "".join(f"!{length}{chr(63 + columns[end - 1])}" for end, length in zip(ends, lengths, strict=True))


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
