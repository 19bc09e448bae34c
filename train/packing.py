"""Several turns packed behind one image: each turn attends to the image and to itself alone.

One image prefix and k short turns cost far fewer tokens than k whole conversations and give the same hidden states
(tests/test_packing.py): a block mask keeps the turns apart and each turn's positions start where the prefix ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from trackgpt.errors import UsageError
from trackgpt.reasoners.brain import Brain, query_positions
from trackgpt.reasoners.templates import TrackTemplate


@dataclass(frozen=True)
class Packed:
    """b images with their turns, padded to one length l.

    Attributes:
        ids: (b, l) int64.
        labels: (b, l) int64, the id each position should be when it is an answer token, else -100 (not shifted).
        turn: (b, l) int64, 0 for the image prefix, 1.. for turns, -1 for padding.
        positions: (b, l) int64 rotary positions.
        row, track, purport: (n,) int64, image row and position of every <TK> and its <PO>, in turn order.
    """

    ids: Tensor
    labels: Tensor
    turn: Tensor
    positions: Tensor
    row: Tensor
    track: Tensor
    purport: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def mask(self) -> Tensor:
        """(b, 1, l, l) bool: who may attend to whom."""
        turn = self.turn
        same = (turn.unsqueeze(1) == turn.unsqueeze(2)) | (turn.unsqueeze(1) == 0)
        index = torch.arange(turn.shape[1], device=turn.device)
        causal = index.unsqueeze(0) <= index.unsqueeze(1)
        # A padded position attends to itself: a row without any key would be NaN.
        own = torch.eye(len(index), dtype=torch.bool, device=turn.device)
        return ((same & causal & (turn >= 0).unsqueeze(1)) | own).unsqueeze(1)


Dialogue = Sequence[tuple[str, str]]
"""Rounds of (question, answer) that follow each other; most have one."""


def pack(template: TrackTemplate, images: list[list[Dialogue]], silent: list[list[bool]] | None = None) -> Packed:
    """Pack the turns of each image, a dialogue each; answers of `silent` turns are read but not learned."""
    prefix = template.prefix()
    mute = silent or [[False] * len(turns) for turns in images]
    rows = [_pack_one(template, prefix, turns, quiet) for turns, quiet in zip(images, mute, strict=True)]
    length = max(len(row[0]) for row in rows)
    padded = [
        [list(v) + [fill] * (length - len(v)) for v, fill in zip(row[:4], (0, -100, -1, 0), strict=True)]
        for row in rows
    ]
    ids, labels, turn, positions = (torch.tensor(column) for column in zip(*padded, strict=True))
    where = [(i, t, p) for i, row in enumerate(rows) for t, p in zip(row[4], row[5], strict=True)]
    row_at, track, purport = torch.tensor(where, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Packed(ids, labels, turn, positions, row_at, track, purport)


def _pack_one(
    template: TrackTemplate, prefix: list[int], turns: list[Dialogue], silent: list[bool]
) -> tuple[list[int], list[int], list[int], list[int], list[int], list[int]]:
    ids, labels, turn = list(prefix), [-100] * len(prefix), [0] * len(prefix)
    positions = list(range(len(prefix)))
    track: list[int] = []
    purport: list[int] = []
    for k, dialogue in enumerate(turns, start=1):
        start = len(ids)
        for number, (question, answer) in enumerate(dialogue):
            asked = template.question_again(question) if number else template.question(question)
            said = template.answer(answer)
            ids += asked + said
            labels += [-100] * len(asked) + ([-100] * len(said) if silent[k - 1] else said)
        found_track, found_purport = query_positions(ids[start:], template.track_id, template.purport_id)
        track += [start + i for i in found_track]
        purport += [start + i for i in found_purport]
        turn += [k] * (len(ids) - start)
        positions += range(len(prefix), len(prefix) + len(ids) - start)
    return ids, labels, turn, positions, track, purport


def project(brain: Brain, pixels: Tensor) -> Tensor:
    """Image tokens in the language model's space, (b, cells, h), of preprocessed pixels; see `Family.project`."""
    return brain.family.project(brain.llava.model, pixels)


