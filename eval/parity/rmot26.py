"""Our rewards and clip metrics of query-driven tracking against those stored for gaash-lab/QTrack.

    inputs.json     mcp: [previous, current, predicted]; acc: {pred, gt}; fmt: answers; iou: [truth, predicted];
                    clips: {gt, pred, size}
    expected.json   HEAD_bc746fe, first_e43ec0c: mcp, fmt, acc, score; eval_iou; parse: [{text, out}];
                    PROPOSED_clips: our own formulas, no one's official numbers

"score" is the total reward of the "acc" cases. Its previous truth is not stored: it is the current one moved by
(+3, +3) px, which fits all 92 numbers.

numpy computes exp with other code on CPUs with AVX-512 than on those without, and the last bit differs now and then: of
the 242 stored "mcp" and "score", 5 have it otherwise than a CPU without. Either way it is one of the two doubles around
the exact value. So these two are compared with exp rounded down and with exp rounded up, both from exact arithmetic,
beside numpy's: a stored number is met if it equals, with ==, one of the three results.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.query_mot import box_iou, clip_metrics
from eval.metrics.query_mot_answers import parse_predicted_output
from eval.metrics.query_mot_rewards import (
    RMOT26_FIRST,
    RMOT26_HEAD,
    RewardConvention,
    accuracy_reward,
    format_reward,
    mcp_reward,
    total_reward,
)
from eval.parity.checks import Comparison, compared
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError

SOURCE = "QTrack"
OURS = "trackgpt, rmot26_proposed"
CONVENTIONS = {"HEAD_bc746fe": RMOT26_HEAD, "first_e43ec0c": RMOT26_FIRST}
REWARDS = ("mcp", "fmt", "acc", "score")
PREVIOUS = (3.0, 3.0)


def checks(folder: Path) -> Iterator[Comparison]:
    """Compare every stored number: rewards at both commits, the evaluator's IoU and parser, our clip metrics.

    Args:
        folder: golden vectors in the layout above.

    Yields:
        One check per list, called e.g. "HEAD_bc746fe/mcp"; one per text for "parse"; one per clip and metric for
        "PROPOSED_clips", whose source says that they are ours.

    Raises:
        InputError: a file is missing, damaged or not of that layout.
    """
    inputs = _read(folder / "inputs.json", {"mcp", "acc", "fmt", "iou", "clips"})
    stored = _read(folder / "expected.json", {*CONVENTIONS, "eval_iou", "parse", "PROPOSED_clips", "versions"})
    try:
        for commit, convention in CONVENTIONS.items():
            yield from _reward_checks(commit, convention, inputs, stored[commit])
        yield compared(SOURCE, "eval_iou", [box_iou(*pair) for pair in inputs["iou"]], stored["eval_iou"])
        yield from _parse_checks(stored["parse"])
        yield from _clip_checks(inputs["clips"], stored["PROPOSED_clips"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: inputs.json and expected.json are not of the layout of rmot26 ({type(error).__name__}: {error})"
        ) from error


def _reward_checks(
    commit: str, convention: RewardConvention, inputs: dict[str, Any], stored: dict[str, Any]
) -> Iterator[Comparison]:
    if set(stored) != set(REWARDS):
        raise ValueError(f"{commit} holds {', '.join(stored)}, wanted {', '.join(REWARDS)}")
    truths = [_truth(case["gt"]) for case in inputs["acc"]]
    answers = [case["pred"] for case in inputs["acc"]]
    ours: dict[str, Any] = {
        "mcp": _equal_or_numpys(
            [lambda exp, boxes=boxes: mcp_reward(*boxes, convention, exp) for boxes in inputs["mcp"]], stored["mcp"]
        ),
        "fmt": [format_reward(answer, convention) for answer in inputs["fmt"]],
        "acc": [accuracy_reward(answer, boxes, convention, points) for answer, (boxes, points) in zip(answers, truths)],
        "score": _equal_or_numpys(
            [
                lambda exp, answer=answer, boxes=boxes, points=points: total_reward(
                    answer, boxes + [*PREVIOUS, 0.0, 0.0], boxes, convention, points, exp
                )
                for answer, (boxes, points) in zip(answers, truths)
            ],
            stored["score"],
        ),
    }
    for name in REWARDS:
        yield compared(SOURCE, f"{commit}/{name}", ours[name], stored[name])


def _parse_checks(stored: list[dict[str, Any]]) -> Iterator[Comparison]:
    for number, case in enumerate(stored):
        ours = [_numbers(frame, box) for frame, box in parse_predicted_output(case["text"])]
        wanted = [_numbers(item["frame"], item["bbox"]) for item in case["out"]]
        yield compared(SOURCE, f"parse/{number}", np.reshape(ours, (-1, 5)), np.reshape(wanted, (-1, 5)))


def _clip_checks(clips: list[dict[str, Any]], stored: list[dict[str, Any]]) -> Iterator[Comparison]:
    if len(clips) != len(stored):
        raise ValueError(f"{len(clips)} clips and {len(stored)} results")
    for number, (clip, wanted) in enumerate(zip(clips, stored)):
        ours = clip_metrics(clip["gt"], clip["pred"], tuple(clip["size"]))
        for name, value in wanted.items():
            yield compared(OURS, f"PROPOSED_clips/{number}/{name}", ours[name], value)


def _truth(objects: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray | None]:
    boxes = np.array([thing["bbox_2d"] for thing in objects], np.float64)
    if all("point_2d" in thing for thing in objects):
        return boxes, np.array([thing["point_2d"] for thing in objects], np.float64)
    return boxes, None


def _numbers(frame: Any, box: Any) -> list[float]:
    if len(box) != 4:
        raise ValueError(f"a box of {len(box)} numbers, wanted 4")
    return [float(frame), *map(float, box)]


def _equal_or_numpys(
    functions: Sequence[Callable[[Callable[[float], float]], float]], stored: Sequence[float]
) -> list[float]:
    if len(functions) != len(stored):
        raise ValueError(f"{len(functions)} cases and {len(stored)} results")
    found = []
    for function, wanted in zip(functions, stored):
        values = [function(exp) for exp in (np.exp, _exp_down, _exp_up)]
        found.append(wanted if wanted in values else values[0])
    return found


def _exp_down(x: float) -> float:
    exact, nearest = _exp(x)
    return nearest if nearest <= exact else math.nextafter(nearest, 0.0)


def _exp_up(x: float) -> float:
    exact, nearest = _exp(x)
    return nearest if nearest >= exact else math.nextafter(nearest, math.inf)


def _exp(x: float) -> tuple[decimal.Decimal, float]:
    with decimal.localcontext(prec=60):
        exact = decimal.Decimal(float(x)).exp()
    return exact, float(exact)


def _read(place: Path, wanted: set[str]) -> dict[str, Any]:
    found = read_object(place)
    if set(found) != wanted:
        raise InputError(f"{place}: holds {', '.join(found)}; wanted {', '.join(sorted(wanted))}")
    return found
