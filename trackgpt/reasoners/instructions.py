"""What a sentence asks of a tracker that may be following something: "no, the black one" as a value.

Rules over closed classes of words, tried in order; what fits none of them names what to follow, word for word. A
sentence that leaves out what was said before is written out: while "the dog on the left" is followed, "no, the black
one" is a correction, "the black dog". Noun phrases are read by `trackgpt.reasoners.expression`. Any text is understood
without an error, in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from trackgpt.reasoners import instruction_words as tables
from trackgpt.reasoners.expression import Phrase, lasting, read
from trackgpt.reasoners.nouns import KNOWN, WORN, matches, singular
from trackgpt.reasoners.pieces import MAX_LETTERS
from trackgpt.types import PromptKind


@dataclass(frozen=True)
class Called:
    """A target and the words that named it, which are empty where it was shown alone."""

    id: int
    words: str = ""


@dataclass(frozen=True)
class Context:
    """What a sentence may refer to.

    Attributes:
        tracked: the targets that are followed.
        former: those that can be taken up again, the last one given up last.
        said: the words of what was said so far, oldest first.
        last: ids of the targets that the last instruction was about.
    """

    tracked: tuple[Called, ...] = ()
    former: tuple[Called, ...] = ()
    said: tuple[str, ...] = ()
    last: tuple[int, ...] = ()

    @property
    def begun(self) -> bool:
        """Whether anything has been said or shown."""
        return bool(self.tracked or self.former or self.said)

    @property
    def focus(self) -> Called | None:
        """The target that "it" is: the only one, or the only one of the last instruction."""
        last = [one for one in self.tracked if one.id in self.last]
        return next((some[0] for some in (self.tracked, last) if len(some) == 1), None)

    @property
    def words(self) -> str:
        """The words that a sentence goes on from."""
        if self.tracked:
            return self.focus.words if self.focus else ""
        return self.said[-1] if self.said else ""


@dataclass(frozen=True)
class Understood:
    """What a sentence asks for.

    Attributes:
        kind: see `trackgpt.types.Prompt`.
        words: what remains to be found on the frame, written out; empty where nothing does. Of a "drop", a target that
            was named and is not followed.
        ids: the targets that it is about, where it says so.
        excluded: followed targets that are not what the words mean.
        instead: of a "conditional", what to follow where `words` are not found, in order.
        sure: no kind is likelier. Not so where something is followed, no rule fits, and the words are no noun phrase of
            which every word is understood: then they are taken for a "switch", and a model may know better.
    """

    kind: PromptKind
    words: str = ""
    ids: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    instead: tuple[str, ...] = ()
    sure: bool = True


def understand(text: str, context: Context = Context()) -> Understood:
    """What a sentence asks for; see the module.

    Args:
        text: any.
        context: what is followed and what was said.
    """
    plain = Understood("switch" if context.begun else "start", text)
    tokens = _tokens(text) if len(text) <= MAX_LETTERS else ()
    found = next((one for rule in _RULES if tokens and (one := rule(tokens, context)) is not None), plain)
    if not context.begun and found.kind in ("switch", "add"):
        found = Understood("start", found.words)
    found = found if found.words or found.kind in _WORDLESS else plain
    return replace(found, sure=False) if found is plain and context.tracked and not _is_named(text) else found


def _is_named(text: str) -> bool:
    """Whether words are noun phrases and nothing else."""
    return len(text) <= MAX_LETTERS and all(one.noun in KNOWN and not one.unread for one in read(text).phrases)


def asks_for_others(question: str) -> bool:
    """Whether a question is about what else would fit: "is there another one that fits?"."""
    words = {token.word for token in _tokens(question[:MAX_LETTERS])}
    named = words & (tables.FURTHER | {"fits", "fit", "matches"} - {"more"}) or {"any", "other"} <= words
    return bool(named or ("more" in words and words & {"there", "any"})) and "why" not in words


def referred(words: str, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things that words refer to: by number, by order or as they were named; all for "all"; empty for none.

    Several are given for a plural alone.
    """
    tokens = _bare(_tokens(words[:MAX_LETTERS]))
    if not tokens or _same(tokens, tables.ALL):
        return tuple(things) if tokens else ()
    meant = _among(tokens, things)
    return meant if len(meant) == 1 or _root(words).count != 1 else ()


