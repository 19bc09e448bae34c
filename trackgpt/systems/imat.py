"""IMAT: a grounder finds what words mean, a memory segmenter follows it, an arbiter decides whom to believe.

The paper's interactive perception module is any `trackgpt.reasoners.grounder.Grounder`, its memory-augmented tracker a
`trackgpt.perception.banked_segmenter.BankedSegmenter`, its cognitive arbitration `trackgpt.arbitration.Arbitration`.
Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import cv2
import numpy as np

from trackgpt.arbiter import Unasked
from trackgpt.arbitration import Arbitration, ArbitrationRecord, ArbitrationSettings, FirstWords, Wanted, Watch
from trackgpt.errors import UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.online import System, Tracker
from trackgpt.perception.banked_segmenter import BankedMemory, BankedSegmenter, EarlierFrame, Looking, MotionSettings
from trackgpt.perception.identity_banks import BankSettings
from trackgpt.perception.memory_segmenter import KeepingNetwork, MemorySegmenter, SegmenterMemory
from trackgpt.reasoners.expression import lasting_if_understood
from trackgpt.reasoners.grounder import SAME_PLACE, Candidate, Grounder, Grounding, Nearby, as_likely
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.settings import read
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prompt, Target

if TYPE_CHECKING:
    from trackgpt.reasoners.kind_reader import KindReader


def _always(arbiter: Arbitration) -> Any:
    return arbiter


@dataclass(frozen=True)
class ImatAblation:
    """One part of the system swapped.

    Attributes:
        about: what it is, for people.
        settings: of `ImatSettings` that make it, by part.
        arbiter: the arbiter in the place of the system's own.
        banks: whether there are any; without them the memory network follows alone.
    """

    about: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arbiter: Callable[[Arbitration], Any] = _always
    banks: bool = True


_NO_BANKS: dict[str, dict[str, Any]] = {"banks": {"size": 1, "negatives": 0}, "motion": {"weight": 0.0}}
_ANCHORS: dict[str, dict[str, Any]] = {
    "banks": {"anchors": True, "negatives": 0, "area": [0.8, 1.2]},
    "motion": {"weight": 0.0},
}

ABLATIONS = {
    "full": ImatAblation("the whole system"),
    "no-language": ImatAblation("the grounder reads the first words alone (Table 3, w/o IPM)", arbiter=FirstWords),
    "no-memory": ImatAblation("no banks: the memory network alone (Table 3, w/o memory)", _NO_BANKS),
    "no-positive": ImatAblation("no view is kept but those that were shown", {"banks": {"size": 1}}),
    "no-negative": ImatAblation("nothing is remembered as what a target is not", {"banks": {"negatives": 0}}),
    "no-reranking": ImatAblation(
        "negative views reject no hypothesis", {"banks": {"weight": 0.0}, "motion": {"weight": 0.0}}
    ),
    "no-arbitration": ImatAblation(
        "asked where something is said, and never again (Table 3, w/o CAM)", arbiter=Unasked
    ),
    "naive-arbitration": ImatAblation(
        "any doubt asks, and overlap alone decides (Table 3)", {"arbiter": {"naive": True}}
    ),
    "plain-memory": ImatAblation(
        "the box of the first words, followed by the memory network alone (Table 2, SAM 2)",
        arbiter=FirstWords,
        banks=False,
    ),
    "distractor-aware": ImatAblation(
        "the same, with the memory of DAM4SAM: frames are kept that show a rival (Table 2)", _ANCHORS, FirstWords
    ),
}
"""The paper's Table 3, two systems of its Table 2, and our parts."""


NOT_SEEN = "Not found on this frame."
"""What a check says that finds nothing; the track goes on."""
ENOUGH = 3
"""Earlier frames without which it is too early to judge motion."""
MOST_LETTERS = 4000
"""Of an instruction; what reads words reads no more of them."""


