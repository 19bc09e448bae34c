"""The slow model: a LLaVA, or another family, that answers in words and two queries per target (Eq. 1, section 3.3).

T, Q_R, Q_p = F_brain(I_R, X_inst): the answer's text, and phi of the hidden states at <TK> and <PO>. Tokens are found
by id, never by a counted offset. Teacher-forced and generated answers run through `_advance`, so that equal tokens
give equal queries; either takes one forward over question and answer where the answer was foreseen.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from trackgpt.config import BrainConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners import conv_tower
from trackgpt.reasoners.families import build, family_of
from trackgpt.reasoners.templates import CONVERSATIONS, TrackTemplate, clean_instruction, visible_answer

conv_tower.register()

LEAD = 16
"""How far the likeliest token must lead the second, in machine epsilons times the logits' standard deviation.

Reading many tokens at once instead of one by one moved that lead, in bfloat16, by 9.3 such units at most over 369
tokens of nano, by 7.1 over 1642 of random tiny models, by 6.8 in random Llamas of 32 layers and by 14.1 where their
weights were three times as large.
"""
LEAST_LEAD = 1e-4
"""The same in standard deviations, for float32, where sums round more than values: 65 epsilons, 8e-6, on nano."""


_NAME = re.compile(r"\b(the [^.;:,]+?)(?: (?:in|on|at) the [^.;:,]+)?\.?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """The brain's answer about one frame.

    Attributes:
        ids: the answer's token ids.
        text: the answer as decoded, query tokens included.
        shown: the answer as a person reads it.
        referring: Q_R, float32 (k, c), one row per <TK>.
        purport: Q_p, float32 (k, c), the row of the <PO> that belongs to each <TK> (see `query_positions`).
        confidence: the probability that the brain gave to the words that name each target, given what stands before
            them, float32 (k,); the words of one end where its query tokens begin, those of the next begin behind them.
            1 where every answer of the brain is the same.
    """

    ids: list[int]
    text: str
    shown: str
    referring: Tensor
    purport: Tensor
    confidence: Tensor


class Brain(nn.Module):
    """A LLaVA, or a model of another family, with its template and the projection phi shared by both query tokens."""

    def __init__(self, config: BrainConfig, llava: Any, tokenizer: Any, query_dim: int):
        super().__init__()
        self.config = config
        self.llava = llava
        self.family = family_of(llava.config.model_type)(llava.config, config.image_side)
        self.projection = _projection(llava.config.get_text_config().hidden_size, query_dim, config.projection_depth)
        image = tokenizer.convert_ids_to_tokens(self.family.image_id)
        if image is None:
            known = len(tokenizer)
            raise ModelError(f"the image's token has the id {self.family.image_id}, the tokenizer has {known}", "MD02")
        self.template = TrackTemplate(tokenizer, self.family.image_tokens, CONVERSATIONS[config.conversation], image)

    @classmethod
    def from_config(cls, config: BrainConfig, tokenizer: Any, query_dim: int) -> Brain:
        """A brain with random weights; `config.llava` is the configuration of its model as a dictionary."""
        return cls(config, build(config.llava), tokenizer, query_dim)

    @property
    def vision(self) -> nn.Module:
        """The vision tower, by whatever name its family has."""
        tower: nn.Module = self.llava.model.get_encoder("image")
        return tower

    @property
    def language(self) -> Any:
        """The language model without its output layer, by whatever name its family has."""
        return self.llava.model.get_decoder()

    def preprocess(self, frames: Tensor) -> Tensor:
        """Padded square frames, uint8 RGB (b, 3, s, s), to normalised float32 pixels as the family arranges them."""
        mean = torch.tensor(self.config.pixel_mean, device=frames.device).view(1, 3, 1, 1)
        std = torch.tensor(self.config.pixel_std, device=frames.device).view(1, 3, 1, 1)
        return self.family.arrange((frames.float() / 255 - mean) / std)

    def check(self, instruction: str) -> str:
        """The instruction as it will be read.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long (it is never cut in silence).
        """
        cleaned = clean_instruction(self.template.without_special(instruction))
        count, limit = len(self.template.encode(cleaned)), self.config.max_instruction_tokens
        if count > limit:
            raise UsageError(f"the instruction has {count} tokens, the limit is {limit}; shorten it", "NL02")
        return cleaned

    def hidden(self, ids: Tensor, pixels: Tensor | None, **kwargs: Any) -> Tensor:
        """Last hidden states (b, l, h), after the final norm, of ids (b, l) with the image placeholder expanded."""
        pixels = pixels if pixels is None else pixels.to(self.llava.dtype)
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length()
        inputs = self.family.inputs(ids, pixels, past)
        return self.llava.model(input_ids=ids, **inputs, **kwargs).last_hidden_state

    def queries(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """phi of hidden states (l, h) read for tokens that stand at `positions` (n,): (n, c)."""
        offset = 1 if self.config.read_at == "predict" else 0
        return self.projection(hidden[positions - offset])

    @torch.no_grad()
    def reason(self, frame: Tensor, instruction: str, forced: str | None = None, draft: str | None = None) -> Answer:
        """Answer an instruction about one padded square frame, uint8 RGB (3, s, s).

        Prompt and draft are read in one forward, and every token of the draft that the brain would have said is kept
        (speculative decoding with a text as the drafter, Leviathan et al. 2023). A draft saves time and changes
        nothing: ids are those of greedy decoding, queries differ by 1e-5 at most in float32.

        Args:
            frame: the reference frame I_R.
            instruction: what the person says.
            forced: teacher-force this answer instead of generating one.
            draft: what the answer will probably be; by default the template's, and "" writes it token by token.

        Raises:
            UsageError: see `check`.
        """
        asked = self.template.prefix() + self.template.question(self.check(instruction))
        return self._reply(asked, self.preprocess(frame[None]), self._cache(), forced, draft)

    @torch.no_grad()
    def reason_many(self, frame: Tensor, instructions: Sequence[str]) -> list[Answer]:
        """Answer several instructions about one frame; the image is read once, and each is answered as if alone.

        Args:
            frame: as for `reason`, whose answers these are: same ids, queries within 1e-5 in float32.
            instructions: what people say.

        Raises:
            UsageError: see `check`; nothing has been computed then.
        """
        questions = [self.template.question(self.check(text)) for text in instructions]
        image = self._cache()
        self._advance(self.template.prefix(), self.preprocess(frame[None]), image)
        return [self._reply(question, None, image, None, None) for question in questions]

    def _reply(
        self, asked: list[int], pixels: Tensor | None, past: DynamicCache, forced: str | None, draft: str | None
    ) -> Answer:
        """The answer to what was asked after `past`, which is left as it is."""
        if forced is None and self.config.answer == "forced":
            forced = self.config.forced_answer
        if forced is not None:
            ids = self._foreseen(forced)
            return self._answer(self._advance(asked + ids, pixels, copy.deepcopy(past)), len(asked), ids)
        text = self.config.forced_answer if draft is None else draft
        states, ids = self._write(asked, pixels, past, self._foreseen(text) if text else [])
        return self._answer(states, len(asked), ids)

    def _write(
        self, asked: list[int], pixels: Tensor | None, past: DynamicCache, draft: list[int]
    ) -> tuple[Tensor, list[int]]:
        """Hidden states (l, h) of question and answer, and the answer's ids, as greedy decoding without a draft gives.

        Each round reads the last token and a guess at those behind it. One forward over many tokens rounds otherwise
        than many over one, so a token that rounding may have chosen starts the answer over, plainly.
        """
        cache = copy.deepcopy(past)
        if not cache.is_croppable:
            draft = []  # a recurrent state cannot be taken back
        if draft:
            cache.activate_past_recording()  # or a sliding window would forget what a rejected guess pushed out
        answer: list[int] = []
        states: list[Tensor] = []
        fed, guess, left = asked, draft, draft
        while fed:
            hidden = self._advance(fed + guess, None if states else pixels, cache)
            said, sure = self._likeliest(hidden[len(fed) - 1 :])
            kept = _agreeing(guess, said)
            new = self._until_end(said[: kept + 1])[: self.config.max_answer_tokens - len(answer)]
            if draft and not all(sure[: len(new)]):
                return self._write(asked, pixels, past, [])
            if guess:
                cache.crop(kept - len(guess))
                left = guess[kept:]
            answer += new
            states.append(hidden[: len(fed) + kept])
            fed = [token for token in new[kept:] if token != self.template.tokenizer.eos_token_id]
            guess = _behind(left, fed)
        return torch.cat(states), answer

    def _likeliest(self, hidden: Tensor) -> tuple[list[int], list[bool]]:
        """The token that follows each of hidden states (l, h), and whether its lead is beyond what rounding may move.

        The lead over the second is measured in standard deviations of the logits over the vocabulary, see `LEAD`.
        """
        logits = self.llava.lm_head(hidden)
        first, second = logits.float().topk(2).values.unbind(-1)
        lead = max(LEAD * torch.finfo(logits.dtype).eps, LEAST_LEAD) * logits.float().std(-1)
        return logits.argmax(-1).tolist(), (first - second > lead).tolist()

    def _foreseen(self, answer: str) -> list[int]:
        """Ids of an answer, without the image's placeholder, which would ask for a second image."""
        return [i for i in self._until_end(self.template.answer(answer)) if i != self.template.image_id]

    def _until_end(self, ids: list[int]) -> list[int]:
        """Ids up to the first end token, and with it."""
        end = self.template.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    def _cache(self) -> DynamicCache:
        return DynamicCache(config=self.llava.config.get_text_config())

    def _advance(self, ids: list[int], pixels: Tensor | None, cache: DynamicCache) -> Tensor:
        """Last hidden states (l, h) of ids that follow a cache, which grows by them."""
        row = torch.tensor([ids], device=self.llava.device)
        return self.hidden(row, pixels, past_key_values=cache, use_cache=True)[0]

    def _answer(self, hidden: Tensor, start: int, ids: list[int]) -> Answer:
        track, purport = query_positions(ids, self.template.track_id, self.template.purport_id)
        at = torch.tensor([track, purport], device=hidden.device, dtype=torch.long) + start
        text, sure = self.template.decode(ids), self._confidence(hidden[start - 1 :], ids, track, purport)
        return Answer(ids, text, visible_answer(text), self.queries(hidden, at[0]), self.queries(hidden, at[1]), sure)

    def _confidence(self, hidden: Tensor, ids: list[int], track: list[int], purport: list[int]) -> Tensor:
        """Probability of the words of each target, see `Answer`; `hidden` (l, h) begins with what predicts `ids[0]`.

        No token is read again: its probability is that of the state before it, which greedy decoding has looked at.
        """
        if self.config.answer == "forced":  # nothing of such an answer is the brain's own
            return hidden.new_ones(len(track), dtype=torch.float32)
        sure, begin = [], 0
        for pair in zip(track, purport):
            end = max(begin, min(pair))
            words = torch.tensor(ids[begin:end], dtype=torch.long, device=hidden.device)
            log_prob = self.llava.lm_head(hidden[begin:end]).float().log_softmax(-1)
            sure.append(log_prob.gather(1, words[:, None]).sum())
            begin = max(begin, max(pair) + 1)
        return torch.stack(sure).exp() if sure else hidden.new_zeros(0, dtype=torch.float32)


