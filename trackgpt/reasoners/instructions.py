"""What a sentence asks of a tracker that may be following something: "no, the black one" as a value.

Rules over closed classes of words, tried in order; what fits none of them names what to follow, word for word. A
sentence that leaves out what was said before is written out: while "the dog on the left" is followed, "no, the black
one" is a correction, "the black dog" (`trackgpt.reasoners.references`). Noun phrases are read by
`trackgpt.reasoners.expression`. Any text is understood without an error, in time linear in its length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trackgpt.reasoners import instruction_words as tables
from trackgpt.reasoners.conditions import options_of
from trackgpt.reasoners.expression import lasting, read
from trackgpt.reasoners.instruction_tokens import (
    Token,
    Tokens,
    after_phrase,
    bare,
    is_phrase,
    past_break,
    phrase_at,
    text_of,
    tokens_of,
    without_leading,
    without_trailing,
)
from trackgpt.reasoners.nouns import KNOWN, WORN
from trackgpt.reasoners.pieces import MAX_LETTERS
from trackgpt.reasoners.references import (
    NOTHING_SAID,
    Called,
    Context,
    first_phrase,
    naming,
    not_denied,
    nouns_agree,
    number_in,
    phrases_of,
    referred,
    resolved,
    set_apart,
    spelled_out,
    those_meant,
    with_one,
)
from trackgpt.types import PromptKind


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


_PART_WORDS = 6  # of "the left front wheel of it"; more of them name another thing
_WORDLESS = ("drop", "resume", "question", "absence")


def understand(text: str, context: Context = NOTHING_SAID) -> Understood:
    """What a sentence asks for; see the module.

    Args:
        text: any.
        context: what is followed and what was said.
    """
    plain = Understood("switch" if context.begun else "start", text)
    tokens = tokens_of(text) if len(text) <= MAX_LETTERS else ()
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
    words = {token.word for token in tokens_of(question[:MAX_LETTERS])}
    named = words & (tables.FURTHER | {"fits", "fit", "matches"} - {"more"}) or {"any", "other"} <= words
    return bool(named or ("more" in words and words & {"there", "any"})) and "why" not in words


def _question(tokens: Tokens, context: Context) -> Understood | None:
    """A question about the tracking; one about the picture ("who will win?") names what to follow."""
    words = [token.word for token in tokens if token.word not in tables.BREAKS]
    if not words:
        return None
    further = set(words) & tables.FURTHER or {"any", "other"} <= set(words)
    if context.begun and tokens[-1].word == "?" and further and phrase_at(tokens, 0, tables.ASKS_FOR_OTHERS):
        return Understood("question")
    if words[0] not in tables.ASKS:
        return None
    rest, about = words[1:], None
    if "you" in words or "your" in words:
        about = bool(tables.ASKED & set(words)) or is_phrase(tokens, tables.LOOKING)
    elif words[:2] in (["is", "there"], ["are", "there"]):
        about = (
            context.begun and set(words[2:]) <= tables.SMALL | tables.FITTING and bool(set(words[2:]) & tables.FITTING)
        )
    elif words[0] == "why" and rest:
        small = set(rest) - tables.SMALL
        named = those_meant(tokens[1:], context.tracked) if small else ()
        about = not small or bool(named) or bool(small & tables.ASKED)
    elif words[0] in {"is", "was", "are"}:
        about = bool(rest) and rest[0] in tables.POINTING and "?" in {token.word for token in tokens}
    elif context.begun or words[0] == "why":
        about = all(word in tables.SMALL | tables.ASKED | tables.FITTING or word.isdecimal() for word in rest)
        about = about and (words[0] == "why" or bool(rest))
    return Understood("question") if about else None


def _conditional(tokens: Tokens, context: Context) -> Understood | None:
    """What to follow, in order: "the ball handler; if not visible, the ball"."""
    options = options_of(tokens, context)
    return Understood("conditional", options[0], instead=tuple(options[1:])) if len(options) > 1 else None


def _drop(tokens: Tokens, context: Context) -> Understood | None:
    """The end of some targets: "stop following the dog", "forget number 2"."""
    led = without_leading(tokens, tables.POLITE)
    if is_phrase(without_trailing(led), tables.STOP_ALL):
        return Understood("drop")
    rest = after_phrase(led, tables.STOP)
    if rest is None:
        rest = _unwanted(led)
    if rest is None:
        rest = after_phrase(led, tables.FORGET)
        opens = (
            tables.ARTICLES
            | tables.OWNERS
            | tables.NUMBERED
            | tables.OBJECTS
            | {"all", "both", "everything", "everyone"}
        )
        if not rest or not (rest[0].word in opens or rest[0].word.isdecimal()):
            return None
    rest = without_trailing(rest, tables.LATER)
    if any(token.word in tables.BREAKS for token in rest if token.word not in "#-"):
        return None
    if not rest or is_phrase(rest, tables.ALL):
        return Understood("drop")
    if is_phrase(rest, tables.PRONOUNS) and context.focus:
        return Understood("drop", ids=(context.focus.id,))
    meant = referred(text_of(rest), context.tracked)
    if meant:
        return Understood("drop", ids=tuple(one.id for one in meant))
    number = number_in(rest)
    return Understood("drop", ids=(number,)) if number else Understood("drop", text_of(rest))


def _unwanted(tokens: Tokens) -> Tokens | None:
    """What is left out: "leave the dog out", "the dog does not matter any more"; None where nothing is."""
    ended = without_trailing(tokens, tables.LATER)
    if len(ended) > 2 and (ended[0].word, ended[-1].word) == ("leave", "out"):
        return ended[1:-1]
    k = next((k for k in range(1, len(ended)) if phrase_at(ended, k, tables.UNWANTED) == len(ended) - k), 0)
    return ended[:k] if k else None


def _absence(tokens: Tokens, context: Context) -> Understood | None:
    """What is followed leaves, is hidden or is gone: "it is about to leave", "keep searching"."""
    if not context.begun:
        return None
    parts = _parts(tokens)
    if any(is_phrase(part, tables.SEARCHING) for part in parts) or after_phrase(parts[0], tables.SEARCHING_FOR):
        return Understood("absence", ids=() if context.focus is None else (context.focus.id,))
    if context.focus and (after_phrase(without_leading(tokens, tables.NOTING), tables.LOSING) or _in_part(tokens)):
        return Understood("absence", ids=(context.focus.id,))
    found = _clause(tokens, context)
    if found is not None:
        subject, verb, predicate = found
        said = without_leading(predicate, tables.HEADING)
        gone = phrase_at(said, 0, tables.GONE) or (
            verb in {"has", "have", "'s", ""} and phrase_at(said, 0, tables.WENT)
        )
        return Understood("absence", ids=(subject.id,)) if gone else None
    first = parts[0]
    if len(first) > 1 and first[-1].word in {"lost", "gone", "missing", "hidden", "invisible"}:
        meant = those_meant(bare(first[:-1]), context.tracked)
        if len(meant) == 1:
            return Understood("absence", ids=(meant[0].id,))
    return None


def _in_part(tokens: Tokens) -> bool:
    """Whether only a part of what is followed can be seen: "only a part of it can be seen"."""
    words = {token.word for token in tokens}
    for k in range(len(tokens) - 1):
        length = phrase_at(tokens, k, tables.SHARES)
        if length and k + length < len(tokens) and tokens[k + length].word in tables.OBJECTS:
            return bool(words & {"seen", "see", "visible"}) and bool(words & (tables.NEGATED | {"only", "just"}))
    return False


def _parts(tokens: Tokens) -> list[Tokens]:
    """The parts of a sentence between its breaks."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.word in tables.BREAKS:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part] or [[]]


