"""What words refer to among the targets of a track, and words written out with what they leave out of what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from trackgpt.reasoners import instruction_words as tables
from trackgpt.reasoners.expression import Phrase, read
from trackgpt.reasoners.instruction_tokens import Token, Tokens, bare, is_phrase, text_of, tokens_of
from trackgpt.reasoners.nouns import KNOWN, matches, singular
from trackgpt.reasoners.pieces import MAX_LETTERS


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


NOTHING_SAID = Context()
"""Before anything has been said or shown."""


# --- which target is meant ---


def referred(words: str, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things that words refer to: by number, by order or as they were named; all for "all"; empty for none.

    Several are given for a plural alone.
    """
    tokens = bare(tokens_of(words[:MAX_LETTERS]))
    if not tokens or is_phrase(tokens, tables.ALL):
        return tuple(things) if tokens else ()
    meant = those_meant(tokens, things)
    return meant if len(meant) == 1 or first_phrase(words).count != 1 else ()


def nouns_agree(one: str, other: str) -> bool:
    """Whether two nouns may name the same thing; an empty one may name any."""
    if not one or not other or one == other:
        return True
    return any(match.how != "stand-in" for a, b in ((one, other), (other, one)) for match in matches(a, [b]))


def _says(reference: Phrase, thing: Phrase) -> bool:
    """Whether all that a reference says was said of a thing."""
    known = {(trait.kind, trait.value, trait.negated) for trait in thing.traits}
    said = {(trait.kind, trait.value, trait.negated) for trait in reference.traits if trait.kind != "rank"}
    return said <= known


def number_in(tokens: Tokens) -> int:
    """The number in "number 2", "#2" or "2"; 0 where the words are something else."""
    rest = [token.word for token in tokens if token.word not in tables.ARTICLES]
    while len(rest) > 1 and rest[0] in tables.NUMBERED:
        rest = rest[1:]
    return int(rest[0]) if len(rest) == 1 and rest[0].isdecimal() and len(rest[0]) < 9 else 0


def order_in(tokens: Tokens) -> str:
    """The word of order in "the first one" or "the previous"; "" where the words say more, or something else."""
    rest = [token.word for token in tokens if token.word not in tables.ARTICLES]
    ordered = rest and rest[0] in (*tables.ORDINALS, "last", "previous", "former", "earlier")
    return rest[0] if ordered and set(rest[1:]) <= tables.GENERIC else ""


def only_counts(words: str) -> bool:
    """Whether words say which one is meant by number, order or "all", and nothing of what it is."""
    tokens = bare(tokens_of(words[:MAX_LETTERS]))
    return not tokens or is_phrase(tokens, tables.ALL) or number_in(tokens) > 0 or order_in(tokens) != ""


