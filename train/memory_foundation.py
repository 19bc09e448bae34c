"""A step of nano's foundation, rehearsed in shapes alone: the stages of `train.stages` with heads that only they have.

What a sample holds is drawn, so batches differ. Planned is about the largest of 40 batches of each configuration in
every respect at once: tokens of a turn, targets of an instruction, cells of an image with something to name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.errors import UsageError
from trackgpt.perception.segmenter import STRIDE
from trackgpt.planning.inference import (
    PREFIX,
    Compared,
    forget_gradients,
    look,
    mask_losses,
    read,
    recompute,
    rehearse_mask_losses,
    unroll,
)
from trackgpt.planning.memory_plan import Activations, Load, load_of
from trackgpt.planning.outline import Outline, Skeleton
from trackgpt.planning.tracing import without_memory
from trackgpt.precision import round_frozen
from trackgpt.synthtrack.catalog import CATEGORIES, COLOURS
from trackgpt.synthtrack.wordings import REGIONS

CODE = 128
"""Channels of the codes that stand for queries."""
VIEWS = 2
"""Frames of a scene whose cells are named."""
TURNS = 12
"""Of a frame that is read: 6 instructions, a question, 4 facts, a description."""
WORDS = {"language": 36, "join": 43}
"""Tokens of a turn, beside `PREFIX`."""
MASKS = 5 / 4
"""Targets of an instruction, where they are drawn: some have several, some none."""
KINDS = len(CATEGORIES), len(COLOURS) + 1  # one more for what has the colour that its kind always has
NAMED = ((KINDS[0], 0.18), (KINDS[1], 0.18), (len(REGIONS), 0.83))
"""Categories, colours and regions: how many names, and the share of cells that have one."""


@dataclass(frozen=True)
class Practice:
    """The size of a foundation step's batch on one GPU, at its largest.

    Attributes:
        stage: "words", "masks", "language" or "join".
        batch: samples.
        side: of the padded square, pixels.
        frames: unrolled of a clip (masks, join).
        targets: of a clip (masks), or instructions about it (join).
        words: tokens of a turn, instruction and answer together; 0 for those of `WORDS`.
    """

    stage: str
    batch: int
    side: int
    frames: int = 1
    targets: int = 1
    words: int = 0

    @property
    def turn(self) -> int:
        """Tokens of a turn."""
        return self.words or WORDS.get(self.stage, 0)

    @property
    def turns(self) -> int:
        """Of an image, where there are any."""
        return TURNS if self.stage == "language" else self.targets

    @property
    def rows(self) -> int:
        """Masks of the batch's targets, a frame."""
        return math.ceil(self.batch * self.targets * (MASKS if self.stage == "join" else 1))

    def __str__(self) -> str:
        seen = {"words": VIEWS, "language": 1 + VIEWS}.get(self.stage, self.frames)
        says = f", {self.turns} turn(s) of {self.turn} tokens" if self.turn else ""
        follows = f", {self.rows} target(s) in all" if self.stage in ("masks", "join") else ""
        return f"batch {self.batch} of {seen} frame(s) of {self.side} px{says}{follows}"


def plan_foundation(
    outline: Outline, practice: Practice, bf16: bool, frozen: Iterable[str] = ()
) -> tuple[Load, Activations]:
    """What a stage of the foundation holds on a GPU: weights that learn, weights that do not, and activations.

    Args:
        outline: of the model that learns.
        practice: a batch.
        bf16: autocast to bfloat16.
        frozen: halves that do not learn: "brain", "segmenter".

    Raises:
        UsageError: the stage cannot learn with this model, or from squares of this size.
    """
    _check(outline, practice)
    load, plain = _rehearse(_Pupil(outline, practice.stage, bf16, frozen), practice, bf16, checkpointing=False)
    _, again = _rehearse(_Pupil(outline, practice.stage, bf16, frozen), practice, bf16, checkpointing=True)
    if practice.stage not in ("masks", "join"):
        return load, Activations(plain, again)
    compared = Compared(practice.side)
    losses = rehearse_mask_losses(practice.rows, practice.frames, compared, bf16)
    return load, Activations(plain, again, losses, str(compared))