def _clause(tokens: Tokens, context: Context) -> tuple[Called, str, Tokens] | None:
    """A statement about something followed: which one, the verb "to be" or "to have" if any, and what is said."""
    tokens = without_trailing(without_leading(tokens, tables.NOTING), tables.PLEASE)
    shown = phrase_at(tokens, 0, tables.SHOWING)
    if shown and context.focus and shown + 1 < len(tokens) and tokens[shown].word in tables.OBJECTS:
        return context.focus, "", tokens[shown + 1 :]
    length = phrase_at(tokens, 0, tables.SUBJECTS)
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
    meant = those_meant(subject, context.tracked)
    return (meant[0], tokens[at].word, rest) if len(meant) == 1 else None


def _resume(tokens: Tokens, context: Context) -> Understood | None:
    """A return to a former target: "back to the rider who is in blue"."""
    if not context.begun:
        return None
    led = without_leading(tokens, tables.POLITE)
    rest = after_phrase(led, tables.BACK)
    if rest is None and is_phrase(without_trailing(led), tables.BACK_ALONE):
        rest = ()
    ended = without_trailing(tokens, frozenset())
    again = rest is None and len(ended) > 1 and ended[-1].word == "again"
    rest = tokens if again else rest
    if rest is None or (rest and rest[0].word == "back"):
        return None
    rest = bare(rest)
    if not again and _whole(rest, context):
        return None
    if again and len(those_meant(rest, context.tracked)) == 1:
        return None
    meant = context.former[-1:] if not rest else those_meant(rest, context.former) or not_denied(rest, context.former)
    if len(meant) == 1:
        return Understood("resume", naming(meant[0].words), (meant[0].id,))
    if again:
        return None
    earlier = those_meant(rest, [Called(k + 1, words) for k, words in enumerate(context.said)])
    if not rest:
        earlier = tuple(Called(0, words) for words in context.said[-2:-1])
    words = naming(earlier[0].words) if earlier and (not rest or not first_phrase(text_of(rest)).noun) else ""
    return Understood("switch", words or spelled_out(rest, context))


