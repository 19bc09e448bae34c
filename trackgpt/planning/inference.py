"""Peak memory of an answer and of a tracked frame, traced with fake tensors.

The modules are the real ones (see `trackgpt.planning.outline`), so a new family or encoder needs no new formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from trackgpt.planning.memory_plan import DTYPES, Inference
from trackgpt.planning.outline import ModelOutline, largest_matrix, weight_bytes
from trackgpt.planning.tracing import without_memory
from trackgpt.reasoners.brain import Brain
from trackgpt.systems.trackgpt import TrackGPT

PREFIX = 40
"""Tokens around image and turns: the conversation's system line and roles."""
FRAME = (720, 1280)
"""Height and width in pixels assumed for a frame whose size is not given."""


@dataclass(frozen=True)
class Answering:
    """What is asked of a model that tracks.

    Attributes:
        tokens: of question and answer, without those of the image.
        targets: objects tracked at once.
        ahead: frames that are encoded ahead and held, of `FRAME` each.
    """

    tokens: int = 200
    targets: int = 1
    ahead: int = 0


def plan_inference(outline: ModelOutline, asked: Answering, dtypes: Iterable[str] = DTYPES) -> dict[str, Inference]:
    """Memory of a model that answers and tracks, by dtype.

    Args:
        outline: of the model.
        asked: the load.
        dtypes: of `memory_plan.DTYPES`. Quantised weights compute in bfloat16, and 4 bits are unpacked for it, one
            matrix at a time.
    """
    model = outline.skeleton()
    traced: dict[torch.dtype, Inference] = {}
    plans = {}
    for dtype in dtypes:
        computes = torch.float32 if dtype == "float32" else torch.bfloat16
        if computes not in traced:
            traced[computes] = trace_inference(outline, computes, asked)
        unpacked = 2 * largest_matrix(model) if dtype == "int4" else 0
        answer = traced[computes].answer + unpacked
        plans[dtype] = replace(traced[computes], weights=weight_bytes(model, dtype), answer=answer)
    return plans


@torch.no_grad()
def trace_inference(outline: ModelOutline, dtype: torch.dtype, asked: Answering) -> Inference:
    """Peak memory of one answer and of one frame in a dtype, without the weights."""
    model = outline.skeleton().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.fold()
    length = PREFIX + model.brain.family.image_tokens + asked.tokens
    # Real pixels, because SmolVLM looks for images that are empty.
    image = torch.ones(1, 3, model.brain.config.image_side, model.brain.config.image_side)
    with without_memory(model) as live:
        cache = DynamicCache(config=model.brain.llava.config.get_text_config())
        states = _hidden(model.brain, image, length, cache)
        model.brain.llava.lm_head(states[0, -asked.tokens :]).float().topk(2)
        held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        answer = live.peak - held
        del states, cache
        live.restart()
        begun = live.now
        frame, kept = _frame(model, asked.targets)
        peak = live.peak - begun
    return Inference({}, length, held, answer, peak, kept * asked.ahead + frame, asked.ahead)


def _hidden(brain: Brain, image: Tensor, length: int, cache: DynamicCache) -> Tensor:
    """Last hidden states (1, length, h) of a conversation about an image (1, 3, s, s)."""
    family = brain.family
    tokens = family.project(brain.llava.model, family.arrange(image).to(next(brain.llava.parameters()).dtype))
    ids = torch.full((1, length), int(family.image_id == 0))
    ids[:, 1 : 1 + family.image_tokens] = family.image_id
    words = brain.llava.get_input_embeddings()(ids)
    given = family.embedded(words, ids == family.image_id, tokens)
    positions = family.positions(ids, torch.arange(length).expand(1, -1))
    return brain.language(**given, position_ids=positions, past_key_values=cache, use_cache=True).last_hidden_state


def _frame(model: TrackGPT, targets: int) -> tuple[int, int]:
    """Encode a frame and decode its targets; bytes of a track's queries, and of a `FRAME` with its features."""
    side, c = model.config.perception.image_side, model.config.perception.decoder.hidden_size
    pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    features = model.segmenter.encode(pixels)
    query = torch.zeros(targets, c, dtype=model.segmenter.like.dtype)
    model.segmenter.decode(features.repeated(targets), query, query, query)
    maps = [features.embedding, *(features.fine or ())]
    return 3 * targets * c * 4, 3 * math.prod(FRAME) + sum(m.nbytes for m in maps)
