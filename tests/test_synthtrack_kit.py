"""The synthtrack kit with trackers whose scores are known beforehand, and its command: resume, processes, reports."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_trackgpt

from eval.__main__ import main
from eval.commands import synthtrack as command
from eval.kits import synthtrack as kit
from eval.kits.synthtrack import Row
from trackgpt.data.synthtrack.clips import KINDS, Case, make_case
from trackgpt.data.synthtrack.scene import Expression
from trackgpt.data.synthtrack.world import make_scene
from trackgpt.errors import ModelError, UsageError
from trackgpt.types import Clip, Cue, Prediction

ROOT = Path(__file__).parents[1]


def prediction(masks: np.ndarray, text: str = "", score: float = 1.0, reason: str = "") -> Prediction:
    """Of k masks, bool (k, height, width), all with the same score."""
    k = len(masks)
    return Prediction(
        boxes=np.full((k, 4), np.nan, np.float32),
        masks=masks,
        scores=np.full(k, score, np.float32),
        present=masks.any(axis=(1, 2)),
        ids=np.arange(1, k + 1),
        cue=Cue(text),
        reason=reason,
    )


class Knowing:
    """Tracks the truth of the case it is about, target by target."""

    def __init__(self, case: Case, score: float = 1.0, rethought: tuple[int, ...] = ()) -> None:
        self.case, self.score, self.rethought = case, score, rethought

    def initialize(self, frame, prompt):
        self.said = next(e for e in self.case.expressions if e.text == prompt.text)
        self.t = 0
        return self.now()

    def track(self, frame, prompt=None):
        self.t += 1
        assert np.array_equal(frame, self.case.clip.frames[self.t])
        return self.now()

    def now(self):
        ids = self.case.clip.ids[self.t]
        masks = np.array([ids == target for target in self.said.targets], bool).reshape(-1, *ids.shape)
        reason = "prompt" if self.t == 0 else "purport" if self.t in self.rethought else ""
        return prediction(masks, self.said.answer, self.score, reason)


class Blind(Knowing):
    """Says it tracks as many targets as are meant, and marks nothing."""

    def now(self):
        seen = super().now()
        return replace(seen, masks=np.zeros_like(seen.masks))


@pytest.fixture(scope="module")
def case() -> Case:
    """A small drawn case that has one instruction of every kind."""
    made = make_case(10_001, frames=5, longest=96)
    assert [e.kind for e in made.expressions] == list(KINDS)
    return made


def hand_case(*expressions: Expression) -> Case:
    """Four frames of 8 x 8: object 1 is a 4 x 4 square on frames 0 and 1, object 2 a 2 x 4 bar on all frames."""
    ids = np.zeros((4, 8, 8), np.uint8)
    ids[:2, :4, :4] = 1
    ids[:, 6:, 4:] = 2
    clip = Clip(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8), ids)
    return Case(make_scene(0, frames=4, difficulty="easy"), clip, expressions)


ONE = Expression("the square", "explicit", "category", (1,), "Sure. <TK>, <PO>")
TWO = Expression("the bar", "implicit", "part", (2,), "Sure. <TK>, <PO>", wording=3)
NOTHING = Expression("the owl", "none", "absent-category", (), "no owl")


def row(kind="explicit", j=1.0, f=1.0, variant="full", video=0, **fields) -> Row:
    values = {
        "difficulty": "easy",
        "form": "category",
        "wording": 0,
        "text": "the square",
        "answer": "Sure.",
        "refused": False,
        "rethinks": 0,
        "frames": 10,
        "scores": [],
        "ious": [],
        **fields,
    }
    return Row(video=video, kind=kind, variant=variant, j=j, f=f, **values)


# Trackers whose scores are known


def test_a_tracker_that_returns_the_truth_scores_100_for_every_kind_and_refuses_only_none(case):
    rows = kit.evaluate_case(7, case, Knowing(case), "full")
    assert [r.kind for r in rows] == list(KINDS)
    assert {(r.j, r.f) for r in rows} == {(1.0, 1.0)}
    assert [r.refused for r in rows] == [False, False, False, True]
    assert [r.text for r in rows] == [e.text for e in case.expressions]
    assert [r.answer for r in rows] == [e.answer for e in case.expressions]
    assert {r.video for r in rows} == {7}
    summary = kit.summarise(rows, "full")
    wanted = {"explicit": 100, "implicit": 100, "multi": 100, "J&F": 100, "none_right": 100, "wrongly_refused": 0}
    assert {key: summary[key] for key in wanted} == wanted


def test_an_empty_tracker_scores_only_where_the_truth_is_empty():
    made = hand_case(ONE, TWO, NOTHING)
    one, two, nothing = kit.evaluate_case(0, made, Blind(made), "full")
    assert (one.j, one.f) == (0.5, 0.5)  # the square has left on two of four frames
    assert (two.j, two.f) == (0.0, 0.0)
    assert (nothing.j, nothing.f) == (1.0, 1.0)


def test_the_union_of_the_targets_is_scored_not_each_of_them():
    both = Expression("all things", "multi", "two", (1, 2), "both")
    made = hand_case(both)

    class First(Knowing):
        def now(self):
            seen = super().now()
            return replace(seen, masks=seen.masks & np.array([True, False]).reshape(2, 1, 1))

    (only_one,) = kit.evaluate_case(0, made, First(made), "full")
    # 16 of 24 pixels on frames 0 and 1, none of 8 on frames 2 and 3.
    assert only_one.j == pytest.approx((16 / 24 + 16 / 24 + 0 + 0) / 4)


def test_scores_ious_and_rethinks_are_those_of_the_frames():
    made = hand_case(ONE, NOTHING)
    tracked, nothing = kit.evaluate_case(0, made, Knowing(made, score=0.25, rethought=(2, 3)), "full")
    assert tracked.scores == [0.25] * 4
    assert tracked.ious == [1.0] * 4
    assert (tracked.rethinks, tracked.frames) == (2, 4)  # the first frame's reading is no rethink
    assert (nothing.scores, nothing.ious) == ([], [])


def test_the_random_object_is_one_visible_object_and_the_same_every_time():
    made = hand_case(ONE, TWO)
    rows = [kit.random_object(video, made) for video in range(32)]
    assert rows == [kit.random_object(video, made) for video in range(32)]
    # Object 2 in the place of object 1 scores 0; object 1 in the place of 2 never overlaps it either.
    assert {(one.j, two.j) for one, two in rows} == {(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)}
    assert {r.refused for pair in rows for r in pair} == {False}


def test_videos_of_two_seeds_differ_and_the_split_reaches_the_scene():
    assert kit.video_case(1, 3).scene.seed == 10_003
    assert kit.video_case(2, 3).scene.seed == 20_003
    assert kit.video_case(1, 3, "train").scene.split == "train"
    assert kit.video_case(1, 3).clip.frames.shape[0] == kit.FRAMES
    assert max(kit.video_case(1, 3).clip.frames.shape[1:3]) == kit.LONGEST


# Figures by hand


def test_a_summary_of_three_rows_is_what_a_reader_computes():
    rows = [
        row("explicit", 0.8, 0.6, rethinks=2, scores=[0.1, 0.9], ious=[0.2, 0.7]),
        row("explicit", 0.4, 0.2, refused=True, scores=[0.5], ious=[0.5]),
        row("none", 0.0, 0.0, refused=True, rethinks=1),
        row("explicit", 0.0, 0.0, variant="first-frame"),
    ]
    summary = kit.summarise(rows, "full")
    assert summary["explicit"] == pytest.approx(50)  # (70 + 30) / 2
    assert (summary["explicit_low"], summary["explicit_high"]) == pytest.approx((30, 70))
    assert (summary["J"], summary["F"], summary["J&F"]) == pytest.approx((60, 40, 50))  # "none" is left out
    assert summary["none_right"] == 100
    assert summary["wrongly_refused"] == 50
    assert summary["rethink_rate"] == pytest.approx(10)  # 3 of 30 frames
    assert summary["spearman"] == pytest.approx(1)
    assert summary["ece"] == pytest.approx((0.1 + 0.2 + 0.0) / 3)  # three bins of one frame
    assert "implicit" not in summary


def test_a_run_without_targets_has_no_j():
    summary = kit.summarise([row("none", 1.0, 1.0, refused=True)], "full")
    assert summary == {"none_right": 100.0, "rethink_rate": 0.0}


def test_a_breakdown_counts_and_averages_by_kind_and_field():
    rows = [
        row("explicit", 1.0, 1.0, difficulty="easy"),
        row("explicit", 0.5, 0.5, difficulty="easy"),
        row("explicit", 0.2, 0.2, difficulty="hard"),
        row("multi", 0.1, 0.1, difficulty="easy"),
        row("none", 0.0, 0.0),
    ]
    assert kit.breakdown(rows, "full", "difficulty") == {
        "explicit/easy": (75.0, 2),
        "explicit/hard": (20.0, 1),
        "multi/easy": (10.0, 1),
    }


def test_rows_come_back_from_json_without_fields_of_a_newer_writer():
    one = row(scores=[0.5], ious=[0.25])
    values = json.loads(json.dumps(kit.as_json(one)))
    assert kit.from_json({**values, "mood": "good"}) == one


# The command


def evaluate(out: Path, *arguments: str, videos: int = 3) -> str:
    """Run the random-object baseline, which needs no model; returns the folder's summary as text."""
    options = ["synthtrack", "--variants", "random-object", "--videos", str(videos), "--out", str(out), *arguments]
    with pytest.raises(SystemExit) as left:
        main(options)
    assert left.value.code == 0
    return (out / "summary.json").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three videos that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished")
    evaluate(out)
    return out