class _Token(NamedTuple):
    word: str  # folded
    said: str  # as written


_Tokens = Sequence[_Token]


_TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:['’](?!s\b)[^\W_]+)*|['’]s\b|[^\w\s]|_")
_PART_WORDS = 6  # of "the left front wheel of it"; more of them name another thing
_WORDLESS = ("drop", "resume", "question", "absence")


def _tokens(text: str) -> tuple[_Token, ...]:
    found = (each.group() for each in _TOKEN.finditer(text))
    return tuple(_Token(said.casefold().replace("’", "'"), said) for said in found)


def _written(tokens: Iterable[_Token]) -> str:
    """Tokens as text."""
    text = ""
    for token in tokens:
        glued = not text or token.word in {"'s", ",", ".", ";", ":", "!", "?", ")", "%"} or text[-1] in "#(-–"
        glued = glued or token.word in {"-", "–"}
        text += token.said if glued else f" {token.said}"
    return text


def _at(tokens: _Tokens, k: int, phrases: frozenset[str]) -> int:
    """How many tokens the longest phrase of a table has that stands at a place; 0 where none does."""
    for length in range(min(tables.LONGEST_PHRASE, len(tokens) - k), 0, -1):
        if " ".join(token.word for token in tokens[k : k + length]) in phrases:
            return length
    return 0


def _after(tokens: _Tokens, phrases: frozenset[str]) -> _Tokens | None:
    """What follows a phrase at the beginning, or None."""
    length = _at(tokens, 0, phrases)
    return tokens[length:] if length else None


def _led(tokens: _Tokens, leading: frozenset[str] = tables.LEADING) -> _Tokens:
    """Without what leads up to the words that name something."""
    k = 0
    while k < len(tokens) and (length := 1 if tokens[k].word in tables.BREAKS else _at(tokens, k, leading)):
        k += length
    return tokens[k:]


def _ended(tokens: _Tokens, trailing: frozenset[str] = tables.TRAILING) -> _Tokens:
    """Without what comes after the words that name something."""
    end = len(tokens)
    while end:
        lengths = (n for n in range(3, 0, -1) if n <= end and _at(tokens[end - n : end], 0, trailing) == n)
        length = 1 if tokens[end - 1].word in tables.BREAKS else next(lengths, 0)
        if not length:
            break
        end -= length
    return tokens[:end]


def _bare(tokens: _Tokens) -> _Tokens:
    return _ended(_led(tokens))


def _same(tokens: _Tokens, phrases: frozenset[str]) -> bool:
    """Whether tokens, but for breaks, are a phrase of a table."""
    kept = [token for token in tokens if token.word not in tables.BREAKS]
    return bool(kept) and _at(kept, 0, phrases) == len(kept)


def _past_break(tokens: _Tokens, k: int) -> int:
    """Where the words go on after the next break."""
    stops = (at + 1 for at in range(k, len(tokens)) if tokens[at].word in tables.BREAKS or tokens[at].word == "but")
    return next(stops, len(tokens))


# --- which target is meant ---


def _agree(one: str, other: str) -> bool:
    """Whether two nouns may name the same thing; an empty one may name any."""
    if not one or not other or one == other:
        return True
    return any(match.how != "stand-in" for a, b in ((one, other), (other, one)) for match in matches(a, [b]))


def _says(reference: Phrase, thing: Phrase) -> bool:
    """Whether all that a reference says was said of a thing."""
    known = {(trait.kind, trait.value, trait.negated) for trait in thing.traits}
    said = {(trait.kind, trait.value, trait.negated) for trait in reference.traits if trait.kind != "rank"}
    return said <= known


def _number(tokens: _Tokens) -> int:
    """The number in "number 2", "#2" or "2"; 0 where the words are something else."""
    rest = [token.word for token in tokens if token.word not in tables.ARTICLES]
    while len(rest) > 1 and rest[0] in tables.NUMBERED:
        rest = rest[1:]
    return int(rest[0]) if len(rest) == 1 and rest[0].isdecimal() and len(rest[0]) < 9 else 0