def those_meant(tokens: Tokens, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things that words refer to, by number, order or description: none, one, or several that fit alike."""
    number = number_in(tokens)
    if number:
        return tuple(one for one in things if one.id == number)
    order = order_in(tokens)
    if order:
        ordered = sorted(things, key=lambda one: one.id)
        at = tables.ORDINALS.index(order) if order in tables.ORDINALS else len(things) - 1
        picked = ordered if order in tables.ORDINALS else things
        return tuple(picked[at : at + 1]) if at >= 0 else ()
    reference = first_phrase(text_of(tokens))
    if not reference.noun and not reference.traits:
        return ()
    alike = [one for one in things if one.words and nouns_agree(reference.noun, first_phrase(one.words).noun)]
    exact = tuple(one for one in alike if _says(reference, first_phrase(one.words)))
    if exact or not reference.noun:
        return exact
    return tuple(alike) if len(alike) == 1 and not reference.traits else ()


def not_denied(tokens: Tokens, things: Sequence[Called]) -> tuple[Called, ...]:
    """The things of the noun of words that say nothing else of what the words say.

    "the yellow car" may be what was called "the car on the left" when it was named, and is not "the red car".
    """
    reference = first_phrase(text_of(tokens))
    kinds = {trait.kind for trait in reference.traits}
    alike = [one for one in things if one.words and nouns_agree(reference.noun, first_phrase(one.words).noun)]
    said = {one: {trait.kind for trait in first_phrase(one.words).traits} for one in alike}
    return tuple(one for one in alike if reference.noun and not kinds & said[one])


@lru_cache(maxsize=256)
def phrases_of(words: str) -> tuple[Phrase, ...]:
    """The noun phrases of words, at least one, which may be empty."""
    return read(words).phrases


def first_phrase(words: str) -> Phrase:
    """The noun phrase that words begin with."""
    return phrases_of(words)[0]


# --- words written out ---


def spelled_out(tokens: Tokens, context: Context) -> str:
    """Words with what they leave out: the noun of what is followed, and what "it" and "her" stand for."""
    target = naming(context.words)
    if tokens and tokens[0].word in tables.ARTICLES:
        tokens = (Token(tokens[0].word, tokens[0].word), *tokens[1:])
    if target and len(tokens) > 1 and tokens[0].word in tables.OWNERS:
        return f"the {text_of(tokens[1:])} of {target}"
    return text_of(resolved(_with_noun(_unlinked(tokens), context.words), target))


def naming(words: str) -> str:
    """The noun phrase of an instruction: "track the dog" is about "the dog"."""
    return text_of(bare(tokens_of(words)))


def _unlinked(tokens: Tokens) -> Tokens:
    """Without "who is": "the rider who is in blue" is "the rider in blue"."""
    for k in range(1, len(tokens) - 2):
        linked = tokens[k].word in {"who", "that", "which"} and tokens[k + 1].word in {"is", "are", "'s"}
        if linked and tokens[k + 2].word in tables.BEFORE:
            return (*tokens[:k], *tokens[k + 2 :])
    return tokens


def _with_noun(tokens: Tokens, words: str) -> Tokens:
    """Words with the noun of others, where they have none of their own: "the black on the left"."""
    noun, own = first_phrase(words).said if words else "", phrases_of(text_of(tokens))
    if not noun or not tokens or len(own) > 1 or own[0].noun or tokens[0].word in tables.PRONOUNS - tables.ARTICLES:
        return tokens
    called = Token(noun.casefold(), noun)
    named = with_one(tokens, called)
    if named != tokens:
        return named
    k = next((k for k, token in enumerate(tokens) if token.word in tables.ENDS_NOUN), len(tokens))
    if any(token.word in tables.UNNAMED or singular(token.word) in KNOWN for token in tokens[:k]):
        return tokens
    led = () if k and tokens[0].word in tables.ARTICLES | {"another", "any"} else (Token("the", "the"),)
    return (*led, *tokens[:k], called, *tokens[k:])


def with_one(tokens: Tokens, noun: Token) -> Tokens:
    """Words with a noun for "one", or after "other"."""
    for k, token in enumerate(tokens):
        following = tokens[k + 1].word if k + 1 < len(tokens) else "."
        if token.word in {"one", "ones"} and following != "of" and (k == 0 or tokens[k - 1].word != "no"):
            return (*tokens[:k], noun, *tokens[k + 1 :])
        if token.word in {"other", "another"} and following in tables.ENDS_NOUN:
            return (*tokens[: k + 1], noun, *tokens[k + 1 :])
    return tokens


def resolved(tokens: Tokens, target: str) -> Tokens:
    """Words with a target's own for a pronoun that stands beside the first noun: "the man behind it"."""
    first = next((k for k, token in enumerate(tokens) if k and token.word in tables.BEFORE), len(tokens))
    k = first + 1
    while k < len(tokens) and tokens[k].word in tables.BETWEEN:
        k += 1
    ends = k + 1 >= len(tokens) or tokens[k + 1].word in tables.ENDS_NOUN
    found = target and k < len(tokens) and tokens[k].word in tables.OBJECTS and ends
    if found and not first_phrase(text_of(tokens[:first])).relations:
        return (*tokens[:k], *tokens_of(target), *tokens[k + 1 :])
    return tokens


def set_apart(tokens: Tokens, context: Context) -> tuple[int, ...]:
    """The followed targets that "the other one" is not."""
    if not any(token.word in {"other", "another", "others"} for token in tokens[:3]):
        return ()
    noun = first_phrase(text_of(tokens)).noun
    return tuple(one.id for one in context.tracked if nouns_agree(noun, first_phrase(one.words).noun))
