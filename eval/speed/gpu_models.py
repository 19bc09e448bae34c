"""Models of full size with random weights, and the parts of `python -m eval gpu-rows` that run them.

Rates are frames/s or TFLOP/s, times milliseconds, memory bytes; all medians over rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from eval.speed.attention import SIZES as VITS
from eval.speed.attention import measure as measure_attention
from eval.speed.attention import random_vit
from eval.speed.bench import (
    SENTENCE,
    Figures,
    Setting,
    Workload,
    clip_of,
    forced_answers,
    interleaved,
    median,
    rethinking_every,
)
from eval.speed.online import track_video
from trackgpt.config import BrainConfig, EncoderConfig, PerceptionConfig, TrackGPTConfig
from trackgpt.hub import compile_segmenter, find
from trackgpt.perception.encoders import Features
from trackgpt.perception.segmenter import STRIDE, Segmenter
from trackgpt.planning.memory_plan import load_of
from trackgpt.precision import inference_dtype
from trackgpt.reasoners.brain import Brain
from trackgpt.session.ahead import AHEAD, Lookahead
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.types import Prompt

# Width, inner width, layers and heads of LLaVA 1.5's Llama, and the same of CLIP beside it with its side in pixels.
BRAINS = {
    "7b": ((4096, 11008, 32, 32), (1024, 4096, 24, 16, 336)),
    "13b": ((5120, 13824, 40, 40), (1024, 4096, 24, 16, 336)),
    "tiny": ((48, 96, 2, 4), (32, 64, 3, 4, 56)),
}
WORDS = {"7b": 32064, "13b": 32064}
WARM = 2


def random_model(brain: str, vit: str, device: str) -> TrackGPT:
    """A whole model with random weights on a device, in the arithmetic that is fastest there, ready to track."""
    place = torch.device(device)
    perception = PerceptionConfig(EncoderConfig("sam_vit", VITS[vit]), image_side=VITS[vit].get("image_size", 1024))
    tokenizer = _tokenizer()
    config = TrackGPTConfig(f"random-{brain}-{vit}", _brain_config(brain, tokenizer), perception)
    with _default_dtype(inference_dtype("auto", place)), place:
        model = TrackGPT.from_config(config, tokenizer)
    return model.requires_grad_(False).fold()


def _tokenizer() -> Any:
    """nano's: which ids words have changes no time."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(find("nano"))


def _brain_config(brain: str, tokenizer: Any) -> BrainConfig:
    from trackgpt.reasoners.templates import IMAGE_TOKEN

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text, clip = BRAINS[brain]
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    words = WORDS.get(brain, len(tokenizer))
    llava = {
        "vision_config": {
            "model_type": "clip_vision_model",
            "patch_size": 14,
            "image_size": clip[-1],
            **dict(zip(names, clip, strict=False)),
        },
        "text_config": {"model_type": "llama", "vocab_size": words, **dict(zip(names, text, strict=True)), **special},
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "tie_word_embeddings": False,
    }
    return BrainConfig(llava=llava, image_side=clip[-1])


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Create new weights in this dtype: 13 billion of them in float32 would not fit."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


# Parts


@torch.inference_mode()
def encoder(at: Setting, vit: str) -> Figures:
    """Times of the encoder alone by frames per call, and the share of the device's measured matmul peak it reaches."""
    place = torch.device(at.device)
    dtype = inference_dtype("auto", place)
    made = random_vit(vit).to(place, dtype)
    side = made.vision_encoder.config.image_size
    pixels = {n: torch.randn(n, 3, side, side, device=place, dtype=dtype) for n in (1, *at.size.batches)}
    with FlopCounterMode(display=False) as counter:
        made(pixels[1])
    flops = counter.get_total_flops()
    square = torch.randn(at.size.matmul, at.size.matmul, device=place, dtype=dtype)
    runs = {f"ms_{n}": partial(_synced, place, made, each) for n, each in pixels.items()}
    runs["matmul"] = partial(_synced, place, torch.matmul, square, square)
    seconds = _median_seconds(runs, at)
    peak = 2 * at.size.matmul**3 / seconds.pop("matmul")
    share = {f"share_{n}": n * flops / seconds[f"ms_{n}"] / peak for n in pixels}
    ms = {name: 1e3 * value / int(name.split("_")[1]) for name, value in seconds.items()}
    return {"side": side, "dtype": str(dtype), "tflop": flops / 1e12, "peak_tflop_s": peak / 1e12, **ms, **share}


