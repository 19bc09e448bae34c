"""From where a run that is cut can go on: the track's state after a frame, and how long the log was then, in one file.

A step is a pure function of state and frame, so what comes after is the same to the byte as without the cut.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trackgpt.errors import InputError, OutputError
from trackgpt.export.records import STATE
from trackgpt.files import writing
from trackgpt.track import TrackState, note_of

if TYPE_CHECKING:
    from trackgpt.session.playback import Playback

EVERY = 5.0
"""Seconds of work that a killed run loses at most, frames that are under way and what is drawn aside."""


@dataclass(frozen=True)
class Mark:
    """A frame after which a run can go on.

    Attributes:
        frame: index of the source frame; it could be read, and nothing has been said about the next one.
        ends: how long tracks.jsonl and events.jsonl were after it, in bytes.
    """

    frame: int
    ends: tuple[int, int]

    def save(self, folder: Path, state: TrackState) -> None:
        """Write it with the state after the frame, in the place of an earlier one, whole or not at all.

        Raises:
            OutputError: OUT02.
        """
        state.save(folder / STATE, json.dumps({"frame": self.frame, "ends": self.ends}))


def read_mark(folder: Path) -> Mark | None:
    """The mark of a run that was cut; None where none was saved.

    Raises:
        InputError: the file is damaged.
    """
    place = folder / STATE
    if not place.exists():
        return None
    try:
        values = json.loads(note_of(place))
        tracks, events = (int(end) for end in values["ends"])
        return Mark(int(values["frame"]), (tracks, events))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: says not where the run was; start again with --overwrite") from error


class Keeper:
    """Saves, every few seconds and when a run is cut, from where it can go on; use it in a `with` block.

    When the block ends well, the run is done and the file goes.
    """

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._place = playback.run.path
        self._last: tuple[Mark, TrackState] | None = None
        self._due = time.monotonic() + EVERY

    def keep(self) -> None:
        """After a frame: remember where the run is, and save it if that is due.

        Raises:
            OutputError: OUT02.
        """
        mark = self._playback.mark
        if mark is None:
            return
        self._last = mark, self._playback.session.state
        if time.monotonic() >= self._due:
            self._save()
            self._due = time.monotonic() + EVERY

    def _save(self) -> None:
        if self._last is not None:
            mark, state = self._last
            mark.save(self._place, state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with writing(self._place):
                (self._place / STATE).unlink(missing_ok=True)
        else:
            with suppress(OutputError):
                self._save()
