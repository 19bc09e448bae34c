"""Part "precision" of `python -m eval speed`: one model's encoder and decoder in every arithmetic it can run in.

The contestants differ in how the same weights are run (`trackgpt.config.Execution`), so each row also shows how
far its mask logits are from plain float32's. What this machine cannot run is a row that says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.speed.bench import Measurement, PartResult, Workload, clip_of, cue_of, interleaved, median, model_of
from eval.speed.loop import encoder_and_decoder
from trackgpt.errors import TrackGPTError
from trackgpt.hub import load_trackgpt
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.types import Cue

PLAIN = "float32"
CONTESTANTS: dict[str, dict[str, Any]] = {
    "kernels not packed": {"packed": False},
    "bfloat16": {"dtype": "bfloat16"},
    "compiled": {"compile": True},
    "onnxruntime": {"backend": "onnxruntime"},
    "bfloat16, onnxruntime": {"dtype": "bfloat16", "backend": "onnxruntime"},
}


def measure(workload: Workload) -> PartResult:
    """Time of an encoded and decoded frame, squares ready on the device: every contestant against plain float32."""
    plain = model_of(workload)
    frames = clip_of(workload, max(1, workload.frames // 8)).frames
    cue = cue_of(plain, frames[0], workload.targets)
    makers: dict[str, Callable[[], TrackGPT]] = {PLAIN: lambda: plain}
    makers |= {name: _maker(workload, execution) for name, execution in CONTESTANTS.items()}
    runs, firsts, apart = {}, {}, {}
    absent: dict[str, str] = {}
    wanted = _logits(plain, frames, cue)
    for name, make in makers.items():
        try:
            model = make()
            began = time.perf_counter()
            found = _logits(model, frames, cue)
        except (TrackGPTError, RuntimeError) as error:
            absent[name] = str(error).splitlines()[0]
            continue
        firsts[name] = time.perf_counter() - began
        apart[name] = float((found - wanted).abs().max() / wanted.abs().max())
        runs[name] = encoder_and_decoder(model, frames, cue)
    seconds = interleaved(runs, workload.pairs)
    lines, last = [], {}
    for name, each in seconds.items():
        how = f"first frame {firsts[name]:.2f} s, logits differ by {apart[name]:.1e} of the largest"
        lines.append(Measurement(name, 1e3 * each.wall / len(frames), "ms/frame", how))
    for name in list(makers)[1:]:
        if name in absent:
            lines.append(Measurement(f"{PLAIN} / {name}", np.array([]), "", f"not measured: {absent[name]}"))
            continue
        ratio = seconds[PLAIN].wall / seconds[name].wall
        work = seconds[PLAIN].computed / seconds[name].computed
        lines.append(Measurement(f"{PLAIN} / {name}", ratio, "", f"targets {workload.targets}"))
        lines.append(Measurement(f"{PLAIN} / {name}, computing time", work, "", "what a busy machine's clock hides"))
        last[f"{name.split(' ')[0].replace(',', '_onnxruntime')}_ratio"] = median(ratio)
    return PartResult(lines, last)


def _maker(workload: Workload, execution: dict[str, Any]) -> Callable[[], TrackGPT]:
    return lambda: load_trackgpt(workload.model, workload.device, **execution)


@torch.inference_mode()
def _logits(model: TrackGPT, frames: np.ndarray, cue: Cue) -> Tensor:
    """Mask logits of a first frame, float32 on the CPU."""
    from trackgpt.geometry.letterbox import fit

    segmenter = model.segmenter
    square = fit(frames.shape[1:3], segmenter.config.image_side).apply(frames[0])
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None].to(segmenter.like.device)
    rows = torch.zeros(cue.targets, dtype=torch.long, device=pixels.device)
    referring, purport = (torch.from_numpy(q).to(segmenter.like) for q in (cue.referring, cue.purport))
    return segmenter.decode(segmenter.encode(pixels).of(rows), referring, None, purport).logits.float().cpu()
