"""Reads a referring expression: "the second white dog from the left that is not moving" as a value.

A small parser of English noun phrases over closed classes of words (colours, places, sizes, orders, motions,
relations) and a table of nouns (`trackgpt.reasoners.nouns`). It goes through the words once, from left to right:
`_pieces` finds the longest known phrase at each place, `_Builder` puts them together. Any text is read without an
error; words that say nothing to it stay in `unread`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

from trackgpt.reasoners.nouns import (
    BODY,
    CLASSLESS,
    KNOWN,
    LONGEST_NOUN,
    PERSONS,
    WORN,
    is_plural,
    plain,
    singular,
    spelt,
)

MAX_WORDS = 200
MAX_LETTERS = 4_000
"""What comes after so many words or letters is not read."""

TraitKind = Literal["colour", "place", "size", "rank", "motion"]
RelationKind = Literal[
    "on", "under", "above", "below", "left", "right", "front", "behind", "near", "far", "with", "in", "between", "not"
]


@dataclass(frozen=True)
class Trait:
    """Something that is said of a thing by itself.

    Attributes:
        kind: what is looked at.
        value: for a colour a key of `COLOURS`' values; for a place left, right, top, bottom, middle, corner, front or
            back; for a size large, small, tall, short, wide or long; for a rank one of these or near, far, fast, slow;
            for a motion moving, still, left, right, up, down, away or closer.
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
class Expression:
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


def _words(table: str) -> Mapping[str, str]:
    """Each word or phrase of lines "value: phrase, phrase" to its value."""
    lines = (line.partition(":") for line in table.strip().splitlines())
    return {word.strip(): value.strip() for value, _, words in lines for word in words.split(",")}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _counted(words: str, but: str = "") -> dict[str, int]:
    """Words for 1, 2, 3 ... to the numbers."""
    return {word: at for at, word in enumerate(words.split(), 1) if word != but}


COLOURS = _words("""
    black: black
    white: white
    grey: grey, gray, silver, greyish, grayish
    red: red, maroon, crimson, scarlet, reddish
    orange: orange, orangish
    brown: brown, brownish, brindle, chestnut, bronze
    yellow: yellow, yellowish, golden, gold, mustard, blonde, blond
    green: green, greenish, lime, olive
    blue: blue, navy, bluish, cyan, turquoise, teal
    purple: purple, violet, lilac, lavender
    pink: pink, pinkish, magenta
    tan: tan, beige, cream, khaki, sandy
    dark: dark, darker, darkest
    light: light, lighter, bright, pale
""")
"""Words for colours, to the colours that are told apart."""

_SIDES = _words("""
    left: left, lefthand, leftside
    right: right, righthand, rightside
    top: top, upper
    bottom: bottom, lower
    middle: middle, center, centre, central, midst
    corner: corner
    front: foreground, front
    back: background, back, rear, distance, distant
""")
_SIZES = _words("""
    large: big, large, huge, giant, enormous, massive
    small: small, little, tiny, mini
    tall: tall
    short: short
    wide: wide, broad
    long: long
""")
_MOST = _words("""
    large: largest, biggest, larger, bigger
    small: smallest, tiniest, smaller, littlest
    tall: tallest, taller
    short: shortest, shorter
    wide: widest, wider
    long: longest, longer
    left: leftmost, left most, furthest left, farthest left, most left, far left, extreme left
    right: rightmost, right most, furthest right, farthest right, most right, far right, extreme right
    top: topmost, top most, highest, uppermost
    bottom: bottommost, bottom most, lowest
    near: nearest, closest, nearer, closer, nearest to camera, closest to camera, nearest to us, closest to us
    far: furthest, farthest, furthest away, farthest away, furthest back, farthest back
    fast: fastest, quickest, faster, quicker
    slow: slowest, slower
""")
_ORDINALS = _counted("first second third fourth fifth sixth seventh eighth ninth tenth") | _counted(
    "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th"
)
_NUMBERS = _counted("one two three four five six seven eight nine ten", "one") | {str(one): one for one in range(2, 21)}
_ALL = _set("all every each everything everyone everybody several many some")
_GO = """walk run move go drive race fly swim crawl jump skate ski surf jog march travel roll slide slither climb hop
    gallop glide float dive drift sail trot stroll wander skateboard snowboard cycle bike come pass advance get"""
