"""Pairs of SynthTrack frames with words for a target: true on the first frame, perhaps outdated on the second.

What was said of the target on the first frame is one of SynthTrack's noun phrases that mean it and nothing else: "the
red dog", "the dog in the top left". On the second frame they still hold if SynthTrack would say them again, and are
outdated if it would not. Pairs in between are left out: a target whose place is near the border of another one. Half of
all pairs are outdated. Most words are about places, in both halves, so that their kind does not tell the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trackgpt.errors import InputError
from trackgpt.synthtrack.clips import frame_size, seen_actors
from trackgpt.synthtrack.language import Frame, Seen, expressions, is_clear, might_be_in, region
from trackgpt.synthtrack.render import render
from trackgpt.synthtrack.scene import Scene
from trackgpt.synthtrack.wordings import FORMS, PLACES
from trackgpt.synthtrack.world import make_scene
from trackgpt.types import Box

LONGEST_SIDE = 320
"""Longest side of a frame, pixels."""
BEGINNING = 8
"""The first frame of a pair is one of so many at the beginning of its scene."""
TRIES, SECONDS = 64, 4
"""Scenes that are looked at for a pair before it is given up; second frames of each."""
PLACED = 0.8
"""Share of pairs whose words are about a place."""
WHERE = "where-category"
"""The form of such words."""


@dataclass(frozen=True)
class ScenePair:
    """Two frames of a scene, and what is said about a target.

    Attributes:
        scene: of both.
        first, second: numbers of the frames.
        target: its id.
        words: true of the target on the first frame.
        outdated: they are not on the second one.
        fitting: all noun phrases that mean it on the second frame; where the words are not outdated they are among
            them.
        renewed: the words themselves, or where they are outdated others that fit, of the same form if there are any.
        places: where in the frame the target is, on the first one and on the second.
        box: of its visible part on the first frame, xyxy pixels.
    """

    scene: Scene
    first: int
    second: int
    target: int
    words: str
    outdated: bool
    fitting: tuple[str, ...]
    renewed: str
    places: tuple[str, str]
    box: Box

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Both frames, uint8 RGB (height, width, 3)."""
        size = frame_size(self.scene.aspect, LONGEST_SIDE)
        return render(self.scene, self.first, *size)[0], render(self.scene, self.second, *size)[0]

    def thought(self) -> str:
        """Why the words are kept or not, in short; true of the frames."""
        before, now = (PLACES[place] for place in self.places)
        moved = f"It is still {now}." if before == now else f"It was {before} and is now {now}."
        return f"{moved} The words {'no longer' if self.outdated else 'still'} fit."


def scene_pair(seed: int, split: str, gap: int, after: int) -> ScenePair:
    """A pair, the same for the same arguments.

    Args:
        seed: of even numbers the words are outdated, of odd ones they are not.
        split: of SynthTrack.
        gap: most frames from the first frame to the second.
        after: frames that the scene goes on at least after the second one.

    Raises:
        InputError: no scene has such a pair.
    """
    rng = np.random.default_rng([seed, 911])
    for k in range(TRIES):
        scene = make_scene(seed * TRIES + k, split=split, frames=BEGINNING + gap + after)
        if (found := _pair_of(scene, rng, seed % 2 == 0, gap)) is not None:
            return found
    raise InputError(f"SynthTrack, split {split}, pair {seed}: none in {TRIES} scenes; widen the gap of {gap} frames")


def descriptions(scene: Scene, t: int, seen: tuple[Seen, ...]) -> dict[int, dict[str, str]]:
    """Of each target on a frame, by its id, the noun phrases that mean it and nothing else, each with its form."""
    said = expressions(seen, scene.kind, None, scene.split, np.random.default_rng(0), wording=0)
    found: dict[int, dict[str, str]] = {}
    for one in said:
        if FORMS[one.form] == "explicit" and len(one.targets) == 1:
            found.setdefault(one.targets[0], {})[one.text] = one.form
    return found


def _pair_of(scene: Scene, rng: np.random.Generator, outdated: bool, gap: int) -> ScenePair | None:
    first = int(rng.integers(BEGINNING))
    before = _seen(scene, first)
    said = descriptions(scene, first, before)
    placed = rng.random() < PLACED
    for second in (first + 1 + rng.integers(gap, size=SECONDS)).tolist() if said else ():
        now = _seen(scene, second)
        fit = descriptions(scene, second, now)
        options = [
            (target, words)
            for target in sorted(said)
            for words in said[target]
            if target in fit and (words not in fit[target]) == outdated
            if not outdated or _clearly(before, now, target, words)
        ]
        about = [(target, words) for target, words in options if (said[target][words] == WHERE) == placed]
        about = about or (options if outdated else [])  # other words than those about places are seldom outdated
        if not about:
            continue
        target, words = about[int(rng.integers(len(about)))]
        renewed = _renewed(rng, fit[target], said[target][words]) if outdated else words
        one, other = (next(each for each in seen if each.id == target) for seen in (before, now))
        height, width = frame_size(scene.aspect, LONGEST_SIDE)
        box = (one.box[0] * width, one.box[1] * height, one.box[2] * width, one.box[3] * height)
        places = region(one.box), region(other.box)
        return ScenePair(scene, first, second, target, words, outdated, tuple(fit[target]), renewed, places, box)
    return None


def _renewed(rng: np.random.Generator, fitting: dict[str, str], form: str) -> str:
    """Words that fit: about the present place where the old ones were about a place, and of their form if there are."""
    alike = [words for words, its in fitting.items() if its == form] or list(fitting)
    alike = [words for words in alike if form == WHERE and words.endswith(tuple(PLACES.values()))] or alike
    return alike[int(rng.integers(len(alike)))]


def _seen(scene: Scene, t: int) -> tuple[Seen, ...]:
    return seen_actors(scene, t, render(scene, t, *frame_size(scene.aspect, LONGEST_SIDE))[1])


def _clearly(before: tuple[Seen, ...], now: tuple[Seen, ...], target: int, words: str) -> bool:
    """Whether nobody would still say outdated words: the target is clear, and no longer near the place they name."""
    one = next(each for each in before if each.id == target)
    frame = Frame(now)
    index = next((k for k, each in enumerate(frame.seen) if each.id == target), None)
    if index is None or not is_clear(frame.seen[index]):
        return False
    place = region(one.box)
    return not words.endswith(PLACES[place]) or not might_be_in(frame, index, place)
