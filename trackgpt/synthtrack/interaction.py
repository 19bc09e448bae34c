"""SynthTrack-Interact: what a person says while a SynthTrack clip plays, and which actor is meant from which frame on.

A script begins on frame 0 and goes on with instructions of the kinds of InteractTrack. Like `language`, everything is
a pure function of the actors that are visible on each frame and a `numpy.random.Generator`, and a sentence is only
said when a careful person would know what it means on the very frame on which it is said. The truth is exact: ids per
frame, also where a target is hidden, and where a condition has the target change without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from trackgpt.errors import InputError
from trackgpt.synthtrack.catalog import BY_NAME
from trackgpt.synthtrack.clips import seen_actors
from trackgpt.synthtrack.language import Frame, Seen, expressions, region
from trackgpt.synthtrack.scene import Scene, SceneInstruction
from trackgpt.synthtrack.wordings import PLACES
from trackgpt.synthtrack.world import leader

Item = TypeVar("Item")

KINDS = (
    *("start", "correct", "switch", "refine", "resume", "state"),
    *("absence", "conditional", "add", "drop", "question"),
)
"""Kinds of instruction; "add" and "drop" are one of InteractTrack's ten."""
LEFT_OUT: Mapping[str, str] = {"refine": "actors are drawn whole, so that no part of one has a box"}
"""Kinds that no script has, and why."""

# The last wording of each is kept for tests. {name} means one actor on the frame on which it is said.
SAID: dict[str, tuple[str, ...]] = {
    "correct": (
        "no, {name}",
        "not that one, {name}",
        "wrong one, i mean {name}",
        "that is not it, follow {name}",
        "you have the wrong one, it is {name}",
    ),
    "switch": (
        "switch to {name}",
        "now follow {name} instead",
        "leave that one and track {name}",
        "from now on {name}",
        "change the target to {name}",
    ),
    "resume": (
        "back to {name}",
        "go back to {name}",
        "follow {name} again",
        "return to {name} from before",
        "take up {name} again",
    ),
    "state": (
        "it is now {place}",
        "{name} is {place} now",
        "you should see it {place}",
        "at the moment it is {place}",
        "by now {name} has come to be {place}",
    ),
    "hidden": (
        "it is partly hidden now",
        "only a part of it can be seen",
        "{name} is partly out of sight, stay with it",
        "you see no more than some of it at the moment",
        "not all of it is visible right now",
    ),
    "leaving": (
        "it is about to disappear",
        "it will be gone in a moment",
        "{name} is about to move out of sight",
        "you will lose sight of it soon",
        "it is on its way out, be ready",
    ),
    "lost": (
        "it is gone, keep looking",
        "lost it, keep searching",
        "you cannot see it now, wait for it",
        "it is out of sight, look out for it",
        "nothing to see of it, go on searching",
    ),
    "conditional": (
        "track {name}; if it is not visible, track {other}",
        "follow {name}, and {other} whenever it is out of sight",
        "stay with {name}; while it cannot be seen, take {other}",
        "{name} as long as it is there, otherwise {other}",
        "keep to {name}, but follow {other} while it is gone",
    ),
    "add": (
        "also {name}",
        "follow {name} as well",
        "track {name} too",
        "and {name} beside it",
        "in addition keep an eye on {name}",
    ),
    "drop": (
        "stop tracking {name}",
        "forget {name}",
        "leave {name} out",
        "{name} does not matter any more",
        "no longer follow {name}",
    ),
    "question": (
        "why that one?",
        "which one are you following?",
        "how sure are you?",
        "what do you see?",
        "is there another one that fits?",
    ),
}
"""Sentences by what they are about; "state" and "absence" have two tables each."""

LASTING = ("category", "colour-category", "size-category", "size-colour-category")
"""Forms of instruction that stay true while actors move, the plainest first."""
ELLIPTIC = "colour-only"
"""A form that goes on from what was said before: while a dog is followed, "the red one" is a dog."""
_RARE = ("absence", "resume", "drop")
NOTICE = 3  # frames before a target is gone, on which a person may say so
HIDDEN = 0.6  # visible fraction below which an actor is called partly hidden, by others or by the frame's edge
_STREAM = 11  # of the scene's random numbers