@dataclass
class ImatSettings:
    """All rules of the system; the network's own settings follow `network.`, e.g. "network.zoom=2.4".

    Attributes:
        banks, motion, arbiter: see there.
        looking: earlier frames for a grounder that judges motion.
    """

    banks: BankSettings = field(default_factory=BankSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    arbiter: ArbitrationSettings = field(default_factory=ArbitrationSettings)
    looking: Looking = field(default_factory=lambda: Looking(5, 3))


@dataclass
class ImatConfig:
    """What run.json says of the model.

    Attributes:
        name: of the model, GROUNDER+SEGMENTER.
        grounder: its name.
        grounder_licence: of its weights; empty where that is not known.
        network: the class of the memory network.
    """

    name: str
    grounder: str
    grounder_licence: str
    network: str


class Imat:
    """A grounder and a memory network as a system (`trackgpt.online.System`).

    Args:
        grounder: finds what words mean.
        network: follows it.
        name: of the model.
    """

    def __init__(self, grounder: Grounder, network: KeepingNetwork, name: str) -> None:
        self.config = ImatConfig(name, grounder.name, grounder.licence, type(network).__name__)
        self.grounder, self.network = grounder, network

    def check(self, text: str) -> str:
        """An instruction without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return clean_instruction(text, MOST_LETTERS)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over the loaded weights; several may share them.

        Args:
            ablation: one of `ABLATIONS`.
            settings: "key=value" of `ImatSettings`, or of the memory network after "network.".

        Raises:
            UsageError: there is no such ablation or setting.
        """
        if ablation not in ABLATIONS:
            raise UsageError(f"ablation {ablation}: not one of {', '.join(ABLATIONS)}")
        swap = ABLATIONS[ablation]
        own = [one for one in settings if not one.startswith("network.")]
        swapped = [f"{part}.{key}={value}" for part, of in swap.settings.items() for key, value in of.items()]
        how = read(ImatSettings, None, [f"arbiter.every={self.grounder.checks_every}", *swapped, *own])
        if not how.arbiter.search or len(how.banks.area) != 2:
            raise UsageError("arbiter.search: wanted at least one number; banks.area: wanted two, [0.8,1.25]")
        network = self._network([one.removeprefix("network.") for one in settings if one.startswith("network.")])
        again = (how.looking.count - 1) * how.looking.apart if self.grounder.reads_motion else 0
        arbiter = swap.arbiter(Arbitration(self.config.name, how.arbiter, again))
        reasoner, kinds = GroundingReasoner(self.grounder), (ArbitrationRecord, Watch, Wanted)
        if not swap.banks:
            alone = MemorySegmenter(network)
            return Tracker(reasoner, alone, arbiter, SegmenterMemory(), (*alone.kinds, *kinds))
        looking = how.looking if self.grounder.reads_motion else Looking()
        perception = BankedSegmenter(network, how.banks, how.motion, looking, how.arbiter.tau_init)
        return Tracker(reasoner, perception, arbiter, BankedMemory(), (*perception.kinds, *kinds))

    @property
    def reader(self) -> KindReader | None:
        """What tells kinds of instructions apart where no rule does: a grounder that is a VLM with a chat template."""
        found: KindReader | None = getattr(self.grounder, "reader", None)
        return found

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike the world of its grounder a frame, uint8 RGB (height, width, 3), is; None where that is not known.

        See `TrackGPT.unlikeness`.
        """
        return self.grounder.unlikeness(frame) if isinstance(self.grounder, TrackerGrounder) else None

    def _network(self, settings: Sequence[str]) -> Any:
        """The memory network with other settings."""
        network: Any = self.network
        if not settings:
            return network
        if not hasattr(network, "configured"):
            raise UsageError(f"setting network.{settings[0]}: {self.config.network} has none")
        return network.configured(settings)


@runtime_checkable
class LookingBack(Protocol):
    """A perception's memory that holds earlier frames, for a grounder that judges motion; others hold none.

    Attributes:
        earlier: oldest first.
    """

    earlier: tuple[EarlierFrame, ...]


class GroundingReasoner:
    """A grounder as the loop's slow model, beside any perception that takes boxes."""

    def __init__(self, grounder: Grounder) -> None:
        self.grounder = grounder

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """Boxes of what the words mean.

        For an instruction, or while nothing is tracked, those that were found, surest first. For words in force a row
        for every active target, NaN where it was not found; of these words only what lasts is read: who was on the left
        when that was said may be anywhere by now. Where a person chose among candidates, nothing is looked for.
        """
        if prompt is not None and prompt.chosen:
            return _as_chosen(prompt)
        nearby = self._nearby(frame, state)
        if prompt is not None and prompt.text and prompt.kind != "resume":
            early = self.grounder.reads_motion and len(nearby) < ENOUGH
            return _cue(self.grounder.ground(frame, prompt.text, nearby), early)
        if not state.active:
            return _cue(self.grounder.ground(frame, state.text, nearby), False)
        record: ArbitrationRecord = state.record
        if (wanted := record.wanted_on(state.frame)) is not None:
            return _cue(self.grounder.ground(frame, wanted.prompt.text, nearby), False)
        return self._again(frame, state.active, nearby, whole=record.look_again == state.frame)

    def _again(self, frame: np.ndarray, targets: Sequence[Target], nearby: Sequence[Nearby], whole: bool) -> Cue:
        """The boxes of targets by the words that named them, whole or what lasts of them, each read once.

        Others fit about as well only where all the words were read, and no person has chosen among such.
        """
        boxes, scores = np.full((len(targets), 4), np.nan, np.float32), np.full(len(targets), np.nan, np.float32)
        answers, others = list[Grounding](), list[Box]()
        for words in dict.fromkeys(target.prompt.text for target in targets if target.prompt.text):
            rows = [row for row, target in enumerate(targets) if target.prompt.text == words]
            if not (still := words if whole else self.grounder.later(words)):
                continue
            grounding = self.grounder.ground(frame, still, nearby)
            answers.append(grounding)
            given = _assigned([targets[row] for row in rows], grounding)
            for row, one in given.items():
                boxes[rows[row]], scores[rows[row]] = one.box, as_number(one.score)
            if still == words and not any(targets[row].prompt.chosen for row in rows):
                fit = (*grounding.found, *grounding.rivals[: grounding.alike])
                others += [one.box for one in fit if given and one not in given.values()]
        text = " ".join(answer.text if answer.found else NOT_SEEN for answer in answers)
        answer = "\n".join(each.answer for each in answers if each.answer)
        rivals = np.array(others, np.float32).reshape(-1, 4) if others else None
        return Cue(text, boxes=boxes, scores=scores, rivals=rivals, alike=len(others), answer=answer)

    def _nearby(self, frame: np.ndarray, state: TrackState) -> list[Nearby]:
        """The frames that the memory holds, if it holds any, in the size of this one."""
        memory = state.memory
        if not isinstance(memory, LookingBack):
            return []
        height, width = frame.shape[:2]
        return [
            Nearby(np.asarray(_resized(each, width, height)), each.frame - state.frame)
            for each in memory.earlier
            if each.frame != state.frame
        ]


class TrackerGrounder:
    """A system that reads words, such as TrackGPT, as a grounder: the boxes of what it sees on a single frame.

    Args:
        system: see there.
        name: of it.
    """

    licence = ""
    reads_motion, checks_every = False, 0

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        self._system, self._tracker = system, system.tracker()

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike the world of the system a frame is; None where the system does not say."""
        judge = getattr(self._system, "unlikeness", None)
        found: float | None = None if judge is None else judge(frame)
        return found

    def later(self, words: str) -> str:
        """See `Grounder.later`."""
        return lasting_if_understood(words)

    def ground(self, image: np.ndarray, words: str, nearby: Sequence[Nearby] = ()) -> Grounding:
        """See `Grounder.ground`; scores are the system's own."""
        from trackgpt.reasoners.brain import name_of

        _, seen = self._tracker.step(self._tracker.begin(), image, Prompt(words))
        answer = "" if seen.cue is None else seen.cue.text
        label = name_of(answer) if len(seen.ids) == 1 else ""
        found = [
            Candidate((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score), label)
            for box, score, present in zip(seen.boxes, seen.scores, seen.present, strict=True)
            if present
        ]
        return Grounding(tuple(found), answer=answer)


def _resized(earlier: EarlierFrame, width: int, height: int) -> np.ndarray:
    if earlier.image.shape[:2] == (height, width):
        return earlier.image
    return np.asarray(cv2.resize(earlier.image, (width, height), interpolation=cv2.INTER_LINEAR))


def _cue(grounding: Grounding, early: bool) -> Cue:
    """What was found as a cue; words that could not be judged may be about motion where it is too early to tell."""
    boxes = np.array([one.box for one in grounding.found], np.float32).reshape(-1, 4)
    return Cue(
        grounding.text,
        boxes=boxes,
        scores=np.array([as_number(one.score) for one in grounding.found], np.float32),
        rivals=np.array([one.box for one in grounding.rivals], np.float32).reshape(-1, 4),
        alike=grounding.alike,
        answer=grounding.answer,
        provisional=early and bool(grounding.unjudged),
    )


def _as_chosen(prompt: Prompt) -> Cue:
    """The candidates that a person chose, as if they alone had been found."""
    boxes = np.array(prompt.offered, np.float32).reshape(-1, 4)
    rows = [number - 1 for number in prompt.chosen]
    numbers = ", ".join(map(str, prompt.chosen))
    text = f"Chosen: {numbers} of {len(boxes)}."
    return Cue(text, boxes=boxes[rows], rivals=np.delete(boxes, rows, axis=0))


def as_number(score: float | None) -> float:
    """A score as a number: NaN for none."""
    return float("nan") if score is None else score


def _assigned(targets: Sequence[Target], grounding: Grounding) -> Mapping[int, Candidate]:
    """Which box is whose, for targets of the same words.

    A target is one of those that the words fit about as well, if it is where one of them is; what is left over goes to
    the surest. So a grounder that cannot tell two players apart does not make a track jump between them.
    """
    from scipy.optimize import linear_sum_assignment

    likely = [*grounding.found, *(one for one in grounding.rivals if as_likely(one, grounding.found))]
    if not targets or not grounding.found:
        return {}
    places = np.array([target.box or (np.nan,) * 4 for target in targets], np.float32)
    overlap = box_iou(places, np.array([one.box for one in likely], np.float32))
    pairs = zip(*linear_sum_assignment(-overlap), strict=True)
    matched = {int(i): int(j) for i, j in pairs if overlap[i, j] >= SAME_PLACE}
    free = [j for j in range(len(grounding.found)) if j not in matched.values()]
    for i in range(len(targets)):
        if i not in matched and free:
            matched[i] = free.pop(0)
    return {i: likely[j] for i, j in matched.items()}