def _among(tokens: _Tokens, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things that words refer to, by number, order or description: none, one, or several that fit alike."""
    number = _number(tokens)
    if number:
        return tuple(one for one in things if one.id == number)
    words = [token.word for token in tokens if token.word not in tables.ARTICLES]
    if (
        words
        and words[0] in (*tables.ORDINALS, "last", "previous", "former", "earlier")
        and set(words[1:]) <= tables.GENERIC
    ):
        ordered = sorted(things, key=lambda one: one.id)
        at = tables.ORDINALS.index(words[0]) if words[0] in tables.ORDINALS else len(things) - 1
        picked = ordered if words[0] in tables.ORDINALS else things
        return tuple(picked[at : at + 1]) if at >= 0 else ()
    reference = _phrases(_written(tokens))[0]
    if not reference.noun and not reference.traits:
        return ()
    alike = [one for one in things if one.words and _agree(reference.noun, _root(one.words).noun)]
    exact = tuple(one for one in alike if _says(reference, _root(one.words)))
    if exact or not reference.noun:
        return exact
    return tuple(alike) if len(alike) == 1 and not reference.traits else ()


def _undenied(tokens: _Tokens, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things of the noun of words that say nothing else of what the words say.

    "the yellow car" may be what was called "the car on the left" when it was named, and is not "the red car".
    """
    reference = _phrases(_written(tokens))[0]
    kinds = {trait.kind for trait in reference.traits}
    alike = [one for one in things if one.words and _agree(reference.noun, _root(one.words).noun)]
    return tuple(one for one in alike if reference.noun and not kinds & {each.kind for each in _root(one.words).traits})


@lru_cache(maxsize=256)
def _phrases(words: str) -> tuple[Phrase, ...]:
    return read(words).phrases


def _root(words: str) -> Phrase:
    return _phrases(words)[0]


# --- words written out ---


def _spelled(tokens: _Tokens, context: Context) -> str:
    """Words with what they leave out: the noun of what is followed, and what "it" and "her" stand for."""
    target = _naming(context.words)
    if tokens and tokens[0].word in tables.ARTICLES:
        tokens = (_Token(tokens[0].word, tokens[0].word), *tokens[1:])
    if target and len(tokens) > 1 and tokens[0].word in tables.OWNERS:
        return f"the {_written(tokens[1:])} of {target}"
    return _written(_resolved(_with_noun(_unlinked(tokens), context.words), target))


def _naming(words: str) -> str:
    """The noun phrase of an instruction: "track the dog" is about "the dog"."""
    return _written(_bare(_tokens(words)))


def _unlinked(tokens: _Tokens) -> _Tokens:
    """Without "who is": "the rider who is in blue" is "the rider in blue"."""
    for k in range(1, len(tokens) - 2):
        linked = tokens[k].word in {"who", "that", "which"} and tokens[k + 1].word in {"is", "are", "'s"}
        if linked and tokens[k + 2].word in tables.BEFORE:
            return (*tokens[:k], *tokens[k + 2 :])
    return tokens


def _with_noun(tokens: _Tokens, words: str) -> _Tokens:
    """Words with the noun of others, where they have none of their own: "the black on the left"."""
    noun, own = _root(words).said if words else "", _phrases(_written(tokens))
    if not noun or not tokens or len(own) > 1 or own[0].noun or tokens[0].word in tables.PRONOUNS - tables.ARTICLES:
        return tokens
    called = _Token(noun.casefold(), noun)
    named = _with_one(tokens, called)
    if named != tokens:
        return named
    k = next((k for k, token in enumerate(tokens) if token.word in tables.ENDS_NOUN), len(tokens))
    if any(token.word in tables.UNNAMED or singular(token.word) in KNOWN for token in tokens[:k]):
        return tokens
    led = () if k and tokens[0].word in tables.ARTICLES | {"another", "any"} else (_Token("the", "the"),)
    return (*led, *tokens[:k], called, *tokens[k:])


def _with_one(tokens: _Tokens, noun: _Token) -> _Tokens:
    """Words with a noun for "one", or after "other"."""
    for k, token in enumerate(tokens):
        following = tokens[k + 1].word if k + 1 < len(tokens) else "."
        if token.word in {"one", "ones"} and following != "of" and (k == 0 or tokens[k - 1].word != "no"):
            return (*tokens[:k], noun, *tokens[k + 1 :])
        if token.word in {"other", "another"} and following in tables.ENDS_NOUN:
            return (*tokens[: k + 1], noun, *tokens[k + 1 :])
    return tokens


def _resolved(tokens: _Tokens, target: str) -> _Tokens:
    """Words with a target's own for a pronoun that stands beside the first noun: "the man behind it"."""
    first = next((k for k, token in enumerate(tokens) if k and token.word in tables.BEFORE), len(tokens))
    k = first + 1
    while k < len(tokens) and tokens[k].word in tables.BETWEEN:
        k += 1
    ends = k + 1 >= len(tokens) or tokens[k + 1].word in tables.ENDS_NOUN
    found = target and k < len(tokens) and tokens[k].word in tables.OBJECTS and ends
    if found and not _root(_written(tokens[:first])).relations:
        return (*tokens[:k], *_tokens(target), *tokens[k + 1 :])
    return tokens


def _excluded(tokens: _Tokens, context: Context) -> tuple[int, ...]:
    """The followed targets that "the other one" is not."""
    if not any(token.word in {"other", "another", "others"} for token in tokens[:3]):
        return ()
    noun = _root(_written(tokens)).noun
    return tuple(one.id for one in context.tracked if _agree(noun, _root(one.words).noun))


# --- the kinds ---


def _question(tokens: _Tokens, context: Context) -> Understood | None:
    """A question about the tracking; one about the picture ("who will win?") names what to follow."""
    words = [token.word for token in tokens if token.word not in tables.BREAKS]
    if not words:
        return None
    further = set(words) & tables.FURTHER or {"any", "other"} <= set(words)
    if context.begun and tokens[-1].word == "?" and further and _at(tokens, 0, tables.ASKS_FOR_OTHERS):
        return Understood("question")
    if words[0] not in tables.ASKS:
        return None
    rest, about = words[1:], None
    if "you" in words or "your" in words:
        about = bool(tables.ASKED & set(words)) or _same(tokens, tables.LOOKING)
    elif words[:2] in (["is", "there"], ["are", "there"]):
        about = (
            context.begun and set(words[2:]) <= tables.SMALL | tables.FITTING and bool(set(words[2:]) & tables.FITTING)
        )
    elif words[0] == "why" and rest:
        small = set(rest) - tables.SMALL
        named = _among(tokens[1:], context.tracked) if small else ()
        about = not small or bool(named) or bool(small & tables.ASKED)
    elif words[0] in {"is", "was", "are"}:
        about = bool(rest) and rest[0] in tables.POINTING and "?" in {token.word for token in tokens}
    elif context.begun or words[0] == "why":
        about = all(word in tables.SMALL | tables.ASKED | tables.FITTING or word.isdecimal() for word in rest)
        about = about and (words[0] == "why" or bool(rest))
    return Understood("question") if about else None


def _conditional(tokens: _Tokens, context: Context) -> Understood | None:
    """What to follow, in order: "the ball handler; if not visible, the ball"."""
    words = [token.word for token in tokens]
    options: list[_Tokens] = []
    if "if" in words:
        options = _if(tokens, words.index("if"), context)
    else:
        for k in range(1, len(words)):
            length = _at(tokens, k, tables.OTHERWISE)
            if length and (words[k - 1] in tables.BREAKS or words[k] == "or"):
                seen = next((j for j in range(1, k) if _at(tokens, j, tables.AS_LONG)), k)
                options = [tokens[:seen], tokens[k + length :]]
                break
        options = options or _while(tokens)
    found = [spelled for each in options if (spelled := _spelled(_bare(each), context))]
    return Understood("conditional", found[0], instead=tuple(found[1:])) if len(found) > 1 else None


def _if(tokens: _Tokens, k: int, context: Context) -> list[_Tokens]:
    """What is to be followed, in order, of a sentence with "if" at a place; fewer than two where it says no such."""
    ends = (at for at in range(k + 2, len(tokens)) if tokens[at].word in {",", ";", "then", "track", "follow", "."})
    end = next(ends, len(tokens))
    before, condition, after = _bare(tokens[:k]), tokens[k + 1 : end], _bare(tokens[end:])
    otherwise = _after(after, tables.OTHERWISE)
    if not _unseen(condition):
        seen = any(token.word in {"visible", "there", "present", "possible", "seen"} for token in condition)
        return [before, otherwise] if seen and before and otherwise else []
    subject = _subject_of(condition)
    if before and after:
        return [before, after]
    if before:
        parts = [at for at, token in enumerate(before) if token.word == "or"]
        return [before[: parts[0]], before[parts[0] + 1 :]] if parts else [subject, before]
    return [subject or _tokens(context.words), after]


def _while(tokens: _Tokens) -> list[_Tokens]:
    """The same of a sentence with another word for "if": "the dog, but the cat whenever it is out of sight"."""
    for k in range(1, len(tokens)):
        length = _at(tokens, k, tables.WHILE)
        end = next((at for at in range(k + length, len(tokens)) if tokens[at].word in tables.BREAKS), len(tokens))
        if not length or not _unseen(tokens[k + length : end]):
            continue
        before, after = tokens[:k], tokens[end:]
        if _bare(after):
            return [before, after]
        joins = [at for at in range(1, k) if before[at].word in {"and", "but", ",", ";"}]
        return [before[: joins[-1]], before[joins[-1] + 1 :]] if joins else []
    return []


def _unseen(condition: _Tokens) -> bool:
    """Whether a condition is that something cannot be seen."""
    words = {token.word for token in condition}
    return bool(words & tables.UNSEEN or (words & tables.NEGATED and (words & tables.SEEN or len(words) == 1)))


def _subject_of(condition: _Tokens) -> _Tokens:
    """What a condition says cannot be seen: "you can't see the handler", "there is no ball"; empty for "it"."""
    words = [token.word for token in condition]
    for verb in ("see", "find", "no"):
        if verb in words[:-1]:
            return _bare(condition[words.index(verb) + 1 :])
    stop = next((k for k, word in enumerate(words) if word in tables.BE | tables.NEGATED | tables.GONE_VERBS), 0)
    subject = _bare(condition[:stop])
    return () if _same(subject, tables.PRONOUNS) else subject


def _drop(tokens: _Tokens, context: Context) -> Understood | None:
    """The end of some targets: "stop following the dog", "forget number 2"."""
    led = _led(tokens, tables.POLITE)
    if _same(_ended(led), tables.STOP_ALL):
        return Understood("drop")
    rest = _after(led, tables.STOP)
    if rest is None:
        rest = _unwanted(led)
    if rest is None:
        rest = _after(led, tables.FORGET)
        opens = (
            tables.ARTICLES
            | tables.OWNERS
            | tables.NUMBERED
            | tables.OBJECTS
            | {"all", "both", "everything", "everyone"}
        )
        if not rest or not (rest[0].word in opens or rest[0].word.isdecimal()):
            return None
    rest = _ended(rest, tables.LATER)
    if any(token.word in tables.BREAKS for token in rest if token.word not in "#-"):
        return None
    if not rest or _same(rest, tables.ALL):
        return Understood("drop")
    if _same(rest, tables.PRONOUNS) and context.focus:
        return Understood("drop", ids=(context.focus.id,))
    meant = referred(_written(rest), context.tracked)
    if meant:
        return Understood("drop", ids=tuple(one.id for one in meant))
    number = _number(rest)
    return Understood("drop", ids=(number,)) if number else Understood("drop", _written(rest))


def _unwanted(tokens: _Tokens) -> _Tokens | None:
    """What is left out: "leave the dog out", "the dog does not matter any more"; None where nothing is."""
    ended = _ended(tokens, tables.LATER)
    if len(ended) > 2 and (ended[0].word, ended[-1].word) == ("leave", "out"):
        return ended[1:-1]
    k = next((k for k in range(1, len(ended)) if _at(ended, k, tables.UNWANTED) == len(ended) - k), 0)
    return ended[:k] if k else None


def _absence(tokens: _Tokens, context: Context) -> Understood | None:
    """What is followed leaves, is hidden or is gone: "it is about to leave", "keep searching"."""
    if not context.begun:
        return None
    parts = _parts(tokens)
    if any(_same(part, tables.SEARCHING) for part in parts) or _after(parts[0], tables.SEARCHING_FOR):
        return Understood("absence", ids=() if context.focus is None else (context.focus.id,))
    if context.focus and (_after(_led(tokens, tables.NOTING), tables.LOSING) or _in_part(tokens)):
        return Understood("absence", ids=(context.focus.id,))
    found = _clause(tokens, context)
    if found is not None:
        subject, verb, predicate = found
        said = _led(predicate, tables.HEADING)
        gone = _at(said, 0, tables.GONE) or (verb in {"has", "have", "'s", ""} and _at(said, 0, tables.WENT))
        return Understood("absence", ids=(subject.id,)) if gone else None
    first = parts[0]
    if len(first) > 1 and first[-1].word in {"lost", "gone", "missing", "hidden", "invisible"}:
        meant = _among(_bare(first[:-1]), context.tracked)
        if len(meant) == 1:
            return Understood("absence", ids=(meant[0].id,))
    return None


def _in_part(tokens: _Tokens) -> bool:
    """Whether only a part of what is followed can be seen: "only a part of it can be seen"."""
    words = {token.word for token in tokens}
    for k in range(len(tokens) - 1):
        length = _at(tokens, k, tables.SHARES)
        if length and k + length < len(tokens) and tokens[k + length].word in tables.OBJECTS:
            return bool(words & {"seen", "see", "visible"}) and bool(words & (tables.NEGATED | {"only", "just"}))
    return False


def _parts(tokens: _Tokens) -> list[_Tokens]:
    """The parts of a sentence between its breaks."""
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token.word in tables.BREAKS:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part] or [[]]