_MOTIONS = _words("""
    still: still, parked, sitting, seated, lying, laying, standing, stationary, motionless, stopped, resting, static
    still: idle, waiting, sits, stands, sleeping
    left: leftwards, leftward
    right: rightwards, rightward
    up: upwards, upward, uphill
    down: downwards, downward, downhill
    away: leaving, receding, departing
    closer: approaching, coming closer, getting closer, moving closer, coming towards, coming nearer
""")
_TOWARDS = {"left": "left", "right": "right", "top": "up", "up": "up", "bottom": "down", "down": "down"}
_GAZE = _set("looking looks facing faces staring pointing turned leaning bowed leans points gazing")
_RELATIONS = _words("""
    on: on, onto, upon, atop, on top of, riding, riding on, rides, mounted on, aboard, astride
    under: under, beneath, underneath, ridden by, rode by, mounted by
    above: above, over
    below: below
    near: near, next to, beside, by, alongside, adjacent to, close to, closest to, nearest to, nearby, around, against
    near: along with, by side of, at side of
    far: far from, away from, furthest from, farthest from, far away from
    front: in front of, ahead of, before
    behind: behind, in back of, following
    in: in, inside, inside of, within, into, out of
    between: between, in between, among, amongst
    with: with, holding, holds, carrying, carries, having, has, using, pushing, pulling, playing with, touching, petting
    with: held by, holded by, carried by, used by, driven by, pushed by, pulled by, operated by, kicking, feeding
    with: hugging
    with: of, at, to, for, through, across, along, towards, toward, past, from, up to, as
    wear: wearing, wears, dressed in, clad in, dressed, wearing only
    worn: worn by
    without: without, with no
    but: except, but, other than, excluding, rather than
""")
_UNSURE = _set("of at to for through across along towards toward past from as") | {"up to"}
_COMPARED = (
    *("than others", "than other", "than rest", "than all others", "than everything else", "than other ones"),
    *("of all", "of them", "of them all"),
)
_NOT = _set("not isn no never non aren doesn don")
_GENERIC = _set("one ones thing things object objects something anything whatever item everything target")
_ASKING = _set("who what which whoever that whose where")
_ARTICLES = _set("a an the this these those his her its their my your our")
_BE = _set("is are was were be being been am s re gets got")
_FRAME = _set("picture image frame screen photo video view scene camera shot footage clip pic")
_SILENT = _set("""
    please can could would will you i we us me track follow find show see look pick select want tracking give it
    he she they them here there just only very too also so then now out up down off away forward forwards itself
    himself herself themselves colored coloured color colour kind half side together them do does did than
""")
_PARTITIVE = _set("slice piece pair group herd flock bunch pack couple set row stack pile half part side end")
_ENDS = re.compile(r"(?:ing|ed|en|wn|rn)$")
_PREPOSITIONS = _set("on in at to towards toward from near by")
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_GROWN = {"baby": "small", "adult": "large"}
"""Nouns that say how large an animal is: "baby monkey"."""
_TOKEN = re.compile(r"[^\W_]+|[,;.:!?]|['’](?=s\b)")


class _Token(NamedTuple):
    word: str  # folded
    said: str  # as written
    article: bool  # whether an article stands in front of it


class _Piece(NamedTuple):
    kind: str
    value: str
    said: str
    article: bool = False
    plural: bool = False
    number: int = 1


def _inflected(verbs: str) -> Iterator[str]:
    for verb in verbs.split():
        yield f"{verb}s"
        yield f"{verb}ing"
        yield f"{verb.removesuffix('e')}ing"
        yield f"{verb}{verb[-1]}ing"


