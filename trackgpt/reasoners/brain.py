"""The slow half: a LLaVA, or another family, that answers in words and two queries a target (Eq. 1, section 3.3).

T, Q_R, Q_p = F_brain(I_R, X_inst): the answer's text, and phi of the hidden states at <TK> and <PO>. Tokens are found
by id, never by a counted offset. Teacher-forced and generated answers run through `_advance`, so that equal tokens
give equal queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from trackgpt.config import BrainConfig
from trackgpt.errors import UsageError
from trackgpt.reasoners import conv_tower
from trackgpt.reasoners.families import build, family_of
from trackgpt.reasoners.templates import CONVERSATIONS, TrackTemplate, clean_instruction, visible_answer

conv_tower.register()


@dataclass(frozen=True)
class Answer:
    """What the brain says about one frame.

    Attributes:
        ids: the answer's token ids.
        text: the answer as decoded, query tokens included.
        shown: the answer as a person reads it.
        referring: Q_R, float32 (k, c), one row per <TK>.
        purport: Q_p, float32 (k, c), the row of the <PO> that belongs to each <TK> (see `query_positions`).
    """

    ids: list[int]
    text: str
    shown: str
    referring: Tensor
    purport: Tensor


class Brain(nn.Module):
    """A LLaVA, or a model of another family, with its template and the projection phi shared by both query tokens."""

    def __init__(self, config: BrainConfig, llava: Any, tokenizer: Any, query_dim: int):
        super().__init__()
        self.config = config
        self.llava = llava
        self.family = family_of(llava.config.model_type)(llava.config, config.image_side)
        self.projection = _projection(llava.config.get_text_config().hidden_size, query_dim, config.projection_depth)
        self.template = TrackTemplate(
            tokenizer,
            self.family.image_tokens,
            CONVERSATIONS[config.conversation],
            tokenizer.convert_ids_to_tokens(self.family.image_id),
        )

    @classmethod
    def from_config(cls, config: BrainConfig, tokenizer: Any, query_dim: int) -> Brain:
        """A brain with random weights; `config.llava` is the configuration of its model as a dictionary."""
        return cls(config, build(config.llava), tokenizer, query_dim)

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
        cleaned = clean_instruction(instruction)
        count, limit = len(self.template.encode(cleaned)), self.config.max_instruction_tokens
        if count > limit:
            raise UsageError(f"the instruction has {count} tokens, the limit is {limit}; shorten it", "NL02")
        return cleaned

    def hidden(self, ids: Tensor, pixels: Tensor | None, **kwargs: Any) -> Tensor:
        """Last hidden states (b, l, h), after the final norm, of ids (b, l) with the image placeholder expanded."""
        pixels = pixels if pixels is None else pixels.to(self.llava.dtype)
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length()
        inputs = self.family.inputs(self.llava.model, ids, pixels, past)
        return self.llava.model(input_ids=ids, **inputs, **kwargs).last_hidden_state

    def queries(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """phi of hidden states (l, h) read for tokens that stand at `positions` (n,): (n, c)."""
        offset = 1 if self.config.read_at == "predict" else 0
        return self.projection(hidden[positions - offset])

    @torch.no_grad()
    def reason(self, frame: Tensor, instruction: str, forced: str | None = None) -> Answer:
        """Answer an instruction about one padded square frame, uint8 RGB (3, s, s).

        Args:
            frame: the reference frame I_R.
            instruction: what the person says.
            forced: teacher-force this answer instead of generating one.
        """
        if forced is None and self.config.answer == "forced":
            forced = self.config.forced_answer
        prompt = self.template.prefix() + self.template.question(self.check(instruction))
        device = frame.device
        cache = DynamicCache(config=self.llava.config.get_text_config())
        ids = torch.tensor([prompt], device=device)
        states = [self._advance(ids, self.preprocess(frame[None]), cache)]
        given = None if forced is None else self.template.answer(forced)
        answer: list[int] = []
        while len(answer) < (self.config.max_answer_tokens if given is None else len(given)):
            token = int(self.llava.lm_head(states[-1][-1]).argmax()) if given is None else given[len(answer)]
            answer.append(token)
            if token == self.template.tokenizer.eos_token_id:
                break
            states.append(self._advance(torch.tensor([[token]], device=device), None, cache))
        return self._answer(torch.cat(states), len(prompt), answer)

    def _advance(self, ids: Tensor, pixels: Tensor | None, cache: DynamicCache) -> Tensor:
        return self.hidden(ids, pixels, past_key_values=cache, use_cache=True)[0]

    def _answer(self, hidden: Tensor, start: int, ids: list[int]) -> Answer:
        track, purport = query_positions(ids, self.template.track_id, self.template.purport_id)
        at = torch.tensor([track, purport], device=hidden.device, dtype=torch.long) + start
        text = self.template.decode(ids)
        return Answer(ids, text, visible_answer(text), self.queries(hidden, at[0]), self.queries(hidden, at[1]))


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


def _projection(width: int, query_dim: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, query_dim))