def _clause(tokens: _Tokens, context: Context) -> tuple[Called, str, _Tokens] | None:
    """A statement about something followed: which one, the verb "to be" or "to have" if any, and what is said."""
    tokens = _ended(_led(tokens, tables.NOTING), tables.PLEASE)
    shown = _at(tokens, 0, tables.SHOWING)
    if shown and context.focus and shown + 1 < len(tokens) and tokens[shown].word in tables.OBJECTS:
        return context.focus, "", tokens[shown + 1 :]
    length = _at(tokens, 0, tables.SUBJECTS)
    if length and context.focus:
        rest = tokens[length:]
        verb = rest[0].word if rest and rest[0].word in tables.BE else ""
        return (context.focus, verb, rest[1:] if verb else rest) if rest else None
    at = next(
        (k for k, token in enumerate(tokens) if token.word in tables.BE | tables.RELATIVE | tables.BREAKS), len(tokens)
    )
    if not 0 < at < len(tokens) - 1 or tokens[at].word not in tables.BE or tokens[0].word in {"a", "an", "another"}:
        return None
    subject, rest = tokens[:at], tokens[at + 1 :]
    articles = [k for k, token in enumerate(subject) if token.word in tables.ARTICLES]
    if any(k and subject[k - 1].word not in tables.BEFORE | {"and"} for k in articles):
        return None  # "the dog the man is holding"
    if tokens[at].word in {"has", "have", "had"} and rest[0].word in tables.ARTICLES:
        return None  # "the man has a hat" tells him from others
    meant = _among(subject, context.tracked)
    return (meant[0], tokens[at].word, rest) if len(meant) == 1 else None


