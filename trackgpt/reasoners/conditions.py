"""What a sentence with a condition asks for, in order: "the ball handler; if not visible, the ball"."""

from __future__ import annotations

from trackgpt.reasoners import instruction_words as tables
from trackgpt.reasoners.instruction_tokens import Tokens, after_phrase, bare, is_phrase, phrase_at, tokens_of
from trackgpt.reasoners.references import Context, spelled_out


def options_of(tokens: Tokens, context: Context) -> list[str]:
    """What to follow, in order and written out; fewer than two where a sentence has no condition."""
    words = [token.word for token in tokens]
    options: list[Tokens] = []
    if "if" in words:
        options = _if(tokens, words.index("if"), context)
    else:
        for k in range(1, len(words)):
            length = phrase_at(tokens, k, tables.OTHERWISE)
            if length and (words[k - 1] in tables.BREAKS or words[k] == "or"):
                seen = next((j for j in range(1, k) if phrase_at(tokens, j, tables.AS_LONG)), k)
                options = [tokens[:seen], tokens[k + length :]]
                break
        options = options or _while(tokens)
    return [spelled for each in options if (spelled := spelled_out(bare(each), context))]


def _if(tokens: Tokens, k: int, context: Context) -> list[Tokens]:
    """What is to be followed, in order, of a sentence with "if" at a place; fewer than two where it says no such."""
    ends = (at for at in range(k + 2, len(tokens)) if tokens[at].word in {",", ";", "then", "track", "follow", "."})
    end = next(ends, len(tokens))
    before, condition, after = bare(tokens[:k]), tokens[k + 1 : end], bare(tokens[end:])
    otherwise = after_phrase(after, tables.OTHERWISE)
    if not _unseen(condition):
        seen = any(token.word in {"visible", "there", "present", "possible", "seen"} for token in condition)
        return [before, otherwise] if seen and before and otherwise else []
    subject = _subject_of(condition)
    if before and after:
        return [before, after]
    if before:
        parts = [at for at, token in enumerate(before) if token.word == "or"]
        return [before[: parts[0]], before[parts[0] + 1 :]] if parts else [subject, before]
    return [subject or tokens_of(context.words), after]


def _while(tokens: Tokens) -> list[Tokens]:
    """The same of a sentence with another word for "if": "the dog, but the cat whenever it is out of sight"."""
    for k in range(1, len(tokens)):
        length = phrase_at(tokens, k, tables.WHILE)
        end = next((at for at in range(k + length, len(tokens)) if tokens[at].word in tables.BREAKS), len(tokens))
        if not length or not _unseen(tokens[k + length : end]):
            continue
        before, after = tokens[:k], tokens[end:]
        if bare(after):
            return [before, after]
        joins = [at for at in range(1, k) if before[at].word in {"and", "but", ",", ";"}]
        return [before[: joins[-1]], before[joins[-1] + 1 :]] if joins else []
    return []


def _unseen(condition: Tokens) -> bool:
    """Whether a condition is that something cannot be seen."""
    words = {token.word for token in condition}
    return bool(words & tables.UNSEEN or (words & tables.NEGATED and (words & tables.SEEN or len(words) == 1)))


def _subject_of(condition: Tokens) -> Tokens:
    """What a condition says cannot be seen: "you can't see the handler", "there is no ball"; empty for "it"."""
    words = [token.word for token in condition]
    for verb in ("see", "find", "no"):
        if verb in words[:-1]:
            return bare(condition[words.index(verb) + 1 :])
    stop = next((k for k, word in enumerate(words) if word in tables.BE | tables.NEGATED | tables.GONE_VERBS), 0)
    subject = bare(condition[:stop])
    return () if is_phrase(subject, tables.PRONOUNS) else subject
