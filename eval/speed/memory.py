"""Part "memory" of `python -m eval speed`: what `trackgpt doctor` plans for a model, against what it then holds.

Bytes of tensors are counted as they are made; the process's memory is what the kernel says, with libraries' buffers and
what the allocator keeps. Needs a CPU: a GPU has counters of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import DynamicCache

from eval.speed.bench import Measurement, PartResult, Workload
from eval.speed.loop import resident_bytes
from trackgpt.hub import load_trackgpt
from trackgpt.planning.inference import PREFIX, Answering, plan_inference
from trackgpt.planning.outline import outline_of
from trackgpt.planning.tracing import LiveBytes
from trackgpt.systems.trackgpt import TrackGPT

MIB = 2**20
LEAST = 64 * MIB
"""Below this size the growth of a process is mostly that of its allocator."""


def measure(workload: Workload) -> PartResult:
    """Planned over measured: weights, cache, activations of an answer and of a frame; in tensors and in the process."""
    asked = Answering(targets=workload.targets)
    planned = plan_inference(outline_of(workload.model), asked, ["float32"])["float32"]
    _warm()
    with _grown() as loaded:
        model = load_trackgpt(workload.model, "cpu")
        for weight in model.parameters():
            if not weight.is_mkldnn:
                weight.sum()  # weights that were mapped from their file come in when they are read
    weights = sum({id(w): w.nbytes for w in model.parameters()}.values())
    with _grown() as answered:  # before anything else, whose freed memory it would use
        _answer(model, asked)
    with _grown() as seen:
        _frame(model, asked)
    with LiveBytes() as live:
        cache = _answer(model, asked)
        answer, frame = live.peak, _frame_peak(model, asked, live)
    held = sum(planned.weights.values())
    rows = [
        ("weights, tensors", held, weights),
        ("weights, process", held, loaded[0]),
        ("cache, tensors", planned.cache, cache),
        ("cache and answer, tensors", planned.cache + planned.answer, answer),
        ("cache and answer, process", planned.cache + planned.answer, answered[0]),
        ("frame, tensors", planned.frame, frame),
        ("frame, process", planned.frame, seen[0]),
    ]
    lines, last = [], {}
    for name, wanted, found in rows:
        how = f"planned {wanted / MIB:.1f} MiB, measured {found / MIB:.1f}"
        if name.endswith("process") and wanted < LEAST:
            lines.append(
                Measurement(f"{name}: planned / measured", np.array([]), "", "not measured: the allocator keeps more")
            )
            continue
        lines.append(Measurement(f"{name}: planned / measured", np.array([wanted / max(1, found)]), "", how))
        last[name.replace(", ", "_").replace(" ", "_")] = wanted / max(1, found)
    return PartResult(lines, last)


@torch.no_grad()
def _answer(model: TrackGPT, asked: Answering) -> int:
    """Read a frame and words as `Brain` does; bytes of the cache."""
    brain = model.brain
    cells, side = brain.family.image_tokens, brain.config.image_side
    ids = torch.zeros(1, PREFIX + cells + asked.tokens, dtype=torch.long)
    ids[:, 1 : 1 + cells] = brain.family.image_id
    cache = DynamicCache(config=brain.llava.config.get_text_config())
    pixels = brain.preprocess(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    states = brain.hidden(ids, pixels, past_key_values=cache, use_cache=True)
    brain.llava.lm_head(states[0, -asked.tokens :]).float().topk(2)
    return sum(values.nbytes for layer in cache.layers for values in (layer.keys, layer.values))


@torch.no_grad()
def _frame(model: TrackGPT, asked: Answering) -> None:
    """Encode a frame and decode its targets."""
    side, c = model.config.perception.image_side, model.config.perception.decoder.hidden_size
    features = model.segmenter.encode(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    query = torch.zeros(asked.targets, c, dtype=model.segmenter.like.dtype)
    model.segmenter.decode(features.repeated(asked.targets), query, query, query)


def _frame_peak(model: TrackGPT, asked: Answering, live: LiveBytes) -> int:
    live.restart()
    before = live.now
    _frame(model, asked)
    return live.peak - before


def _warm() -> None:
    """Import what loading imports, so that it does not count."""
    model = load_trackgpt("nano", "cpu")
    _frame(model, Answering())
    _answer(model, Answering())


@contextmanager
def _grown() -> Iterator[list[int]]:
    """The most by which this process grew, looked at every millisecond; the list is filled at the end."""
    grown: list[int] = []
    begun = most = resident_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident_bytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield grown
    finally:
        done.set()
        watcher.join()
        grown.append(max(most, resident_bytes()) - begun)
