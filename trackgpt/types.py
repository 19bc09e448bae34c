"""The nouns every part shares. Small, frozen, plain numpy: importing them costs nothing.

Boxes are ``xyxy`` float pixels of the original frame, with edges (a one-pixel mask at the origin has the box
0, 0, 1, 1). Frames are uint8 RGB, shape (height, width, 3). Masks are bool. Frame indices start at 0.
An object that was looked for and not seen has ``present == False``, an empty mask and a box of NaN, never a zero box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

PromptKind = Literal[
    "start", "correct", "switch", "resume", "add", "drop", "refine", "state", "conditional", "absence", "question"
]
PROMPT_KINDS: tuple[str, ...] = get_args(PromptKind)
SAME_TARGETS = ("correct", "refine", "state")
"""Kinds about targets that are followed, and that stay who they are."""
OUTSIDE_TRACK = ("conditional", "question")
"""Kinds that a session settles: no tracker is told of them."""
Box: TypeAlias = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the frame."""


@dataclass(frozen=True)
class VisualPrompt:
    """Where one target is on a frame, as a person or a detector shows it: a box, points, a mask, or several of these.

    Attributes:
        box: or None.
        points: x, y in pixels and 1 (on the target) or 0 (not on it).
        mask: bool (height, width), or None; not compared by `==`.
    """

    box: Box | None = None
    points: tuple[tuple[float, float, int], ...] = ()
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def finds(self) -> bool:
        """It says where the target is, and not only where it is not."""
        return self.box is not None or self.mask is not None or self.clicked

    @property
    def clicked(self) -> bool:
        """Some point lies on the target."""
        return any(side for _, _, side in self.points)

    @property
    def summary(self) -> str:
        """What is shown, for people: "box, 3 points"."""
        count = len(self.points)
        points = [f"{count} point{'s' if count > 1 else ''}"] if count else []
        shown = [name for name in ("box", "mask") if getattr(self, name) is not None]
        return ", ".join(shown + points)


@dataclass(frozen=True)
class Prompt:
    """What a person says or points at, and how it relates to what is being tracked.

    Attributes:
        text: the words to be read; empty where what is shown says it all.
        frame: index of the source frame that it is about.
        kind: "start" and "switch" replace all targets by new ones, which of former ones "start" forgets for good;
            "correct" gives targets another place; "add" follows further ones, corrects those that are followed already
            and takes up former ones again; "resume" returns to former ones alone; "drop" ends some; "refine" goes on
            with a part of a target, or with the whole of it; "state" says how a target is now, which moves no track
            that is seen; "conditional" follows the first of `text` and `instead` that is found, and another one of them
            where that one is lost; "absence" (it leaves, or is hidden) has nothing learned of a target until it is
            found again, which is looked for; "question" changes nothing.
        ids: the targets it is about, one for each of `visual` where both are given. Without ids, new targets get new
            numbers, a correction is about the only target, and "drop" ends all.
        visual: where the targets are on this frame, one each.
        said: the words as a person said them, where `text` was written out from them (`reasoners.instructions`).
        excluded: followed targets that the words do not mean, as "the other one" has it.
        instead: of a "conditional", and of what it came to, the words that count where `text` is not found, in order.
        offered: boxes of things that the words fit about equally well, where a person chose among them.
        chosen: which of them are meant, by their places from 1.
    """

    text: str = ""
    frame: int = 0
    kind: PromptKind = "start"
    ids: tuple[int, ...] = ()
    visual: tuple[VisualPrompt, ...] = ()
    said: str = ""
    excluded: tuple[int, ...] = ()
    instead: tuple[str, ...] = ()
    offered: tuple[Box, ...] = ()
    chosen: tuple[int, ...] = ()

    @property
    def heard(self) -> str:
        """The words as they were said."""
        return self.said or self.text

    @property
    def summary(self) -> str:
        """What it says in a line for people: the words as said, or "add 2: box, 3 points; 4: mask"."""
        if self.chosen:
            return f"{self.text}: {', '.join(map(str, self.chosen))}"
        if self.heard:
            return self.heard
        named, shown = [str(number) for number in self.ids], [each.summary for each in self.visual]
        each = [": ".join(pair) for pair in zip(named, shown, strict=True)] if named and shown else named or shown
        return f"{self.kind} {'; '.join(each)}".strip()


