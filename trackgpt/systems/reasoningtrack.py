"""ReasoningTrack: a box tracker reads a description, and a describer keeps it true.

The describer is any `trackgpt.reasoners.describer.Describer`, the tracker a
`trackgpt.perception.box_tracker.BoxTracker`, and `trackgpt.arbiter.ChangeArbiter` says when a target is described anew:
when its box has changed since the last time. The description in force is the text of the cue; the instruction's own
words stay in the target's prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trackgpt.arbiter import ChangeArbiter, ChangeRecord, ChangeSettings, Unasked, words_to_read
from trackgpt.errors import UsageError
from trackgpt.online import Tracker
from trackgpt.perception.box_tracker import BoxSettings, BoxTracker, FollowedBox
from trackgpt.perception.known_world import MOST_UNLIKE
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.reasoners.describer import Describer, DescriberAnswer, ParsedDescription, drawn_or_not
from trackgpt.reasoners.grounder import Grounder
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.settings import read
from trackgpt.synthtrack.language import region
from trackgpt.systems.imat import MOST_LETTERS, GroundingReasoner, TrackerGrounder
from trackgpt.systems.trackgpt import BrainReasoner, TrackGPT
from trackgpt.track import TrackState
from trackgpt.types import Box, Cue, Prompt, VisualPrompt

ABLATIONS = {
    "full": "the whole system",
    "no-describing": "the words of the instruction are read on every frame",
    "no-words": "the tracker reads no words, and nobody describes",
}
"""What the describer is worth, and what words are worth."""
SCENE = "describe the scene."
"""What SynthTrack's training asks a brain about a whole frame."""
WORDLESS = "the object in the box"
"""The description so far of a target that was shown without a word."""


@dataclass
class ReasoningTrackSettings:
    """All rules of the system.

    Attributes:
        arbiter: when to describe anew.
        tracker: how the network is used.
        draw: draw the target's box on the first of the describer's two frames.
    """

    arbiter: ChangeSettings = field(default_factory=ChangeSettings)
    tracker: BoxSettings = field(default_factory=BoxSettings)
    draw: bool = True


@dataclass
class ReasoningTrackConfig:
    """What run.json says of the model.

    Attributes:
        name: of the model, TRACKER[+DESCRIBER[+GROUNDER]].
        network: the name in the configuration of the tracker.
        describer: its name.
        describer_licence: of its weights; empty where that is not known.
        grounder: the name of what finds words that are said without a box; empty where there is none.
    """

    name: str
    network: str
    describer: str
    describer_licence: str
    grounder: str = ""


