"""Cuts a referring expression into words and phrases of closed classes, and nouns: "on the left", "second", "wearing".

English has few words for colours, places, sizes, orders, motions and relations; they are listed here, by what they say.
What a phrase is may depend on the words before it: "to the left" is a way after "moving", a place after "car".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from trackgpt.reasoners.nouns import KNOWN, LONGEST_NOUN, is_plural, plain, singular, spelt

MAX_WORDS = 200
MAX_LETTERS = 4_000
"""What comes after so many words or letters is not read."""


def _words(table: str) -> Mapping[str, str]:
    """Each word or phrase of lines "value: phrase, phrase" to its value."""
    lines = (line.partition(":") for line in table.strip().splitlines())
    return {word.strip(): value.strip() for value, _, words in lines for word in words.split(",")}


def _counted(words: str, but: str = "") -> dict[str, int]:
    """Words for 1, 2, 3 ... to the numbers."""
    return {word: at for at, word in enumerate(words.split(), 1) if word != but}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


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
PREPOSITIONS = _set("on in at to towards toward from near by")
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_TOKEN = re.compile(r"[^\W_]+|[,;.:!?]|['’](?=s\b)")


class _Token(NamedTuple):
    word: str  # folded
    said: str  # as written
    article: bool  # whether an article stands in front of it


class Piece(NamedTuple):
    """A word or phrase with what it is.

    Attributes:
        kind: noun, colour, place, size, most, order, number, all, generic, another, other, owner, motion, gaze, verb,
            relation, and, not, asking, be, break, frame, skip, silent, or word where it is none of these.
        value: what it says: a noun in the singular, the colour, the side, the relation ...
        said: as it was written.
        article: whether an article stands in front of it.
        plural: of a noun.
        number: of an order ("second") or a number.
    """

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


@cache
def _nouns(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(singular(plain(name)) for name in names) - {""}


def pieces(text: str, names: Sequence[str] = ()) -> Iterator[Piece]:
    """The longest known phrase at each place of a text, with what the words before it make of it; silent ones, too.

    Args:
        text: any; what comes after `MAX_WORDS` or `MAX_LETTERS` is left out.
        names: class names of a detector, which are nouns, too.
    """
    tokens, more = _tokens(text[:MAX_LETTERS]), _nouns(tuple(names))
    at, last = 0, Piece("break", "", "")
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


def _place(tokens: Sequence[_Token], at: int, last: Piece) -> tuple[Piece, int] | None:
    """A side with what belongs to it: "on the left hand side of" something, "to the right", "closest to the top"."""
    crossing = _crossing(tokens, at)
    if crossing:
        return crossing
    start = at
    most = tokens[at].word in {"closest", "nearest", "furthest", "farthest"}
    at += most and at + 1 < len(tokens)
    at += tokens[at].word in PREPOSITIONS and at + 1 < len(tokens)
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
        return Piece("relation", side, said, article), at + 1 - start
    at += 2 if framed else of and not start
    return _sided(side, said, article, most, last), at - start


def _after_side(tokens: Sequence[_Token], at: int) -> int:
    """Where words like "hand side" end that only belong to a side."""
    at += _joined(tokens, at, 2) in {"hand side", "hand of"}
    while at < len(tokens) and tokens[at].word in {"side", "half", "part", "edge", "end", "area", "row", "most"}:
        at += 1
    return at


def _sided(side: str, said: str, article: bool, most: bool, last: Piece) -> Piece:
    """What a side says after the words before it: where something looks or goes, or where it is."""
    if most:
        return Piece("most", side, said, article)
    if last.kind == "gaze":
        return Piece("skip", "", said, article)
    first = said.casefold().split()[0]
    goes = first in {"to", "towards", "toward", "from"} or (first not in PREPOSITIONS and not article)
    if last.kind == "motion" and last.value != "still" and side in _TOWARDS and goes:
        way = _TOWARDS[side]
        return Piece("motion", _OPPOSITE[way] if first == "from" else way, said, article)
    return Piece("place", side, said, article)


def _crossing(tokens: Sequence[_Token], at: int) -> tuple[Piece, int] | None:
    """The way of something that goes "from left to right"."""
    words = [token.word for token in tokens[at : at + 4]]
    if len(words) == 4 and words[0] == "from" and words[1] in _SIDES and words[2] == "to":
        way = _TOWARDS.get(_SIDES.get(words[3], ""), "")
        return (Piece("motion", way, _said(tokens, at, 4)), 4) if way else None
    return None


def _direction(tokens: Sequence[_Token], at: int, last: Piece) -> tuple[Piece, int] | None:
    """Where something moves, after a verb of motion: "away from us", "towards the camera"."""
    if last.kind != "motion" or last.value == "still":
        return None
    words = [token.word for token in tokens[at : at + 3]] + [""] * 3
    viewer = _FRAME | {"us", "me", "viewer"}
    if words[0] == "away":
        length = 3 if words[1] == "from" and words[2] in viewer else 1
        return Piece("motion", "away", _said(tokens, at, length)), length
    if words[0] in {"to", "towards", "toward"} and words[1] in viewer:
        return Piece("motion", "closer", _said(tokens, at, 2)), 2
    if words[0] in {"up", "down"}:
        return Piece("motion", words[0], tokens[at].said), 1
    if words[0] in {"closer", "nearer"}:
        return Piece("motion", "closer", tokens[at].said), 1
    return None


def _orders(tokens: Sequence[_Token], at: int) -> bool:
    """Whether a word that may be a noun, too, is the verb of an order: "track the dog", "please track it"."""
    before = tokens[at - 1].word if at else "and"
    return tokens[at].word in _SILENT and not tokens[at].article and before in _SILENT | {"and", ",", ".", "please"}


def _compound(tokens: Sequence[_Token], at: int, more: frozenset[str]) -> tuple[Piece, int] | None:
    """A noun of several words: "traffic light", "left valve"."""
    for length in range(min(LONGEST_NOUN, len(tokens) - at), 1, -1):
        words = _joined(tokens, at, length)
        noun = singular(words)
        if noun in KNOWN or noun in more:
            said = _said(tokens, at, length)
            return Piece("noun", noun, said, tokens[at].article, is_plural(words)), length
    return None


def _noun(tokens: Sequence[_Token], at: int, more: frozenset[str]) -> tuple[Piece, int] | None:
    token = tokens[at]
    kind, _ = _TABLE.get(token.word, ("", ""))
    framed = token.word in _FRAME and at and tokens[at - 1].word in {"of", "in"}
    if framed or kind not in {"", "silent"} or _orders(tokens, at):
        return None
    noun = spelt(token.word, more)
    return (Piece("noun", noun, token.said, token.article, is_plural(token.word)), 1) if noun else None


def _known(tokens: Sequence[_Token], at: int, last: Piece) -> tuple[Piece, int]:
    """A phrase of the closed classes; else a word that is a verb by its ending, or just a word."""
    token = tokens[at]
    for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
        entry = _TABLE.get(_joined(tokens, at, length))
        if entry:
            kind, value = entry
            number = int(value) if kind in {"order", "number"} else 1
            return Piece(kind, value, _said(tokens, at, length), token.article, number=number), length
    following = tokens[at + 1].word if at + 1 < len(tokens) else ""
    if token.word in _PARTITIVE and following == "of":
        return Piece("silent", "", token.said), 2
    if token.word in _FRAME:
        return Piece("frame", "", token.said), 1
    acts = _ENDS.search(token.word) and last.kind != "colour"
    kind = "verb" if not token.article and (acts or last.kind == "be") else "word"
    return Piece(kind, token.word, token.said, token.article), 1
