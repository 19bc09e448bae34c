"""The stages "describer_sft" and "describer_grpo": a vision-language model learns to keep a description true.

First it imitates answers, of the released records or of SynthTrack's pairs (`train.description_rows`); then its own
answers earn what they are worth (`train.description_rewards`), also by what a box tracker does with their words
(`train.window_tracking`). `train.answer_training` has the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import typer

from trackgpt.errors import InputError, UsageError
from trackgpt.hub import load_box_tracker
from trackgpt.reasoners.describer import VlmDescriber
from train.answer_training import AnswerTask, by_imitation
from train.box_tracking import open_box_sets
from train.config import DescriberTraining, TrainConfig
from train.description_rewards import (
    LONGEST_REWARDED,
    DescriptionCase,
    DescriptionText,
    description_terms,
    must_have_tracker,
    needs_tracker,
    words_tracked,
)
from train.description_rows import AskedRows, DescriptionRow, PairRows, VideoRows, record_rows
from train.rewards import Term, earned
from train.window_tracking import WindowTracker

READ_BY = "`trackgpt track VIDEO -m reasoningtrack:TRACKER+FOLDER`"


def describer_task(config: TrainConfig) -> Callable[[Path, torch.dtype], AnswerTask]:
    """Frames and words, and what answers earn (see `train.answer_training.OpenTask`).

    Raises:
        UsageError: there is no such reward, one needs a tracker and none is named, or the data do not fit the stage.
        InputError: the data cannot be read.
        ModelError: the tracker cannot.
    """
    asked, imitates = config.describer, by_imitation(config)
    terms = description_terms(asked.rewards, asked.reward_weights)
    if asked.sets and any(term.name == "holds" and term.weight for term in terms):
        raise UsageError(
            "describer.reward_weights.holds: which words hold is known of SynthTrack alone; set it to 0, or leave out "
            "describer.sets"
        )
    rows = open_rows(asked, imitates)
    term = "" if imitates else needs_tracker(asked.rewards, terms, truth=not asked.sets)
    must_have_tracker(asked.tracker, term)
    tracker = WindowTracker(load_box_tracker(asked.tracker, torch.device("cpu"))) if term else None
    judge = DescriptionJudge(asked.rewards, terms, tracker)

    def load(folder: Path, dtype: torch.dtype) -> AnswerTask:
        describer = VlmDescriber.from_pretrained(folder, dtype=dtype)
        asked_so, vlm = AskedRows(rows, describer.template), describer.vlm
        return AnswerTask(vlm.model, vlm.processor, asked_so, judge, READ_BY)

    return load


def open_rows(asked: DescriberTraining, imitates: bool) -> Sequence[DescriptionRow]:
    """The rows that a configuration names; malformed records are named on stderr.

    Raises:
        UsageError: records are rewarded, or real video without answers is imitated.
        InputError: the data cannot be read.
    """
    if asked.records and asked.sets:
        raise UsageError("describer.records, describer.sets: one of them, please")
    if asked.records:
        if not imitates:
            raise UsageError("describer.records: nothing follows their frames; the stage describer_sft reads them")
        rows, malformed = record_rows(asked.records, asked.images, asked.draw)
        if malformed:
            typer.echo(f"{len(malformed)} malformed records are left out: {', '.join(malformed)}", err=True)
        if not rows:
            raise InputError(f"{asked.records}: no record has the form that is asked for")
        return rows
    if not asked.sets:
        return PairRows(asked.pairs, asked.split, asked.gap, asked.window, asked.draw)
    if imitates:
        raise UsageError("describer.sets: they hold no answers to imitate; the stage describer_grpo learns from them")
    sets = tuple(open_box_sets(asked.sets))
    return VideoRows(sets, asked.pairs, asked.gap, asked.window, asked.draw)


class DescriptionJudge:
    """What answers earn, each about its row; all that are to be tracked are tracked together.

    Args:
        rewards: name of the set.
        terms: of it.
        tracker: that reads words; None where no term pays by it.
    """

    def __init__(self, rewards: str, terms: Sequence[Term], tracker: WindowTracker | None) -> None:
        self.rewards, self.terms, self.tracker = rewards, terms, tracker

    def __call__(self, answers: Sequence[str], rows: Sequence[DescriptionRow]) -> list[dict[str, float]]:
        """Every term and "reward", of each answer."""
        read = [DescriptionText.read(text) for text in answers]
        cases = [DescriptionCase(row.words, row.outdated, row.fitting) for row in rows]
        if self.tracker is not None:
            new = [words_tracked(answer, row.words, self.rewards) for answer, row in zip(read, rows, strict=True)]
            found = self.tracker.compared(rows, new)
            cases = [replace(case, old=old, new=new) for case, (old, new) in zip(cases, found, strict=True)]
        return [earned(self.terms, answer, case, LONGEST_REWARDED) for answer, case in zip(read, cases, strict=True)]