class ReasoningTrack:
    """A box tracker, a describer, and perhaps a grounder as a system (`trackgpt.online.System`).

    Args:
        perception: the box tracker.
        describer: renews the description.
        grounder: finds words that are said without a box; None where a box must be shown.
        name: of the model.
    """

    def __init__(self, perception: BoxTracker, describer: Describer, grounder: Grounder | None, name: str) -> None:
        grounding = "" if grounder is None else grounder.name
        network = perception.network.config.name
        self.config = ReasoningTrackConfig(name, network, describer.name, describer.licence, grounding)
        self.perception, self.describer, self.grounder = perception, describer, grounder

    def check(self, text: str) -> str:
        """An instruction without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return clean_instruction(text, MOST_LETTERS)

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike the world of its grounder a frame, uint8 RGB (height, width, 3), is; None where that is not known.

        See `TrackGPT.unlikeness`.
        """
        return self.grounder.unlikeness(frame) if isinstance(self.grounder, TrackerGrounder) else None

    def places(self, frame: np.ndarray, words: str) -> np.ndarray:
        """Where its grounder finds words on a frame, uint8 RGB (height, width, 3): float32 (n, 4), xyxy pixels.

        Empty where it has no grounder, or one that does not know such footage.

        Raises:
            InputError: the grounder cannot read the frame.
        """
        unlike = self.unlikeness(frame)
        if self.grounder is None or (unlike is not None and unlike > MOST_UNLIKE):
            return np.zeros((0, 4), np.float32)
        found = self.grounder.ground(frame, words).found
        return np.array([one.box for one in found], np.float32).reshape(-1, 4)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over the loaded weights; several may share them.

        Args:
            ablation: one of `ABLATIONS`.
            settings: "key=value" of `ReasoningTrackSettings`.

        Raises:
            UsageError: there is no such ablation or setting.
        """
        if ablation not in ABLATIONS:
            raise UsageError(f"ablation {ablation}: not one of {', '.join(ABLATIONS)}")
        how = read(ReasoningTrackSettings, None, list(settings))
        kept = how.tracker.kept_side if self.describer.sees and ablation == "full" else 0
        swapped = [f"kept_side={kept}", *(["words=false"] if ablation == "no-words" else [])]
        perception = BoxTracker(self.perception.network, how.tracker).configured(swapped)
        describer = drawn_or_not(self.describer, how.draw)
        reasoner = DescribingReasoner(describer, self.grounder, how.arbiter.fallback)
        arbiter: Any = ChangeArbiter(self.config.name, how.arbiter, self.grounder is not None)
        if ablation != "full":
            arbiter = Unasked(arbiter)
        return Tracker(reasoner, perception, arbiter, SegmenterMemory(), (*perception.kinds, ChangeRecord))


class DescribingReasoner:
    """A describer, and a grounder where there is one, as the loop's slow model.

    Args:
        describer, grounder: see `ReasoningTrack`.
        fallback: see `ChangeSettings`.
    """

    def __init__(self, describer: Describer, grounder: Grounder | None, fallback: str) -> None:
        self.describer, self.fallback = describer, fallback
        self._grounding = None if grounder is None else GroundingReasoner(grounder)

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """Boxes of words that were said without one; otherwise the words in force from this frame on.

        A former target that is to be followed again is looked for as if its words were said anew. The cue of a
        description has the box of the last frame beside it, which says whom it is about.
        """
        if prompt is not None or not state.active:
            assert self._grounding is not None
            heard = state.prompt if prompt is None else prompt
            if heard.kind == "resume":
                prompt = replace(heard, kind="switch", text=words_to_read(state, heard))
            return self._grounding.reason(frame, state, prompt)
        (target,) = state.active
        so_far = target.prompt.text if self.fallback == "initial" else state.cue.text
        said = self._described(frame, dict(state.memory.targets)[target.id], so_far or WORDLESS)
        words = said.parsed.words if said.parsed.update else so_far
        shown = (VisualPrompt(target.box),)
        return Cue(words, visual=shown, reasoning=said.parsed.thought, answer=said.answer)

    def _described(self, frame: np.ndarray, memory: FollowedBox, words: str) -> DescriberAnswer:
        """What the describer says of the present frame; one that sees nothing is shown nothing of the past."""
        kept = memory.kept
        before, box = (frame, memory.box) if kept is None else (kept.image, kept.box)
        return self.describer.describe(before, box, frame, words, memory.box)


class BrainDescriber:
    """The describer of a machine without a VLM: TrackGPT's brain names what is where the target is.

    The brain is asked about the scene, as its training asks it, and answers with things and the ninths of the frame in
    which they are: "red dog top left; car middle". It says no where nothing, or more than one thing that the words do
    not tell apart, is in the target's ninth. It looks at the present frame alone.

    Args:
        model: whose brain is asked; it knows the world that it was trained on.
        name: of it.
    """

    licence, sees = "", False

    def __init__(self, model: TrackGPT, name: str) -> None:
        self.name, self._brain = name, BrainReasoner(model.brain)

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """See `Describer.describe`; the new words are "the red dog top left"."""
        answer = self._brain.reason(now, TrackState(None, None), Prompt(SCENE)).text
        height, width = now.shape[:2]
        place = region((last[0] / width, last[1] / height, last[2] / width, last[3] / height))
        found = named_at(answer, place, words)
        if not found:
            return DescriberAnswer(ParsedDescription(readable=True), answer)
        new = f"the {found} {place}"
        changed = new != words
        return DescriberAnswer(ParsedDescription(changed, new if changed else "", readable=True), answer)


def named_at(scene: str, place: str, words: str) -> str:
    """The thing that a description of a scene has at a place; "" for none, or for several that words do not tell apart.

    Args:
        scene: things with their places, between semicolons.
        place: of `trackgpt.synthtrack.wordings.REGIONS`.
        words: that mean the target, which decide between several.
    """
    parts = [part.strip() for part in scene.rstrip(".").split(";")]
    here = [part.removesuffix(place).strip() for part in parts if part.endswith(f" {place}")]
    if len(here) > 1:
        here = [one for one in here if set(one.split()) & set(words.lower().split())]
    return here[0] if len(here) == 1 else ""
