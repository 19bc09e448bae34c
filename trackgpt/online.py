"""The one online loop: a slow reasoner, a fast perception, a memory, and an arbiter between them.

Each call sees one frame, in order, and never looks ahead. Everything a track knows is in `TrackState`, a frozen record
of a few kilobytes that can be kept, saved, restored and continued with bit-equal results.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from zipfile import BadZipFile

import numpy as np

from trackgpt.arbiter import PurportArbiter, Record
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.memory import QueryMemory
from trackgpt.types import Cue, EncodedFrame, Prediction, Prompt

Frame: TypeAlias = np.ndarray | EncodedFrame
"""uint8 RGB (height, width, 3), or what `Perception.encode` made of it, which gives the same result."""


class Reasoner(Protocol):
    """The slow model: reads one frame and what a person said."""

    def reason(self, frame: np.ndarray, prompt: Prompt, before: Cue | None = None) -> Cue:
        """The cue for a frame, uint8 RGB (height, width, 3); a cue without targets means nothing was found.

        `before` is the cue in force when it is asked again: words repeat, so it may save time, and changes nothing.
        """
        ...

    def reason_many(self, frame: np.ndarray, prompts: Sequence[Prompt]) -> list[Cue]:
        """The cues of several prompts about one frame, each as if it were alone."""
        ...


class Perception(Protocol):
    """The fast model: finds on a frame what a cue names. It holds weights, not state."""

    def encode(self, images: Sequence[np.ndarray]) -> list[EncodedFrame]:
        """What does not depend on the track, of several frames at once: uint8 RGB (height, width, 3), of any sizes."""
        ...

    def perceive(self, frame: Frame, cue: Cue, memory: QueryMemory) -> tuple[Prediction, QueryMemory]:
        """Prediction for the cue's k targets (ids 1..k), and what to remember for the next frame."""
        ...

    def launch(self, frame: Frame, cue: Cue, memory: QueryMemory | Launched) -> Launched:
        """Begin to perceive; the `land` of what is given ends it. `memory` may be of a frame that has not landed."""
        ...