def _confirmed(tokens: Tokens, context: Context) -> Understood | None:
    """What is followed is right: "yes, that one"."""
    if context.focus and is_phrase(tokens, tables.RIGHT):
        return Understood("state", naming(context.focus.words), (context.focus.id,))
    return None


def _correct(tokens: Tokens, context: Context) -> Understood | None:
    """What is followed is wrong, and what was meant instead: "no, the black one"."""
    rest = _denied(tokens, context) if context.begun else None
    if rest is None:
        return None
    for rule in (_drop, _resume, _add):
        found = rule(rest, context) if rest else None
        if found is not None:
            return found
    rest = bare(rest)
    meant = those_meant(rest, context.tracked) if rest and len(context.tracked) > 1 and not number_in(rest) else ()
    wrong = meant[0] if len(meant) == 1 else context.focus
    of = replace(context, last=(wrong.id,)) if wrong else context
    vague = not rest or is_phrase(rest, tables.PRONOUNS)
    words = naming(of.words) if vague else spelled_out(rest, of)
    excluded = (wrong.id,) if wrong else ()
    ids = excluded if len(context.tracked) > 1 else ()
    return Understood("correct" if context.tracked else "switch", words, ids, excluded)


def _denied(tokens: Tokens, context: Context) -> Tokens | None:
    """What comes after words that say that something is wrong; None where there are none."""
    denied, left = False, without_leading(tokens, tables.HESITATING)
    while left and (k := _denial(left, context)):
        denied, left = True, without_leading(left[k:], tables.HESITATING - {"stop"})
    return left if denied else None


def _denial(tokens: Tokens, context: Context) -> int:
    """How many tokens at the beginning say that something is wrong."""
    words = [token.word for token in tokens] + ["", "", "", ""]
    if words[0] in tables.NO and (words[1] == "" or words[1] in tables.BREAKS or words[1] in tables.NOT_NUMBER):
        return 1
    if words[0] == "not" and words[1] in tables.ARTICLES | tables.OBJECTS:
        return past_break(tokens, 1)
    length = phrase_at(tokens, 0, tables.I_MEANT)
    if length and len(tokens) > length:
        return length
    if words[0] in tables.POINTING and words[1] in tables.BE:
        k = 1 + (words[1] in {"is", "'s", "are", "was"} and words[2] == "not")
        negated = k == 2 or words[1] in tables.NEGATED
        if negated and words[k + 1] in tables.NOT_WHAT | {""}:
            return past_break(tokens, k)
        if words[2] in {"wrong", "incorrect"}:
            return past_break(tokens, k)
        if words[0] != "which" and not negated and words[2] in {"the", "a", "an"} and words[3] != "wrong":
            return 2
    return _wrong(tokens, words, context)


def _wrong(tokens: Tokens, words: list[str], context: Context) -> int:
    """The same for "the wrong dog", "you are tracking the wrong one"."""
    first = words.index("wrong") if "wrong" in words[:6] else -1
    opens = {"wrong", "the", "you", "that", "this", "it"}
    if first < 0 or words[0] not in opens or (words[0] == "the" and first != 1):
        return 0
    noun = words[first + 1]
    named = noun in tables.GENERIC or noun == "" or noun in tables.BREAKS
    named = named or any(one.words and noun == first_phrase(one.words).noun for one in context.tracked)
    return past_break(tokens, first) if named else 0


def _add(tokens: Tokens, context: Context) -> Understood | None:
    """One more target: "also the referee"."""
    led = without_leading(tokens, tables.ORDERING)
    rest = after_phrase(led, tables.ALSO)
    started = tokens[0].word == "and" and len(tokens) > 1 and tokens[1].word in tables.ARTICLES | tables.OWNERS
    if rest is None and started and context.begun:
        rest = tokens[1:]
    ended = without_trailing(tokens, frozenset())
    if rest is None and any(phrase_at(ended[-n:], 0, tables.TOO) == n for n in (1, 2) if len(ended) > n):
        rest = without_trailing(without_leading(tokens), tables.TRAILING | tables.TOO)
        if any(token.word in tables.BE for token in rest):
            return None
    if rest is None or (rest and rest[0].word in {"known", "called", "ran"}):
        return None
    rest = without_trailing(without_leading(rest), tables.TRAILING | tables.TOO)
    if not rest or (led and led[0].word in {"add", "include"} and is_phrase(rest, tables.PRONOUNS)):
        return None
    return Understood("add", spelled_out(rest, context), excluded=set_apart(rest, context))


