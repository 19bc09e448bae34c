"""Positive and negative memories of identities (IMAT section 4.2): what a target has looked like, and what it is not.

A view is the look of a mask, a unit vector that the memory network makes of its own features. A positive bank keeps a
few views that are sure and differ. What was mistaken for the target is in its negative bank, and for as long as it is
followed, the views of all other identities count as negative, too. Pure functions of frozen values, no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trackgpt.types import Box


@dataclass(frozen=True)
class BankSettings:
    """When a view is kept, and how much it says.

    Attributes:
        size: views in a positive bank, those that were shown included.
        negatives: views in a negative bank, oldest forgotten first.
        lifetime: frames after which a negative view is forgotten.
        iou: that the network must expect of a mask whose view is kept (DAM4SAM, HiM2SAM).
        area: smallest and largest area in medians of the last ten (DAM4SAM).
        gap: frames between two views that are kept.
        margin: by which a view must be more like the positive bank than like the negative one.
        novel: the similarity from which on a view is known already.
        drifting: like `margin`, below which a target counts as mistaken.
        weight: of the similarity to the negative bank when hypotheses are ranked.
        contained: share of a box that lies in another one from which on they are part and whole, and no rivals.
        anchors: keep the sure frames on which a rival lies elsewhere, new or not, the newest of them (DAM4SAM), beside
            what the network remembers by itself; otherwise views that differ, in the place of that (IMAT).
    """

    size: int = field(default=4, metadata={"range": (1, 64)})
    negatives: int = field(default=16, metadata={"range": (0, 1024)})
    lifetime: int = field(default=300, metadata={"range": (1, 10**6)})
    iou: float = field(default=0.8, metadata={"range": (0.0, 1.0)})
    area: list[float] = field(default_factory=lambda: [0.8, 1.25], metadata={"range": (0.0, 100.0)})
    gap: int = field(default=5, metadata={"range": (0, 10**6)})
    margin: float = field(default=0.05, metadata={"range": (-2.0, 2.0)})
    novel: float = field(default=0.92, metadata={"range": (-1.0, 1.0)})
    drifting: float = field(default=0.0, metadata={"range": (-2.0, 2.0)})
    weight: float = field(default=0.5, metadata={"range": (0.0, 10.0)})
    contained: float = field(default=0.8, metadata={"range": (0.0, 1.0)})
    anchors: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """A look of something.

    Attributes:
        embedding: float32 (c,), of length 1.
        frame: of the track.
        kind: "shown" (by a person or a grounder), "seen", "drift", "distractor", or "user" for what a person has said
            is not the target.
        verified: a person or a grounder said that it is the target.
    """

    embedding: np.ndarray
    frame: int
    kind: str = "seen"
    verified: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.embedding.nbytes)


def unit(vector: np.ndarray) -> np.ndarray | None:
    """A vector of length 1, float32; None where it has no direction."""
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        return None
    return np.asarray(vector / length, np.float32)


def likeness(embedding: np.ndarray, views: Sequence[View]) -> float:
    """The cosine with the most similar view; -1 where there is none."""
    return max((float(embedding @ view.embedding) for view in views), default=-1.0)


def spread(views: Sequence[View]) -> float:
    """The smallest distance, 1 - cosine, between two views; 1 for fewer than two."""
    pairs = ((a, b) for i, a in enumerate(views) for b in views[:i])
    return min((1 - float(a.embedding @ b.embedding) for a, b in pairs), default=1.0)


def slot_for(view: View, bank: Sequence[View], size: int) -> int | None:
    """Where a view goes in a positive bank of at most `size`: the end, the place of another one, or None.

    Another one gives way where that makes the views differ more, which makes `spread` grow monotonically (IMAT's
    diversity, by farthest points). What was shown never does, and what was verified only for what is verified, too.
    """
    if len(bank) < size:
        return len(bank)
    best, slot = spread(bank) + 1e-6, None
    for place, old in enumerate(bank):
        if old.kind == "shown" or (old.verified and not view.verified):
            continue
        found = spread([*bank[:place], *bank[place + 1 :], view])
        if found > best:
            best, slot = found, place
    return slot


def slot_of_oldest(bank: Sequence[View], size: int) -> int | None:
    """Where a view goes in a bank of at most `size` whose oldest view gives way: None where all of them were shown."""
    if len(bank) < size:
        return len(bank)
    seen = [place for place, view in enumerate(bank) if view.kind != "shown"]
    return min(seen, key=lambda place: bank[place].frame, default=None)


@dataclass(frozen=True, eq=False)
class Identity:
    """What is known of the looks of one target.

    Attributes:
        positive: views of it: first those that were shown (the first one and the newest), then those that were seen.
        negative: views of what was mistaken for it, oldest first.
        candidate: the view of the last frame, where it may enter `positive`; it does on the next frame, unless the
            arbiter rejects what was seen.
        last: the view of the last frame, where it was seen and the network remembers the frame.
        mistaken: a view that turned out to be of something else, which the next frame takes into `negative`.
        areas: of its last ten masks, pixels.
        admitted: the frame of the newest view in `positive`.
        margin: how much more the last view is like it than like anything else; NaN where that cannot be said.
    """

    positive: tuple[View, ...] = ()
    negative: tuple[View, ...] = ()
    candidate: View | None = None
    last: View | None = None
    mistaken: View | None = None
    areas: tuple[float, ...] = ()
    admitted: int = -1
    margin: float = float("nan")

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held."""
        loose = [view for view in (self.candidate, self.last, self.mistaken) if view is not None]
        return sum(view.nbytes for view in (*self.positive, *self.negative, *loose))

    @property
    def kept(self) -> tuple[View, ...]:
        """The views that were seen, and not shown."""
        return tuple(view for view in self.positive if view.kind != "shown")

    def shown(self, view: View | None, area: float) -> Identity:
        """After it was shown anew: of older views only the first one stays (see `View`)."""
        first = tuple(old for old in self.positive if old.kind == "shown")[:1]
        positive = (*first, view)[-2:] if view is not None else first
        admitted = self.admitted if view is None else view.frame
        known = replace(self, positive=positive, candidate=None, last=view, margin=float("nan"), admitted=admitted)
        return replace(known, areas=(area,) if area else ())

    def rejecting(self, settings: BankSettings) -> Identity:
        """After what was mistaken for it has gone where it belongs.

        A person's word makes void all that was known. So does a view that looks like what was shown of the target: then
        that was wrong, or the two cannot be told apart by their looks, and the view is not kept as a negative one.
        """
        view, known = self.mistaken, replace(self, mistaken=None)
        if view is None:
            return known
        alike = likeness(view.embedding, self.positive) >= settings.novel
        if alike or view.kind == "user":
            known = replace(known, positive=())
        return known if alike and view.kind != "user" else known.with_negative(view, settings)

    def with_negative(self, view: View, settings: BankSettings) -> Identity:
        """With a view more of what it is not, in the place of those that look like it."""
        if not settings.negatives:
            return self
        others = [old for old in self.negative if float(old.embedding @ view.embedding) < settings.novel]
        return replace(self, negative=(*others, replace(view, verified=False))[-settings.negatives :])

    def confirmed(self, frame: int | None = None) -> Identity:
        """With the last view as a candidate that a person or a grounder has verified.

        Where that was about an earlier frame of the track, its view is verified if it has been kept.
        """
        last = self.last
        if frame is not None and (last is None or last.frame != frame):
            checked = (replace(view, verified=True) if view.frame == frame else view for view in self.positive)
            return replace(self, positive=tuple(checked))
        return self if last is None else replace(self, candidate=replace(last, verified=True))

    def admitting(self, settings: BankSettings) -> tuple[Identity, int | None]:
        """After its candidate was offered, and where it went among `kept`; None where it was not taken.

        A view that is known already says nothing new, verified or not; and to nothing shown there is nothing to add.
        Where anchors are kept, a rival is what is new.
        """
        view, waiting = self.candidate, replace(self, candidate=None)
        if view is None or not self.positive:
            return waiting, None
        if settings.anchors:
            slot = slot_of_oldest(self.positive, settings.size)
        elif likeness(view.embedding, self.positive) >= settings.novel:
            return waiting, None
        else:
            slot = slot_for(view, self.positive, settings.size)
        if slot is None:
            return waiting, None
        positive = (*self.positive[:slot], view, *self.positive[slot + 1 :])
        place = slot - (len(self.positive) - len(self.kept))
        return replace(waiting, positive=positive, admitted=view.frame), place

    def aged(self, frame: int, settings: BankSettings) -> Identity:
        """Without negative views that are too old; what a person has said does not age."""
        young = (view.kind == "user" or frame - view.frame <= settings.lifetime for view in self.negative)
        negative = tuple(view for view, kept in zip(self.negative, young, strict=True) if kept)
        return self if len(negative) == len(self.negative) else replace(self, negative=negative)


