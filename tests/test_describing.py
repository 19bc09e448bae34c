"""What words are worth to a box tracker: rows that differ in the words alone, and a describer that is the truth."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_boxes import written_tracker
from typer.testing import CliRunner

from eval.__main__ import app
from eval.commands.describing import ROWS, TrueDescriber, WordsFigures, first_words, table, targets_of, tracker_of
from trackgpt.hub import load_model
from trackgpt.online import follow
from trackgpt.synthtrack.clips import make_case
from trackgpt.types import Prompt

SCENE = 7_777_770_001


@pytest.fixture(scope="module")
def target():
    return targets_of(make_case(SCENE, split="train", frames=24, longest=96))[0]


def test_the_truth_describes_the_frame_that_it_is_shown_and_says_no_where_nothing_changed(target):
    frames, describer = target.case.clip.frames, TrueDescriber(target)
    said = describer.describe(frames[0], (0, 0, 1, 1), frames[0], "", (0, 0, 1, 1)).parsed
    assert said.update
    assert said.words == target.said(0) != ""
    again = describer.describe(frames[0], (0, 0, 1, 1), frames[0], target.said(0), (0, 0, 1, 1)).parsed
    assert not again.update


def test_every_row_begins_with_the_true_box_and_its_own_words_and_asks_only_where_it_says_so(target, tmp_path):
    system = load_model(f"reasoningtrack:{written_tracker(tmp_path / 'tiny')}+nano", "cpu")
    asked = {}
    for row in ROWS:
        prompt = Prompt(first_words(system, row, target), visual=(target.first,))
        seen = list(follow(tracker_of(system, row, target), target.case.clip.frames, [prompt]))
        assert seen[0].boxes[0].tolist() == pytest.approx(list(target.first.box))
        asked[row.name] = sum(one.reason == "describe" for one in seen)
        said = target.said(0) if row.truth else target.words
        assert prompt.text == said or (row.first and not row.truth)
    assert asked["no words"] == asked["the instruction's"] == asked["true at first"] == 0
    assert asked["true every 10 frames"] == asked["described every 10 frames"] == 2


def test_a_loose_first_box_is_off_by_a_share_of_its_size_and_the_same_each_time(target):
    moved = targets_of(target.case, 0.4)[0]
    assert moved.first == targets_of(target.case, 0.4)[0].first
    one, other = np.array(target.first.box), np.array(moved.first.box)
    size = np.sqrt(np.prod(one[2:] - one[:2]))
    assert np.hypot(*(other - one)[:2]) == pytest.approx(0.4 * size, rel=0.01)
    assert np.array_equal(moved.boxes, target.boxes, equal_nan=True)


def test_a_row_is_compared_with_no_words_target_by_target_and_those_alike_apart():
    base = WordsFigures([50.0, 60.0], [1, 2], [True, False], [0.1] * 4, [False] * 4)
    told = WordsFigures([60.0, 64.0], [1, 2], [True, False], [0.1, 0.1, 0.1, 0.7], [False, False, False, True])
    lines = table({row.name: base for row in ROWS} | {"true every 10 frames": told}).splitlines()
    cells = "62.0 | +7.0 (4.0 to 10.0) | 60.0 | +10.0 (nan to nan) | 25.0 % | 10 | 4"
    assert lines[-3] == f"| true every 10 frames | {cells} |"
    assert lines[-1].startswith("2 targets, 1 of them beside others of their category")


def test_a_model_that_reads_no_descriptions_is_refused():
    outcome = CliRunner().invoke(app, ["describing", "--model", "nano", "--videos", "1"])
    assert "wanted reasoningtrack-nano or reasoningtrack:TRACKER+DESCRIBER" in str(outcome.exception)