def _refine(tokens: Tokens, context: Context) -> Understood | None:
    """A part of what is followed, or the whole of it again: "now only her head"."""
    target = context.focus
    if target is None or not target.words:
        return None
    rest = bare(tokens)
    ids = (target.id,) if len(context.tracked) > 1 else ()
    if whole := _whole(without_leading(rest, tables.BACK), context):
        return Understood("refine", whole, ids)
    if not rest:
        return None
    owned = rest[0].word in tables.OWNERS
    phrase = first_phrase(text_of(rest[1:] if owned else rest))
    if phrase.noun not in tables.PARTS and not (owned and phrase.noun in WORN):
        return None
    of = [relation.other for relation in phrase.relations if relation.said in {"of", "'s"}]
    if of:
        short = rest[0].word == "the" and len(rest) <= _PART_WORDS and any(t.word in {"of", "'s"} for t in rest)
        same = short and len(phrase.relations) == 1 and nouns_agree(of[0].noun, first_phrase(target.words).noun)
        return Understood("refine", text_of(rest), ids) if same else None
    only = any(phrase_at(tokens, k, tables.ONLY) for k in range(len(tokens) - len(rest)))
    if owned or (only and not phrase.relations):
        part = rest[1:] if owned or rest[0].word in tables.ARTICLES else rest
        return Understood("refine", f"the {text_of(part)} of {_of_whole(target.words)}", ids)
    return None


def _whole(rest: Tokens, context: Context) -> str:
    """The words of the whole target, where the whole is asked for: "the full body", "all of her"; else ""."""
    target = context.focus
    if target is None or not rest:
        return ""
    words = [token.word for token in rest if token.word not in tables.ARTICLES | tables.OWNERS]
    noun = first_phrase(_of_whole(target.words)).noun
    whole = len(words) == 2 and words[0] in tables.BODY_WHOLE and words[1] in tables.GENERIC | {"body", noun}
    return _of_whole(target.words) if whole or is_phrase(rest, tables.ALL_OF_IT) else ""


def _of_whole(words: str) -> str:
    """Of "the head of the dog", "the dog"; all words where they name no part."""
    named = naming(words)
    part, _, whole = named.partition(" of ")
    return whole if whole and first_phrase(part).noun in tables.PARTS | frozenset(WORN) else named


def _state(tokens: Tokens, context: Context) -> Understood | None:
    """What is followed looks or moves in another way now: "the panda is now lying down"."""
    found = _clause(tokens, context)
    if found is None:
        return None
    subject, verb, predicate = found
    said = without_leading(predicate, tables.MEANWHILE)
    if not said or tokens[-1].word == "?":
        return None
    denied = [Token("not", "not")] if verb in tables.NEGATED else []
    still = lasting(_of_whole(subject.words))
    return Understood("state", f"the {still or 'target'} {text_of([*denied, *said])}", (subject.id,))


def _switch(tokens: Tokens, context: Context) -> Understood | None:
    """Another target, where more than its bare words is said, or less: "now the cat", "the black one"."""
    if tokens[-1].word == "?":
        return None
    led = without_leading(tokens, tables.POLITE_ONLY)
    rest = after_phrase(led, tables.TO_OTHER)
    ended = without_trailing(tokens, frozenset())
    if rest is None and len(ended) > 1 and ended[-1].word == "instead" and ended[-2].word != "of":
        rest = tokens
    said = bare(tokens if rest is None else rest)
    if not said or (not context.begun and rest is not None and led[0].word in {"go", "move", "now", "actually"}):
        return None
    number, former = number_in(said), {one.id: one for one in context.former}
    if number in former and rest is not None:
        return Understood("resume", naming(former[number].words), (number,))
    excluded = set_apart(said, context)
    if rest is not None:
        return Understood("switch", spelled_out(said, context), excluded=excluded)
    words = _elliptic(said, context)
    return Understood("switch", words or text_of(said), excluded=excluded) if words or excluded else None


def _elliptic(tokens: Tokens, context: Context) -> str:
    """Words written out where they leave out what they go on from, as "the black one" does; else ""."""
    words = text_of(tokens)
    target, own = naming(context.words), phrases_of(words)
    if not target or len(own) > 1:
        return ""
    if tokens[0].word in tables.OWNERS and len(tokens) > 1:
        return spelled_out(tokens, context)
    noun = first_phrase(target).said
    named = tokens if own[0].noun or not noun else with_one(tokens, Token(noun.casefold(), noun))
    written = text_of(resolved(named, target))
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
