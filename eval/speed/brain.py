"""Parts "forced" and "naive" of `python -m eval speed`: how long the brain thinks, and what it costs to think always.

A draft is right when it is the answer itself, as a rethink about the same words has it, and wrong from its first token
on; by default it is the template's answer. "one forward" reads question and answer at once: the bound for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.speed.bench import (
    SENTENCE,
    FloatArray,
    Measurement,
    PartResult,
    Workload,
    clip_of,
    forced_answers,
    interleaved,
    median,
    model_of,
    rethinking_every,
)
from trackgpt.errors import UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.reasoners.brain import Answer, Brain
from trackgpt.types import Prompt

WRONG = "nothing of the kind is to be seen here"
ASKED = (SENTENCE, "the one in front", "which one will win the race?")
FRAMES, EVERY = 100, 33
"""Of part "naive": three rethinks in a hundred frames."""


class Way(NamedTuple):
    """A way to come by an answer: its name for people, and what is given to `Brain.reason`."""

    name: str
    given: dict[str, str]


def measure(workload: Workload) -> PartResult:
    """One reading of a frame: token by token, with drafts, teacher-forced; and three instructions, apart and together.

    Ratios are per token.
    """
    brain = model_of(workload).brain
    pixels = _square(brain, workload)
    said = brain.reason(pixels, SENTENCE, draft="").text
    ways = {
        "plain": Way("token by token", {"draft": ""}),
        "template": Way("template as draft", {}),
        "right": Way("right draft", {"draft": said}),
        "wrong": Way("wrong draft", {"draft": WRONG}),
        "forced": Way("teacher-forced", {"forced": said}),
    }
    answers = {key: brain.reason(pixels, SENTENCE, **way.given) for key, way in ways.items()}
    contestants: dict[str, Callable[[], object]] = {
        key: lambda way=way: brain.reason(pixels, SENTENCE, **way.given)  # type: ignore[misc]
        for key, way in ways.items()
    }
    contestants["once"] = _one_forward(brain, pixels, answers["plain"].ids)
    contestants["apart"] = lambda: [brain.reason(pixels, text) for text in ASKED]
    contestants["together"] = lambda: brain.reason_many(pixels, ASKED)
    seconds = {key: each.wall for key, each in interleaved(contestants, workload.pairs).items()}
    per_token = {key: seconds[key] / len(answers[key].ids) for key in ways}
    ms = {key: 1e3 * each for key, each in seconds.items()}
    lines = [Measurement(f"answer, {way.name}", ms[key], "ms", _how(answers, key)) for key, way in ways.items()]
    lines += [
        Measurement(f"token, {way.name}", 1e3 * per_token[key], "ms", "answer / tokens") for key, way in ways.items()
    ]
    lines.append(Measurement("question and answer in one forward", ms["once"], "ms", "the bound"))
    gains = {key: per_token["plain"] / per_token[key] for key in ways}
    lines += [Measurement(f"token by token / {ways[key].name}", gains[key], "", "per token") for key in list(ways)[1:]]
    lines += [Measurement(f"{ways[key].name} / one forward", ms[key] / ms["once"], "") for key in ("right", "forced")]
    together: FloatArray = seconds["apart"] / seconds["together"]
    lines.append(Measurement(f"{len(ASKED)} instructions, apart / together", together, "", "about one frame"))
    return PartResult(lines, {"verified_ratio": median(gains["right"]), "forced_ratio": median(gains["forced"])})


def _square(brain: Brain, workload: Workload) -> Tensor:
    """A frame as `Brain.reason` takes it, uint8 (3, s, s)."""
    image = clip_of(workload, 1).frames[0]
    square = fit(image.shape[:2], brain.config.image_side).apply(image)
    return torch.from_numpy(square).permute(2, 0, 1).to(next(brain.parameters()).device)


def _one_forward(brain: Brain, pixels: Tensor, answer: list[int]) -> Callable[[], None]:
    ids = brain.template.prefix() + brain.template.question(brain.check(SENTENCE)) + answer
    row = torch.tensor([ids], device=pixels.device)

    @torch.inference_mode()
    def once() -> None:
        brain.hidden(row, brain.preprocess(pixels[None])).cpu()

    return once


def _how(answers: dict[str, Answer], key: str) -> str:
    """How many tokens, and how far the queries of equal tokens lie from those written token by token.

    A model that was not trained may write bytes that no text stands for; its forced answer is then another one.
    """
    plain, answer = answers["plain"], answers[key]
    if answer.ids != plain.ids:
        return f"{len(answer.ids)} other tokens"
    apart = (answer.referring - plain.referring).abs().max().item() if len(plain.referring) else 0.0
    return f"{len(answer.ids)} tokens, queries within {apart:.0e}"


def measure_naive(workload: Workload) -> PartResult:
    """The tracker at 3 % rethinking, against a loop that reads every frame with the brain, token by token.

    The naive loop does what an image model does on a video: each frame is read, encoded and decoded by itself. Both go
    on from the same first frame.
    """
    model = model_of(workload)
    frames = clip_of(workload, workload.frames).frames
    first, said = model.tracker(), Prompt(SENTENCE)
    with forced_answers(model):
        begun, _ = first.step(first.begin(), frames[0], said)
    few = max(1, FRAMES // 10)

    def tracker() -> None:
        online, state = rethinking_every(model, EVERY), begun
        for t in range(FRAMES):
            state, _ = online.step(state, frames[t % len(frames)])
        rethinks = state.record.rethinks
        if rethinks != FRAMES // EVERY:
            raise UsageError(f"speed: {rethinks} rethinks in {FRAMES} frames; wanted {FRAMES // EVERY}")

    def naive() -> None:
        for t in range(few):
            frame = frames[t % len(frames)]
            first.reasoner.reason(frame, begun, said)  # what is said anew has no draft
            first.perception.perceive(frame, begun, ())

    seconds = {name: each.wall for name, each in interleaved({"ours": tracker, "naive": naive}, workload.pairs).items()}
    ours, theirs = seconds["ours"] / FRAMES, seconds["naive"] / few
    size = f"{workload.width}x{workload.height}"
    lines = [
        Measurement("tracker, 3 % rethinking", np.reciprocal(ours), "frames/s", f"{size}, {FRAMES} frames per round"),
        Measurement("the brain on every frame", np.reciprocal(theirs), "frames/s", f"{size}, {few} frames per round"),
        Measurement("tracker / the brain on every frame", theirs / ours, "", "frames in memory"),
    ]
    return PartResult(lines, {"naive_ratio": median(theirs / ours)})
