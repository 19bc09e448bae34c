"""The stage "pointing": language on a held vision tower, with attention shown where to look before it speaks.

Choosing the object is what answers to implicit instructions get wrong, and the words of an answer say late and
indirectly that another one was meant. Two heads are therefore told by the truth where to look: one, at every noun of
an instruction, at the cells of what it names; one, where an answer is about to name a target, at the cells of that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.reasoners.templates import TrackTemplate
from trackgpt.synthtrack.catalog import BY_NAME, COLOURS
from trackgpt.synthtrack.clips import scene_expressions
from trackgpt.synthtrack.language import Seen
from trackgpt.synthtrack.questions import describe_scene, knowledge, questions
from trackgpt.synthtrack.world import make_scene
from trackgpt.systems.trackgpt import TrackGPT
from train.coded_answers import answer_losses, codes_of
from train.codes import Codes
from train.config import Shape
from train.losses import Losses
from train.mosaics import CATEGORY_INDEX, COLOUR_INDEX, DrawnSquare, shares_of, token_labels
from train.naming import Naming
from train.packing import Packed, pack, packed_hidden
from train.synthtrack_samples import Turn, mixed, plain_turn, render_square, track_turn

NOUN_LAYER, NAME_LAYER = 1, 3
"""Layers whose first head is shown where to look: at nouns of instructions, and before the names of answers."""
LOOKED_AT = 0.1
"""A cell belongs to a thing that fills this share of it, or more of it than of any other cell."""
KIND_WEIGHTS = {"explicit": 2.5, "implicit": 8.0, "multi": 2.5, "none": 2.0}
FORM_WEIGHTS = {"relation": 5.0, "superlative": 3.0, "fact": 2.5, "part": 2.0, "race": 3.0}
"""How often a kind and a form are asked: the more, the more often the shipped nano's answers were wrong."""


@dataclass(frozen=True)
class Look:
    """Where a head should look.

    Attributes:
        turn: number of the turn, from 1.
        target: number of the target that the answer is about to name; -1 for a noun of the question.
        noun: text of that noun, or "".
        cells: bool (tokens,), where what is meant can be seen.
    """

    turn: int
    target: int
    noun: str
    cells: np.ndarray


@dataclass(frozen=True)
class PointingSample:
    """A frame, uint8 (side, side, 3), with turns about it, where to look, and labels of its tokens."""

    frame: np.ndarray
    turns: tuple[Turn, ...]
    looks: tuple[Look, ...]
    labels: dict[str, np.ndarray]


def pointing_sample(seed: int, side: int, tokens: int, tracks: int = 8) -> PointingSample:
    """A frame with `tracks` instructions, a question, a fact, and every second time a description."""
    rng = np.random.default_rng([seed, 23])
    scene = make_scene(seed, frames=24)
    t = int(rng.integers(scene.frames))
    view = render_square(scene, t, side, rng.choice([1.0, 1.25, 1.5]))
    said = mixed(scene_expressions(scene, t, view.seen, rng), tracks, rng, KIND_WEIGHTS, FORM_WEIGHTS)
    turns = [track_turn(expression, view) for expression in said]
    cells = {one.id: _where(view.ids, one.id, tokens) for one in view.seen}
    looks: list[Look] = []
    for number, turn in enumerate(turns, start=1):
        looks += [Look(number, k, "", cells[target]) for k, target in enumerate(turn.targets)]
        named = nouns(turn.question, view.seen)
        looks += [Look(number, -1, noun, np.any([cells[i] for i in ids], axis=0)) for noun, ids in named]
    turns += [plain_turn(q, a) for q, a in [*questions(view.seen, rng)[:1], *knowledge(rng, 1)]]
    if view.seen and rng.random() < 0.5:
        turns.append(plain_turn("describe the scene.", describe_scene(view.seen)))
    many = max((one.id for one in view.seen), default=0)
    category, colour = np.zeros(many, np.int64), np.zeros(many, np.int64)
    boxes = np.full((many, 4), np.nan, np.float32)
    for one, box in zip(view.seen, view.boxes, strict=True):
        category[one.id - 1], colour[one.id - 1] = CATEGORY_INDEX[one.category], COLOUR_INDEX[one.colour]
        boxes[one.id - 1] = box
    height, width = (length / max(view.rgb.shape[:2]) for length in view.rgb.shape[:2])
    picture = DrawnSquare(view.frame, view.ids, category, colour, boxes, (height, width))
    return PointingSample(view.frame, tuple(turns), tuple(looks), token_labels(picture, tokens))