def _table() -> Mapping[str, tuple[str, str]]:
    """Phrases of closed classes, articles left out, to kind and value; later ones go before earlier ones."""
    table: dict[str, tuple[str, str]] = {}
    rows: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("silent", dict.fromkeys(_SILENT, "")),
        ("be", dict.fromkeys(_BE, "")),
        ("motion", dict.fromkeys(_inflected(_GO), "moving")),
        ("motion", _MOTIONS),
        ("gaze", dict.fromkeys(_GAZE, "")),
        ("relation", _RELATIONS),
        ("colour", COLOURS),
        ("size", _SIZES),
        ("most", _MOST),
        ("place", _SIDES),
        ("not", dict.fromkeys(_NOT, "")),
        ("all", dict.fromkeys(_ALL, "")),
        ("generic", dict.fromkeys(_GENERIC, "")),
        ("asking", dict.fromkeys(_ASKING, "")),
        ("another", dict.fromkeys(("another", "others", "rest", "another one", "other one", "other ones"), "")),
        ("other", {"other": ""}),
        ("silent", dict.fromkeys(_COMPARED, "")),
        ("break", dict.fromkeys((",", ";", ".", ":", "!", "?", "while", "when", "where"), "")),
        ("and", {"and": "", "both": ""}),
        ("order", {word: str(number) for word, number in _ORDINALS.items()}),
        ("number", {word: str(number) for word, number in _NUMBERS.items()}),
        ("owner", {"'": "", "’": ""}),
    )
    for kind, words in rows:
        table.update({word: (kind, value) for word, value in words.items()})
    return table


_TABLE = _table()
_LONGEST = max(len(phrase.split()) for phrase in _TABLE)


def read(text: str, names: Sequence[str] = ()) -> Expression:
    """What a referring expression says; never an error, in time linear in the length of the text.

    Args:
        text: any.
        names: class names of a detector, which are nouns, too.
    """
    builder = _Builder()
    for piece in _pieces(_tokens(text[:MAX_LETTERS]), _nouns(tuple(names))):
        builder.take(piece)
    return Expression(text, builder.phrases())


