"""Reads a referring expression: "the second white dog from the left that is not moving" as a value.

A small parser of English noun phrases over closed classes of words (colours, places, sizes, orders, motions,
relations) and a table of nouns. It goes through the words once, from left to right: `trackgpt.reasoners.pieces` finds
the longest known phrase at each place, `_Builder` puts them together. Any text is read without an error; words that
say nothing to it stay in `unread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trackgpt.reasoners.nouns import BODY, CLASSLESS, KNOWN, PERSONS, WORN, plain, singular
from trackgpt.reasoners.pieces import PREPOSITIONS, Piece, pieces

TraitKind = Literal["colour", "place", "size", "rank", "motion"]
RelationKind = Literal[
    "on", "under", "above", "below", "left", "right", "front", "behind", "near", "far", "with", "in", "between", "not"
]


@dataclass(frozen=True)
class Trait:
    """Something that is said of a thing by itself.

    Attributes:
        kind: what is looked at.
        value: for a colour one of the values of `pieces.COLOURS`; for a place left, right, top, bottom, middle, corner,
            front or back; for a size large, small, tall, short, wide or long; for a rank one of these or near, far,
            fast, slow; for a motion moving, still, left, right, up, down, away or closer.
        said: the words, as they were written.
        part: where a colour is: "" for all of it; clothes, upper, lower, whole, head or feet of a person; "accent" for
            a part of it that need not be large.
        nth: for a rank: 1 for the largest, 2 for the second largest ...
        negated: it is said not to be so.
    """

    kind: TraitKind
    value: str
    said: str
    part: str = ""
    nth: int = 1
    negated: bool = False


@dataclass(frozen=True)
class Phrase:
    """A noun with all that is said of it.

    Attributes:
        noun: in the singular, plain; "" where any thing may be meant ("the one in blue").
        said: the noun as it was written.
        count: how many are meant; None for all that fit.
        traits: what is said of it.
        relations: how it stands to others.
        unread: words that were not understood, as they were written.
    """

    noun: str = ""
    said: str = ""
    count: int | None = 1
    traits: tuple[Trait, ...] = ()
    relations: tuple[Relation, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """How a thing stands to another one.

    Attributes:
        kind: where it is, seen from the other: "on" it, "behind" it, "left" of it ...; "with" says only that they
            touch; "not" that it is no such thing.
        other: the other one.
        said: the words, as they were written.
        negated: it is said not to be so.
        sure: whether the words say this relation; an unknown verb says only that the two have to do with each other.
    """

    kind: RelationKind
    other: Phrase
    said: str
    negated: bool = False
    sure: bool = True


@dataclass(frozen=True)
class Reading:
    """What a referring expression says.

    Attributes:
        text: as it was given.
        phrases: one, or several for "the dog and the cat"; never empty.
    """

    text: str
    phrases: tuple[Phrase, ...]

    @property
    def about_motion(self) -> bool:
        """Whether it says anything that one image alone cannot show."""
        return any(
            trait.kind == "motion" or trait.value in {"fast", "slow"} for one in self.phrases for trait in one.traits
        )


LASTING = ("on", "with", "in")
"""Relations that go along with a thing."""
WORN_PARTS = ("clothes", "upper", "lower", "whole")
_UNSURE = frozenset(
    ("of", "at", "to", "for", "through", "across", "along", "towards", "toward", "past", "from", "as", "up to")
)
"""Words that relate two things without saying how they stand to each other."""
_GROWN = {"baby": "small", "adult": "large"}
"""Nouns that say how large an animal is: "baby monkey"."""


def read(text: str, names: Sequence[str] = ()) -> Reading:
    """What a referring expression says; never an error, in time linear in the length of the text.

    Args:
        text: any.
        names: class names of a detector, which are nouns, too.
    """
    builder = _Builder()
    for piece in pieces(text, names):
        builder.take(piece)
    return Reading(text, tuple(map(_lifted, builder.phrases())))


def _lifted(phrase: Phrase) -> Phrase:
    """Put right where words belong to another thing than the order of reading says.

    In "the car on the far right", "far right" is a place of the car; "not the child on the left" is about children that
    are not on the left.
    """
    excluded = [each.other for each in phrase.relations if each.kind == "not"]
    if not phrase.noun and phrase.traits and len(excluded) == len(phrase.relations) == 1 and not excluded[0].traits:
        traits = tuple(replace(trait, negated=not trait.negated) for trait in phrase.traits)
        return replace(excluded[0], traits=traits, unread=phrase.unread)
    nameless = [each for each in phrase.relations if each.kind in ("on", "in", "with") and _is_place(each.other)]
    if not nameless:
        return phrase
    own = [trait for each in nameless for trait in each.other.traits]
    others = tuple(each for each in phrase.relations if each not in nameless)
    return replace(phrase, traits=(*phrase.traits, *own), relations=others)


def _is_place(phrase: Phrase) -> bool:
    places = all(trait.kind in ("place", "rank") for trait in phrase.traits)
    return not phrase.noun and bool(phrase.traits) and places and not phrase.relations


@dataclass
class _Draft:
    """A phrase while it is read. `open` until a word comes that cannot belong to its noun phrase."""

    link: str = ""
    said: str = ""
    negated: bool = False
    sure: bool = True
    open: bool = True
    head: str | None = None  # "" for "one"
    head_said: str = ""
    count: int | None = 1
    order: Piece | None = None
    owner: str = ""
    borrowed: bool = False  # "another": the head is the root's
    counted: bool = False  # "one of the dogs": a plural noun changes nothing
    others: list[_Draft] = field(default_factory=list)
    colours: list[Trait] = field(default_factory=list)
    traits: list[Trait] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    adjectives: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def started(self) -> bool:
        return bool(self.head is not None or self.colours or self.adjectives or self.traits or self.order)

    def phrase(self) -> Phrase:
        return Phrase(
            self.head or "",
            self.head_said,
            self.count,
            tuple(self.traits),
            tuple(self.relations) + tuple(other.relation() for other in self.others),
            tuple(self.unread),
        )

    def relation(self) -> Relation:
        kind = {"wear": "with", "worn": "with", "without": "with", "but": "not"}.get(self.link, self.link)
        negated = kind != "not" and self.negated != (self.link == "without")
        return Relation(kind, self.phrase(), self.said, negated, self.sure)  # type: ignore[arg-type]


class _Builder:
    """Puts pieces together: `take` each in turn, then `phrases`.

    `_root` is the phrase that is meant; `_now` the noun phrase that is read, the root's or that of another that the
    root is related to. `_link` is a relation whose other side has not been read yet.
    """

    def __init__(self) -> None:
        self._done: list[Phrase] = []
        self._root = self._now = _Draft()
        self._wearer = self._root
        self._link: Piece | None = None
        self._negated: str = ""

    def take(self, piece: Piece) -> None:
        """One more piece of the text."""
        getattr(self, f"_{piece.kind}")(piece)

    def phrases(self) -> tuple[Phrase, ...]:
        """What was read."""
        self._close()
        self._drop_link()
        self._finish_root()
        return tuple(self._done)

    # Pieces that belong to a noun phrase.

    def _noun(self, piece: Piece) -> None:
        draft = self._np(piece)
        if draft.head and not draft.borrowed:
            self._modifier(draft, piece)
        draft.head, draft.head_said, draft.borrowed = piece.value, piece.said, False
        if piece.plural and draft.count == 1 and not draft.counted:
            draft.count = None

    def _modifier(self, draft: _Draft, head: Piece) -> None:
        """A noun in front of the head: "red shirt guy", "person hand", "baby monkey", "garden chair"."""
        before = draft.head or ""
        part = WORN.get(before, "")
        if part and draft.colours:
            draft.traits += [_with_part(one, part) for one in draft.colours]
            draft.colours = []
        elif head.value in BODY:
            draft.owner = before
        elif before in _GROWN:
            draft.traits.append(Trait("size", _GROWN[before], draft.head_said))
        else:
            draft.unread.append(draft.head_said)

    def _generic(self, piece: Piece) -> None:
        if self._now.open and self._now.head is not None:
            return  # "the red car, the one ..." says nothing new
        self._np(piece).head = ""
        if piece.said.casefold() in {"ones", "things", "objects", "everything"}:
            self._now.count = None if self._now.count == 1 else self._now.count

    def _another(self, piece: Piece) -> None:
        draft = self._np(piece)
        draft.head, draft.head_said, draft.borrowed = draft.head or self._root.head or "", piece.said, True
        if piece.said.casefold() in {"others", "rest", "other ones"}:
            draft.count = None

    def _other(self, piece: Piece) -> None:
        if self._link is None and self._now is self._root:
            self._np(piece).unread.append(piece.said)

    def _colour(self, piece: Piece) -> None:
        if self._now.open and self._now.head is not None and not self._link:
            self._now.colours.append(self._trait("colour", piece))  # "a bike black and white"
            return
        self._np(piece).colours.append(self._trait("colour", piece))

    def _size(self, piece: Piece) -> None:
        self._here(piece).traits.append(self._trait("size", piece))

    def _most(self, piece: Piece) -> None:
        draft = self._here(piece)
        nth = draft.order.number if draft.order else 1
        draft.order = None
        draft.traits.append(Trait("rank", piece.value, piece.said, nth=nth, negated=self._take_not()))

    def _order(self, piece: Piece) -> None:
        self._here(piece).order = piece

    def _number(self, piece: Piece) -> None:
        if self._now.open and self._now.head:
            self._now.unread.append(piece.said)  # "number 18"
            return
        self._np(piece).count = piece.number

    def _all(self, piece: Piece) -> None:
        self._np(piece).count = None
        if piece.said.casefold().startswith("every") and piece.said.casefold() != "every":
            self._now.head = ""

    def _word(self, piece: Piece) -> None:
        if self._now.open and self._now.head is not None and not self._link:
            self._now.unread.append(piece.said)
        else:
            self._np(piece).adjectives.append(piece.said)

    def _owner(self, piece: Piece) -> None:
        """The noun so far owns the one that follows: "a girl's hand"."""
        if self._now.open and self._now.head:
            self._now.owner, self._now.head = self._now.head, None

    # Pieces that end a noun phrase.

    def _place(self, piece: Piece) -> None:
        draft = self._now
        if draft.open and self._wears(draft) and piece.value == "top" and not piece.article:
            draft.head, draft.head_said = "top", piece.said
            return
        draft = self._here(piece)
        if draft.order:
            said = f"{draft.order.said} {piece.said}"
            draft.traits.append(Trait("rank", piece.value, said, nth=draft.order.number, negated=self._take_not()))
            draft.order = None
        else:
            draft.traits.append(self._trait("place", piece))

    def _motion(self, piece: Piece) -> None:
        if self._link and self._link.kind in {"and", "again"}:
            self._link = None
        if self._link and self._link.said and piece.article:
            self._np(piece).adjectives.append(piece.said)  # "on a racing track"
            return
        draft = self._here(piece)
        before = draft.traits[-1] if draft.traits else None
        if before and before.kind == "motion" and before.value == "moving" and piece.value != "still":
            said, negated = f"{before.said} {piece.said}", before.negated
            draft.traits[-1] = Trait("motion", piece.value, said, negated=negated)
        else:
            draft.traits.append(self._trait("motion", piece))
        into = "in" if piece.said.casefold().startswith("driv") else "with"
        self._link = None if draft.open else Piece("relation", into, "")

    def _frame(self, piece: Piece) -> None:
        """The picture itself: "in the video"."""
        self._close()
        self._link = None

    def _skip(self, piece: Piece) -> None:
        self._root.unread.append(piece.said)

    def _gaze(self, piece: Piece) -> None:
        self._close()
        self._root.unread.append(piece.said)

    def _verb(self, piece: Piece) -> None:
        if self._link and self._link.kind == "again" and not piece.article:
            self._link = None
        if self._dressed():
            self._close()
        if (self._link and self._link.said) or (self._now.open and self._now.head is None and self._now.started):
            self._np(piece).adjectives.append(piece.said)
            return
        self._close()
        self._root.unread.append(piece.said)
        self._link = Piece("relation", "with", "")

    def _relation(self, piece: Piece) -> None:
        now, said = self._now, piece.said.casefold()
        if said == "of" and now is self._root and now.open and not now.head and (now.started or now.count != 1):
            now.head, now.counted = None, True
            return  # "the smallest of the dogs"
        if said == "by" and self._link and not self._link.said:
            piece = piece._replace(value="with")  # "thrown by"
        self._close()
        if (
            self._link
            and self._link.kind == "relation"
            and self._link.value in {"wear", "under", "on"}
            and piece.value in {"in", "on", "with"}
        ):
            return  # "dressed in", "riding on"
        self._link = piece

    def _asking(self, piece: Piece) -> None:
        """A question word: the thing asked for at the start, and a relative pronoun later."""
        if self._now is self._root and not self._root.started:
            return
        self._close()

    def _and(self, piece: Piece) -> None:
        if piece.said.casefold() == "both":
            self._number(piece._replace(number=2))
            return
        draft = self._now
        if draft.open and draft.head is None and (draft.colours or draft.adjectives):
            return  # "black and white dog", "in black and blue"
        if draft is self._root or not draft.link:
            self._close()
            self._link = Piece("and", "", piece.said)
            return
        self._close()
        self._link = Piece("again", draft.link, draft.said)

    def _not(self, piece: Piece) -> None:
        self._negated = piece.said

    def _break(self, piece: Piece) -> None:
        if self._now.open and self._now.head is None:
            return  # "a black, white and brown dog"
        self._close()

    def _be(self, piece: Piece) -> None:
        if self._now.open and self._now.head is not None:
            self._close()

    def _silent(self, piece: Piece) -> None:
        """A word that changes nothing."""

    # How the phrases hang together.

    def _trait(self, kind: TraitKind, piece: Piece) -> Trait:
        return Trait(kind, piece.value, piece.said, negated=self._take_not())

    def _take_not(self) -> bool:
        negated, self._negated = bool(self._negated), ""
        return negated

    def _here(self, piece: Piece) -> _Draft:
        """The phrase that a trait is said of: the one that is read where its noun is still to come, else the root."""
        led = piece.said.casefold().split()[0] in PREPOSITIONS  # "on the left": about the root, not about a new noun
        if self._link is not None and self._link.said and self._link.kind != "and" and not led:
            return self._np(piece)
        if self._link is not None and self._link.kind == "and" and not led and piece.article:
            return self._np(piece)
        now = self._now
        if now.open and now.head is None and not ((led or piece.kind == "motion") and self._dressed()):
            return now
        self._close()
        return self._root

    def _dressed(self) -> bool:
        """Whether colours alone are what has been read of another phrase: "in black", before "walking"."""
        now = self._now
        return now is not self._root and now.open and now.head is None and bool(now.colours)

    def _np(self, piece: Piece) -> _Draft:
        """The noun phrase that a piece belongs to; a new one where the last has ended."""
        if self._now.open and not self._starts_new(piece):
            return self._now
        self._close()
        link, self._link = self._link, None
        if link is not None and link.kind == "and":
            self._finish_root()
            self._root = self._now = self._wearer = _Draft()
        elif self._negated and (link is None or not link.said):
            self._now = _Draft("not", self._negated)
            self._negated = ""
        else:
            kind = link.value if link else "with"
            sure = bool(link and link.said) and (link.said.casefold() not in _UNSURE if link else True)
            self._now = _Draft(kind, link.said if link else "", self._take_not(), sure)
        return self._now

    def _starts_new(self, piece: Piece) -> bool:
        if self._link is not None or (self._now.head is not None and piece.article):
            return True
        return bool(self._negated) and piece.article and piece.kind != "colour"

    def _wears(self, draft: _Draft) -> bool:
        return draft.link == "wear" or (draft.link == "in" and not draft.head)

    def _close(self) -> None:
        draft = self._now
        if not draft.open or (draft is self._root and not draft.started):
            return
        draft.open = False
        self._settle_head(draft)
        if draft is not self._root:
            self._attach(draft)
        elif draft.head in PERSONS:
            self._wearer = draft

    def _settle_head(self, draft: _Draft) -> None:
        """Decides which word is the noun, now that all of its phrase are there."""
        orange = draft.colours and draft.colours[-1].said.casefold() in {"orange", "oranges"}
        if draft.head is None and draft.adjectives:
            draft.head_said = draft.adjectives.pop()
            draft.head = singular(plain(draft.head_said))
        elif draft.head is None and orange and draft.link not in {"in", "wear", "with"}:
            draft.head, draft.head_said = "orange", draft.colours.pop().said
        if draft.owner:
            self._settle_owner(draft)
        draft.unread += draft.adjectives
        if draft.link not in {"in", "with", "wear", "without"}:
            draft.traits += draft.colours
            draft.colours = []

    def _settle_owner(self, draft: _Draft) -> None:
        if draft is not self._root and (not draft.head or draft.head in BODY):
            draft.head = draft.owner
        else:
            draft.relations.append(Relation("with", Phrase(draft.owner, draft.owner), "'s"))

    def _attach(self, draft: _Draft) -> None:
        """Hangs a phrase on the one it is said of: as a trait where it is about clothes or patches of colour."""
        if draft.head in PERSONS and draft.link != "not":
            wearer, self._wearer = self._wearer, draft
        else:
            wearer = self._wearer
        worn = WORN.get(draft.head or "", "")
        if draft.link in {"in", "with", "wear"} and draft.colours and self._is_look(draft):
            part = worn or ("accent" if draft.head else "clothes")
            part = "clothes" if part == "accent" and draft.link == "wear" else part
            part = "" if part == "clothes" and wearer.head and wearer.head not in PERSONS else part  # "a frog in green"
            negated = [True] * len(draft.colours) if draft.negated else [one.negated for one in draft.colours]
            wearer.traits += [_with_part(one, part, no) for one, no in zip(draft.colours, negated)]
            wearer.unread += draft.unread + ([draft.head_said] if draft.head and part == "accent" else [])
            return
        draft.traits += draft.colours
        self._root.others.append(draft)

    def _is_look(self, draft: _Draft) -> bool:
        """Whether a phrase with a colour says how its wearer looks, rather than names another thing."""
        if draft.link == "with" and draft.said.casefold() != "with":
            return False
        head = draft.head or ""
        thing = head in KNOWN and head not in BODY and head not in CLASSLESS and head not in WORN
        return not thing and (draft.link != "in" or not head or head in WORN)

    def _drop_link(self) -> None:
        if self._link and self._link.kind in {"relation", "again"} and self._link.said:
            self._root.unread.append(self._link.said)
        self._link = None

    def _finish_root(self) -> None:
        root = self._root
        if root.order:
            root.unread.append(root.order.said)
        if root.started or root.relations or root.unread or not self._done:
            self._done.append(root.phrase())


def _with_part(trait: Trait, part: str, negated: bool | None = None) -> Trait:
    return Trait("colour", trait.value, trait.said, part, negated=trait.negated if negated is None else negated)


def lasting(text: str) -> str:
    """What stays true of an expression while things move: nouns, colours, and what something rides, holds or wears.

    "the second man in red from the left" is "man in red". Empty where nothing is left that names anything.
    """
    said = [_lasting(phrase) for phrase in read(text).phrases]
    return " and ".join(each for each in said if each)


def lasting_if_understood(text: str) -> str:
    """`lasting` of an expression of which every word is understood, and any other text as it is.

    For grounders that understand more than this parser: "who will win the race?" must not become "race".
    """
    understood = all(phrase.noun in KNOWN and not phrase.unread for phrase in read(text).phrases)
    return lasting(text) if understood else text


def shorter(text: str) -> tuple[str, ...]:
    """Wordings with less and less in them: what lasts, with colours alone, and the nouns."""
    phrases = read(text).phrases
    bare = [replace(phrase, relations=()) for phrase in phrases]
    nouns = [phrase.said for phrase in phrases if phrase.noun]
    found = [lasting(text), " and ".join(filter(None, map(_lasting, bare))), " and ".join(nouns)]
    return tuple(each for each in dict.fromkeys(found) if each and each != text)


def _lasting(phrase: Phrase) -> str:
    colours = [trait for trait in phrase.traits if trait.kind == "colour" and not trait.negated]
    if not phrase.noun and not colours:
        return ""
    number = "all" if phrase.count is None else str(phrase.count) if phrase.count > 1 else ""
    own = " ".join(trait.said for trait in colours if not trait.part)
    worn = " and ".join(trait.said for trait in colours if trait.part in WORN_PARTS)
    going = (each for each in phrase.relations if each.sure and each.kind in LASTING and not each.negated)
    others = [(each.said, _lasting(each.other)) for each in going]
    related = [f"{said} {other}" for said, other in others if other]
    return " ".join(filter(None, [number, own, phrase.said or "one", f"in {worn}" if worn else "", *related]))