@dataclass(frozen=True)
class Utterance:
    """What is said on a frame.

    Attributes:
        frame: from 0.
        kind: one of `KINDS`.
        text: the words.
        targets: ids of the actors that are followed from here on, the main one first.
        instead: the one to follow while the main one cannot be seen; 0 for none.
        old: the main target until here, where these words replace it; else 0.
    """

    frame: int
    kind: str
    text: str
    targets: tuple[int, ...]
    instead: int = 0
    old: int = 0


@dataclass(frozen=True)
class Script:
    """What a person says over a clip of T frames, with its truth.

    Attributes:
        said: by frame, at most one per frame; the first is about frame 0.
        followed: for each frame the ids of the actors to follow, the main one first; they may be hidden there.
        corrections: for each frame what a person says who sees another thing tracked than the main target: in few words
            that carry on what was said before ("no, the red one"), and in full ("the red dog"); "" where the target is
            out of sight.
    """

    said: tuple[Utterance, ...]
    followed: tuple[tuple[int, ...], ...]
    corrections: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Script:
        """What `as_json` gave.

        Raises:
            InputError: it is no script; the message says what was wanted.
        """
        try:
            said = [
                Utterance(**{**each, "frame": int(each["frame"]), "targets": tuple(map(int, each["targets"]))})
                for each in values["said"]
            ]
            followed = tuple(tuple(map(int, each)) for each in values["followed"])
            corrections = tuple((str(short), str(full)) for short, full in values["corrections"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"holds no script ({error!r:.80}); wanted said, followed and corrections") from error
        frames = [each.frame for each in said]
        if not frames or frames[0] != 0 or sorted(set(frames)) != frames or frames[-1] >= len(followed):
            raise InputError(f"things are said on frames {frames!s:.60}; wanted 0 first and one per frame, in order")
        if not all(followed) or len(corrections) != len(followed):
            raise InputError(f"{len(corrections)} corrections for {len(followed)} frames; wanted one and a target each")
        return cls(tuple(said), followed, corrections)


def script_of(scene: Scene, ids: np.ndarray) -> Script | None:
    """The script of a rendered scene, the same for the same scene and size.

    Args:
        scene: the scene.
        ids: its id maps, uint8 (T, height, width).

    Returns:
        The script; None where nothing on frame 0 can be named alone.
    """
    seen = [seen_actors(scene, t, each) for t, each in enumerate(ids)]
    leaders = [leader(scene, t) for t in range(len(ids))]
    return write_script(seen, scene.kind, leaders, scene.split, np.random.default_rng([scene.seed, _STREAM]))


def write_script(
    seen: Sequence[Sequence[Seen]],
    scene_kind: str,
    leaders: Sequence[int | None],
    split: str,
    rng: np.random.Generator,
    gap: tuple[int, int] | None = None,
) -> Script | None:
    """A script of as many kinds as the clip gives rise to.

    Args:
        seen: the visible actors of each frame.
        scene_kind, leaders, split: as for `language.expressions`; `leaders` has one for each frame.
        rng: draws frames, kinds, targets and wordings.
        gap: fewest and most frames from one instruction to the next, where no target goes out of sight before; by
            default about a tenth of the clip.

    Returns:
        The script; None where nothing on frame 0 can be named alone.
    """
    author = _Author(seen, scene_kind, leaders, split, rng, gap or (2 + len(seen) // 12, 2 + len(seen) // 7))
    return author.script() if author.begin() else None


def scene_flags(scene: Scene, script: Script) -> tuple[str, ...]:
    """The scenarios of InteractTrack's scene.txt that a script's video belongs to, by their names there.

    A race is sports, an animal as first target wildlife, a vehicle, food or another object daily life, a camera at rest
    surveillance, a plane shape "other". UAV is never true: this world is not seen from above.
    """
    first = next(actor for actor in scene.actors if actor.id == script.said[0].targets[0])
    group = BY_NAME[first.category].group
    flags = [{"animal": "wildlife", "shape": "other"}.get(group, "daily")]
    flags += ["sports"] if scene.kind == "race" else []
    flags += ["surveillance"] if not np.ptp(scene.camera, axis=0).any() else []
    return tuple(flags)


class _Author:
    """Writes a script from the first frame to the last."""

    def __init__(
        self,
        seen: Sequence[Sequence[Seen]],
        scene_kind: str,
        leaders: Sequence[int | None],
        split: str,
        rng: np.random.Generator,
        gap: tuple[int, int],
    ) -> None:
        self.gap = gap
        self.seen, self.scene_kind, self.leaders, self.split, self.rng = seen, scene_kind, leaders, split, rng
        self.visible = [{one.id: one for one in frame} for frame in seen]
        self.said: list[Utterance] = []
        self.former: list[int] = []
        self._phrases: dict[int, list[SceneInstruction]] = {}

    def begin(self) -> bool:
        """Name a target on frame 0, one that goes out of sight if there is any; False where none can be named."""
        found = expressions(self.seen[0], self.scene_kind, self.leaders[0], self.split, self.rng)
        alone = [each for each in found if len(each.targets) == 1 and each.kind in ("explicit", "implicit")]
        alone = [each for each in alone if any(each.targets[0] not in here for here in self.visible)] or alone
        kind = self._pick(sorted({each.kind for each in alone}))
        if kind is None:
            return False
        form = self._pick(sorted({each.form for each in alone if each.kind == kind}))
        first = self._pick([each for each in alone if (each.kind, each.form) == (kind, form)])
        assert first is not None
        self.said.append(Utterance(0, "start", first.text, first.targets))
        return True

    def script(self) -> Script:
        """Everything after the first instruction, and the truth."""
        t, frames = 0, len(self.seen)
        while True:
            following = t + int(self.rng.integers(self.gap[0], self.gap[1] + 1))
            gone = self._next_gone(t, min(following, frames))
            t = following if gone is None else max(t + 1, gone - int(self.rng.integers(NOTICE)))
            if t >= frames:
                break
            said = self._absence(t) if gone is not None else self._anything(t)
            if said is not None:
                self._say(said)
        followed = tuple(self._followed(t) for t in range(frames))
        corrections = tuple(self._correction(t, each[0]) for t, each in enumerate(followed))
        return Script(tuple(self.said), followed, corrections)

    # --- the truth ---

    def _say(self, said: Utterance) -> None:
        self.former = [each for each in dict.fromkeys((*self.former, *self.now.targets)) if each not in said.targets]
        self.said.append(said)

    @property
    def now(self) -> Utterance:
        """The instruction that is in force."""
        return self.said[-1]

    def _followed(self, t: int) -> tuple[int, ...]:
        """Whom to follow on a frame by what was said up to it."""
        said = [each for each in self.said if each.frame <= t][-1]
        hidden = said.targets[0] not in self.visible[t]
        return (said.instead,) if said.instead and hidden else said.targets

    def _main(self, t: int) -> int:
        return self._followed(t)[0]

    def _next_gone(self, t: int, until: int) -> int | None:
        """The first frame from t + 2 on, before `until`, on which the target that is in sight before it is not."""
        for later in range(t + 2, until):
            main = self._main(later - 1)
            if main in self.visible[later - 1] and main not in self.visible[later]:
                return later
        return None

    # --- what can be said on a frame, each None where it cannot ---

    def _anything(self, t: int) -> Utterance | None:
        """An instruction of a kind that was not said yet, rare ones first; else of any kind but "start"."""
        possible = [said for write in _WRITERS if (said := write(self, t)) is not None]
        used = {each.kind for each in self.said}
        new = [each for each in possible if each.kind not in used]
        return self._pick([each for each in new if each.kind in _RARE] or new or possible)

    def _correct(self, t: int) -> Utterance | None:
        main = self._main(t)
        name = self._pick([self._name(t, main), self._carried(t, main)])
        return self._same("correct", t, self._words("correct", name=name)) if name else None

    def _switch(self, t: int) -> Utterance | None:
        return self._to("switch", t, self._others(t))

    def _resume(self, t: int) -> Utterance | None:
        others = self._others(t)
        return self._to("resume", t, [each for each in self.former if each in others])

    def _to(self, kind: str, t: int, choice: Sequence[int]) -> Utterance | None:
        target = self._pick(choice)
        if target is None:
            return None
        name = self._pick(self._names(t, target))
        return Utterance(t, kind, self._words(kind, name=name or ""), (target,), old=self._main(t))

    def _state(self, t: int) -> Utterance | None:
        one = self.visible[t].get(self._main(t))
        name = self._name(t, self._main(t))
        if one is None or not name:
            return None
        table = "hidden" if one.visible_fraction < HIDDEN else "state"
        return self._same("state", t, self._words(table, name=name, place=PLACES[region(one.box)]))

    def _absence(self, t: int) -> Utterance | None:
        """That the target will be gone soon, or is."""
        main = self._main(t)
        if main not in self.visible[t]:
            return self._same("absence", t, self._words("lost"))
        name, soon = self._name(t, main), range(t + 1, min(t + 1 + NOTICE, len(self.seen)))
        if not name or all(main in self.visible[later] for later in soon):
            return None
        return self._same("absence", t, self._words("leaving", name=name))

    def _on_condition(self, t: int) -> Utterance | None:
        main, other = self._main(t), self._pick(self._others(t))
        name = self._name(t, main)
        if other is None or not name:
            return None
        text = self._words("conditional", name=name, other=self._name(t, other))
        return Utterance(t, "conditional", text, (main,), instead=other)

    def _add(self, t: int) -> Utterance | None:
        new = self._pick(self._others(t))
        if new is None or self.now.instead or len(self.now.targets) > 1:
            return None
        name = self._pick(self._names(t, new))
        return Utterance(t, "add", self._words("add", name=name or ""), (*self.now.targets, new))

    def _drop(self, t: int) -> Utterance | None:
        targets = self.now.targets
        gone = self._pick([each for each in targets if self._name(t, each)])
        if gone is None or len(targets) < 2:
            return None
        left = tuple(each for each in targets if each != gone)
        old = gone if gone == targets[0] else 0
        return Utterance(t, "drop", self._words("drop", name=self._name(t, gone)), left, old=old)

    def _question(self, t: int) -> Utterance | None:
        return self._same("question", t, self._words("question"))

    def _same(self, kind: str, t: int, text: str) -> Utterance:
        """An instruction that changes no target."""
        return Utterance(t, kind, text, self.now.targets, self.now.instead)

    # --- names ---

    def _others(self, t: int) -> list[int]:
        """Actors that can be named on a frame and are not followed."""
        followed = (*self.now.targets, self._main(t))
        return [one.id for one in self.seen[t] if one.id not in followed and self._name(t, one.id)]

    def _name(self, t: int, actor: int) -> str:
        """The plainest noun phrase that means an actor alone on a frame, lasting ones first; "" if there is none."""
        return next(iter(self._names(t, actor)), "")

    def _names(self, t: int, actor: int) -> list[str]:
        """All of them: kind, colour and size, which last, then where it is on this frame; none is elliptic."""
        if t not in self._phrases:
            found = expressions(self.seen[t], self.scene_kind, self.leaders[t], self.split, self.rng, wording=0)
            explicit = [each for each in found if each.kind == "explicit" and each.form != ELLIPTIC]
            order = {form: place for place, form in enumerate(LASTING)}
            self._phrases[t] = sorted(explicit, key=lambda each: (order.get(each.form, len(order)), len(each.text)))
        return [each.text for each in self._phrases[t] if each.targets == (actor,)]

    def _correction(self, t: int, actor: int) -> tuple[str, str]:
        """See `Script.corrections`."""
        full = self._name(t, actor)
        return (self._words("correct", name=self._carried(t, actor)), full) if full else ("", "")

    def _carried(self, t: int, actor: int) -> str:
        """The name of an actor without its noun, where that was said before and the colour tells the rest apart."""
        full = self._name(t, actor)
        if not full:
            return ""
        frame, one = Frame(self.seen[t]), self.visible[t][actor]
        named = any(one.category in each.text for each in self.said if each.frame <= t)
        alone = frame.with_colour(one.category, one.colour) == [frame.seen.index(one)]
        return f"the {one.colour} one" if named and alone and one.colour != "natural" else full

    def _words(self, table: str, **words: str) -> str:
        wordings = SAID[table] if self.split == "test" else SAID[table][:-1]
        return wordings[int(self.rng.integers(len(wordings)))].format_map(words)

    def _pick(self, choice: Sequence[Item]) -> Item | None:
        return choice[int(self.rng.integers(len(choice)))] if choice else None


_WRITERS: tuple[Callable[[_Author, int], Utterance | None], ...] = (
    _Author._correct,
    _Author._switch,
    _Author._resume,
    _Author._state,
    _Author._absence,
    _Author._on_condition,
    _Author._add,
    _Author._drop,
    _Author._question,
)