@cache
def _nouns(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(singular(plain(name)) for name in names) - {""}


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    article = False
    for found in _TOKEN.finditer(unicodedata.normalize("NFKC", text)):
        word = found.group().casefold()
        if word in _ARTICLES:
            article = True
            continue
        tokens.append(_Token(word, found.group(), article))
        article = False
        if len(tokens) == MAX_WORDS:
            break
    return tokens


def _pieces(tokens: Sequence[_Token], more: frozenset[str]) -> Iterator[_Piece]:
    """The longest known phrase at each place, with what the words before it make of it."""
    at, last = 0, _Piece("break", "", "")
    while at < len(tokens):
        piece, length = (
            _compound(tokens, at, more)
            or _place(tokens, at, last)
            or _noun(tokens, at, more)
            or _known(tokens, at, last)
        )
        at += length
        last = piece if piece.kind != "silent" else last
        yield piece


def _joined(tokens: Sequence[_Token], at: int, length: int) -> str:
    return " ".join(token.word for token in tokens[at : at + length])


def _said(tokens: Sequence[_Token], at: int, length: int) -> str:
    return " ".join(token.said for token in tokens[at : at + length])


def _place(tokens: Sequence[_Token], at: int, last: _Piece) -> tuple[_Piece, int] | None:
    """A side with what belongs to it: "on the left hand side of" something, "to the right", "closest to the top"."""
    crossing = _crossing(tokens, at)
    if crossing:
        return crossing
    start = at
    most = tokens[at].word in {"closest", "nearest", "furthest", "farthest"}
    at += most and at + 1 < len(tokens)
    at += tokens[at].word in _PREPOSITIONS and at + 1 < len(tokens)
    side = _SIDES.get(tokens[at].word, "")
    if not side or _joined(tokens, at, 2) in _MOST or _joined(tokens, start, at - start + 1) in _MOST:
        return _direction(tokens, start, last)
    at = _after_side(tokens, at + 1)
    of = at < len(tokens) and tokens[at].word == "of"
    framed = of and at + 1 < len(tokens) and tokens[at + 1].word in _FRAME
    if _joined(tokens, start, at - start + 1) in _RELATIONS and not framed:
        return None  # "in front of", "on top of"
    if start + 2 == at < len(tokens) and singular(tokens[at].word) in KNOWN and tokens[at].word not in _TABLE:
        return None  # "in his left hand", "on the right horse": said of the noun that follows
    said, article = _said(tokens, start, at - start), tokens[start].article
    if of and not framed and side in {"left", "right"} and start:
        return _Piece("relation", side, said, article), at + 1 - start
    at += 2 if framed else of and not start
    return _sided(side, said, article, most, last), at - start


def _after_side(tokens: Sequence[_Token], at: int) -> int:
    """Where words like "hand side" end that only belong to a side."""
    at += _joined(tokens, at, 2) in {"hand side", "hand of"}
    while at < len(tokens) and tokens[at].word in {"side", "half", "part", "edge", "end", "area", "row", "most"}:
        at += 1
    return at


def _sided(side: str, said: str, article: bool, most: bool, last: _Piece) -> _Piece:
    """What a side says after the words before it: where something looks or goes, or where it is."""
    if most:
        return _Piece("most", side, said, article)
    if last.kind == "gaze":
        return _Piece("skip", "", said, article)
    first = said.casefold().split()[0]
    goes = first in {"to", "towards", "toward", "from"} or (first not in _PREPOSITIONS and not article)
    if last.kind == "motion" and last.value != "still" and side in _TOWARDS and goes:
        way = _TOWARDS[side]
        return _Piece("motion", _OPPOSITE[way] if first == "from" else way, said, article)
    return _Piece("place", side, said, article)


def _crossing(tokens: Sequence[_Token], at: int) -> tuple[_Piece, int] | None:
    """The way of something that goes "from left to right"."""
    words = [token.word for token in tokens[at : at + 4]]
    if len(words) == 4 and words[0] == "from" and words[1] in _SIDES and words[2] == "to":
        way = _TOWARDS.get(_SIDES.get(words[3], ""), "")
        return (_Piece("motion", way, _said(tokens, at, 4)), 4) if way else None
    return None


def _direction(tokens: Sequence[_Token], at: int, last: _Piece) -> tuple[_Piece, int] | None:
    """Where something moves, after a verb of motion: "away from us", "towards the camera"."""
    if last.kind != "motion" or last.value == "still":
        return None
    words = [token.word for token in tokens[at : at + 3]] + [""] * 3
    viewer = _FRAME | {"us", "me", "viewer"}
    if words[0] == "away":
        length = 3 if words[1] == "from" and words[2] in viewer else 1
        return _Piece("motion", "away", _said(tokens, at, length)), length
    if words[0] in {"to", "towards", "toward"} and words[1] in viewer:
        return _Piece("motion", "closer", _said(tokens, at, 2)), 2
    if words[0] in {"up", "down"}:
        return _Piece("motion", words[0], tokens[at].said), 1
    if words[0] in {"closer", "nearer"}:
        return _Piece("motion", "closer", tokens[at].said), 1
    return None


def _orders(tokens: Sequence[_Token], at: int) -> bool:
    """Whether a word that may be a noun, too, is the verb of an order: "track the dog", "please track it"."""
    before = tokens[at - 1].word if at else "and"
    return tokens[at].word in _SILENT and not tokens[at].article and before in _SILENT | {"and", ",", ".", "please"}


def _compound(tokens: Sequence[_Token], at: int, more: frozenset[str]) -> tuple[_Piece, int] | None:
    """A noun of several words: "traffic light", "left valve"."""
    for length in range(min(LONGEST_NOUN, len(tokens) - at), 1, -1):
        words = _joined(tokens, at, length)
        noun = singular(words)
        if noun in KNOWN or noun in more:
            said = _said(tokens, at, length)
            return _Piece("noun", noun, said, tokens[at].article, is_plural(words)), length
    return None


def _noun(tokens: Sequence[_Token], at: int, more: frozenset[str]) -> tuple[_Piece, int] | None:
    token = tokens[at]
    kind, _ = _TABLE.get(token.word, ("", ""))
    framed = token.word in _FRAME and at and tokens[at - 1].word in {"of", "in"}
    if framed or kind not in {"", "silent"} or _orders(tokens, at):
        return None
    noun = spelt(token.word, more)
    return (_Piece("noun", noun, token.said, token.article, is_plural(token.word)), 1) if noun else None


def _known(tokens: Sequence[_Token], at: int, last: _Piece) -> tuple[_Piece, int]:
    """A phrase of the closed classes; else a word that is a verb by its ending, or just a word."""
    token = tokens[at]
    for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
        entry = _TABLE.get(_joined(tokens, at, length))
        if entry:
            kind, value = entry
            number = int(value) if kind in {"order", "number"} else 1
            return _Piece(kind, value, _said(tokens, at, length), token.article, number=number), length
    following = tokens[at + 1].word if at + 1 < len(tokens) else ""
    if token.word in _PARTITIVE and following == "of":
        return _Piece("silent", "", token.said), 2
    if token.word in _FRAME:
        return _Piece("frame", "", token.said), 1
    acts = _ENDS.search(token.word) and last.kind != "colour"
    kind = "verb" if not token.article and (acts or last.kind == "be") else "word"
    return _Piece(kind, token.word, token.said, token.article), 1


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
    order: _Piece | None = None
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
        negated = self.negated != (self.link == "without")
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
        self._link: _Piece | None = None
        self._negated: str = ""

    def take(self, piece: _Piece) -> None:
        """One more piece of the text."""
        getattr(self, f"_{piece.kind}")(piece)

    def phrases(self) -> tuple[Phrase, ...]:
        """What was read."""
        self._close()
        self._drop_link()
        self._finish_root()
        return tuple(self._done)

    # Pieces that belong to a noun phrase.

    def _noun(self, piece: _Piece) -> None:
        draft = self._np(piece)
        if draft.head and not draft.borrowed:
            self._modifier(draft, piece)
        draft.head, draft.head_said, draft.borrowed = piece.value, piece.said, False
        if piece.plural and draft.count == 1 and not draft.counted:
            draft.count = None

    def _modifier(self, draft: _Draft, head: _Piece) -> None:
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

    def _generic(self, piece: _Piece) -> None:
        if self._now.open and self._now.head is not None:
            return  # "the red car, the one ..." says nothing new
        self._np(piece).head = ""
        if piece.said.casefold() in {"ones", "things", "objects", "everything"}:
            self._now.count = None if self._now.count == 1 else self._now.count

    def _another(self, piece: _Piece) -> None:
        draft = self._np(piece)
        draft.head, draft.head_said, draft.borrowed = draft.head or self._root.head or "", piece.said, True
        if piece.said.casefold() in {"others", "rest", "other ones"}:
            draft.count = None

    def _other(self, piece: _Piece) -> None:
        if self._link is None and self._now is self._root:
            self._np(piece).unread.append(piece.said)

    def _colour(self, piece: _Piece) -> None:
        if self._now.open and self._now.head is not None and not self._link:
            self._now.colours.append(self._trait("colour", piece))  # "a bike black and white"
            return
        self._np(piece).colours.append(self._trait("colour", piece))

    def _size(self, piece: _Piece) -> None:
        self._here(piece).traits.append(self._trait("size", piece))

    def _most(self, piece: _Piece) -> None:
        draft = self._here(piece)
        nth = draft.order.number if draft.order else 1
        draft.order = None
        draft.traits.append(Trait("rank", piece.value, piece.said, nth=nth, negated=self._take_not()))

    def _order(self, piece: _Piece) -> None:
        self._here(piece).order = piece

    def _number(self, piece: _Piece) -> None:
        if self._now.open and self._now.head:
            self._now.unread.append(piece.said)  # "number 18"
            return
        self._np(piece).count = piece.number

    def _all(self, piece: _Piece) -> None:
        self._np(piece).count = None
        if piece.said.casefold().startswith("every") and piece.said.casefold() != "every":
            self._now.head = ""

    def _word(self, piece: _Piece) -> None:
        if self._now.open and self._now.head is not None and not self._link:
            self._now.unread.append(piece.said)
        else:
            self._np(piece).adjectives.append(piece.said)

    def _owner(self, piece: _Piece) -> None:
        """The noun so far owns the one that follows: "a girl's hand"."""
        if self._now.open and self._now.head:
            self._now.owner, self._now.head = self._now.head, None

    # Pieces that end a noun phrase.

    def _place(self, piece: _Piece) -> None:
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

    def _motion(self, piece: _Piece) -> None:
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
        self._link = None if draft.open else _Piece("relation", into, "")

    def _frame(self, piece: _Piece) -> None:
        """The picture itself: "in the video"."""
        self._close()
        self._link = None

    def _skip(self, piece: _Piece) -> None:
        self._root.unread.append(piece.said)

    def _gaze(self, piece: _Piece) -> None:
        self._close()
        self._root.unread.append(piece.said)

    def _verb(self, piece: _Piece) -> None:
        if self._link and self._link.kind == "again" and not piece.article:
            self._link = None
        if self._dressed():
            self._close()
        if (self._link and self._link.said) or (self._now.open and self._now.head is None and self._now.started):
            self._np(piece).adjectives.append(piece.said)
            return
        self._close()
        self._root.unread.append(piece.said)
        self._link = _Piece("relation", "with", "")

    def _relation(self, piece: _Piece) -> None:
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

    def _asking(self, piece: _Piece) -> None:
        """A question word: the thing asked for at the start, and a relative pronoun later."""
        if self._now is self._root and not self._root.started:
            return
        self._close()

    def _and(self, piece: _Piece) -> None:
        if piece.said.casefold() == "both":
            self._number(piece._replace(number=2))
            return
        draft = self._now
        if draft.open and draft.head is None and (draft.colours or draft.adjectives):
            return  # "black and white dog", "in black and blue"
        if draft is self._root or not draft.link:
            self._close()
            self._link = _Piece("and", "", piece.said)
            return
        self._close()
        self._link = _Piece("again", draft.link, draft.said)

    def _not(self, piece: _Piece) -> None:
        self._negated = piece.said

    def _break(self, piece: _Piece) -> None:
        if self._now.open and self._now.head is None:
            return  # "a black, white and brown dog"
        self._close()

    def _be(self, piece: _Piece) -> None:
        if self._now.open and self._now.head is not None:
            self._close()

    def _silent(self, piece: _Piece) -> None:
        """A word that changes nothing."""

    # How the phrases hang together.

    def _trait(self, kind: TraitKind, piece: _Piece) -> Trait:
        return Trait(kind, piece.value, piece.said, negated=self._take_not())

    def _take_not(self) -> bool:
        negated, self._negated = bool(self._negated), ""
        return negated

    def _here(self, piece: _Piece) -> _Draft:
        """The phrase that a trait is said of: the one that is read where its noun is still to come, else the root."""
        led = piece.said.casefold().split()[0] in _PREPOSITIONS  # "on the left": about the root, not about a new noun
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

    def _np(self, piece: _Piece) -> _Draft:
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

    def _starts_new(self, piece: _Piece) -> bool:
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
            part = worn or ("clothes" if not draft.head else "head" if draft.head == "hair" else "accent")
            part = "clothes" if part == "accent" and draft.link == "wear" else part
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