@dataclass(frozen=True)
class TrackState:
    """A track between two frames.

    Attributes:
        prompt: the instruction in force.
        cue: the queries in force; their texts are what the person was told.
        memory: what the perception handed on.
        record: what the arbiter keeps.
        ids: int64 (k,), the identities of the cue's targets.
        boxes: float32 (k, 4), where each was last seen, NaN before; used to keep identities over a rethink.
        next_id: the next identity to give out.
    """

    prompt: Prompt
    cue: Cue
    memory: QueryMemory
    record: Record
    ids: np.ndarray
    boxes: np.ndarray
    next_id: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held: constant over a video for a given number of targets."""
        arrays = (self.cue.referring, self.cue.purport, self.ids, self.boxes, self.record.first, self.record.last)
        return self.memory.nbytes + sum(a.nbytes for a in arrays if a is not None)

    def save(self, path: str | Path) -> None:
        """Write to one file of exactly this name, in numpy's .npz format, without pickles."""
        arrays, plain = _split(dataclasses.asdict(self))
        with open(path, "wb") as file:
            np.savez(file, __plain__=np.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> TrackState:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not a saved track.
        """
        try:
            with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "__plain__"}
                values = _join(arrays, json.loads(str(file["__plain__"])))
            values["prompt"] = Prompt(**values["prompt"])
            values["cue"] = Cue(**values["cue"])
            values["memory"] = QueryMemory(**values["memory"])
            values["record"] = Record(**values["record"])
            return cls(**values)
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise InputError(f"{path}: not a saved track ({error}); wanted a file of TrackState.save") from error


class Launched(Protocol):
    """A frame whose targets a device has been told to decode, and may still be decoding."""

    @property
    def online(self) -> Any:
        """What the next frame can be launched with, before this one has landed."""
        ...

    def land(self) -> tuple[Prediction, QueryMemory]:
        """Wait for the device; what `Perception.perceive` gives."""
        ...


class ReasoningTracker:
    """A system is a composition of these four parts; see `trackgpt.systems`. Implements `trackgpt.types.Tracker`."""

    def __init__(self, reasoner: Reasoner, perception: Perception, arbiter: PurportArbiter) -> None:
        self.reasoner = reasoner
        self.perception = perception
        self.arbiter = arbiter
        self._state: TrackState | None = None

    @property
    def state(self) -> TrackState:
        """The track so far; assign to it to restore or rewind.

        Raises:
            UsageError: no track has begun.
        """
        if self._state is None:
            raise UsageError("no track has begun; call initialize(frame, prompt) first")
        return self._state

    @state.setter
    def state(self, state: TrackState) -> None:
        self._state = state

    def initialize(self, frame: Frame, prompt: Prompt, cue: Cue | None = None) -> Prediction:
        """Begin a new track on `frame`; the brain reads it, unless it has answered this prompt about it already."""
        state, prediction = self.begin(frame, prompt, next_id=1, cue=cue)
        self._state = state
        return prediction

    def track(self, frame: Frame, prompt: Prompt | None = None) -> Prediction:
        """Carry on with the next frame; a prompt starts over from it, with fresh identities."""
        if prompt is not None:
            self._state, prediction = self.begin(frame, prompt, next_id=self.state.next_id)
        else:
            self._state, prediction = self.step(self.state, frame)
        return prediction

    def begin(
        self, frame: Frame, prompt: Prompt, next_id: int, cue: Cue | None = None
    ) -> tuple[TrackState, Prediction]:
        """Algorithm 1, t = 0: reason, then perceive."""
        cue = self.reasoner.reason(image_of(frame), prompt) if cue is None else cue
        ids = np.arange(next_id, next_id + cue.targets, dtype=np.int64)
        boxes = np.full((cue.targets, 4), np.nan, np.float32)
        state = TrackState(prompt, cue, QueryMemory(), Record(), ids, boxes, next_id + cue.targets)
        return self._perceive(state, frame, consulted=True, reason="prompt")

    def step(self, state: TrackState, frame: Frame) -> tuple[TrackState, Prediction]:
        """Algorithm 1, t > 0: where the previous score was low, reason on this frame first; then perceive.

        A pure function: the same state and frame give the same result, which is what makes rewinding exact.
        """
        why = self.arbiter.due(state.record)
        if not why:
            return self._perceive(state, frame, consulted=False, reason="")
        cue = self.reasoner.reason(image_of(frame), state.prompt, state.cue)
        asked = replace(state.record, consulted=state.record.frame, rethinks=state.record.rethinks + 1)
        return self.heed(replace(state, record=asked), frame, cue, why)

    def heed(self, state: TrackState, frame: Frame, cue: Cue, why: str) -> tuple[TrackState, Prediction]:
        """Replace the queries by those of a cue, then perceive."""
        if cue.targets == 0:
            # Nothing to replace the queries with: the old ones stay in force and the arbiter's schedule asks again.
            after, prediction = self._perceive(state, frame, consulted=False, reason=why)
            return after, replace(prediction, cue=cue)
        return self._perceive(self._with_cue(state, cue), frame, consulted=True, reason=why)

    def _with_cue(self, state: TrackState, cue: Cue) -> TrackState:
        memory = state.memory
        if self.arbiter.config.reset_online or cue.targets != len(state.ids):
            memory = QueryMemory()
        return replace(state, cue=cue, memory=memory)

    def _perceive(self, state: TrackState, frame: Frame, consulted: bool, reason: str) -> tuple[TrackState, Prediction]:
        return self._concluded(state, *self.perception.perceive(frame, state.cue, state.memory), consulted, reason)

    def _concluded(
        self, state: TrackState, prediction: Prediction, memory: QueryMemory, consulted: bool, reason: str
    ) -> tuple[TrackState, Prediction]:
        """What a frame makes of the track, once it is perceived."""
        if consulted and reason != "prompt":
            state = _keep_identities(state, prediction)
        found = state.cue.targets > 0
        record = self.arbiter.after(state.record, prediction.scores, consulted, found)
        seen = np.where(prediction.present[:, None], prediction.boxes, state.boxes).astype(np.float32)
        after = replace(state, memory=memory, record=record, boxes=seen)
        cue = state.cue if consulted else None
        return after, replace(prediction, ids=state.ids, cue=cue, reason=reason)


def image_of(frame: Frame) -> np.ndarray:
    """The frame itself, uint8 RGB (height, width, 3)."""
    return frame.image if isinstance(frame, EncodedFrame) else frame


def _keep_identities(state: TrackState, prediction: Prediction) -> TrackState:
    """Hand identity, last place and the reference of tau from the old targets to those of a new cue.

    A new target that matches no old one gets a new identity, and the present score as its reference.
    """
    if len(prediction.ids) == len(state.ids) == 1:
        return state
    old = _origins(state, prediction)
    known = old >= 0
    ids = state.next_id + np.cumsum(~known) - 1
    boxes = np.full((len(old), 4), np.nan, np.float32)
    first = prediction.scores.copy()
    ids[known], boxes[known] = state.ids[old[known]], state.boxes[old[known]]
    if state.record.first is not None:
        first[known] = state.record.first[old[known]]
    record = replace(state.record, first=first)
    return replace(state, ids=ids, boxes=boxes, record=record, next_id=state.next_id + int((~known).sum()))


def _origins(state: TrackState, prediction: Prediction) -> np.ndarray:
    """Which old target each new one is, by best overlap of boxes: int64 (k,), -1 for none.

    A target that is hidden on this frame overlaps nothing, and being hidden is what most rethinks are about: it takes
    an old target that is left over.
    """
    from scipy.optimize import linear_sum_assignment

    old = np.full(len(prediction.ids), -1)
    overlap = box_iou(prediction.boxes, state.boxes)
    for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[i, j] > 0:
            old[i] = j
    hidden = np.flatnonzero((old < 0) & ~prediction.present)
    left = np.setdiff1d(np.arange(len(state.ids)), old)
    for i, j in zip(hidden, left, strict=False):
        old[i] = j
    return old


def _split(values: dict[str, Any], prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            inner, rest = _split(value, f"{prefix}{key}.")
            arrays |= inner
            plain[key] = rest
        elif isinstance(value, np.ndarray):
            arrays[prefix + key] = value
        else:
            plain[key] = value
    return arrays, plain


def _join(arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> dict[str, Any]:
    for name, value in arrays.items():
        *path, last = name.split(".")
        here = plain
        for key in path:
            here = here[key]
        here[last] = value
    return plain
