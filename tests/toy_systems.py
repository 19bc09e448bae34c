"""Three small systems in the shapes of IMAT, ReasoningTrack and QTrack, on frames of coloured squares.

They stand for what the loop must carry without knowing it: a tracker that looks first and then asks, a tracker of boxes
that is fed with text, and a policy that reads windows. Every square has one of four colours; "the red one" is what a
model without weights can understand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trackgpt.geometry.boxes import box_iou
from trackgpt.geometry.masks import box_of
from trackgpt.online import Frame, Tracker, image_of
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target, Verdict

COLOURS = {"red": (230, 40, 40), "green": (40, 230, 40), "blue": (40, 40, 230), "yellow": (230, 230, 40)}
SIDE, HEIGHT, WIDTH = 12, 60, 80
NO_BOX = np.full(4, np.nan, np.float32)


def scene(**squares: tuple[int, int]) -> np.ndarray:
    """A grey frame with squares whose left upper corners are given, `scene(red=(10, 20))`."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for name, (x, y) in squares.items():
        frame[y : y + SIDE, x : x + SIDE] = COLOURS[name]
    return frame


def mask_of(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The pixels of a colour, bool (height, width)."""
    return np.abs(frame.astype(int) - colour).sum(axis=2) < 60


def box_named(frame: np.ndarray, text: str) -> np.ndarray:
    """The box of the first colour that the words name, float32 (4,), NaN where it is not on the frame."""
    for word in text.replace(",", " ").split():
        if word in COLOURS:
            mask = mask_of(frame, np.array(COLOURS[word]))
            return np.float32(box_of(mask)) if mask.any() else NO_BOX
    return NO_BOX


def boxes_of(cue: Cue) -> np.ndarray:
    """The boxes of a cue, grounded or shown, float32 (targets, 4)."""
    return np.float32([shown.box for shown in cue.visual]) if cue.boxes is None else cue.boxes


def nothing() -> Prediction:
    """No target, and no masks."""
    return Prediction(np.zeros((0, 4), np.float32), None, np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, int))


class Toy:
    """What every toy shares: it is a system (`trackgpt.online.System`) and its own reasoner, perception and arbiter."""

    name = "toy"
    memory: object
    kinds: tuple[type, ...] = ()

    def __init__(self) -> None:
        self.config = SimpleConfig(self.name)
        self.asked: list[tuple[int, str]] = []

    def check(self, text: str) -> str:
        return clean_instruction(text)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        return Tracker(self, self, self, self.memory, self.kinds)

    def begin(self) -> object:
        return None

    def encode(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return images

    def doubts(self, state: TrackState, seen: Prediction, memory: object, prompt: Prompt | None) -> str:
        return ""

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> object:
        return state.record

    def threshold(self, state: TrackState) -> np.ndarray:
        return np.zeros(len(state.active), np.float32)


@dataclass
class SimpleConfig:
    """A configuration that run.json can hold."""

    name: str


# --- IMAT's shape: looks first, then asks; positive and negative banks of several identities ---


class ColourTracker:
    """A tracker of the kind that must not live in a state: learning changes it. It follows the colours it learned."""

    def __init__(self) -> None:
        self.learned: dict[int, list[np.ndarray]] = {}
        self.wrong: dict[int, list[np.ndarray]] = {}

    def learn(self, number: int, frame: np.ndarray, box: np.ndarray) -> None:
        x1, y1, x2, y2 = (int(v) for v in box)
        self.learned.setdefault(number, []).append(np.median(frame[y1:y2, x1:x2].reshape(-1, 3), axis=0))

    def follow(self, number: int, frame: np.ndarray) -> np.ndarray:
        wrong = self.wrong.get(number, [])
        for colour in reversed(self.learned.get(number, [])):
            if not any(np.abs(colour - other).sum() < 60 for other in wrong):
                mask = mask_of(frame, colour)
                if mask.any():
                    return mask
        return np.zeros(frame.shape[:2], bool)


@dataclass(frozen=True)
class Bank:
    """What is known of one identity: colours it had, and colours that were taken for it by mistake, float64 (n, 3)."""

    id: int
    positive: np.ndarray | None = None
    negative: np.ndarray | None = None


@dataclass(frozen=True)
class Banks:
    """The memory of all identities, active or not; `views` are the colours that were followed on the last frame."""

    banks: tuple[Bank, ...] = ()
    views: tuple[tuple[int, np.ndarray], ...] = ()
    verified: int = 0

    @property
    def nbytes(self) -> int:
        arrays = [a for bank in self.banks for a in (bank.positive, bank.negative) if a is not None]
        return sum(array.nbytes for array in arrays)

    def heed(self, verdict: Verdict, cue: Cue | None, looked: object = None) -> "Banks":
        if verdict.kind == "keep":
            return replace(self, verified=self.verified + int(cue is not None))
        if verdict.kind != "reinit":
            return self
        drifted = dict(self.views)
        banks = tuple(
            replace(b, negative=_with(b.negative, drifted[b.id])) if b.id in verdict.cued and b.id in drifted else b
            for b in self.banks
        )
        return replace(self, banks=banks)


def _with(rows: np.ndarray | None, row: np.ndarray) -> np.ndarray:
    return row[None] if rows is None else np.concatenate([rows, row[None]])


@dataclass(frozen=True)
class Asked:
    """The record of the toy of IMAT: how often the grounder was asked, and why the last time."""

    count: int = 0
    why: str = ""


class ToyImat(Toy):
    """Looks first. On a prompt about a live track, or while the target is lost, it asks the grounder and compares."""

    name = "toy-imat"
    memory = Banks()
    kinds = (Banks, Bank, Asked)

    def begin(self) -> Asked:
        return Asked()

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        self.asked.append((state.frame, "prompt" if prompt else "doubt"))
        text = prompt.text if prompt else state.active[0].prompt.text
        box = box_named(frame, text)
        return Cue(f"grounded {text}", boxes=box[None] if np.isfinite(box).all() else np.zeros((0, 4), np.float32))

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, Banks]:
        image, tool = image_of(frame), ColourTracker()
        for bank in state.memory.banks:
            tool.learned[bank.id] = [] if bank.positive is None else list(bank.positive)
            tool.wrong[bank.id] = [] if bank.negative is None else list(bank.negative)
        for number, box in zip(cued, boxes_of(state.cue) if cued else (), strict=True):
            tool.learn(number, image, box)
        masks = (
            np.stack([tool.follow(t.id, image) for t in state.active])
            if state.active
            else np.zeros((0, *image.shape[:2]), bool)
        )
        banks = tuple(Bank(n, _rows(tool.learned[n]), _rows(tool.wrong.get(n, []))) for n in sorted(tool.learned))
        views = tuple(
            (t.id, np.median(image[m].astype(float), axis=0))
            for t, m in zip(state.active, masks, strict=True)
            if m.any()
        )
        present = masks.any(axis=(1, 2))
        boxes = (
            np.stack([box_of(m) if m.any() else NO_BOX for m in masks]) if len(masks) else np.zeros((0, 4), np.float32)
        )
        scores = present.astype(np.float32)
        seen = Prediction(np.float32(boxes), masks, scores, present, np.arange(len(masks)), {"presence": scores})
        return seen, Banks(banks, views, state.memory.verified)

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        return "prompt" if prompt is not None and not prompt.visual and not state.active else ""

    def doubts(self, state: TrackState, seen: Prediction, memory: Banks, prompt: Prompt | None) -> str:
        if prompt is not None:
            return "" if prompt.visual or prompt.kind == "drop" else "prompt"
        gone = [t for t, here in zip(state.active, seen.present, strict=True) if not here]
        return "lost" if gone and (state.frame - gone[0].last_seen) % 3 == 0 else ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        if prompt is not None and prompt.kind == "drop":
            return Verdict(
                "drop", targets=tuple(replace(t, active=t.active and t.id not in prompt.ids) for t in state.targets)
            )
        if cue is None or not cue.targets:
            return Verdict()
        if prompt is None:
            agrees = seen is not None and box_iou(seen.boxes[:1], cue.boxes)[0, 0] >= 0.6
            return Verdict() if agrees else Verdict("reinit", cue, state.targets, (state.active[0].id,))
        if prompt.kind == "correct":
            return Verdict("reinit", cue, state.targets, (state.active[0].id,))
        resting = tuple(replace(t, active=t.active and prompt.kind == "add") for t in state.targets)
        if prompt.kind == "resume":
            known = next(t for t in state.targets if t.prompt.text == prompt.text)
            return Verdict("resume", cue, tuple(replace(t, active=t.id == known.id) for t in resting), (known.id,))
        new = Target(state.next_id, prompt)
        return Verdict(prompt.kind, cue, (*resting, new), (new.id,))

    def after(self, state: TrackState, seen: Prediction, verdict: Verdict) -> Asked:
        return Asked(state.record.count + bool(seen.reason), seen.reason or state.record.why)


def _rows(colours: list[np.ndarray]) -> np.ndarray | None:
    return np.stack(colours) if colours else None


# --- ReasoningTrack's shape: boxes alone, fed with text that is renewed when the target has changed ---


@dataclass(frozen=True)
class Templates:
    """The first look of the target, and the frame on which it was last described."""

    first: np.ndarray | None = None
    described: int = 0
    place: tuple[float, ...] = ()

    @property
    def nbytes(self) -> int:
        return 0 if self.first is None else self.first.nbytes

    def heed(self, verdict: Verdict, cue: Cue | None, looked: object = None) -> "Templates":
        return Templates() if verdict.kind == "start" else self


class ToyBoxTracker(Toy):
    """Follows the box of what the sentence in force describes; every ten frames it is described anew if it moved."""

    name = "toy-boxes"
    memory = Templates()
    kinds = (Templates,)

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        self.asked.append((state.frame, "prompt" if prompt else "describe"))
        boxes = boxes_of(Cue(visual=prompt.visual)) if prompt and prompt.visual else None
        text = prompt.text if prompt else state.text
        return Cue(
            f"{text}, as of frame {state.frame}", boxes=boxes, reasoning="it has moved" if prompt is None else ""
        )

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, Templates]:
        image, memory = image_of(frame), state.memory
        if not state.active:
            return nothing(), memory
        box = state.cue.boxes[0] if cued and state.cue.boxes is not None else box_named(image, state.cue.text)
        here = np.isfinite(box).all()
        if cued and here:
            x1, y1, x2, y2 = (int(v) for v in box)
            memory = Templates(image[y1:y2, x1:x2].copy(), state.frame, tuple(float(v) for v in box))
        scores = np.float32([0.9 if here else 0.1])
        return Prediction(np.float32(box)[None], None, scores, np.array([here]), np.array([1])), memory

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        if prompt is not None:
            return "prompt"
        if not state.active or (state.frame - state.memory.described) % 10 or state.frame == state.memory.described:
            return ""
        now, then = state.active[0].box, state.memory.place
        return "describe" if now and then and abs(now[0] - then[0]) > 4 else ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        if prompt is None:
            return Verdict("describe", replace(cue, boxes=None), state.targets, (state.active[0].id,))
        target = Target(state.next_id, prompt)
        return Verdict("start", cue, (target,), (target.id,))


# --- QTrack's shape: a policy that answers for several objects, once per window ---


@dataclass(frozen=True)
class Window:
    """The last frames, uint8 (n, height, width, 3) at half of the size, at most four."""

    frames: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.frames is None else self.frames.nbytes

    def heed(self, verdict: Verdict, cue: Cue | None, looked: object = None) -> "Window":
        return self


class ToyPolicy(Toy):
    """Reads a window every four frames and answers with the boxes of all objects asked for; in between it holds."""

    name = "toy-policy"
    memory = Window()
    kinds = (Window,)
    length = 4

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        self.asked.append((state.frame, "prompt" if prompt else "window"))
        self.read.append(0 if state.memory.frames is None else len(state.memory.frames))
        words = (prompt.text if prompt else state.text).split()
        order = [word for word in words if word in COLOURS]
        if len(self.asked) % 2 == 0:
            order.reverse()  # an answer lists its objects in any order
        boxes = [box_named(frame, word) for word in order]
        return Cue("", boxes=np.float32(boxes).reshape(-1, 4), reasoning="two steps")

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, Window]:
        small = image_of(frame)[::2, ::2][None]
        before = state.memory.frames
        frames = small if before is None else np.concatenate([before, small])[-self.length :]
        held = [NO_BOX if target.box is None else np.float32(target.box) for target in state.active]
        boxes = state.cue.boxes if cued else np.float32(held).reshape(-1, 4)
        present = np.isfinite(boxes).all(axis=1)
        scores = np.where(present, 1.0 if cued else 0.5, 0.0).astype(np.float32)
        return Prediction(boxes, None, scores, present, np.arange(len(boxes))), Window(frames)

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        if prompt is not None:
            return "prompt"
        return "window" if state.prompts and state.frame % self.length == 0 else ""

    def judge(self, state: TrackState, seen: Prediction | None, cue: Cue | None, prompt: Prompt | None) -> Verdict:
        return Verdict("start" if prompt else "window", cue)
