"""NanoTrack v2 (HonglinChu/SiamTrackers, Apache-2.0), another project's tracker of boxes, as a perception of the loop.

It stands for what a stranger would bring: two ONNX files, no masks, no words, no banks. The features of the first view
are compared with those of a window around the last box; of 256 answers the likeliest that moves and changes little is
taken, and the box's size follows it slowly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from toy_systems import SimpleConfig

from trackgpt.arbitration import Arbitration, ArbitrationRecord, ArbitrationSettings, Watch
from trackgpt.errors import UsageError
from trackgpt.online import Frame, Tracker, image_of
from trackgpt.reasoners.grounder import Grounder
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.settings import read
from trackgpt.systems.imat import GroundingReasoner
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Verdict, VisualPrompt

EXEMPLAR, INSTANCE, STRIDE, CELLS, CONTEXT, SMALLEST = 127, 255, 16, 16, 0.5, 10.0
WINDOW, PENALTY, RATE = 0.49, 0.15, 0.385
"""Of the authors' configuration of version 2; OpenCV's own tracker has 0.455, 0.055, 0.37."""
SEEN = 0.5
"""The least probability of a target that is seen. On DAVIS it is mostly above 0.9, after a cut mostly below 0.3."""
STEPS = ((np.arange(CELLS) - CELLS // 2) * STRIDE).astype(np.float32)
GRID = np.stack(np.meshgrid(STEPS, STEPS))  # x, y of each answer in pixels of the window, from its middle
HANN = np.outer(np.hanning(CELLS), np.hanning(CELLS))


@dataclass(frozen=True, eq=False)
class Followed:
    """One target: features of its first view, float32 (1, 48, 8, 8); middle x, y, width and height, float64 (4,)."""

    template: np.ndarray
    place: np.ndarray


@dataclass(frozen=True, eq=False)
class NanoTrackMemory:
    """All targets, active or archived, by identity."""

    targets: tuple[tuple[int, Followed], ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(one.template.nbytes + one.place.nbytes for _, one in self.targets)

    def heed(self, verdict: Verdict, cue: Cue | None, looked: object = None) -> "NanoTrackMemory":
        if verdict.targets is None:
            return self
        there = set() if verdict.kind == "start" else {target.id for target in verdict.targets}
        return NanoTrackMemory(tuple((number, one) for number, one in self.targets if number in there))


class NanoTrack:
    """The perception, from a folder of its two files. A target that is not seen is looked for where it was."""

    kinds = (NanoTrackMemory, Followed)
    early = False

    def __init__(self, weights: Path) -> None:
        self._backbone, self._head = (_session(weights / f"nanotrack_{part}_sim.onnx") for part in ("backbone", "head"))

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[Frame]:
        return images

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, NanoTrackMemory]:
        image, known = image_of(frame), dict(state.memory.targets)
        shown = dict(zip(cued, state.cue.visual, strict=True)) if cued else {}
        ids, chances = [target.id for target in state.active], []
        for number in ids:
            begins = number in shown
            known[number], chance = self._begun(image, shown[number]) if begins else self._moved(image, known[number])
            chances.append(chance)
        scores = np.array(chances, np.float32)
        places = np.array([known[number].place for number in ids]).reshape(-1, 4)
        boxes = np.concatenate([places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2], 1)
        boxes[scores < SEEN] = np.nan
        seen = Prediction(boxes.astype(np.float32), None, scores, scores >= SEEN, np.array(ids, np.int64))
        return seen, NanoTrackMemory(tuple(known.items()))

    def _begun(self, image: np.ndarray, shown: VisualPrompt) -> tuple[Followed, float]:
        if shown.box is None:
            raise UsageError(f"NanoTrack begins with a box, not with {shown.summary}; show a box")
        low, high = np.array(shown.box[:2]), np.array(shown.box[2:])
        place = np.concatenate([(low + high) / 2, high - low])
        return Followed(self._features(image, place[:2], _side(place[2:]), EXEMPLAR), place), 1.0

    def _moved(self, image: np.ndarray, one: Followed) -> tuple[Followed, float]:
        """Where a target is now, and how likely it is what was shown."""
        middle, size = one.place[:2], one.place[2:]
        scale = EXEMPLAR / _side(size)
        search = self._features(image, middle, INSTANCE / scale, INSTANCE)
        logits, sides = (each[0] for each in self._head.run(None, {"input1": one.template, "input2": search}))
        chance = 1 / (1 + np.exp(logits[0] - logits[1]))
        low, high = GRID - sides[:2], GRID + sides[2:]
        sizes = np.maximum(high - low, 1e-3)
        change = _larger(_side(sizes) / _side(size * scale)) * _larger(sizes[0] / sizes[1] * size[1] / size[0])
        steady = chance * np.exp(-(change - 1) * PENALTY)
        best = np.unravel_index(np.argmax(steady * (1 - WINDOW) + HANN * WINDOW), HANN.shape)
        if chance[best] < SEEN:
            return one, float(chance[best])
        bounds = np.array(image.shape[1::-1], np.float64)
        now = np.clip(middle + ((low + high) / 2)[:, *best] / scale, 0, bounds)
        grown = size + steady[best] * RATE * (sizes[:, *best] / scale - size)
        return replace(one, place=np.concatenate([now, np.clip(grown, SMALLEST, bounds)])), float(chance[best])

    def _features(self, image: np.ndarray, middle: np.ndarray, side: float, pixels: int) -> np.ndarray:
        """Of a square of the frame, as so many pixels of RGB from 0 to 255; outside it has the frame's mean colour."""
        scale = pixels / side
        shift = scale * (0.5 - middle) + pixels / 2 - 0.5
        move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        window = cv2.warpAffine(image, move, (pixels, pixels), flags=cv2.INTER_LINEAR, borderValue=cv2.mean(image))
        planes = np.ascontiguousarray(window.transpose(2, 0, 1)[None], np.float32)
        return np.asarray(self._backbone.run(None, {"input": planes})[0])


class NanoTrackByWords:
    """A grounder and NanoTrack as a system (`trackgpt.online.System`): IMAT's arbiter over another tracker."""

    def __init__(self, grounder: Grounder, perception: NanoTrack) -> None:
        self.config = SimpleConfig(f"{grounder.name}+nanotrack")
        self.grounder, self.perception = grounder, perception

    def check(self, text: str) -> str:
        return clean_instruction(text)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        how = read(ArbitrationSettings, None, [f"every={self.grounder.checks_every}", *settings])
        kinds = (*self.perception.kinds, ArbitrationRecord, Watch)
        arbiter = Arbitration(self.config.name, how)
        return Tracker(GroundingReasoner(self.grounder), self.perception, arbiter, NanoTrackMemory(), kinds)


def _session(path: Path) -> Any:
    """A network on one thread; the backbone's file fixes the size of a search window, and the first view is smaller."""
    model, options = onnx.load(path), onnxruntime.SessionOptions()
    if len(model.graph.input) == 1:
        for each in (*model.graph.input, *model.graph.output):
            for side in each.type.tensor_type.shape.dim[2:]:
                side.Clear()
        del model.graph.value_info[:]
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _side(size: np.ndarray) -> Any:
    """Of the square that holds a box of a width and height, (2, ...), and what surrounds it."""
    around = CONTEXT * (size[0] + size[1])
    return np.sqrt((size[0] + around) * (size[1] + around))


def _larger(ratio: np.ndarray) -> np.ndarray:
    return np.maximum(ratio, 1 / ratio)