@dataclass(frozen=True)
class Cue:
    """What the slow model, or a person who points, tells the fast one; unused fields stay empty.

    Attributes:
        text: the answer shown to the user, without the tokens that carry queries.
        referring: referring queries Q_R, one per target, float32 (targets, channels).
        purport: purport queries Q_p, one per target, float32 (targets, channels).
        boxes: grounded boxes, float32 (targets, 4), NaN for a target that is not on the frame.
        scores: of the boxes, float32 (targets,), where the reasoner has any.
        rivals: further boxes that the words would fit, float32 (n, 4), for a person to choose from.
        alike: how many of the rivals, the first ones, fit the words about as well as `boxes` do.
        visual: what a person has shown, or an arbiter made of boxes, one per target.
        reasoning: a chain of thought, for people.
        answer: the answer as the model wrote it; given back when it is asked again, it saves time.
        words: of each box, the words that mean it, where several instructions may be in force.
        provisional: the words are about motion, of which there is nothing to see yet.
        confidence: the probability that the reasoner gave to the words that name each target, float32 (targets,), where
            it tells.
    """

    text: str = ""
    referring: np.ndarray | None = None
    purport: np.ndarray | None = None
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    rivals: np.ndarray | None = None
    alike: int = 0
    visual: tuple[VisualPrompt, ...] = ()
    reasoning: str = ""
    answer: str = ""
    words: tuple[str, ...] = ()
    provisional: bool = False
    confidence: np.ndarray | None = None

    @property
    def targets(self) -> int:
        """How many targets it names; 0 means that nothing was found."""
        if self.referring is not None:
            return len(self.referring)
        return len(self.visual) if self.boxes is None else int((~np.isnan(self.boxes).any(1)).sum())


@dataclass(frozen=True)
class Target:
    """An identity of a track.

    Attributes:
        id: from 1, never given twice in one track.
        prompt: the one that named it.
        box: where it was last seen, or None before.
        last_seen: the frame of the track (`TrackState.frame`) on which it was last seen, -1 before.
        active: it is looked for on every frame; a former target that can be resumed is not.
        score: the system's score of it on the last frame on which it was active, NaN before.
    """

    id: int
    prompt: Prompt
    box: Box | None = None
    last_seen: int = -1
    active: bool = True
    score: float = math.nan


@dataclass(frozen=True)
class Verdict:
    """Whom the arbiter believes on a frame, and what becomes of cue, targets and memory.

    Attributes:
        kind: what was decided, for the memory and the log: "keep", or the kind of a prompt, or the system's own word.
        cue: the cue in force from here on, with which perception looks at the frame; None leaves the one in force.
        targets: all identities from here on, active ones in the order of perception's rows; None leaves them, and
            where there is a new cue matches its targets with the active ones by where they are seen.
        cued: ids of the targets that the rows of `cue` name on this very frame; empty where it is not about the frame.
        rows: positions among the old active targets whose memory is kept, in the order of the new ones; only read where
            there is a new cue, and empty where nothing of the memory is kept.
        confirmed: ids of targets that were seen on this frame where a person or the slow model sees them, too.
        rejected: ids of targets whose last mask turned out to be of something else.
        frame: of the track, that the verdict is about; None for the one just seen.
        hidden: ids of targets that a person says are hidden, or leave, or are gone.
    """

    kind: str = "keep"
    cue: Cue | None = None
    targets: tuple[Target, ...] | None = None
    cued: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    confirmed: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    frame: int | None = None
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """One frame's result for K targets.

    Attributes:
        boxes: float32 (K, 4) xyxy pixels; NaN where absent.
        masks: bool (K, height, width), or None from a tracker of boxes.
        scores: float32 (K,) in [0, 1]: how much the system trusts what it shows of each target.
        present: bool (K,).
        ids: int64 (K,), stable over a track, starting at 1.
        own_scores: the system's own scores by name ("purport", "confidence", "iou", "presence", "margin"), float32
            (K,) each.
        cue: the reasoner's message, on frames where it was asked, else None.
        reason: why it was asked ("prompt", "purport", "searching", ...), else "".
        verdict: the kind of the arbiter's verdict, where there was something to decide, else "".
    """

    boxes: np.ndarray
    masks: np.ndarray | None
    scores: np.ndarray
    present: np.ndarray
    ids: np.ndarray
    own_scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    cue: Cue | None = None
    reason: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class EncodedFrame:
    """A frame and what the encoder says about it, which depends on nothing else and may therefore be made early.

    Attributes:
        image: uint8 RGB (height, width, 3), which the slow model reads.
        features: what the perception that made it decodes from.
    """

    image: np.ndarray
    features: Any = field(repr=False)


@dataclass(frozen=True)
class Clip:
    """A short video with its truth, fully in memory: what SynthTrack makes and small tests use.

    Attributes:
        frames: uint8 (T, height, width, 3) RGB.
        ids: uint8 (T, height, width), 0 = background, otherwise the id of the visible object.
        fps: frames per second.
        name: a short identifier.
    """

    frames: np.ndarray
    ids: np.ndarray
    fps: float = 12.0
    name: str = ""
    meta: dict[str, object] = field(default_factory=dict)