def lines_of(out: Path) -> list[str]:
    return (out / "rows.jsonl").read_text().splitlines()


@pytest.mark.parametrize("kept", ["cut in a line", "cut after a line", "cut between videos", "nothing"])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(finished, tmp_path, kept):
    whole = lines_of(finished)
    per_video = [json.loads(line)["video"] for line in whole]
    second = per_video.index(1)
    text = {
        "cut in a line": "\n".join([*whole[: second + 2], whole[second + 2][:100]]),
        "cut after a line": "\n".join(whole[: second + 2]) + "\n",
        "cut between videos": "\n".join(whole[:second]) + "\n",
        "nothing": "",
    }[kept]
    (tmp_path / "run.json").write_text((finished / "run.json").read_text())
    (tmp_path / "rows.jsonl").write_text(text)
    assert evaluate(tmp_path) == (finished / "summary.json").read_text()
    assert lines_of(tmp_path) == whole
    assert (tmp_path / "report.md").read_text() == (finished / "report.md").read_text()


def test_a_finished_run_is_extended_by_more_videos_and_not_begun_again(finished, tmp_path, monkeypatch):
    for name in ("run.json", "rows.jsonl"):
        (tmp_path / name).write_text((finished / name).read_text())
    drawn = []
    draw = kit.video_case
    monkeypatch.setattr(kit, "video_case", lambda seed, video, split: drawn.append(video) or draw(seed, video, split))
    summary = json.loads(evaluate(tmp_path, videos=4))
    assert drawn == [2, 3]  # the last video of the file may have been cut, the first two cannot
    assert summary["run"]["videos"] == 4
    assert lines_of(tmp_path)[: len(lines_of(finished))] == lines_of(finished)


