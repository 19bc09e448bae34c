"""What a session gives: objects and results of frames, and replies to what was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trackgpt.export.records import EventRecord, TrackRecord
from trackgpt.geometry.masks import decode_rle
from trackgpt.types import Box, Prediction, Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackgpt.session.choices import Ambiguity


@dataclass(frozen=True)
class Object:
    """One tracked object on one frame.

    Attributes:
        id: stable over the run, from 1.
        box: x1, y1, x2, y2 in pixels of the frame, or None when absent.
        score: how much the system trusts it, in [0, 1].
        state: "tracked", "suspect" (below the threshold of asking again) or "absent".
        own_scores: the system's own scores by name, e.g. "purport".
    """

    id: int
    box: Box | None
    score: float | None
    state: str
    own_scores: Mapping[str, float | None] = field(repr=False)
    rle: str | None = field(repr=False)
    size: tuple[int, int] = field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool (height, width), decoded when asked for; empty from a tracker of boxes."""
        return np.zeros(self.size, bool) if self.rle is None else decode_rle(self.rle, *self.size)


@dataclass(frozen=True)
class Result:
    """One frame of a session.

    Attributes:
        index: of the source frame, from 0.
        time: seconds of the source.
        objects: what is tracked, present or not.
        events: what happened on this frame (answers, rethinks, lost, found, warnings).
        record: the same result as the log keeps it.
        problem: why the frame could not be read, or what was odd about it, else "".
        frame: the frame itself, uint8 RGB (height, width, 3), or None when it could not be read.
        prediction: the same result with masks as arrays, or None when nothing is tracked yet.
        revised: earlier frames as they are seen now, oldest first, without their images, where an answer that came late
            changes what was shown of them.
    """

    index: int
    time: float
    objects: tuple[Object, ...]
    events: tuple[EventRecord, ...]
    record: TrackRecord = field(repr=False)
    problem: str = ""
    frame: np.ndarray | None = field(default=None, repr=False)
    prediction: Prediction | None = field(default=None, repr=False)
    revised: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What the system says to an instruction.

    Attributes:
        text: the answer.
        objects: the targets it names, on the frame it was said about; empty when nothing was found.
        prompt: the instruction as it was understood: its kind, and its words written out. Where it was meant otherwise,
            take it back and say it with its `kind`.
        choice: what may be meant as well, where several things fit; see `Session.choose`.
    """

    text: str = ""
    objects: tuple[Object, ...] = ()
    prompt: Prompt | None = None
    choice: Ambiguity | None = None

    @property
    def needs_choice(self) -> bool:
        """Several things fit about equally well; the surest is followed until one is chosen."""
        return self.choice is not None


def objects_of(record: TrackRecord) -> tuple[Object, ...]:
    """The objects of a record."""
    return tuple(Object(o.id, o.box, o.score, o.state, o.own_scores, o.rle, record.size) for o in record.objects)