def packed_hidden(brain: Brain, batch: Packed, tokens: Tensor, ids: Tensor | None = None) -> Tensor:
    """Last hidden states (b, l, h) of a packed batch.

    Args:
        brain: the model.
        batch: the turns.
        tokens: (b, cells, h) projected image tokens.
        ids: (b, l) other words in the same places; the batch's own by default.

    Raises:
        UsageError: a conversation is longer than the sliding window of a language model that has one.
    """
    _refuse_beyond_window(brain, batch)
    words = batch.ids if ids is None else ids
    embeds = brain.llava.get_input_embeddings()(words)
    return brain.language(
        **brain.family.embedded(embeds, words == brain.template.image_id, tokens),
        attention_mask=batch.mask(),
        position_ids=brain.family.positions(words, batch.positions),
    ).last_hidden_state


def _refuse_beyond_window(brain: Brain, batch: Packed) -> None:
    """A model with a sliding window applies it to its own causal masks and not to a block mask that it is given."""
    layers = DynamicCache(config=brain.llava.config.get_text_config()).layers
    windows = [layer.sliding_window for layer in layers if getattr(layer, "is_sliding", False)]
    longest = int(batch.positions.max()) + 1 if windows else 0
    if windows and longest > min(windows):
        raise UsageError(
            f"packing: a conversation has {longest} tokens, and this language model's sliding window {min(windows)}, "
            "which packed turns cannot follow; shorten the turns"
        )


def packed_queries(brain: Brain, hidden: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
    """Q_R and Q_p (n, c) of every <TK> of a packed batch."""
    offset = 1 if brain.config.read_at == "predict" else 0
    referring = brain.projection(hidden[batch.row, batch.track - offset])
    purport = brain.projection(hidden[batch.row, batch.purport - offset])
    return referring, purport


def packed_logits(brain: Brain, hidden: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
    """Logits (n, v) and labels (n,) of all answer tokens."""
    labels = batch.labels[:, 1:]
    at = labels >= 0
    return brain.llava.lm_head(hidden[:, :-1][at]), labels[at]


OwnAnswers = Callable[[Brain, Tensor, Packed, float], Tensor]
"""`own_answers`, or what stands in for it where tokens have no values (`train.memory`)."""


@torch.no_grad()
def own_answers(brain: Brain, hidden: Tensor, batch: Packed, share: float) -> Tensor:
    """Ids (b, l) in which a share of the answers are the brain's own instead of the given ones.

    Every answer token becomes the one the brain thought likeliest there (parallel scheduled sampling, Duckworth et al.
    2019); the tokens that carry structure stay. The purport score can only learn what the brain's mistakes look like
    from its mistakes.
    """
    template = brain.template
    fixed = torch.tensor([template.track_id, template.purport_id, template.image_id, template.tokenizer.eos_token_id])
    fixed = fixed.to(batch.ids.device)
    said = batch.ids.clone()
    said[:, 1:] = brain.llava.lm_head(hidden[:, :-1]).argmax(-1)
    drawn = torch.rand(batch.ids.shape[0], int(batch.turn.max()) + 1, device=said.device) < share
    chosen = drawn.gather(1, batch.turn.clamp(min=0)) & (batch.labels >= 0)
    return torch.where(chosen & ~torch.isin(batch.labels, fixed) & ~torch.isin(said, fixed), said, batch.ids)


def mistaken(batch: Packed, ids: Tensor) -> Tensor:
    """(n,) bool for every <TK> of a packed batch: its turn's words in `ids` differ from the given ones."""
    wrong = torch.zeros(len(ids), int(batch.turn.max()) + 1, dtype=torch.bool, device=ids.device)
    row, column = (ids != batch.ids).nonzero(as_tuple=True)
    wrong[row, batch.turn[row, column]] = True
    return wrong[batch.row, batch.turn[batch.row, batch.track]]