def test_two_processes_write_the_rows_of_one(finished, tmp_path):
    evaluate(tmp_path, "--jobs", "2")
    assert lines_of(tmp_path) == lines_of(finished)


def test_rows_of_other_settings_are_refused_not_mixed(finished, tmp_path, capsys):
    for name in ("run.json", "rows.jsonl"):
        (tmp_path / name).write_text((finished / name).read_text())
    with pytest.raises(SystemExit) as left:
        main(["synthtrack", "--variants", "random-object", "--videos", "3", "--seed", "2", "--out", str(tmp_path)])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "seed 1, now 2" in message
    assert "choose another --out" in message
    assert lines_of(tmp_path) == lines_of(finished)


def test_other_weights_under_the_same_name_are_another_model(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    before = command.model_digest(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"2")
    assert command.model_digest(str(tmp_path)) != before
    assert len(before) == 12


def test_a_report_names_its_protocol_and_ends_with_one_line_of_figures(tmp_path, capsys):
    evaluate(tmp_path, videos=1)
    out = capsys.readouterr().out
    run = json.loads((tmp_path / "summary.json").read_text())["run"]
    assert (run["protocol"], run["seed"], run["videos"], run["split"]) == ("synthtrack", 1, 1, "test")
    assert run["commit"]
    figures = dict(pair.split("=", 1) for pair in out.splitlines()[-1].split())
    assert list(figures) == ["J&F", "J", "F", "videos", "out"]
    assert 0 <= float(figures["J&F"]) <= 100
    # One video gives no interval; JSON has no NaN.
    assert "NaN" not in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--variants", "perfect"], 2, "`perfect` is not one of full"),
        (["--variants", ","], 2, "is not one of full"),
        (["--model", "nowhere"], 4, "MD01"),
        (["--variants", "random-object", "--split", "validation"], 2, "validation"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(tmp_path, capsys, options, code, words):
    with pytest.raises(SystemExit) as left:
        main(["synthtrack", "--videos", "1", "--out", str(tmp_path / "out"), *options])
    assert left.value.code == code
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


# A model in the loop


def test_variants_switch_off_what_they_name():
    model = tiny_trackgpt("conv", "conv", tied=True)
    decoder = model.segmenter.mask_decoder
    found = {}
    for variant in ("full", "no-rethinking", "no-propagation", "first-frame"):
        tracker = command.variant_tracker(model, variant)
        found[variant] = (decoder.propagate, tracker.arbiter.config.enabled, tracker.arbiter.config.search_every < 100)
    assert found == {
        "full": (True, True, True),
        "no-rethinking": (True, False, False),
        "no-propagation": (False, True, True),
        "first-frame": (False, False, False),
    }


def test_a_model_that_never_propagates_is_not_given_propagation():
    model = tiny_trackgpt("conv", "conv", tied=True)
    model.config.perception.decoder.propagate = False
    command.variant_tracker(model, "full")
    assert model.segmenter.mask_decoder.propagate is False


def test_a_model_runs_through_every_variant_and_its_settings_are_those_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "FRAMES", 4)
    monkeypatch.setattr(kit, "LONGEST", 64)
    tiny_trackgpt("conv", "conv", tied=True, max_instruction_tokens=99).save_pretrained(tmp_path / "model")
    job = command.Job(str(tmp_path / "model"), 1, "test", kit.VARIANTS, sets=("search_every=2", "ratio=1.0"))
    assert command._model(job).config.rethink.search_every == 2
    rows = command._one_video(job, 0)
    assert [r.variant for r in rows] == [name for name in kit.VARIANTS for _ in KINDS]
    assert all(r.rethinks == 0 for r in rows if r.variant in ("no-rethinking", "first-frame", "random-object"))
    assert any(r.rethinks > 0 for r in rows if r.variant == "full")
    command._model.cache_clear()


def test_an_unknown_setting_of_the_loop_is_named(tmp_path):
    tiny_trackgpt("conv", "conv", tied=True).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="did you mean `cooldown`"):
        command._model(command.Job(str(tmp_path), 1, "test", ("full",), sets=("cooldwn=1",)))


def test_a_damaged_model_is_an_error_of_the_model(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="MD0"):
        command._model(command.Job(str(tmp_path), 1, "test", ("full",)))


@pytest.mark.slow
def test_two_processes_with_a_model_write_the_rows_of_one(tmp_path):
    tiny_trackgpt("conv", "conv", tied=True, max_instruction_tokens=99).save_pretrained(tmp_path / "model")
    options = ["--model", str(tmp_path / "model"), "--videos", "3", "--variants", "full"]
    for jobs in ("1", "2"):
        program = [sys.executable, "-m", "eval", "synthtrack", *options, "--jobs", jobs, "--out", str(tmp_path / jobs)]
        subprocess.run(program, cwd=ROOT, check=True, capture_output=True)
    assert lines_of(tmp_path / "1") == lines_of(tmp_path / "2")