def _agreeing(guess: list[int], said: list[int]) -> int:
    """How many tokens of a guess were said, from the first on."""
    return next((i for i, (a, b) in enumerate(zip(guess, said, strict=False)) if a != b), len(guess))


def _behind(left: list[int], said: list[int]) -> list[int]:
    """What follows the token just said in what is left of a draft: words differ, but ". <TK>, <PO>" comes again."""
    return left[left.index(said[0]) + 1 :] if said and said[0] in left else []


def query_positions(ids: list[int], track_id: int, purport_id: int) -> tuple[list[int], list[int]]:
    """Positions of each <TK> and of its <PO>, looked up by id.

    The paper writes the two in either order; as many of one as of the other are paired in order. Otherwise each <TK>
    takes the nearest <PO>, the later of two equally near ones. A <TK> without any <PO> is read itself for both.
    """
    track = [i for i, token in enumerate(ids) if token == track_id]
    purport = [i for i, token in enumerate(ids) if token == purport_id]
    if len(track) == len(purport):
        return track, purport
    return track, [min(purport, key=lambda p: (abs(p - t), -p)) if purport else t for t in track]


def name_of(answer: str) -> str:
    """What an answer calls the one target that it names, without its place: "the red dog"; "" where it names none.

    "Sure, I track the red dog in the top left." and "I have the red dog." are such answers; one that lists several
    targets, or calls the target "the object", names none.
    """
    found = _NAME.search(answer)
    name = found.group(1).strip() if found and ";" not in answer else ""
    return "" if name in ("", "the object", "the target", "the thing") else name


def _projection(width: int, query_dim: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, query_dim))
