"""The stages "sft" and "grpo": a vision-language model learns to answer questions about a clip with trajectories.

Both stages see the same rows (`train.query_rows`); `train.answer_training` has the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from trackgpt.data.query_clips import QueryClip, rmot26
from trackgpt.errors import InputError, UsageError
from trackgpt.reasoners.coordinates import Sizes
from trackgpt.reasoners.vlm_policy import VlmPolicy
from train.answer_training import AnswerTask
from train.config import PolicyTraining, TrainConfig
from train.query_rows import QueryRow, RowMaker, Size
from train.rewards import earned, read_answer, reward_terms

READ_BY = "`trackgpt track VIDEO -m qtrack:FOLDER`"


def policy_task(config: TrainConfig) -> Callable[[Path, torch.dtype], AnswerTask]:
    """The questions of RMOT26 and what answers earn (see `train.answer_training.OpenTask`).

    Raises:
        UsageError: there is no such reward, or questions would say their own answer.
        InputError: the data cannot be read.
    """
    asked = config.policy
    terms = reward_terms(asked.rewards, asked.reward_weights)
    if not asked.frames and asked.known and not asked.paper:
        raise UsageError(
            "policy.frames=0: a question about one frame would say where its objects are; set policy.known=0"
        )
    clips = rmot26(asked.data, asked.part)

    def load(folder: Path, dtype: torch.dtype) -> AnswerTask:
        policy = VlmPolicy.from_pretrained(folder, dtype=dtype)
        return AnswerTask(policy.model, policy.processor, _rows(asked, clips, policy, config.plan.seed), judge, READ_BY)

    def judge(answers: Sequence[str], rows: Sequence[QueryRow]) -> list[dict[str, float]]:
        return [
            earned(terms, read_answer(text, row.expected), row.expected)
            for text, row in zip(answers, rows, strict=True)
        ]

    return load


def _rows(asked: PolicyTraining, clips: Iterable[QueryClip], policy: VlmPolicy, seed: int) -> list[QueryRow]:
    maker = RowMaker(
        policy.convention,
        views_of(policy),
        asked.paper,
        asked.frames,
        asked.known,
        asked.stride,
        asked.jitter,
        policy.template,
        seed,
    )
    rows = maker.rows(clips)
    if not rows:
        raise InputError(f"{asked.data}: no clip of the part {asked.part} has a frame with a visible object")
    return rows


def views_of(policy: VlmPolicy) -> Callable[[Size], Sizes]:
    """A function from width and height of a frame, in pixels, to what a policy sees of it; looks once at every size."""

    @cache
    def view(size: Size) -> Sizes:
        return policy.view(np.zeros((size[1], size[0], 3), np.uint8))

    return view
