"""A model without weights, and clips it understands: what the command line and sessions do is tested on these.

It follows bright colours: target 1 is what is red, target 2 what is green. A frame with a bluish corner is one it is
unsure about. `hire` makes `trackgpt.load` and the command line give this model, in this process.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import trackgpt.hub
from trackgpt.arbiter import PurportArbiter, PurportRecord, words_to_read
from trackgpt.config import RethinkConfig, TrackGPTConfig
from trackgpt.geometry.masks import box_of
from trackgpt.memory import QueryMemory
from trackgpt.online import Tracker
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt
from trackgpt.video.writer import VideoWriter

HEIGHT, WIDTH = 72, 96
SIZE = 16
SURE, UNSURE = 0.9, 0.2


class ScriptedModel:
    """Finds as many targets as the instruction has words "square", and answers what it was told.

    Args:
        pause: seconds a frame takes.
        before: called with the number of every frame it is asked to look at, counted from 0; may raise.
    """

    def __init__(self, pause: float = 0.0, before: Callable[[int], None] = lambda number: None) -> None:
        self.config = TrackGPTConfig(name="scripted")
        self.pause = pause
        self.before = before
        self.looked = 0
        self.heard: list[str] = []

    def check(self, text: str) -> str:
        return clean_instruction(text)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        parts = self, self, PurportArbiter(RethinkConfig()), QueryMemory()
        return Tracker(*parts, kinds=(QueryMemory, PurportRecord))

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        text = words_to_read(state, prompt)
        self.heard.append(text)
        queries = np.arange(text.count("square"), dtype=np.float32)[:, None]
        return Cue(f"You said: {text}", queries, queries)

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return images

    def perceive(self, frame: np.ndarray, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, QueryMemory]:
        self.before(self.looked)
        self.looked += 1
        time.sleep(self.pause)
        channels = [] if state.cue.referring is None else state.cue.referring[:, 0].astype(int)
        masks = np.zeros((len(channels), *frame.shape[:2]), bool)
        for mask, channel in zip(masks, channels):
            mask[:] = frame[:, :, channel] > 150
        boxes = np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4)
        score = UNSURE if int(frame[:8, :8, 2].mean()) > 120 else SURE
        scores = np.full(len(masks), score, np.float32)
        ids = np.arange(1, len(masks) + 1)
        return Prediction(boxes, masks, scores, masks.any(axis=(1, 2)), ids, {"purport": scores}), state.memory


def hire(monkeypatch, model: ScriptedModel | None = None) -> ScriptedModel:
    """Let every name of a model give this one; its `loads` counts how often it was asked for."""
    model = model or ScriptedModel()
    model.loads = 0

    def load(name: object, device: str = "auto", **execution: object) -> ScriptedModel:
        model.loads += 1
        return model

    monkeypatch.setattr(trackgpt.hub, "load_model", load)
    return model


def picture(index: int, unsure: bool = False, red: bool = True) -> np.ndarray:
    """Frame `index`: on grey, a red square that moves right by 4 pixels a frame, and a green one that stands still."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    left = 8 + 4 * index % 64
    if red:
        image[24 : 24 + SIZE, left : left + SIZE] = (230, 40, 40)
    image[48 : 48 + SIZE, 72 : 72 + SIZE] = (40, 230, 40)
    if unsure:
        image[:8, :8] = (60, 60, 250)
    return image


def pictures(count: int = 6, unsure: tuple[int, ...] = (), hidden: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
    """The first frames of the clip; on `unsure` ones the score is low, on `hidden` ones there is no red square."""
    for index in range(count):
        yield picture(index, index in unsure, index not in hidden)


def film(path: Path, count: int = 6, fps: float = 12.0, **odd: tuple[int, ...]) -> Path:
    """The clip as H.264."""
    with VideoWriter(path, fps, (HEIGHT, WIDTH), crf=4) as video:
        for index, image in enumerate(pictures(count, **odd)):
            video.write(image, index / fps)
    return path


def folder(path: Path, count: int = 6, **odd: tuple[int, ...]) -> Path:
    """The clip as PNGs, 00000.png and on."""
    path.mkdir()
    for index, image in enumerate(pictures(count, **odd)):
        Image.fromarray(image).save(path / f"{index:05d}.png")
    return path
