"""Interactive metrics against numbers worked out by hand, a slow transcription of the released rules, properties."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from eval.metrics.interactive import (
    InteractiveSequence,
    PromptStatistics,
    Segment,
    interactive_sequence,
    overlaps,
    paper_figures,
    released_figures,
)
from trackgpt.errors import InputError, UsageError

FULL = [10.0, 10, 20, 20]
HALF = [10.0, 10, 10, 20]  # IoU 0.5 with FULL
FAR = [300.0, 300, 20, 20]
NONE = [0.0, 0, 0, 0]
MINUS = [-1.0, -1, -1, -1]
NAN = [np.nan] * 4


def asked(frames: int, *prompts: int) -> np.ndarray:
    return np.isin(np.arange(frames), prompts)


def sequence(predicted, truth, prompts=(0,), old=None) -> InteractiveSequence:
    """One sequence; `old` maps a frame to the box of the target before the switch."""
    boxes = [(old or {}).get(t, NONE) for t in range(len(truth))]
    return interactive_sequence(predicted, truth, boxes, asked(len(truth), *prompts))


# --- overlap ---


def test_overlap_has_no_added_pixel_and_is_zero_without_a_union():
    assert overlaps([FULL, FULL, FULL, NONE], [FULL, HALF, FAR, NONE]).tolist() == [1, 0.5, 0, 0]
    assert overlaps([FULL], [[10, 10, -5, 20]]).tolist() == [0]
    assert overlaps([FULL, NAN, NAN], [NAN, FULL, NAN]).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="cannot be compared"):
        overlaps([FULL], [FULL, FULL])


def test_a_partial_nan_loses_every_comparison_as_in_the_toolkit():
    # y is unknown, so neither box ends the other there: 20 x 20 shared of 400 + 400 - 400.
    assert overlaps([FULL], [[10, np.nan, 20, 20]]).tolist() == [1]


# --- Interactive Score ---


def test_a_segment_runs_from_a_prompt_to_the_next_and_the_score_is_the_mean_over_segments():
    # Frame 0 is before the first prompt. Segment 1: 1 and 0.5, mean 0.75. Segment 2: three frames of 0.5.
    found = sequence([FAR, FULL, HALF, HALF, HALF, HALF], [FULL] * 6, prompts=(1, 3))
    assert released_figures([found]).interactive_score == 62.5
    assert paper_figures([found]).interactive_score == 62.5
    assert [segment.both for segment in found.segments] == [2, 3]


def test_writing_no_box_is_free_in_the_released_form_and_costs_in_the_paper_form():
    found = sequence([FULL, NONE, NONE, NONE], [FULL] * 4)
    assert released_figures([found]).interactive_score == 100
    assert paper_figures([found]).interactive_score == 25
    assert paper_figures([found], missing="skip").interactive_score == 100


def test_minus_one_four_times_is_a_box_to_the_released_form_and_none_to_the_paper_form():
    found = sequence([FULL, MINUS], [FULL, FULL])
    assert released_figures([found]).interactive_score == 50
    assert paper_figures([found]).interactive_score == 50
    assert paper_figures([found], missing="skip").interactive_score == 100


def test_a_frame_without_truth_counts_nothing_or_judges_silence():
    found = sequence([FULL, FULL, NONE], [FULL, NONE, NONE])
    assert released_figures([found]).interactive_score == 100
    assert paper_figures([found], absent="paper").interactive_score == 100
    # Strict: 1 for the overlap, 0 for the box drawn on nothing, 1 for saying nothing.
    assert paper_figures([found], absent="strict").interactive_score == pytest.approx(200 / 3, abs=1e-12)


def test_silence_from_the_first_frame_to_the_last_is_worth_nothing_unless_the_target_is_absent():
    silent = sequence([NONE] * 4, [FULL] * 4)
    assert released_figures([silent]).segments == 0
    assert released_figures([silent]).interactive_score == 0
    assert paper_figures([silent]).interactive_score == 0
    assert paper_figures([sequence([NONE] * 4, [NONE] * 4)], absent="strict").interactive_score == 100


def test_the_released_score_pools_segments_and_the_paper_averages_videos():
    one = sequence([FULL] * 3, [FULL] * 3, prompts=(0, 1, 2))
    other = sequence([HALF] * 3, [FULL] * 3, prompts=(0,))
    assert released_figures([one, other]).interactive_score == pytest.approx(350 / 4, abs=1e-12)
    assert paper_figures([one, other]).interactive_score == 75


def test_a_truth_of_nan_is_a_failed_frame_when_released_and_absent_on_paper():
    found = sequence([FULL, FULL], [FULL, NAN])
    assert released_figures([found]).interactive_score == 50
    assert paper_figures([found]).interactive_score == 100


# --- Responsiveness ---


def test_an_overlap_of_exactly_one_half_is_no_answer():
    figures = released_figures([sequence([HALF, [10, 10, 11, 20]], [FULL, FULL], prompts=(0, 1))])
    assert (figures.responsiveness, figures.perception_accuracy, figures.switches) == (50, 50, 2)


def test_an_answer_must_overlap_the_new_target_more_than_the_old_one():
    wide = [10, 10, 30, 20]  # IoU 2/3 with FULL and with the box 10 px to its right
    tie = sequence([wide], [FULL], old={0: [20, 10, 20, 20]})
    assert tie.prompts[0].overlap == tie.prompts[0].old_overlap == pytest.approx(2 / 3, abs=1e-15)
    assert released_figures([tie]).responsiveness == paper_figures([tie]).responsiveness == 0
    clear = sequence([FULL], [FULL], old={0: FAR})
    assert released_figures([clear]).responsiveness == paper_figures([clear]).responsiveness == 100


def test_the_released_form_counts_every_prompt_and_the_paper_only_switches():
    found = sequence([FULL, FAR, FULL], [FULL] * 3, prompts=(0, 1, 2), old={2: FAR})
    released, paper = released_figures([found]), paper_figures([found])
    assert (released.switches, released.responsiveness) == (3, pytest.approx(200 / 3, abs=1e-12))
    assert (paper.switches, paper.responsiveness) == (1, 100)


def test_a_prompt_about_an_absent_target_is_a_failure_nothing_or_a_question_of_silence():
    found = sequence([NONE, FULL], [NONE, NONE], prompts=(0, 1), old={0: FAR, 1: FAR})
    assert (released_figures([found]).responsiveness, released_figures([found]).switches) == (0, 2)
    paper, strict = paper_figures([found]), paper_figures([found], absent="strict")
    assert np.isnan(paper.responsiveness)
    assert paper.switches == 0
    assert (strict.responsiveness, strict.perception_accuracy, strict.switches) == (50, 50, 2)


# --- Perception ---


def test_perception_is_the_overlap_at_prompts_alone():
    found = sequence([FULL, FAR, HALF, FAR], [FULL] * 4, prompts=(0, 2))
    for figures in (released_figures([found]), paper_figures([found])):
        assert (figures.perception_accuracy, figures.perception_precision, figures.prompts) == (50, 75, 2)


def test_a_prompt_past_the_end_of_the_results_is_left_out_or_a_miss():
    found = sequence([FULL], [FULL] * 3, prompts=(0, 2))
    assert (released_figures([found]).perception_precision, released_figures([found]).prompts) == (100, 1)
    assert (paper_figures([found]).perception_precision, paper_figures([found]).prompts) == (50, 2)
    assert (paper_figures([found], missing="skip").perception_precision) == 100


def test_a_prompt_past_the_end_of_the_truth_counts_nothing_even_in_the_strict_policy():
    found = interactive_sequence([FULL] * 3, [FULL], [NONE], asked(3, 0, 2))
    assert paper_figures([found], absent="strict").prompts == 1
    assert released_figures([found]).prompts == 1
    assert released_figures([found]).switches == 2


def test_a_sequence_without_result_file_is_left_out_or_a_miss():
    lost, good = sequence(None, [FULL] * 2), sequence([FULL] * 2, [FULL] * 2)
    assert released_figures([lost, good]).perception_accuracy == 100
    assert released_figures([lost, good]).switches == 1
    assert paper_figures([lost, good]).perception_accuracy == 50
    assert paper_figures([lost, good]).interactive_score == 50
    # An empty result file is there: its prompt counts and is wrong.
    assert released_figures([sequence(np.zeros((0, 4)), [FULL] * 2)]).switches == 1


# --- pooling ---


def test_a_pooled_figure_is_not_the_mean_of_the_figures_of_its_sequences():
    many = sequence([FULL] * 3, [FULL] * 3, prompts=(0, 1, 2))
    one = sequence([FAR], [FULL])
    alone = [released_figures([s]).perception_accuracy for s in (many, one)]
    assert (np.mean(alone), released_figures([many, one]).perception_accuracy) == (50, 75)


def test_nothing_to_average_is_zero_when_released_and_unknown_on_paper():
    released, paper = released_figures([]), paper_figures([])
    assert (released.interactive_score, released.responsiveness, released.perception_precision) == (0, 0, 0)
    assert np.isnan([paper.interactive_score, paper.responsiveness, paper.perception_precision]).all()


def test_files_of_different_lengths_are_compared_line_by_line():
    found = interactive_sequence([FULL] * 5, [FULL] * 3, [NONE] * 7, asked(2, 1))
    # From the prompt on frame 1: truth on two more frames, predictions beyond have no truth.
    assert found.segments == (Segment(2, 2.0, 2, 0, 2.0, 0, 0),)
    assert found.prompts == (PromptStatistics(1, (True, True), (True, True), 1.0, None, True, True),)


def test_a_sequence_survives_json_unchanged():
    found = sequence([FULL, HALF, NONE], [FULL] * 3, prompts=(0, 2), old={2: FAR})
    kept = json.loads(json.dumps(asdict(found)))
    prompts = [{k: tuple(v) if isinstance(v, list) else v for k, v in prompt.items()} for prompt in kept["prompts"]]
    again = InteractiveSequence(
        kept["predicted"], tuple(Segment(**s) for s in kept["segments"]), tuple(PromptStatistics(**p) for p in prompts)
    )
    assert again == found


def test_the_form_names_its_policies():
    assert released_figures([]).form == "released"
    assert paper_figures([], missing="skip", absent="strict").form == "paper, missing=skip, absent=strict"
    with pytest.raises(UsageError, match="missing='none'"):
        paper_figures([], missing="none")


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"predictions have the shape \(1, 3\)"):
        interactive_sequence([[1, 2, 3]], [FULL], [NONE], asked(1, 0))
    with pytest.raises(InputError, match="wanted bool"):
        interactive_sequence([FULL], [FULL], [NONE], np.array([1]))


# --- a slow transcription of the released rules, from their description ---


def slow_overlap(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    shared *= max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def slow_released(videos: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
    segments, right, asked_about, accurate, total, perceived = [], 0, 0, 0, 0.0, 0
    for found, truth, old, prompts in videos:
        current: list[float] | None = None
        for t in range(len(truth)):
            there = [bool(np.any(boxes[t])) for boxes in (truth, found, old)]
            if prompts[t]:
                segments.append([] if current is None else current)
                current = segments[-1] = []
                asked_about += 1
                value = slow_overlap(truth[t], found[t]) if there[0] and there[1] else 0.0
                old_value = slow_overlap(old[t], found[t]) if there[2] else -1.0
                right += there[0] and there[1] and value > 0.5 and value > old_value
                if there[0]:
                    perceived, total, accurate = perceived + 1, total + value, accurate + (value > 0.5)
            if current is not None and there[0] and there[1]:
                current.append(slow_overlap(truth[t], found[t]))
    means = [np.mean(segment) for segment in segments if segment]
    shares = [right / asked_about, accurate / perceived, total / perceived]
    return [100 * value for value in (np.mean(means), *shares)]


def test_the_released_form_equals_a_slow_transcription_on_random_videos():
    rng = np.random.default_rng(12)
    videos = []
    for _ in range(12):
        truth = np.concatenate((rng.uniform(0, 40, (30, 2)), rng.uniform(10, 40, (30, 2))), axis=1)
        found, old = truth + rng.normal(0, 5, truth.shape), truth + rng.normal(0, 5, truth.shape)
        for boxes, share in ((truth, 0.1), (found, 0.2), (old, 0.5)):
            boxes[rng.random(30) < share] = 0
        videos.append((found, truth, old, rng.random(30) < 0.3))
    figures = released_figures([interactive_sequence(*video) for video in videos])
    ours = [figures.interactive_score, figures.responsiveness]
    ours += [figures.perception_accuracy, figures.perception_precision]
    assert ours == pytest.approx(slow_released(videos), abs=1e-10)


def test_a_tracker_that_says_more_can_only_gain_on_paper():
    rng = np.random.default_rng(13)
    truth = np.concatenate((rng.uniform(0, 40, (40, 2)), rng.uniform(10, 40, (40, 2))), axis=1)
    found = truth + rng.normal(0, 6, truth.shape)
    quiet = np.where(rng.random((40, 1)) < 0.5, 0, found)
    prompts = asked(40, 0, 13, 20)
    said, unsaid = (interactive_sequence(boxes, truth, truth * 0, prompts) for boxes in (found, quiet))
    assert paper_figures([said]).interactive_score >= paper_figures([unsaid]).interactive_score
    assert paper_figures([said]).perception_precision >= paper_figures([unsaid]).perception_precision
