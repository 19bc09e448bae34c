"""The synthtrack kit with trackers whose scores are known beforehand, its command, and a model in the loop."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_trackgpt
from tracks import Showing

from eval.__main__ import main
from eval.following import Following
from eval.kit import Row
from eval.kits import synthtrack as module
from eval.kits.synthtrack import SynthTrack
from eval.run_folder import digest, read_rows
from eval.runner import with_diagnostics
from eval.trackers import Choice
from trackgpt.errors import InputError, ModelError, UsageError
from trackgpt.reasoners.templates import visible_answer
from trackgpt.synthtrack.clips import KINDS, Case, make_case
from trackgpt.synthtrack.scene import SceneInstruction
from trackgpt.synthtrack.world import make_scene
from trackgpt.systems.trackgpt import ABLATIONS
from trackgpt.types import Clip, Cue, Prediction, Prompt

ROOT = Path(__file__).parents[1]
TASK = "00007"


class Given(SynthTrack):
    """The kit about one video that a test has drawn."""

    def __init__(self, case: Case) -> None:
        super().__init__(1, 1)
        self.given = case

    def case(self, task: str) -> Case:
        return self.given


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


class Knowing(Showing):
    """Tracks the truth of the case it is about, target by target."""

    def __init__(self, case: Case, score: float = 1.0, rethought: tuple[int, ...] = ()) -> None:
        self.case, self.score, self.rethought = case, score, rethought

    def see(self, t, frame, text):
        assert np.array_equal(frame, self.case.clip.frames[t])
        said = next(e for e in self.case.expressions if e.text == text)
        ids = self.case.clip.ids[t]
        masks = np.array([ids == target for target in said.targets], bool).reshape(-1, *ids.shape)
        reason = "prompt" if t == 0 else "purport" if t in self.rethought else ""
        return prediction(masks, visible_answer(said.answer), self.score, reason)


class Blind(Knowing):
    """Says it tracks as many targets as are meant, and marks nothing."""

    def see(self, t, frame, text):
        seen = super().see(t, frame, text)
        return replace(seen, masks=np.zeros_like(seen.masks))


def evaluate_case(case: Case, tracker: Knowing, results: Path) -> list[Row]:
    """The rows of a tracker that writes its result files, with what was recorded of it."""
    kit, following = Given(case), Following(tracker)
    kit.run(TASK, following, results)
    records = {unit: record.as_json() for unit, record in following.records.items()}
    return with_diagnostics(kit.score(TASK, results), records)


@pytest.fixture(scope="module")
def case() -> Case:
    """A small drawn case that has one instruction of every kind."""
    made = make_case(10_001, frames=5, longest=96)
    assert [e.kind for e in made.expressions] == list(KINDS)
    return made


def hand_case(*expressions: SceneInstruction) -> Case:
    """Four frames of 8 x 8: object 1 is a 4 x 4 square on frames 0 and 1, object 2 a 2 x 4 bar on all frames."""
    ids = np.zeros((4, 8, 8), np.uint8)
    ids[:2, :4, :4] = 1
    ids[:, 6:, 4:] = 2
    clip = Clip(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8), ids)
    return Case(make_scene(0, frames=4, difficulty="easy"), clip, expressions)


ONE = SceneInstruction("the square", "explicit", "category", (1,), "Sure. <TK>, <PO>")
TWO = SceneInstruction("the bar", "implicit", "part", (2,), "Sure. <TK>, <PO>", wording=3)
NOTHING = SceneInstruction("the owl", "none", "absent-category", (), "no owl")


def row(kind="explicit", j=1.0, f=1.0, video=0, answer="Sure.", wanted="Sure.", **figures) -> Row:
    own = {"none_empty": j} if kind == "none" else {"J": j, "F": f, kind: (j + f) / 2}
    said = {"answer": answer, "wanted": wanted}
    return Row(f"{video:05d}", f"{video:05d}/{kind}", {**own, **figures}, {"kind": [kind]}, {}, said)


# Trackers whose scores are known


def test_a_tracker_that_returns_the_truth_scores_100_for_every_kind_and_refuses_only_none(case, tmp_path):
    rows = evaluate_case(case, Knowing(case), tmp_path)
    assert [r.tags["kind"] for r in rows] == [[kind] for kind in KINDS]
    assert [(r.figures.get("J"), r.figures.get("F")) for r in rows] == [(1.0, 1.0)] * 3 + [(None, None)]
    assert [r.figures["refused"] for r in rows] == [0, 0, 0, 1]
    assert [r.said["instruction"] for r in rows] == [e.text for e in case.expressions]
    assert [r.said["answer"] for r in rows] == [visible_answer(e.answer) for e in case.expressions]
    assert {r.task for r in rows} == {TASK}
    summary = Given(case).summarise(rows)
    wanted = {"explicit": 100, "implicit": 100, "multi": 100, "J&F": 100, "none_right": 100, "none_empty": 100}
    wanted |= {"wrongly_refused": 0, "answers_right": 100}
    assert {key: summary[key] for key in wanted} == wanted


def test_an_empty_tracker_scores_only_where_the_truth_is_empty(tmp_path):
    made = hand_case(ONE, TWO, NOTHING)
    one, two, nothing = evaluate_case(made, Blind(made), tmp_path)
    assert (one.figures["J"], one.figures["F"]) == (0.5, 0.5)  # the square has left on two of four frames
    assert (two.figures["J"], two.figures["F"]) == (0.0, 0.0)
    assert nothing.figures["none_empty"] == 1


def test_the_union_of_the_targets_is_scored_not_each_of_them(tmp_path):
    both = SceneInstruction("all things", "multi", "two", (1, 2), "both")
    made = hand_case(both)

    class First(Knowing):
        def see(self, t, frame, text):
            seen = super().see(t, frame, text)
            return replace(seen, masks=seen.masks & np.array([True, False]).reshape(2, 1, 1))

    (only_one,) = evaluate_case(made, First(made), tmp_path)
    # 16 of 24 pixels on frames 0 and 1, none of 8 on frames 2 and 3.
    assert only_one.figures["J"] == pytest.approx((16 / 24 + 16 / 24 + 0 + 0) / 4)


def test_scores_ious_and_rethinks_are_those_of_the_frames(tmp_path):
    made = hand_case(ONE, NOTHING)
    tracked, nothing = evaluate_case(made, Knowing(made, score=0.25, rethought=(2, 3)), tmp_path)
    assert tracked.series["score"] == [0.25] * 4
    assert tracked.series["iou"] == [1.0] * 4
    assert len(tracked.series["seconds"]) == tracked.figures["tracked_frames"] == 4
    assert tracked.figures["rethinks"] == 2  # the first frame's reading is no rethink
    assert np.isnan(nothing.series["score"]).all()


def test_the_random_object_is_one_visible_object_and_the_same_every_time(tmp_path):
    kit = Given(hand_case(ONE, TWO))

    def scores(number: int, results: Path) -> tuple[float, ...]:
        kit.baselines["random-object"](f"{number:05d}", results)
        return tuple(each.figures["J"] for each in kit.score(f"{number:05d}", results))

    found = [scores(number, tmp_path / "a") for number in range(32)]
    assert found == [scores(number, tmp_path / "b") for number in range(32)]
    # Object 2 in the place of object 1 scores 0; object 1 in the place of 2 never overlaps it either.
    assert set(found) == {(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)}


def test_videos_of_two_seeds_differ_and_the_split_reaches_the_scene():
    assert SynthTrack(1, 4).case("00003").scene.seed == 10_003
    assert SynthTrack(2, 4).case("00003").scene.seed == 20_003
    assert SynthTrack(1, 4, "train").case("00003").scene.split == "train"
    drawn = SynthTrack(1, 4).case("00003").clip.frames
    assert (len(drawn), max(drawn.shape[1:3])) == (module.FRAMES, module.LONGEST)
    assert SynthTrack(1, 4).tasks() == ["00000", "00001", "00002", "00003"]
    with pytest.raises(InputError, match="SynthTrack has test and train"):
        SynthTrack(1, 4, "validation").case("00000")


# Figures by hand


def test_a_summary_of_rows_is_what_a_reader_computes():
    rows = [
        row("explicit", 0.8, 0.6, refused=0.0),
        row("explicit", 0.4, 0.2, refused=1.0, video=1, answer="no square"),
        row("none", 0.0, refused=1.0),
    ]
    summary = SynthTrack(1, 2).summarise(rows)
    assert summary["explicit"] == pytest.approx(50)  # (70 + 30) / 2
    assert (summary["J"], summary["F"], summary["J&F"]) == pytest.approx((60, 40, 50))  # "none" is left out
    assert (summary["none_right"], summary["none_empty"]) == (100, 0)
    assert (summary["wrongly_refused"], summary["answers_right"]) == (50, 50)
    assert "implicit" not in summary


def test_results_without_diagnostics_have_no_figures_of_answers():
    assert set(SynthTrack(1, 1).summarise([row("multi", 0.5, 0.5)])) == {"J&F", "multi", "J", "F"}
    assert SynthTrack(1, 1).summarise([row("none", 1.0)]) == {"none_empty": 100}


# The command


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small videos in this process, and no pictures, which take longer than all the rest."""
    monkeypatch.setattr("eval.report.draw", lambda *_: [])