def _resume(tokens: _Tokens, context: Context) -> Understood | None:
    """A return to a former target: "back to the rider who is in blue"."""
    if not context.begun:
        return None
    led = _led(tokens, tables.POLITE)
    rest = _after(led, tables.BACK)
    if rest is None and _same(_ended(led), tables.BACK_ALONE):
        rest = ()
    again = rest is None and len(tokens) > 1 and _ended(tokens, frozenset())[-1].word == "again"
    rest = tokens if again else rest
    if rest is None or (rest and rest[0].word == "back"):
        return None
    rest = _bare(rest)
    if not again and _whole(rest, context):
        return None
    if again and len(_among(rest, context.tracked)) == 1:
        return None
    meant = context.former[-1:] if not rest else _among(rest, context.former) or _undenied(rest, context.former)
    if len(meant) == 1:
        return Understood("resume", _naming(meant[0].words), (meant[0].id,))
    if again:
        return None
    earlier = _among(rest, [Called(k + 1, words) for k, words in enumerate(context.said)])
    if not rest:
        earlier = tuple(Called(0, words) for words in context.said[-2:-1])
    words = _naming(earlier[0].words) if earlier and (not rest or not _root(_written(rest)).noun) else ""
    return Understood("switch", words or _spelled(rest, context))


def _confirmed(tokens: _Tokens, context: Context) -> Understood | None:
    """What is followed is right: "yes, that one"."""
    if context.focus and _same(tokens, tables.RIGHT):
        return Understood("state", _naming(context.focus.words), (context.focus.id,))
    return None


