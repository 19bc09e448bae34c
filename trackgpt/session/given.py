"""What a caller gives a session, checked: the words, kind, ids and shown boxes of an instruction, and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.geometry.pointing import visual_prompts
from trackgpt.types import PROMPT_KINDS, Prompt, PromptKind, VisualPrompt
from trackgpt.video.frames import SourceFrame

FPS = 24.0
"""Frames per second of frames that are given without a time."""


def given_prompt(text: Any, kind: Any, ids: Any, shown: Any, begun: bool, check: Callable[[str], str]) -> Prompt:
    """The prompt of an instruction, with its words as the system will read them.

    Args:
        text, kind, ids: see `trackgpt.session.session.Session.read`.
        shown: one visual prompt or several.
        begun: something has been said before.
        check: see `Session`.

    Raises:
        UsageError: see `Session.read`.
    """
    if not isinstance(text, str):
        raise UsageError(f"instruction is {type(text).__name__}; wanted text or a Prompt; targets are ids=[2, 3]")
    if kind is not None and kind not in PROMPT_KINDS:
        raise UsageError(f"kind {kind!r} does not exist; wanted one of {', '.join(PROMPT_KINDS)}")
    chosen: PromptKind = kind or ("switch" if begun else "start")
    pointed_at, numbers = visual_prompts(shown), _checked_ids(ids)
    if pointed_at and numbers and len(pointed_at) != len(numbers):
        raise UsageError(f"{len(numbers)} ids for {len(pointed_at)} visual prompts; wanted one of each per target")
    wordless = pointed_at or chosen in ("drop", "resume") or (numbers and chosen == "add")
    cleaned = "" if wordless and not text else check(text)
    return Prompt(cleaned, 0, chosen, numbers, pointed_at)


def given_visual(visual: Any, box: Any, points: Any, mask: Any) -> Any:
    """What is shown, by `visual` or in the short form of one target.

    Raises:
        UsageError: by both; points alone are given, and there are none.
    """
    if box is None and points is None and mask is None:
        return visual
    if box is None and mask is None and isinstance(points, Sequence) and not points:
        raise UsageError("points is empty; wanted x, y in pixels and 1 (on the target) or 0 (not on it) for each")
    if isinstance(visual, tuple | list) and not visual:
        return (VisualPrompt(box, () if points is None else points, mask),)
    raise UsageError("visual beside box, points or mask: wanted one of them; `visual` holds all targets")


def given_frame(image: np.ndarray | None, number: int, passed: int, time: float | None) -> SourceFrame:
    """A frame that is given as an image, or as None where it could not be read.

    Args:
        image: uint8 RGB (height, width, 3).
        number: of the frame.
        passed: number of the frame before, -1 where any may come.
        time: in seconds; by default that of `FPS` frames per second.

    Raises:
        UsageError: the image is no such array; the number is not larger than the one before; the time is no number.
    """
    if image is not None and not _is_rgb(image):
        shown = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
        raise UsageError(f"frame is {shown}; wanted uint8 (height, width, 3) RGB")
    if type(number) is not int or number <= passed:
        raise UsageError(f"frame {number!r} cannot follow frame {passed}; wanted a larger whole number")
    if time is not None and not math.isfinite(time):
        raise UsageError(f"frame {number} at {time} seconds; wanted a number")
    problem = "" if image is not None else "no image was given"
    return SourceFrame(number, number / FPS if time is None else time, image, problem)


def _is_rgb(image: Any) -> bool:
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _checked_ids(ids: Any) -> tuple[int, ...]:
    """Identities as they are given; whole numbers from 1, none twice."""
    whole = isinstance(ids, Sequence) and all(type(number) is int and number >= 1 for number in ids)
    if not whole or len(set(ids)) != len(ids):
        raise UsageError(f"ids {ids!r:.60}: wanted a list of whole numbers from 1, none twice")
    return tuple(ids)