def margin(embedding: np.ndarray | None, positive: Sequence[View], negative: Sequence[View]) -> float:
    """How much more an embedding is like the positive views than like the negative ones; NaN without either."""
    if embedding is None or not positive or not negative:
        return float("nan")
    return likeness(embedding, positive) - likeness(embedding, negative)


def changes(
    embeddings: Sequence[np.ndarray | None],
    positive: Sequence[View],
    negative: Sequence[View],
    settings: BankSettings,
) -> np.ndarray:
    """What to add to the expected IoU of hypotheses, float32 (n,): less than 0 where one is like a negative view."""
    found = np.array([margin(each, positive, negative) for each in embeddings], np.float32)
    lacking = np.clip(settings.margin - np.nan_to_num(found, nan=np.inf), 0, None)
    return np.asarray(-settings.weight * lacking, np.float32)


def trusted(iou: float, presence: float, area: float, known: Identity, frame: int, settings: BankSettings) -> bool:
    """Whether a mask is sure enough for its view to be kept: expected IoU, presence, a usual size, and not too soon."""
    if iou < settings.iou or presence <= 0.5 or frame - known.admitted <= settings.gap or not known.areas:
        return False
    return min(settings.area) <= area / float(np.median(known.areas)) <= max(settings.area)


def part_and_whole(a: Box | None, b: Box | None, settings: BankSettings) -> bool:
    """Whether most of one box lies in the other, as a head does in a body: neither is a rival of the other."""
    return a is not None and b is not None and max(contained(a, b), contained(b, a)) >= settings.contained


def contained(a: Box, b: Box) -> float:
    """The share of box `a` that lies in box `b`."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    area = (a[2] - a[0]) * (a[3] - a[1])
    return max(width, 0.0) * max(height, 0.0) / area if area > 0 else 0.0