def _correct(tokens: _Tokens, context: Context) -> Understood | None:
    """What is followed is wrong, and what was meant instead: "no, the black one"."""
    rest = _denied(tokens, context) if context.begun else None
    if rest is None:
        return None
    for rule in (_drop, _resume, _add):
        found = rule(rest, context) if rest else None
        if found is not None:
            return found
    rest = _bare(rest)
    meant = _among(rest, context.tracked) if rest and len(context.tracked) > 1 and not _number(rest) else ()
    wrong = meant[0] if len(meant) == 1 else context.focus
    of = replace(context, last=(wrong.id,)) if wrong else context
    vague = not rest or _same(rest, tables.PRONOUNS)
    words = _naming(of.words) if vague else _spelled(rest, of)
    excluded = (wrong.id,) if wrong else ()
    ids = excluded if len(context.tracked) > 1 else ()
    return Understood("correct" if context.tracked else "switch", words, ids, excluded)


def _denied(tokens: _Tokens, context: Context) -> _Tokens | None:
    """What comes after words that say that something is wrong; None where there are none."""
    denied, left = False, _led(tokens, tables.HESITATING)
    while left and (k := _denial(left, context)):
        denied, left = True, _led(left[k:], tables.HESITATING - {"stop"})
    return left if denied else None


