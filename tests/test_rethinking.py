"""Asking again: by the instruction or by name, and what rules that know the truth are told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_trackgpt

from eval.commands.rethinking import RULES, KnowingArbiter, RuleFigures, Truth, command, parts_of, table
from trackgpt.config import BrainConfig, RethinkConfig
from trackgpt.errors import UsageError
from trackgpt.reasoners.brain import Answer, name_of
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.trackgpt import BrainReasoner
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt, Target
from train.tracking import Failures


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Sure, I track the red dog in the top left.", "the red dog"),
        ("Sure, I track the fire engine in the middle.", "the fire engine"),
        ("I have the red dog.", "the red dog"),
        ("It is the second car on the left", "the second car"),
        ("Sure, I track the object.", ""),
        ("Sure, I track 2 objects: the car in the left; the dog in the top.", ""),
        ("I see no dog here.", ""),
        ("", ""),
    ],
)
def test_the_name_of_the_one_target_of_an_answer(answer: str, name: str) -> None:
    assert name_of(answer) == name


@dataclass
class Listening:
    """A brain that records what it is asked."""

    asked: list[str]

    config: Any = field(default_factory=lambda: BrainConfig(image_side=64))

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def reason(self, frame: torch.Tensor, instruction: str, forced: str | None = None, draft: str | None = None) -> Any:
        self.asked.append(instruction)
        return Answer([], "Here.", "Here.", torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1))


@pytest.mark.parametrize(
    ("ask", "said", "asked"),
    [
        ("instruction", "Sure, I track the red dog in the left.", "the leftmost one"),
        ("name", "Sure, I track the red dog in the left.", "the red dog"),
        ("name", "I see no dog here.", "the leftmost one"),
    ],
)
def test_a_rethink_asks_for_the_instruction_or_for_what_the_answer_named(ask: str, said: str, asked: str) -> None:
    prompt = Prompt("the leftmost one")
    state = TrackState(None, None, 3, (Target(1, prompt),), Cue(said, answer=said), (prompt,))
    brain = Listening([])
    reasoner = BrainReasoner(brain, ask)  # type: ignore[arg-type]
    reasoner.reason(np.zeros((8, 8, 3), np.uint8), state, None)
    reasoner.reason(np.zeros((8, 8, 3), np.uint8), state, prompt)
    assert brain.asked == [asked, "the leftmost one"]  # a person's own words are never replaced


def test_a_target_that_goes_over_to_another_has_its_queries_and_keeps_its_own_purport() -> None:
    failures = Failures(torch.tensor([1, 3]), torch.tensor([1, 0]), torch.tensor([True, False]))
    own = torch.tensor([[1.0], [2.0]])
    at = [failures.queries(step, own, 10 * own) for step in range(3)]
    assert [referring.flatten().tolist() for referring, _ in at] == [[1, 2], [2, 2], [2, 2]]
    # Q_t is taken over once, and from then on is what the decoder hands on.
    assert [online.flatten().tolist() for _, online in at] == [[10, 20], [20, 20], [10, 20]]


def test_a_target_that_drifts_loses_its_online_query_alone() -> None:
    failures = Failures(torch.tensor([1, 3]), torch.tensor([1, 0]), torch.tensor([False, False]))
    referring, online = failures.queries(1, torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]]))
    assert referring.flatten().tolist() == [1, 2]
    assert online is not None
    assert online.flatten().tolist() == [20, 20]


def truth() -> Truth:
    case = make_case(3, split="train", frames=3, longest=64)
    return Truth(case, next(one for one in case.expressions if one.targets))


def seen(mask: np.ndarray) -> Prediction:
    return Prediction(np.zeros((1, 4), np.float32), mask[None], np.ones(1), np.ones(1, bool), np.ones(1, np.int64), {})


def test_the_truth_knows_how_well_a_target_was_followed_and_what_it_is_called() -> None:
    known = truth()
    assert known.look(0, seen(known.mask(0))) == 1
    assert known.look(0, seen(~known.mask(0))) == 0 == known.overlap
    assert known.words(0) == known.said.answer


def test_a_rule_that_knows_the_truth_asks_when_the_target_is_lost() -> None:
    known, arbiter = truth(), KnowingArbiter(RethinkConfig())
    arbiter.truth = known
    prompt = Prompt("the dog")
    state = TrackState(None, arbiter.begin(), 3, (Target(1, prompt, score=0.0),), Cue("x"), (prompt,))
    assert [arbiter.due(state, None) for known.overlap in (0.9, 0.4)] == ["", "lost"]
    assert arbiter.due(replace(state, targets=()), None) == ""


def test_a_row_that_the_table_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(UsageError, match="--rule sometimes: rows are never; the paper's; .*the score's"):
        command(rule=["sometimes"])


def test_every_rule_makes_a_tracker_and_a_table_compares_with_never() -> None:
    model, known = tiny_trackgpt("conv", tied=True), truth()
    for rule in RULES:
        tracker = parts_of(model, rule)(known)
        assert isinstance(tracker.arbiter, KnowingArbiter) == rule.knows_when
    rows = {rule.name: RuleFigures() for rule in RULES}
    for number, row in enumerate(rows.values()):
        for kind in row.j:
            row.j[kind], row.videos[kind] = [0.5 + 0.01 * number] * 3, [1, 2, 3]
        row.frames, row.asked, row.false = 10, number, 1
    rows["true alarm"].scored = [(0.1, 0.9, 0.2), (0.2, 0.8, 0.4), (0.3, 0.7, 0.6)]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(RULES)
    assert "| never | 50.0 | 50.0 | 50.0 | 50.0 | +0.0 (0.0 to 0.0) | 0.0 % | - | - | - |" in lines
    assert "| the paper's, by name | 52.0 | 52.0 | 52.0 | 52.0 | +2.0 (2.0 to 2.0) | 20.0 % | 50 % | - | - |" in lines
    assert lines[2 + [rule.name for rule in RULES].index("true alarm")].endswith("| 25 % | 1.00 | -1.00 |")