def nouns(question: str, seen: Sequence[Seen]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Nouns of an instruction with the ids of what they may mean in a frame: those of the colour in front, if any."""
    words = question.lower().replace("?", " ").replace(",", " ").split()
    for category in dict.fromkeys(one.category for one in seen):
        mine = [one for one in seen if one.category == category]
        for noun in (category, BY_NAME[category].plural):
            parts = noun.split()
            starts = [i for i in range(1, len(words)) if words[i : i + len(parts)] == parts]
            if not starts:
                continue
            before = words[starts[0] - 1]
            meant = [one.id for one in mine if before not in COLOURS or one.colour == before]
            if meant:
                yield noun, tuple(meant)
            break


def _where(ids: np.ndarray, number: int, tokens: int) -> np.ndarray:
    share = shares_of(ids, number, tokens)
    return (share >= LOOKED_AT) | (share == share.max())


class PointingStage:
    """Instruction to answer and codes: the language model, phi, the projector and what merges cells.

    The encoder's convolutions are held, so that the budget goes to the words.
    """

    weights = {
        "text": 1.0,
        "code": 1.0,
        "purport_code": 0.5,
        "look_name": 0.3,
        "look_noun": 0.2,
        "word_category": 0.2,
        "word_colour": 0.1,
        "word_region": 0.1,
    }

    def __init__(self, model: TrackGPT, shape: Shape, device: torch.device) -> None:
        self.model, self.shape, self.device = model, shape, device
        self.naming = Naming(model).to(device)
        self.codes = Codes()
        self.tokens = round(model.brain.family.image_tokens**0.5)

    def sample(self, seed: int) -> PointingSample:
        return pointing_sample(seed, self.shape.side, self.tokens, self.shape.targets)

    def modules(self) -> Iterable[nn.Module]:
        self.model.brain.vision.encoder.requires_grad_(False)
        return [self.model.brain, self.naming]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        brain = self.model.brain
        batch = pack(brain.template, [[((t.question, t.answer),) for t in s.turns] for s in samples])
        looks = places(batch, brain.template, [s.looks for s in samples])
        frames = torch.from_numpy(np.stack([s.frame for s in samples])).permute(0, 3, 1, 2)
        names = {k: torch.from_numpy(np.stack([s.labels[k] for s in samples])) for k in self.naming.names}
        codes = (code.to(self.device) for code in codes_of(self.codes, [t for s in samples for t in s.turns]))
        return self.batch_losses(batch.to(self.device), frames.to(self.device), names, looks, *codes)

    def batch_losses(
        self,
        batch: Packed,
        frames: Tensor,
        names: dict[str, Tensor],
        looks: dict[str, tuple[Tensor, Tensor, Tensor]],
        referring_code: Tensor,
        purport_code: Tensor,
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of packed turns, one row per image.

        Args:
            batch: the turns.
            frames: uint8 (b, 3, s, s).
            names: labels of the images' tokens, int64 (b, rows, columns).
            looks: of `places`.
            referring_code, purport_code: of every target, (targets, 128).
        """
        brain = self.model.brain
        brain.vision.eval()
        tokens = brain.family.project(brain.llava.model, brain.preprocess(frames))
        out, figures = self.naming.losses(self.model, tokens, names)
        with layer_inputs(brain.language, (NOUN_LAYER, NAME_LAYER)) as inputs:
            hidden = packed_hidden(brain, batch, tokens)
        first = len(brain.template.prefix()) - brain.family.image_tokens
        for key, layer in (("look_noun", NOUN_LAYER), ("look_name", NAME_LAYER)):
            row, at, cells = looks[key]
            chance = head_attention(brain.language.layers[layer], *inputs[layer], batch, row, at)
            seen = (chance[:, first : first + cells.shape[1]] * cells).sum(1)
            out[key] = -seen.clamp(min=1e-6).log().mean() if len(seen) else hidden.sum() * 0
            figures[f"{key}_share"] = seen.mean().item() if len(seen) else 0.0
        said, more = answer_losses(brain, hidden, batch, referring_code, purport_code)
        return {**out, **said}, {**figures, **more}


def places(
    batch: Packed, template: TrackTemplate, looks: Sequence[Sequence[Look]]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Rows (n,), positions (n,) and cells, float32 (n, tokens), of the looks of a packed batch, by their loss."""
    (article,) = template.encode(" the")
    spelled: dict[str, list[int]] = {}
    found: dict[str, list[tuple[int, int, np.ndarray]]] = {"look_noun": [], "look_name": []}
    ids, turn = batch.ids.numpy(), batch.turn.numpy()
    said = batch.labels.numpy() >= 0
    for row, mine in enumerate(looks):
        for look in mine:
            at = np.flatnonzero(turn[row] == look.turn)
            words, answer = ids[row, at].tolist(), int(np.argmax(said[row, at]))
            if look.target < 0:
                noun = spelled.setdefault(look.noun, template.encode(f" {look.noun}"))
                where = _after(words[:answer], noun)
                key = "look_noun"
            else:
                where = _before_name(words, answer, look.target, article, template.track_id)
                key = "look_name"
            if where >= 0:
                found[key].append((row, int(at[where]), look.cells))
    return {
        key: (
            torch.tensor([one[0] for one in each], dtype=torch.long),
            torch.tensor([one[1] for one in each], dtype=torch.long),
            torch.from_numpy(np.array([one[2] for one in each], np.float32).reshape(len(each), -1)),
        )
        for key, each in found.items()
    }


def _after(words: list[int], noun: list[int]) -> int:
    """Index of the last token of the first occurrence of a noun; -1 where there is none."""
    for start in range(len(words) - len(noun) + 1):
        if words[start : start + len(noun)] == noun:
            return start + len(noun) - 1
    return -1


def _before_name(words: list[int], answer: int, target: int, article: int, track: int) -> int:
    """Index of the article in front of the name of a target of an answer; -1 where there is none."""
    ends = [i for i in range(answer, len(words)) if words[i] == track]
    start = answer if target == 0 else ends[target - 1]
    return next((i for i in range(start, ends[target]) if words[i] == article), -1)


@contextmanager
def layer_inputs(language: Any, numbers: Sequence[int]) -> Iterator[dict[int, tuple[Tensor, tuple[Tensor, Tensor]]]]:
    """What enters some layers of a Llama while it runs inside: hidden states (b, l, h), and cosines and sines."""
    seen: dict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = {}

    def keep(number: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[number] = (args[0] if args else kwargs["hidden_states"], kwargs["position_embeddings"])

        return hook

    hooks = [language.layers[k].register_forward_pre_hook(keep(k), with_kwargs=True) for k in numbers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def head_attention(
    layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], batch: Packed, row: Tensor, at: Tensor
) -> Tensor:
    """The attention of a layer's first head from positions (n,) of rows (n,) to all, (n, l), as it computes it."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention, size = layer.self_attn, layer.self_attn.head_dim
    states = layer.input_layernorm(hidden)
    keys = F.linear(states, attention.k_proj.weight[:size])
    queries = F.linear(states, attention.q_proj.weight[:size])
    queries, keys = (part[:, 0] for part in apply_rotary_pos_emb(queries[:, None], keys[:, None], *rotary))
    scores = (queries[row, at].unsqueeze(1) @ keys[row].transpose(1, 2)).squeeze(1) * attention.scaling
    return scores.float().masked_fill(~batch.mask()[row, 0, at], -torch.inf).softmax(-1)