def _denial(tokens: _Tokens, context: Context) -> int:
    """How many tokens at the beginning say that something is wrong."""
    words = [token.word for token in tokens] + ["", "", "", ""]
    if words[0] in tables.NO and (words[1] == "" or words[1] in tables.BREAKS or words[1] in tables.NOT_NUMBER):
        return 1
    if words[0] == "not" and words[1] in tables.ARTICLES | tables.OBJECTS:
        return _past_break(tokens, 1)
    length = _at(tokens, 0, tables.I_MEANT)
    if length and len(tokens) > length:
        return length
    if words[0] in tables.POINTING and words[1] in tables.BE:
        k = 1 + (words[1] in {"is", "'s", "are", "was"} and words[2] == "not")
        negated = k == 2 or words[1] in tables.NEGATED
        if negated and words[k + 1] in tables.NOT_WHAT | {""}:
            return _past_break(tokens, k)
        if words[2] in {"wrong", "incorrect"}:
            return _past_break(tokens, k)
        if words[0] != "which" and not negated and words[2] in {"the", "a", "an"} and words[3] != "wrong":
            return 2
    return _wrong(tokens, words, context)


def _wrong(tokens: _Tokens, words: list[str], context: Context) -> int:
    """The same for "the wrong dog", "you are tracking the wrong one"."""
    first = words.index("wrong") if "wrong" in words[:6] else -1
    opens = {"wrong", "the", "you", "that", "this", "it"}
    if first < 0 or words[0] not in opens or (words[0] == "the" and first != 1):
        return 0
    noun = words[first + 1]
    named = noun in tables.GENERIC or noun == "" or noun in tables.BREAKS
    named = named or any(one.words and noun == _root(one.words).noun for one in context.tracked)
    return _past_break(tokens, first) if named else 0


def _add(tokens: _Tokens, context: Context) -> Understood | None:
    """One more target: "also the referee"."""
    led = _led(tokens, tables.ORDERING)
    rest = _after(led, tables.ALSO)
    started = tokens[0].word == "and" and len(tokens) > 1 and tokens[1].word in tables.ARTICLES | tables.OWNERS
    if rest is None and started and context.begun:
        rest = tokens[1:]
    ended = _ended(tokens, frozenset())
    if rest is None and any(_at(ended[-n:], 0, tables.TOO) == n for n in (1, 2) if len(ended) > n):
        rest = _ended(_led(tokens), tables.TRAILING | tables.TOO)
        if any(token.word in tables.BE for token in rest):
            return None
    if rest is None or (rest and rest[0].word in {"known", "called", "ran"}):
        return None
    rest = _ended(_led(rest), tables.TRAILING | tables.TOO)
    if not rest or (led and led[0].word in {"add", "include"} and _same(rest, tables.PRONOUNS)):
        return None
    return Understood("add", _spelled(rest, context), excluded=_excluded(rest, context))


