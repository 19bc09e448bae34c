"""QTrack: a policy answers a query with trajectories, window by window; a memory segmenter may follow in between.

Two ways. Alone, the answer is the prediction (the paper): boxes without masks, from `HeldBoxes`. With a memory
segmenter the answer starts and corrects it, as a grounder's does in IMAT, and gives identity and masks in between
(ours). A window's reference is a frame whose prediction is known, so that identities are kept over long videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from trackgpt.arbitration import Arbitration, ArbitrationRecord, ArbitrationSettings, Watch
from trackgpt.errors import UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.online import Tracker
from trackgpt.perception.banked_segmenter import BankedMemory, BankedSegmenter, Looking, MotionSettings
from trackgpt.perception.held_boxes import FrameKeeper, HeldBoxes, KeeperMemory, smaller
from trackgpt.perception.identity_banks import BankSettings
from trackgpt.perception.memory_segmenter import KeepingNetwork
from trackgpt.reasoners.policy import Policy, PolicyAnswer, Query
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.reasoners.vlm_policy import VlmPolicy
from trackgpt.settings import read
from trackgpt.systems.imat import MOST_LETTERS, NOT_SEEN
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prompt, Target
from trackgpt.windows import WindowArbiter, WindowArbitration, WindowRecord

SAME_PLACE = 0.3
"""IoU of a box that an answer gives to nobody with where a target was, from which on it is the target's."""
EVERY = 12
"""Frames from one question to the next where a segmenter follows in between; alone, every frame is asked about."""
NOT_READ = "The answer could not be read."
"""What a person is told of it; the track goes on."""


@dataclass
class QTrackSettings:
    """All rules of the system; a memory network's own settings follow `network.`.

    Attributes:
        every: frames from one question to the next; 0 for 1 where the policy is alone, and for `EVERY` otherwise.
        frames: that a question shows, the reference and the present one included; 0 for `every` + 1, 4 at most, or as
            many as the policy reads.
        paper: by the paper's protocol: two frames, the first of the track and the present one, no initial box, and
            identities by overlap, as the answer has none.
        longest: longer side of the frames that the policy is shown, pixels.
        most: targets that are followed at once; of an answer's further ones no more are begun.
        arbiter, banks, motion: of the segmenter, see `trackgpt.systems.imat.ImatSettings`.
    """

    every: int = field(default=0, metadata={"range": (0, 10**6)})
    frames: int = field(default=0, metadata={"range": (0, 64)})
    paper: bool = False
    longest: int = field(default=1280, metadata={"range": (32, 8192)})
    most: int = field(default=32, metadata={"range": (1, 120)})
    arbiter: ArbitrationSettings = field(default_factory=ArbitrationSettings)
    banks: BankSettings = field(default_factory=BankSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)


@dataclass
class QTrackConfig:
    """What run.json says of the model.

    Attributes:
        name: of the model, POLICY or POLICY+SEGMENTER.
        policy: its name.
        policy_licence: of its weights; empty where that is not known.
        network: the class of the memory network; empty where there is none.
    """

    name: str
    policy: str
    policy_licence: str
    network: str = ""