def _check(outline: Outline, practice: Practice) -> None:
    stage, brain, c = practice.stage, outline.skeleton().brain, outline.config.perception.decoder.hidden_size
    if practice.side % STRIDE:
        raise UsageError(f"shape.side: wanted a multiple of {STRIDE}, found {practice.side}")
    if stage != "words" and c != CODE:
        raise UsageError(f"stage {stage}: its codes have {CODE} channels, the queries of {outline.name} {c}")
    cells = (brain.config.image_side // STRIDE) ** 2
    if stage != "masks" and brain.family.image_tokens != cells:
        raise UsageError(
            f"stage {stage}: it names cells of {STRIDE} px, {cells} an image; "
            f"the brain of {outline.name} has {brain.family.image_tokens} tokens an image"
        )
    if stage == "language" and practice.side != brain.config.image_side:
        raise UsageError(f"shape.side: {outline.name} reads squares of {brain.config.image_side}, not {practice.side}")


class _Pupil(nn.Module):
    """A model with the heads of a stage, prepared as `python -m train` prepares it."""

    def __init__(self, outline: Outline, stage: str, bf16: bool, frozen: Iterable[str]) -> None:
        super().__init__()
        self.model = outline.learner()
        for half in frozen:
            getattr(self.model, half).requires_grad_(False)
        if bf16 and outline.config.brain.lora.rank:
            round_frozen(self.model)
        if stage == "join":
            self.model.segmenter.image_encoder.requires_grad_(False)
        llava = self.model.brain.llava
        with torch.device("meta"):
            self.naming = _Naming()
            self.objectness = nn.Linear(llava.config.get_text_config().hidden_size, 1)
            self.dense = nn.Linear(outline.config.perception.decoder.hidden_size, sum(KINDS))
        seeing = [part for part in llava.model.children() if part is not llava.model.get_decoder()]
        self.parts = {
            "words": [*seeing, llava.get_input_embeddings(), self.naming, self.objectness],
            "masks": [self.model.segmenter, self.dense],
            "language": [self.model.brain, self.naming],
            "join": [self.model, self.naming],
        }[stage]

    def load(self) -> Load:
        """Of what the stage has; the rest of the model lies beside it."""
        touched = nn.ModuleList(self.parts)
        return replace(load_of(touched.parameters()), beside=bytes_beside(touched, self.model))


def bytes_beside(touched: nn.Module, model: nn.Module) -> int:
    """Bytes of a model's parameters that are none of `touched`'s."""
    there = {id(parameter) for parameter in touched.parameters()}
    return sum(parameter.nbytes for parameter in model.parameters() if id(parameter) not in there)


class _Naming(nn.Module):
    """`train.stages.Naming`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, model: Skeleton, tokens: Tensor) -> Tensor:
        """What is held of image tokens (b, cells, h) and the names of their cells."""
        table, cells = model.brain.llava.get_input_embeddings(), tokens.flatten(0, 1)
        costs = []
        for names, share in NAMED:
            words = torch.stack([table.weight[torch.zeros(2, dtype=torch.long)].mean(0) for _ in range(names)])
            named = torch.arange(math.ceil(share * len(cells)))
            patches = cells[named]
            cosine = F.normalize(patches.float(), dim=-1) @ F.normalize(words.float(), dim=-1).t()
            costs.append(F.cross_entropy(cosine * self.scale, torch.zeros_like(named)))
        return torch.stack(costs).sum()


def _rehearse(pupil: _Pupil, practice: Practice, bf16: bool, checkpointing: bool) -> tuple[Load, int]:
    """The load, and the most bytes that a forward and backward pass holds, weights and gradients aside."""
    load, model = pupil.load(), pupil.model.train()
    if practice.stage == "join":
        model.segmenter.image_encoder.eval()
        model.brain.llava.model.get_encoder("image").eval()
    if checkpointing:
        recompute(model.brain.llava.model.get_decoder())
    with without_memory(pupil) as live:
        forget_gradients(pupil.parameters())
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = STEPS[practice.stage](pupil, practice)
        loss.backward()
        return load, live.peak


def _words(pupil: _Pupil, practice: Practice) -> Tensor:
    tokens = look(pupil.model, _pixels(practice.batch * VIEWS, practice.side))
    named = pupil.naming(pupil.model, tokens)
    logit = pupil.objectness(tokens).flatten().float()
    return named + F.binary_cross_entropy_with_logits(logit, torch.zeros_like(logit))


def _masks(pupil: _Pupil, practice: Practice) -> Tensor:
    segmenter = pupil.model.segmenter
    features = segmenter.encode(_squares(practice.batch * practice.frames, practice.side))
    codes = torch.zeros(practice.rows, CODE)
    found = unroll(pupil.model, features, codes, codes, practice.frames)
    costs = [mask_losses(*found, Compared(practice.side))]
    cells = pupil.dense(features.embedding.permute(0, 2, 3, 1))
    for part in cells.split(KINDS, dim=-1):
        flat = part.flatten(0, 2).float()
        costs.append(F.cross_entropy(flat, torch.zeros(len(flat), dtype=torch.long)))
    return torch.stack(costs).sum()


def _language(pupil: _Pupil, practice: Practice) -> Tensor:
    model, b = pupil.model, practice.batch
    tokens = look(model, _pixels(b * (1 + VIEWS), practice.side))
    states = _reading(model, practice, tokens[:b])
    named = pupil.naming(model, tokens)
    logits = _answers(model, practice, states)
    referring, purport = _queries(model, states, math.ceil(b * MASKS * TURNS / 2))
    return named + _text(logits) + referring.float().square().mean() + purport.float().square().mean()


def _join(pupil: _Pupil, practice: Practice) -> Tensor:
    model, b = pupil.model, practice.batch
    tokens = look(model, _pixels(b, model.brain.config.image_side))
    named = pupil.naming(model, tokens)
    logits = _answers(model, practice, _reading(model, practice, tokens))
    referring, purport = _queries(model, _reading(model, practice, tokens), practice.rows)
    features = model.segmenter.encode(_squares(b * practice.frames, practice.side))
    found = unroll(model, features, referring, purport, practice.frames)
    code = referring.float().square().mean()
    return named + _text(logits) + code + mask_losses(*found, Compared(practice.side))


STEPS: dict[str, Callable[[_Pupil, Practice], Any]] = {
    "words": _words,
    "masks": _masks,
    "language": _language,
    "join": _join,
}
"""The losses of a batch, by stage."""


def _squares(n: int, side: int) -> Tensor:
    """Frames, uint8 (n, 3, side, side)."""
    return torch.zeros(n, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _pixels(n: int, side: int) -> Tensor:
    """Frames as `Brain.preprocess` gives them."""
    shift = torch.zeros(1, 3, 1, 1)
    return (_squares(n, side).float() / 255 - shift) / (shift + 1)


def _reading(model: Skeleton, practice: Practice, tokens: Tensor) -> Tensor:
    length = PREFIX + model.brain.family.image_tokens + practice.turns * practice.turn
    return read(model, tokens, length, torch.ones(len(tokens), 1, length, length, dtype=torch.bool))


def _answers(model: Skeleton, practice: Practice, states: Tensor) -> Tensor:
    """Logits of half of all words."""
    return model.brain.llava.lm_head(states[:, -practice.turns * practice.turn // 2 :].flatten(0, 1))


def _text(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))


def _queries(model: Skeleton, states: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    at = torch.zeros(rows, dtype=torch.long)
    return model.brain.projection(states[:, 0][at]), model.brain.projection(states[:, 0][at])