def _refine(tokens: _Tokens, context: Context) -> Understood | None:
    """A part of what is followed, or the whole of it again: "now only her head"."""
    target = context.focus
    if target is None or not target.words:
        return None
    rest = _bare(tokens)
    ids = (target.id,) if len(context.tracked) > 1 else ()
    if whole := _whole(_led(rest, tables.BACK), context):
        return Understood("refine", whole, ids)
    if not rest:
        return None
    owned = rest[0].word in tables.OWNERS
    phrase = _root(_written(rest[1:] if owned else rest))
    if phrase.noun not in tables.PARTS and not (owned and phrase.noun in WORN):
        return None
    of = [relation.other for relation in phrase.relations if relation.said in {"of", "'s"}]
    if of:
        short = rest[0].word == "the" and len(rest) <= _PART_WORDS and any(t.word in {"of", "'s"} for t in rest)
        same = short and len(phrase.relations) == 1 and _agree(of[0].noun, _root(target.words).noun)
        return Understood("refine", _written(rest), ids) if same else None
    only = any(_at(tokens, k, tables.ONLY) for k in range(len(tokens) - len(rest)))
    if owned or (only and not phrase.relations):
        part = rest[1:] if owned or rest[0].word in tables.ARTICLES else rest
        return Understood("refine", f"the {_written(part)} of {_of_whole(target.words)}", ids)
    return None


def _whole(rest: _Tokens, context: Context) -> str:
    """The words of the whole target, where the whole is asked for: "the full body", "all of her"; else ""."""
    target = context.focus
    if target is None or not rest:
        return ""
    words = [token.word for token in rest if token.word not in tables.ARTICLES | tables.OWNERS]
    noun = _root(_of_whole(target.words)).noun
    whole = len(words) == 2 and words[0] in tables.BODY_WHOLE and words[1] in tables.GENERIC | {"body", noun}
    return _of_whole(target.words) if whole or _same(rest, tables.ALL_OF_IT) else ""


def _of_whole(words: str) -> str:
    """Of "the head of the dog", "the dog"; all words where they name no part."""
    named = _naming(words)
    part, _, whole = named.partition(" of ")
    return whole if whole and _root(part).noun in tables.PARTS | frozenset(WORN) else named


def _state(tokens: _Tokens, context: Context) -> Understood | None:
    """What is followed looks or moves in another way now: "the panda is now lying down"."""
    found = _clause(tokens, context)
    if found is None:
        return None
    subject, verb, predicate = found
    said = _led(predicate, tables.MEANWHILE)
    if not said or tokens[-1].word == "?":
        return None
    denied = [_Token("not", "not")] if verb in tables.NEGATED else []
    still = lasting(_of_whole(subject.words))
    return Understood("state", f"the {still or 'target'} {_written([*denied, *said])}", (subject.id,))


def _switch(tokens: _Tokens, context: Context) -> Understood | None:
    """Another target, where more than its bare words is said, or less: "now the cat", "the black one"."""
    if tokens[-1].word == "?":
        return None
    led = _led(tokens, tables.POLITE_ONLY)
    rest = _after(led, tables.TO_OTHER)
    ended = _ended(tokens, frozenset())
    if rest is None and len(ended) > 1 and ended[-1].word == "instead" and ended[-2].word != "of":
        rest = tokens
    said = _bare(tokens if rest is None else rest)
    if not said or (not context.begun and rest is not None and led[0].word in {"go", "move", "now", "actually"}):
        return None
    number, former = _number(said), {one.id: one for one in context.former}
    if number in former and rest is not None:
        return Understood("resume", _naming(former[number].words), (number,))
    excluded = _excluded(said, context)
    if rest is not None:
        return Understood("switch", _spelled(said, context), excluded=excluded)
    words = _elliptic(said, context)
    return Understood("switch", words or _written(said), excluded=excluded) if words or excluded else None


def _elliptic(tokens: _Tokens, context: Context) -> str:
    """Words written out where they leave out what they go on from, as "the black one" does; else ""."""
    words = _written(tokens)
    target, own = _naming(context.words), _phrases(words)
    if not target or len(own) > 1:
        return ""
    if tokens[0].word in tables.OWNERS and len(tokens) > 1:
        return _spelled(tokens, context)
    noun = _root(target).said
    named = tokens if own[0].noun or not noun else _with_one(tokens, _Token(noun.casefold(), noun))
    written = _written(_resolved(named, target))
    return written if written != words else ""


_RULES = (
    _question,
    _conditional,
    _drop,
    _confirmed,
    _absence,
    _resume,
    _correct,
    _add,
    _refine,
    _state,
    _switch,
)