class QTrack:
    """A policy, alone or with a memory network, as a system (`trackgpt.online.System`).

    Args:
        policy: answers queries.
        network: follows what was answered, or None.
        name: of the model.
    """

    def __init__(self, policy: Policy, network: KeepingNetwork | None, name: str) -> None:
        network_name = "" if network is None else type(network).__name__
        self.config = QTrackConfig(name, policy.name, policy.licence, network_name)
        self.policy, self.network = policy, network

    def check(self, text: str) -> str:
        """An instruction without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return clean_instruction(text, MOST_LETTERS)

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike the world of its policy a frame, uint8 RGB (height, width, 3), is; None where that is not known.

        See `trackgpt.reasoners.vlm_policy.VlmPolicy.unlikeness`.
        """
        return self.policy.unlikeness(frame) if isinstance(self.policy, VlmPolicy) else None

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over the loaded weights; several may share them.

        Args:
            ablation: "full".
            settings: "key=value" of `QTrackSettings`, or of the memory network after "network.".

        Raises:
            UsageError: there is no such ablation or setting.
        """
        if ablation != "full":
            raise UsageError(f"ablation {ablation}: {self.config.name} has none; see its settings")
        own = [s for s in settings if not s.startswith("network.")]
        how = _completed(read(QTrackSettings, None, own), self.network, self.policy.most_frames)
        inner, arbiter, kinds = self._followed(how, [s for s in settings if s.startswith("network.")])
        apart = -(-how.every // (how.frames - 1))
        keeper = FrameKeeper(inner, how.frames - 1, apart, how.longest)
        reasoner = PolicyReasoner(self.policy, how.paper, how.longest)
        memory = KeeperMemory(None if self.network is None else BankedMemory(), fixed=how.paper)
        return Tracker(reasoner, keeper, arbiter, memory, (*keeper.kinds, *kinds))

    def _followed(self, how: QTrackSettings, settings: Sequence[str]) -> tuple[Any, Any, tuple[type, ...]]:
        """What looks at every frame, when it is asked, and the classes of the record."""
        network: Any = self.network
        if settings and not hasattr(network, "configured"):
            raise UsageError(f"setting {settings[0]}: {self.config.network or self.config.name} has none")
        if network is None:
            return HeldBoxes(), WindowArbiter(self.config.name, how.every, how.most), (WindowRecord,)
        if settings:
            network = network.configured([one.removeprefix("network.") for one in settings])
        arbitration = Arbitration(self.config.name, how.arbiter)
        segmenter = BankedSegmenter(network, how.banks, how.motion, Looking(), how.arbiter.tau_init)
        return segmenter, WindowArbitration(arbitration, how.most), (ArbitrationRecord, Watch)


def _completed(how: QTrackSettings, network: KeepingNetwork | None, most_frames: int) -> QTrackSettings:
    """The settings with those that follow from others.

    Args:
        how: as they are given.
        network: of the segmenter, if there is one.
        most_frames: that the policy may be shown; 0 for any number.

    Raises:
        UsageError: two of them contradict each other.
    """
    if how.paper and (how.frames not in (0, 2) or network is not None):
        raise UsageError("paper: shows two frames to a policy without a segmenter; leave frames and the segmenter out")
    if not how.arbiter.search or len(how.banks.area) != 2:
        raise UsageError("arbiter.search: wanted at least one number; banks.area: wanted two, [0.8,1.25]")
    every = how.every or how.arbiter.every or (1 if network is None else EVERY)
    frames = 2 if how.paper else how.frames or min(most_frames or 4, 4, every + 1)
    if frames < 2:
        raise UsageError(f"frames is {frames}; wanted 2 at least, the reference and the present one")
    if most_frames and frames > most_frames:
        raise UsageError(f"frames is {frames}; the policy reads {most_frames} at most")
    return replace(how, every=every, frames=frames, arbiter=replace(how.arbiter, every=every))


class PolicyReasoner:
    """A policy as the loop's slow model, over a `FrameKeeper`.

    Args:
        policy: see there.
        paper: by the paper's protocol.
        longest: longer side of the frames that it is shown, pixels.
    """

    def __init__(self, policy: Policy, paper: bool, longest: int) -> None:
        self.policy, self.paper, self.longest = policy, paper, longest

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """Boxes of what the words mean on this frame.

        For an instruction, or while nothing is tracked, those that were found. Where targets are followed a row for
        each, NaN where it is not seen, and behind these rows for further objects that their words mean
        (`Cue.words`). Without boxes where the answer could not be read.
        """
        memory: KeeperMemory = state.memory
        anew = self.paper and prompt is not None
        earlier = [] if anew else [each for each in memory.frames if each.frame < state.frame]
        images = [*(each.image for each in earlier), smaller(frame, self.longest)]
        scale = images[-1].shape[1] / frame.shape[1]
        told = prompt is not None and bool(prompt.text) and prompt.kind != "resume"
        if told or not state.active:
            words = prompt.text if told and prompt is not None else state.text
            return _found(self._asked(images, Query(words)), scale, words)
        places = dict(earlier[0].places) if earlier else {}
        answers = {}
        for words in dict.fromkeys(target.prompt.text for target in state.active if target.prompt.text):
            mine = [target.id for target in state.active if target.prompt.text == words]
            known = tuple((number, _scaled(places.get(number), scale)) for number in mine)
            answers[words] = self._asked(images, Query(words, known))
        return _again(state.active, answers, scale)

    def _asked(self, images: Sequence[np.ndarray], query: Query) -> PolicyAnswer:
        """The answer about images of one size, whose last is the present frame."""
        height, width = images[-1].shape[:2]
        same = [image for image in images if image.shape[:2] == (height, width)]
        shown = [same[0], same[-1]] if self.paper else same
        return self.policy.answer(shown, query if len(same) == len(images) else Query(query.words), self.paper)


def _scaled(box: Box | None, scale: float) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = (edge * scale for edge in box)
    return x1, y1, x2, y2


def _seen_now(answer: PolicyAnswer, scale: float) -> dict[int, tuple[np.ndarray, np.float32]]:
    """Box in pixels of the frame, float32 (4,), and score of each object that is seen on the last frame."""
    found, last = answer.trajectories, len(answer.trajectories.frames) - 1
    return {
        number: ((found.boxes[row, last] / scale).astype(np.float32), answer.scores[row, last])
        for row, number in enumerate(found.ids)
        if found.seen[row, last]
    }


def _found(answer: PolicyAnswer, scale: float, words: str) -> Cue:
    """What was found for words."""
    if answer.trajectories.form == "unreadable":
        return Cue(NOT_READ, reasoning=answer.thought, answer=answer.text)
    seen = list(_seen_now(answer, scale).values())
    return Cue(
        _counted(len(seen)) if seen else NOT_SEEN,
        boxes=np.array([box for box, _ in seen], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in seen], np.float32),
        reasoning=answer.thought,
        answer=answer.text,
        words=(words,) * len(seen),
    )


def _again(targets: Sequence[Target], answers: Mapping[str, PolicyAnswer], scale: float) -> Cue:
    """Rows of targets, and of further objects that their words mean."""
    boxes, scores = np.full((len(targets), 4), np.nan, np.float32), np.full(len(targets), np.nan, np.float32)
    further: list[tuple[np.ndarray, np.float32, str]] = []
    read = [words for words, answer in answers.items() if answer.trajectories.form != "unreadable"]
    for words in read:
        rows = [row for row, target in enumerate(targets) if target.prompt.text == words]
        assigned, others = _assigned([targets[row] for row in rows], _seen_now(answers[words], scale))
        for row, (box, score) in assigned.items():
            boxes[rows[row]], scores[rows[row]] = box, score
        further += [(box, score, words) for box, score in others]
    thoughts = "\n".join(answer.thought for answer in answers.values() if answer.thought)
    text = "\n".join(answer.text for answer in answers.values())
    if len(read) < len(answers):  # what was not read about says nothing of its targets
        return Cue(NOT_READ, reasoning=thoughts, answer=text)
    count = int(np.isfinite(boxes).all(axis=1).sum()) + len(further)
    return Cue(
        _counted(count) if count else NOT_SEEN,
        boxes=np.concatenate([boxes, np.array([box for box, _, _ in further], np.float32).reshape(-1, 4)]),
        scores=np.concatenate([scores, np.array([score for _, score, _ in further], np.float32)]),
        reasoning=thoughts,
        answer=text,
        words=(*(target.prompt.text for target in targets), *(words for _, _, words in further)),
    )


def _assigned(
    targets: Sequence[Target], seen: Mapping[int, tuple[np.ndarray, np.float32]]
) -> tuple[dict[int, tuple[np.ndarray, np.float32]], list[tuple[np.ndarray, np.float32]]]:
    """Which answered box is whose: by its number, or else by overlap with where a target was; and those of nobody.

    One box for the only target is its own, whatever its number is and wherever it lies.
    """
    if len(targets) == len(seen) == 1:
        return {0: next(iter(seen.values()))}, []
    numbers = [target.id for target in targets]
    assigned = {row: seen[number] for row, number in enumerate(numbers) if number in seen}
    others = [one for number, one in seen.items() if number not in numbers]
    free = [row for row in range(len(targets)) if row not in assigned]
    places = np.array([targets[row].box or (np.nan,) * 4 for row in free], np.float32).reshape(-1, 4)
    overlap = box_iou(places, np.array([box for box, _ in others], np.float32).reshape(-1, 4))
    matched = [(i, j) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] >= SAME_PLACE]
    assigned.update({free[i]: others[j] for i, j in matched})
    taken = {j for _, j in matched}
    return assigned, [one for j, one in enumerate(others) if j not in taken]


def _counted(count: int) -> str:
    return f"Found {count} object{'s' if count > 1 else ''}."