@pytest.fixture
def smaller(monkeypatch):
    monkeypatch.setattr(module, "FRAMES", 4)
    monkeypatch.setattr(module, "LONGEST", 64)
    module._case.cache_clear()
    yield
    module._case.cache_clear()


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["synthtrack", *map(str, arguments)])
    return int(left.value.code or 0)


def baseline(out: Path, *arguments: object, videos: int = 3) -> int:
    """Run the random-object baseline, which needs no model."""
    return command("--model", "random-object", "--videos", videos, "--out", out, *arguments)


@pytest.mark.usefixtures("smaller")
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    assert baseline(tmp_path / "whole") == 0
    cut = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut"))
    for lost in ("diagnostics/00001.json", "rows.jsonl", "summary.json", "report.md", "results/00001/none/00003.png"):
        (cut / lost).unlink(missing_ok=True)
    shutil.rmtree(cut / "results/00001/implicit", ignore_errors=True)
    written = []
    write = SynthTrack._random_object
    monkeypatch.setattr(SynthTrack, "_random_object", lambda kit, *a: written.append(a[0]) or write(kit, *a))
    assert baseline(cut) == 0
    assert written == ["00001"]  # what was whole is not tracked again
    for name in ("rows.jsonl", "summary.json", "report.md"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("smaller")
def test_results_of_other_settings_are_refused_not_mixed(tmp_path, capsys):
    assert baseline(tmp_path, videos=1) == 0
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert baseline(tmp_path, "--seed", 2, videos=1) == 2
    message = capsys.readouterr().err
    assert "seed 1, now 2" in message
    assert "choose another --out" in message
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.usefixtures("smaller")
def test_results_of_a_run_score_the_same_as_anybodys_folder(tmp_path):
    assert baseline(tmp_path / "run", videos=2) == 0
    options = ("--results", tmp_path / "run/results", "--videos", 2, "--out", tmp_path / "again")
    assert command(*options) == 0
    assert read_rows(tmp_path / "again") == read_rows(tmp_path / "run")


def test_other_weights_under_the_same_name_are_another_model(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    before = digest(tmp_path)
    (tmp_path / "weights").write_bytes(b"2")
    assert digest(tmp_path) != before
    assert len(before) == 12


@pytest.mark.usefixtures("smaller")
def test_a_report_names_its_protocol_and_ends_with_one_line_of_figures(tmp_path, capsys):
    assert baseline(tmp_path, videos=1) == 0
    out = capsys.readouterr().out
    run = json.loads((tmp_path / "summary.json").read_text())["run"]
    assert (run["kit"], run["seed"], run["videos"], run["split"]) == ("synthtrack", 1, 1, "test")
    assert run["protocol"].startswith("Protocol synthtrack")
    assert run["commit"]
    figures = dict(pair.split("=", 1) for pair in out.splitlines()[-1].split())
    assert list(figures) == ["J&F", "J", "F", "units", "out"]
    assert 0 <= float(figures["J&F"]) <= 100
    # One video gives no interval; JSON has no NaN.
    assert "NaN" not in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--model", "random-object", "--results", "here"], 2, "give --model NAME to run a model, or --results DIR"),
        ([], 2, "give --model NAME to run a model, or --results DIR"),
        (["--model", "nowhere"], 4, "MD01"),
        (["--model", "random-object", "--split", "validation"], 3, "validation"),
        (["--results", "nowhere"], 3, "nowhere: missing or empty; wanted result files VIDEO/KIND/FRAME.png"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(tmp_path, capsys, options, code, words):
    assert command("--videos", "1", "--out", tmp_path / "out", *options) == code
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


# A model in the loop


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_trackgpt("conv", "conv", tied=True, answer="forced", max_instruction_tokens=99).save_pretrained(folder)
    return folder


def test_variants_switch_off_what_they_name(model):
    found = {}
    for variant in ABLATIONS:
        tracker = Choice(str(model), variant).load()
        found[variant] = (
            tracker.perception.propagate,
            tracker.arbiter.config.enabled,
            tracker.arbiter.config.search_every < 100,
        )
    assert found == {
        "full": (True, True, True),
        "no-rethinking": (True, False, False),
        "no-propagation": (False, True, True),
        "first-frame": (False, False, False),
    }


def test_instructions_tracked_in_one_pass_give_what_each_gives_alone_and_a_frame_is_encoded_once(
    model, case, monkeypatch
):
    tracker = Choice(str(model), settings=("ratio=1.0", "cooldown=1")).load()
    encode, reason_many = tracker.perception.encode, tracker.reasoner.reason_many
    encoded, read = [], []

    def counted(frames):
        encoded.append(len(frames))
        return encode(frames)

    def noted(frame, prompts):
        read.append([prompt.text for prompt in prompts])
        return reason_many(frame, prompts)

    monkeypatch.setattr(tracker.perception, "encode", counted)
    monkeypatch.setattr(tracker.reasoner, "reason_many", noted)

    frames = case.clip.frames
    said = {one.kind: [Prompt(one.text)] for one in case.expressions}
    together = list(Following(tracker)(said, frames))
    assert encoded == [1] * len(frames)
    assert read == [[one.text for one in case.expressions]]
    for place, (kind, prompts) in enumerate(said.items()):
        alone = [one for (one,) in Following(tracker)({kind: prompts}, frames)]
        assert any(one.reason == "purport" for one in alone)
        for one, other in zip(alone, together, strict=True):
            assert np.array_equal(one.masks, other[place].masks)
            np.testing.assert_allclose(one.scores, other[place].scores, atol=1e-5)
            assert one.reason == other[place].reason


def test_a_model_that_never_propagates_is_not_given_propagation(tmp_path):
    made = tiny_trackgpt("conv", "conv", tied=True)
    made.segmenter.mask_decoder.propagate = False
    made.config.perception.decoder.propagate = False
    made.save_pretrained(tmp_path)
    assert Choice(str(tmp_path)).load().perception.segmenter.mask_decoder.propagate is False


@pytest.mark.usefixtures("smaller")
@pytest.mark.parametrize("variant", ABLATIONS)
def test_a_model_runs_in_every_variant_with_the_settings_asked_for(variant, model, tmp_path):
    settings = ("--set", "search_every=2", "--set", "ratio=1.0", "--variant", variant)
    assert command("--model", model, "--device", "cpu", "--videos", 1, "--out", tmp_path, *settings) == 0
    rows = read_rows(tmp_path)
    assert [each.tags["kind"] for each in rows] == [[kind] for kind in KINDS]
    rethinks = sum(each.figures["rethinks"] for each in rows)
    assert rethinks > 0 or variant != "full"
    assert rethinks == 0 or variant in ("full", "no-propagation")
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == ["search_every=2", "ratio=1.0"]
    report = (tmp_path / "report.md").read_text()
    assert "How the tracker behaved" in report


@pytest.mark.usefixtures("smaller")
def test_a_model_runs_in_the_dtype_asked_for_and_the_report_says_so(model, tmp_path):
    loaded = Choice(str(model), dtype="bfloat16").load()
    assert {p.dtype for p in loaded.reasoner.brain.parameters()} == {torch.bfloat16}
    assert command("--model", model, "--device", "cpu", "--videos", 1, "--out", tmp_path, "--dtype", "bfloat16") == 0
    assert json.loads((tmp_path / "run.json").read_text())["dtype"] == "bfloat16"
    assert ", dtype bfloat16" in (tmp_path / "report.md").read_text().splitlines()[0]


def test_an_unknown_variant_or_setting_of_the_loop_is_named(model):
    with pytest.raises(UsageError, match="did you mean `cooldown`"):
        Choice(str(model), settings=("cooldwn=1",)).load()
    with pytest.raises(UsageError, match="perfect: not one of full, no-rethinking"):
        Choice(str(model), "perfect").load()


def test_a_damaged_model_is_an_error_of_the_model(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="MD0"):
        Choice(str(tmp_path)).load()


def timeless(out: Path) -> list[Row]:
    """Rows but for the seconds that frames took."""
    return [replace(each, series={**each.series, "seconds": []}) for each in read_rows(out)]


@pytest.mark.slow
def test_two_processes_with_a_model_write_the_rows_of_one(model, tmp_path):
    for jobs in ("1", "2"):
        options = ["--model", str(model), "--videos", "3", "--jobs", jobs, "--out", str(tmp_path / jobs)]
        subprocess.run(
            [sys.executable, "-m", "eval", "synthtrack", *options], cwd=ROOT, check=True, capture_output=True
        )
    assert timeless(tmp_path / "1") == timeless(tmp_path / "2")