@torch.no_grad()
def decoder(at: Setting, vit: str) -> Figures:
    """The mask decoder by numbers of targets, as it is and compiled (on a GPU: one CUDA graph for each number)."""
    place = torch.device(at.device)
    config = PerceptionConfig(EncoderConfig("sam_vit", VITS[vit]), image_side=VITS[vit].get("image_size", 1024))
    segmenter = Segmenter(config).to(place, inference_dtype("auto", place)).eval()
    segmenter.fold()
    cells, like = config.image_side // STRIDE, segmenter.like
    maps = Features(torch.randn(1, like.shape[1], cells, cells).to(like))
    queries = {n: torch.randn(3, n, like.shape[1]).to(like) for n in at.size.targets}
    runs = {
        f"ms_{n}": partial(_synced, place, segmenter.decode, maps.repeated(n), *given) for n, given in queries.items()
    }
    plain = _median_seconds(runs, at)
    compile_segmenter(segmenter, place.type)
    compiled = {f"compiled_{name}": value for name, value in _median_seconds(runs, at).items()}
    return {name: 1e3 * value for name, value in {**plain, **compiled}.items()}


def attention(at: Setting, vit: str) -> Figures:
    """The ways to compute attention, see `eval.speed.attention`."""
    part = measure_attention(Workload(device=at.device, pairs=at.size.pairs, vit=vit))
    return {**part.last, "table": part.as_json()["lines"]}


def brain(at: Setting, brain: str) -> Figures:
    """First answer, and an answer of as many tokens token by token, verified as a draft, and teacher-forced.

    What random weights would say is no text, so the draft is given as ids: the model's own.
    """
    model = random_model(brain, at.size.vits[0], at.device)
    mind = model.brain
    mind.config.max_answer_tokens = len(mind.template.answer(mind.config.forced_answer))
    side = mind.config.image_side
    pixels = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, device=at.device)
    began = time.perf_counter()
    plain = mind.reason(pixels, SENTENCE, draft="")
    cold = time.perf_counter() - began
    runs: dict[str, Callable[[], object]] = {
        "plain": lambda: mind.reason(pixels, SENTENCE, draft="").referring.cpu(),
        "verified": lambda: _own_draft(mind, plain.ids, pixels).referring.cpu(),
        "forced": lambda: mind.reason(pixels, SENTENCE, forced=mind.config.forced_answer).referring.cpu(),
    }
    same = _own_draft(mind, plain.ids, pixels).ids == plain.ids
    seconds = _median_seconds(runs, at)
    ms = {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    ratios = {f"plain_over_{name}": seconds["plain"] / seconds[name] for name in ("verified", "forced")}
    return {"tokens": len(plain.ids), "verified_same": same, "cold_answer_ms": 1e3 * cold, **ms, **ratios}


def _own_draft(mind: Brain, ids: list[int], pixels: torch.Tensor) -> Any:
    kept = mind.template
    draft: Any = _FixedDraft(kept, ids)
    mind.template = draft
    try:
        return mind.reason(pixels, SENTENCE, draft="its own")
    finally:
        mind.template = kept


class _FixedDraft:
    """A template whose answers are ids, whatever the text."""

    def __init__(self, template: Any, ids: list[int]) -> None:
        self._template, self._ids = template, ids

    def answer(self, text: str) -> list[int]:
        return list(self._ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)


def track(at: Setting, brain: str, vit: str) -> Figures:
    """Whole frames, masks on the CPU: online one by one, offline in batches; the brain every few frames; memory."""
    model = random_model(brain, vit, at.device)
    planned = load_of(model.parameters()).frozen_bytes
    clip = clip_of(Workload(height=at.size.height, width=at.size.width), at.size.frames)
    frames: list[np.ndarray] = list(clip.frames)
    tracker = rethinking_every(model, at.size.every)
    ways = {"online": Lookahead()} | {f"batch_{n}": Lookahead(batch=n) for n in at.size.batches}
    ways["ahead"] = Lookahead(frames=AHEAD)
    runs = {name: partial(track_video, tracker, frames, way) for name, way in ways.items()}
    runs["speculating"] = partial(track_video, tracker, frames, Lookahead(frames=AHEAD), speculate=True)
    with forced_answers(model):
        began = time.perf_counter()
        tracker.step(tracker.begin(), frames[0], Prompt(SENTENCE))
        first = time.perf_counter() - began
        if at.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(at.device)
        seconds = _median_seconds(runs, at)
        begin = partial(tracker.step, tracker.begin(), frames[0], Prompt(SENTENCE))
        begin()
        warm = _median_seconds({"first": begin}, at)["first"]
    rates = {f"fps_{name}": at.size.frames / value for name, value in seconds.items()}
    peak = torch.cuda.max_memory_allocated(at.device) if at.device.startswith("cuda") else None
    memory = {"planned_weights_bytes": planned, "peak_bytes": peak}
    return {**rates, "first_mask_cold_ms": 1e3 * first, "first_mask_ms": 1e3 * warm, **memory}


def _median_seconds(runs: dict[str, Any], at: Setting) -> dict[str, float]:
    for run in runs.values():
        for _ in range(WARM):  # an allocator and kernels chosen by trial are not settled after one
            run()
    return {name: median(each.wall) for name, each in interleaved(runs, at.size.pairs).items()}


def _synced(place: torch.device, run: Callable[..., object], *given: object) -> None:
    run(*given)
    if place.type == "cuda":
        torch.cuda.synchronize(place)
