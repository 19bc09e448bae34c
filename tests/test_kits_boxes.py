"""The box kits: trackers whose scores are known beforehand, conventions side by side, malformed results, real files."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_tools import box_writers
from data_tools.box_writers import CLIP_FRAMES, targets_of
from eval.__main__ import main
from eval.kits.box_sequences import boxes_of_one_target, result_file
from eval.kits.interacttrack import InteractTrack
from eval.kits.lasot import Lasot
from eval.kits.mot import Mot
from eval.kits.mot_query import MotQuery
from eval.kits.rmot26 import Rmot26
from eval.kits.tnl2k import Tnl2k
from eval.kits.tnllt import Tnllt
from eval.listening import Heard, Listened
from eval.metrics.interactive import interactive_sequence, paper_figures, released_figures
from eval.metrics.multi_object import COMBINED, tracker_scores
from eval.run_folder import read_rows, write_rows
from trackgpt.data.box_files import read_interacttrack_boxes
from trackgpt.data.box_video import lasot
from trackgpt.data.mot_files import read_results
from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack.clips import make_case
from trackgpt.types import Cue, Prediction, Prompt

KITS = {"lasot": Lasot, "tnl2k": Tnl2k, "tnllt": Tnllt, "interacttrack": InteractTrack, "rmot26": Rmot26, "mot": Mot}
FRAMES = 12
CEILING = 100 * 20 / 21
MOVING = np.array([[10.0 + 3 * t, 20, 30, 40] for t in range(8)])


@pytest.fixture(scope="module")
def cases():
    found = [make_case(30_000 + index, frames=FRAMES, longest=96) for index in range(8)]
    return [case for case in found if len(targets_of(case)) > 1][:3]


@pytest.fixture(scope="module")
def trees(cases, tmp_path_factory):
    """A root with every benchmark in it."""
    root = tmp_path_factory.mktemp("data")
    for name in KITS:
        getattr(box_writers, f"write_{name}")(root / name, cases, "test")
    return root


@pytest.fixture
def drawn(capsys, tmp_path, monkeypatch):
    """Runs `python -m eval ARGS...` in an empty folder; gives exit code, last line of stdout as numbers, and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, dict[str, str], str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(each) for each in arguments])
        said = capsys.readouterr()
        last = said.out.splitlines()[-1] if said.out and not exit_.value.code else ""
        return int(exit_.value.code or 0), dict(pair.split("=", 1) for pair in last.split()), said.err

    return run


@pytest.fixture
def evaluate(drawn, monkeypatch):
    """The same without pictures, which take longer than all the rest."""
    monkeypatch.setattr("eval.report.draw", lambda *_: [])
    return drawn


def shown(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def lines(boxes: np.ndarray) -> list[str]:
    return [",".join(f"{value:g}" for value in box) for box in boxes]


def lasot_tree(root: Path, *names: str, absent: tuple[int, ...] = ()) -> Path:
    """Annotations alone: a box that moves by 3 px a frame, and flags."""
    for name in names:
        shown(root / f"annos/{name}.txt", *lines(MOVING))
        shown(root / f"annos/absent/{name}.txt", *(str(int(t in absent)) for t in range(len(MOVING))))
        shown(root / f"annos/nlp/{name}.txt", "a thing")
    shown(root / "sequence_evaluation_config/testing_set.txt", *names)
    return root


def follower(*tracks: np.ndarray, scores: tuple[float, ...] = ()):
    """A `Follow` that gives these boxes, float (T, 4) xyxy with NaN, whatever it is shown; keeps what it was told."""

    def follow(said, frames):
        ((unit, prompts),) = said.items()
        follow.told[unit] = [(prompt.frame, prompt.text) for prompt in prompts]
        for t, frame in enumerate(frames):
            assert frame.dtype == np.uint8
            reason = "prompt" if t in dict(follow.told[unit]) else ""
            yield (prediction([track[t] for track in tracks], scores, reason),)

    def listen(unit, said, frames):
        prompts = [Prompt(text, t) for t, text in sorted(said.items())]
        for t, (seen,) in enumerate(follow({unit: prompts}, frames)):
            yield Listened(seen, Heard("switch" if t else "start") if t in said else None, 0.0, 0.0, int(t in said))

    follow.told, follow.listen = {}, listen
    return follow


def prediction(boxes, scores=(), reason="", ids=None) -> Prediction:
    """Of a tracker that gives boxes alone."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.array(scores or [0.5] * len(boxes), np.float32)
    ids = np.arange(1, len(boxes) + 1) if ids is None else np.array(ids, np.int64)
    present = np.isfinite(boxes).all(axis=1)
    return Prediction(boxes, None, scores, present, ids, Cue("Sure."), reason)


# Perfect and frozen trackers


@pytest.mark.parametrize("name", ["lasot", "tnl2k", "tnllt"])
def test_the_truth_as_a_tracker_reaches_20_of_21_where_it_is_seen(trees, tmp_path, name):
    kit = KITS[name](trees, "test")
    task = kit.tasks()[0]
    truth = kit.by_name[task].truth()
    kit.run(task, follower(truth.xyxy()), tmp_path)
    (row,) = kit.score(task, tmp_path)
    countable = (truth.boxes > 0).all(axis=1) & ~truth.absent  # every toolkit takes a visible box at 0 for none
    hits = [int(countable.sum())] * 20 + [0]
    main_convention = next(iter(kit.conventions))
    assert list(row.series[f"{main_convention}/success_hits"]) == hits
    assert row.series["success"][0] == pytest.approx(countable.mean())
    assert [len(row.series[curve]) for curve in ("success", "precision", "normalised_precision")] == [21, 51, 51]
    assert row.said["instruction"] == kit.by_name[task].text()


def test_what_is_absent_fails_in_lasots_toolkits_and_is_a_hit_of_normalised_precision_elsewhere(tmp_path, evaluate):
    data = lasot_tree(tmp_path / "LaSOT", "a-1", absent=(3,))
    shown(tmp_path / "r/a-1.txt", *lines(MOVING))
    code, figures, _ = evaluate("lasot", "--data", data, "--results", tmp_path / "r", "--out", tmp_path / "o")
    assert code == 0
    assert float(figures["lasot_matlab/AUC"]) == pytest.approx(CEILING * 7 / 8, abs=0.01)
    assert float(figures["lasot_matlab/NP@0.20"]) == pytest.approx(87.5, abs=0.01)
    shown(tmp_path / "TNL2K/annos/gt_rect/a.txt", *lines(np.where(np.arange(8)[:, None] == 3, 0, MOVING)))
    shown(tmp_path / "TNL2K/annos/absent/a.txt", *(str(int(t == 3)) for t in range(8)))
    shown(tmp_path / "t/a.txt", *lines(MOVING))
    code, figures, _ = evaluate(
        "tnl2k", "--data", tmp_path, "--split", "all", "--results", tmp_path / "t", "--out", tmp_path / "p"
    )
    assert code == 0
    assert float(figures["pytracking_tnl2k/NP@0.20"]) == pytest.approx(100)
    summary = json.loads((tmp_path / "p/summary.json").read_text())["figures"]
    assert summary["lasot_matlab/NP@0.20"] == pytest.approx(87.5)
    assert summary["pytracking_tnl2k/AUC"] == pytest.approx(summary["lasot_matlab/AUC"])


def test_a_model_begins_with_the_sentence_and_is_written_in_the_numbers_of_the_benchmark(trees, tmp_path):
    kit = Lasot(trees, "test")
    task = kit.tasks()[0]
    follow = follower(np.tile([0.0, 0, 5, 5], (FRAMES, 1)))
    kit.run(task, follow, tmp_path)
    assert follow.told[task] == [(0, kit.by_name[task].text())]
    assert (tmp_path / f"{task}.txt").read_text().splitlines()[0] == "1.0000,1.0000,5.0000,5.0000"  # from 1
    kit.run(task, follower(np.full((FRAMES, 4), np.nan)), tmp_path)
    assert (tmp_path / f"{task}.txt").read_text().splitlines()[3] == "0.0000,0.0000,0.0000,0.0000"


def test_a_sequence_begins_with_its_sentence_its_box_or_both(tmp_path):
    tree = lasot_tree(tmp_path, "bird-1")
    (sequence,) = lasot(tree, "test").sequences
    video = sequence.video()
    x, y, w, h = MOVING[0]
    box = (x - 1, y - 1, x + w - 1, y + h - 1)
    for prompt, words, shown_box in (("sentence", "a thing", None), ("box", "", box), ("both", "a thing", box)):
        (said,) = Lasot(tree, "test", prompt).prompts("bird-1", video)
        assert said.text == words
        assert [one.box for one in said.visual] == ([] if shown_box is None else [pytest.approx(shown_box)])


def test_among_several_targets_the_surest_is_followed_by_its_id_until_a_prompt():
    a, b = [0, 0, 2, 2], [4, 4, 8, 8]
    track = [
        prediction([a, b], (0.3, 0.6), "prompt"),
        prediction([a, b], (0.9, 0.1)),  # kept by its id
        prediction([a, [np.nan] * 4], (0.9, 0.1)),  # absent
        prediction([], ()),
        prediction([a], (0.9,), ids=[1]),  # gone: the surest that is there
        prediction([a, b], (0.3, 0.6), "prompt", ids=[3, 4]),
    ]
    wanted = [[4, 4, 4, 4], [4, 4, 4, 4], [0] * 4, [0] * 4, [0, 0, 2, 2], [4, 4, 4, 4]]
    assert boxes_of_one_target(track).tolist() == wanted


def test_a_target_that_is_present_is_preferred_to_a_surer_one_that_is_not():
    assert boxes_of_one_target([prediction([[np.nan] * 4, [0, 0, 2, 2]], (0.9, 0.1))]).tolist() == [[0, 0, 2, 2]]


# InteractTrack


def test_a_tracker_that_follows_every_switch_is_perfect_in_every_form(trees, tmp_path):
    kit = InteractTrack(trees, "test")
    rows = []
    for task in kit.tasks():
        sequence = kit.by_name[task]
        follow = follower(sequence.truth().xyxy())
        kit.run(task, follow, tmp_path)
        assert follow.told[task] == [(prompt.frame, prompt.text) for prompt in sequence.prompts()]
        rows += kit.score(task, tmp_path)
    figures = kit.summarise(rows)
    for form in ("paper", "paper_strict", "paper_skip", "released"):
        for name in ("Interactive", "Responsiveness", "Accuracy", "Precision"):
            assert figures[f"{form}/{name}"] == pytest.approx(100, abs=0.01)
    assert figures["cut_files"] == 0
    assert figures["prompts"] == sum(len(kit.by_name[task].prompts()) for task in kit.tasks())


def test_rows_hold_all_that_the_pooled_interactive_figures_need(trees, tmp_path):
    kit = InteractTrack(trees, "test")
    rng = np.random.default_rng(0)
    sequences = []
    for task in kit.tasks():
        sequence = kit.by_name[task]
        truth = sequence.written_boxes()
        boxes = truth + rng.normal(0, 4, truth.shape).round(1) * (rng.random((len(truth), 1)) < 0.7)
        boxes[rng.random(len(truth)) < 0.2] = 0
        shown(tmp_path / f"{task}.txt", *lines(boxes))
        written = read_interacttrack_boxes(tmp_path / f"{task}.txt")
        sequences.append(interactive_sequence(written, truth, sequence.old_targets(), sequence.prompted()))
    figures = kit.summarise([row for task in kit.tasks() for row in kit.score(task, tmp_path)])
    forms = {
        "released": released_figures(sequences),
        "paper": paper_figures(sequences),
        "paper_strict": paper_figures(sequences, absent="strict"),
        "paper_skip": paper_figures(sequences, missing="skip"),
    }
    for form, found in forms.items():
        assert figures[f"{form}/Interactive"] == found.interactive_score
        assert figures[f"{form}/Responsiveness"] == found.responsiveness
        assert figures[f"{form}/Accuracy"] == found.perception_accuracy
        assert figures[f"{form}/Precision"] == found.perception_precision
    assert figures["paper_skip/Interactive"] > figures["paper/Interactive"]


def test_the_released_form_equals_the_released_code_on_its_stored_values(shared, tmp_path):
    golden = shared / "golden/interacttrack"
    kit = InteractTrack(golden / "inputs/clean/data", "test")
    rows = [row for task in kit.tasks() for row in kit.score(task, golden / "inputs/clean/pred")]
    write_rows(tmp_path / "rows.jsonl", rows)
    figures = kit.summarise(read_rows(tmp_path / "rows.jsonl"))
    stored = json.loads((golden / "expected.json").read_text())
    theirs = {"Interactive": "Interactive", "Responsiveness": "Responsiveness"}
    for ours, name in {**theirs, "Accuracy": "Perc_Acc", "Precision": "Perc_Prec"}.items():
        assert figures[f"released/{ours}"] == stored["clean/ALL"][name]
    for ours, name in {"AUC": "AUC", "P@20": "Prec", "NP@0.20": "NPrec"}.items():
        assert figures[f"interacttrack_released/{ours}"] == stored["tracking/ALL"][name]


def test_a_file_cut_to_the_first_visible_frame_is_put_in_place_but_for_the_released_form(tmp_path):
    truth = [*["0"] * 2, *lines(MOVING)]
    shown(tmp_path / "d/a/groundtruth.txt", *truth)
    shown(tmp_path / "d/a/description.txt", *("it" if t == 2 else "" for t in range(10)))
    shown(tmp_path / "r/a.txt", *lines(MOVING))
    kit = InteractTrack(tmp_path / "d", "test")
    figures = kit.summarise(kit.score("a", tmp_path / "r"))
    assert figures["cut_files"] == 1
    assert figures["paper/Interactive"] == figures["paper/Accuracy"] == 100
    assert figures["released/Interactive"] < 80  # shifted by two frames of 3 px
    assert figures["interacttrack_paper/AUC"] == pytest.approx(CEILING, abs=1e-4)
    shown(tmp_path / "r/a.txt", *lines(MOVING[:-1]))
    with pytest.raises(InputError, match=r"a.txt: ends at line 7 \(7 boxes for 10 frames\)"):
        kit.score("a", tmp_path / "r")
    shown(tmp_path / "r/a.txt", *lines(MOVING[:2]), "1,2,NaN,4", *truth[3:])
    with pytest.raises(InputError, match="a.txt: line 3 holds NaN"):
        kit.score("a", tmp_path / "r")


def test_absence_policies_of_tracking_differ_as_they_say(tmp_path):
    truth = MOVING.copy()
    truth[6:] = 0
    shown(tmp_path / "d/a/groundtruth.txt", *lines(truth))
    shown(tmp_path / "d/a/description.txt", "it", *[""] * 7)
    shown(tmp_path / "r/a.txt", *lines(MOVING))
    figures = InteractTrack(tmp_path / "d", "test").summarise(
        InteractTrack(tmp_path / "d", "test").score("a", tmp_path / "r")
    )
    assert figures["interacttrack_paper/NP@0.20"] == figures["interacttrack_released/NP@0.20"] == 100
    assert figures["interacttrack_strict/NP@0.20"] == 75
    assert figures["interacttrack_released/AUC"] == pytest.approx(CEILING * 0.75, abs=1e-4)
    assert figures["interacttrack_paper/AUC"] == pytest.approx(CEILING, abs=1e-4)
    assert figures["paper/Interactive"] == 100
    assert figures["paper_strict/Interactive"] == 75  # boxes where there is nothing


def test_a_late_first_prompt_begins_the_track_there(trees, tmp_path, monkeypatch):
    kit = InteractTrack(trees, "test")
    task = kit.tasks()[0]
    sequence = kit.by_name[task]
    late = shown(tmp_path / "description.txt", *("it" if t in (3, 7) else "" for t in range(FRAMES)))
    kit.by_name[task] = replace(sequence, description=late, interaction=None)
    follow = follower(sequence.truth().xyxy()[3:])
    kit.run(task, follow, tmp_path)
    assert follow.told[task] == [(0, "it"), (4, "it")]
    (row,) = kit.score(task, tmp_path)
    assert len(row.series["iou"]) == FRAMES - 3  # as many as purport scores
    assert read_interacttrack_boxes(tmp_path / f"{task}.txt")[:3].tolist() == [[0] * 4] * 3


# RMOT26


def test_a_static_box_scores_what_is_printed_beside_mcp(trees, evaluate, tmp_path):
    code, figures, _ = evaluate("rmot26", "--data", trees, "--model", "static-box", "--out", tmp_path / "o")
    assert code == 0
    assert figures["MCP"] == figures["MCP_static_box"]
    still = json.loads((tmp_path / "o/summary.json").read_text())["figures"]
    for name in ("MOTP_all", "MOTA", "CLE", "NDE", "trackeval/HOTA"):
        assert still[f"static-box/{name}"] == still[name]
    rows = read_rows(tmp_path / "o")
    measured = [row.figures for row in rows if "MCP" in row.figures]
    assert all(row["MCP"] == row["MCP_static_box"] for row in measured)
    report = (tmp_path / "o/report.md").read_text()
    assert "Read MCP only beside MCP_static_box" in report
    assert "| QTrack 3B" not in report  # papers are columns
    assert "*QTrack 3B*" in report


def test_the_truth_in_the_releases_format_is_perfect_and_text_answers_are_read(trees, tmp_path):
    kit = Rmot26(trees, "test")
    records = []
    for name, clip in kit.by_name.items():
        lists = {
            each.key: [{"frame": 0, "bbox": box} for box in each.boxes.tolist()]  # frame numbers are not looked at
            for each in clip.objects
        }
        output = json.dumps(lists[""]) if clip.kind == "single" else {k: {"trajectory": v} for k, v in lists.items()}
        records.append({"id": int(name), "predicted_output": output})
    file = shown(tmp_path / "theirs.json", json.dumps({"results": records, "summary": {}}))
    for results in (file, tmp_path):
        figures = kit.summarise([row for task in kit.tasks() for row in kit.score(task, results)])
        assert [figures["MOTP_all"], figures["average_iou"]] == pytest.approx([100, 100], abs=0.01)
        assert (figures["MCP"], figures["CLE"], figures["NDE"], figures["MOTA"]) == (100, 0, 0, 100)
        for name in ("HOTA", "MOTA", "IDF1"):
            assert figures[f"trackeval/{name}"] == pytest.approx(100)


def test_targets_go_to_objects_by_their_initial_boxes(trees, tmp_path):
    kit = Rmot26(trees, "test")
    clip = next(clip for clip in kit.by_name.values() if clip.kind == "multi")
    tracks = []
    for each in reversed(clip.objects):
        boxes = np.full((CLIP_FRAMES + 1, 4), np.nan)
        boxes[0] = each.initial_box
        boxes[list(each.frames)] = each.boxes
        boxes[:, 2:] += boxes[:, :2]
        tracks.append(boxes)
    kit.run(clip.name, follower(*tracks), tmp_path)
    figures = kit.summarise(kit.score(clip.name, tmp_path))
    assert figures["MOTP_all"] == pytest.approx(100, abs=0.01)
    clip_row = kit.score(clip.name, tmp_path)[0]
    assert len(clip_row.series["iou"]) == CLIP_FRAMES + 1
    assert clip_row.unit == clip.name  # the name under which the tracker's record is kept


def test_the_initial_boxes_may_begin_a_track_beside_the_question(trees, tmp_path):
    kit, told = Rmot26(trees, "test", "box"), []
    clip = next(clip for clip in kit.by_name.values() if clip.kind == "multi")

    def follow(said, frames):
        told.extend(said[clip.name])
        return ((prediction(np.full((0, 4), np.nan)),) for _ in frames)

    kit.run(clip.name, follow, tmp_path)
    (prompt,) = told
    assert prompt.text == clip.question
    for shown_, each in zip(prompt.visual, clip.objects, strict=True):
        x1, y1, x2, y2 = shown_.box
        assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(each.initial_box.tolist())
    assert "begin the track beside the question" in kit.protocol


def test_a_missing_box_lies_at_the_corner_and_is_no_false_positive(trees, tmp_path):
    kit = Rmot26(trees, "test")
    task = kit.tasks()[0]
    shown(tmp_path / "a.json", json.dumps({"results": [{"id": task, "predicted_output": []}]}))
    figures = kit.summarise(kit.score(task, tmp_path))
    assert (figures["MOTP_all"], figures["MOTA"], figures["trackeval/HOTA"]) == (0, 0, 0)
    assert figures["CLE"] > 0


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("[]", "holds a list, wanted an object"),
        ('{"results": 3}', r'wanted \{"results"'),
        ('{"results": [{"id": 0}]}', "clip 0: predicted_output is a NoneType, wanted a list"),
        ('{"results": [{"id": 0}', "bad.json: no JSON from line 2"),
    ],
)
def test_a_results_file_of_another_form_is_named(trees, tmp_path, evaluate, stored, message):
    import re

    path = shown(tmp_path / "bad.json", stored)
    code, _, error = evaluate("rmot26", "--data", trees, "--results", path, "--out", tmp_path / "o")
    assert code == 3
    assert re.search(message, error)
    assert str(path) in error


# Many objects


def test_all_sequences_together_are_what_trackeval_combines(trees, tmp_path):
    kit = Mot(trees, "test")
    rng = np.random.default_rng(1)
    wanted = {}
    for task, sequence in kit.by_name.items():
        truth = sequence.truth()
        rows = [
            f"{t},{key if rng.random() < 0.9 else key + 50},{','.join(f'{v:.1f}' for v in box + rng.normal(0, 1, 4))},1"
            for t, (ids, boxes) in enumerate(zip(truth.ids, truth.boxes), 1)
            for key, box in zip(ids, boxes)
            if rng.random() < 0.9
        ]
        shown(tmp_path / f"{task}.txt", *rows)
        wanted[task] = (truth, read_results(tmp_path / f"{task}.txt", FRAMES))
    figures = kit.summarise([row for task in kit.tasks() for row in kit.score(task, tmp_path)])
    whole = tracker_scores(wanted)[COMBINED].summary()
    for name, value in whole.items():
        assert figures[name] == (value if name == "IDSW" else 100 * value)
    assert 0 < figures["HOTA"] < 100


def test_every_target_that_is_present_is_a_line(trees, tmp_path):
    kit = Mot(trees, "test")
    task = kit.tasks()[0]
    gone = np.tile([1.0, 2, 4, 6], (FRAMES, 1))
    gone[1:] = np.nan
    kit.run(task, follower(np.tile([1.0, 2, 4, 6], (FRAMES, 1)), gone), tmp_path)
    written = (tmp_path / f"{task}.txt").read_text().splitlines()
    assert len(written) == FRAMES + 1
    assert written[1] == "1,2,1.00,2.00,3.00,4.00,0.5000,-1,-1,-1"


# Who is asked about


def test_the_truth_of_who_is_asked_about_is_perfect_and_another_persons_boxes_are_false(trees, tmp_path):
    kit = MotQuery(trees, "test")
    for task, segment in kit.by_name.items():
        truth = segment.truth()
        assert segment.question
        assert {int(number) for of in truth.ids for number in of} <= set(segment.ids)
        rows = [
            f"{t},{key},{','.join(map(str, box))},1"
            for t, (ids, boxes) in enumerate(zip(truth.ids, truth.boxes), 1)
            for key, box in zip(ids, boxes)
        ]
        shown(tmp_path / f"r/{task}.txt", *rows)
        shown(tmp_path / f"wrong/{task}.txt", *rows, *(f"{t},99,1,1,5,5,1" for t in range(1, len(truth.ids) + 1)))
    figures, wrong = (
        kit.summarise([row for task in kit.tasks() for row in kit.score(task, tmp_path / name)])
        for name in ("r", "wrong")
    )
    assert [figures[name] for name in ("HOTA", "MOTA", "MOTP", "IDF1", "MCP")] == pytest.approx([100] * 5, abs=1e-4)
    assert wrong["MOTA"] < 50 < wrong["MCP"]
    assert wrong["static-box/HOTA"] == figures["static-box/HOTA"] < 100


def test_a_static_box_is_what_stands_beside_it_in_the_table(trees, evaluate, tmp_path):
    command = ("mot-query", "--data", trees, "--split", "test", "--model", "static-box", "--out", tmp_path / "o")
    code, figures, error = evaluate(*command)
    assert (code, error) == (0, "")
    assert figures["MCP"] == figures["MCP_static_box"]
    assert figures["HOTA"] == figures["static-box/HOTA"]


def test_a_sequence_without_questions_is_asked_about_the_largest_person_of_every_30_frames(shared, tmp_path):
    kit = MotQuery(shared / "data/mot/mot15_tud", "train", "box")
    names = [task for task in kit.tasks() if task.startswith("TUD-Campus")]
    assert [name.split("-")[2] for name in names] == ["000001", "000031"]  # of 71 frames
    segment = kit.by_name[names[0]]
    truth = segment.sequence.truth()
    (place,) = np.flatnonzero(np.asarray(truth.ids[0]) == segment.ids[0])
    areas = np.asarray(truth.boxes[0])[:, 2:].prod(axis=1)
    on_the_last = np.isin(truth.ids[0], truth.ids[29])
    assert areas[place] == areas[on_the_last].max()
    with pytest.raises(InputError, match="no question; begin with its true box"):
        MotQuery(kit.root, "train").run(names[0], follower(), tmp_path)
    with pytest.raises(UsageError, match="choose sentence or box"):
        MotQuery(kit.root, "train", "words")


def test_a_box_on_the_reference_begins_a_segment_and_targets_are_lines(trees, tmp_path):
    kit = MotQuery(trees, "test", "box")
    task = kit.tasks()[0]
    follow = follower(np.tile([1.0, 2, 4, 6], (FRAMES, 1)))
    kit.run(task, follow, tmp_path)
    assert follow.told[task] == [(0, kit.by_name[task].question)]
    assert len((tmp_path / f"{task}.txt").read_text().splitlines()) == FRAMES


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{}", "holds a dict, wanted a list"),
        ('[{"question": "x", "track_ids": [], "frame": 1, "frames": 2}]', "question 0 is"),
        ('[{"question": "x", "track_ids": [1, 1], "frame": 1, "frames": 2}]', "question 0 is"),
        ('[{"question": "x", "track_ids": [1], "frame": 12, "frames": 2}]', "among frames 1 to 12"),
        ('[{"question": 3, "track_ids": [1], "frame": 1, "frames": 2}]', "question 0 is"),
    ],
)
def test_questions_that_cannot_be_read_are_named(trees, tmp_path, stored, message):
    sequence = next(iter(Mot(trees, "test").by_name.values()))
    copy = shutil.copytree(sequence.folder, tmp_path / "mot/test/a", ignore=shutil.ignore_patterns("img1"))
    (copy / "queries.json").write_text(stored)
    with pytest.raises(InputError, match=message) as caught:
        MotQuery(tmp_path / "mot", "test").tasks()
    assert str(caught.value).startswith(str(copy / "queries.json"))


# The command line


@pytest.mark.parametrize("name", ["lasot", "interacttrack", "rmot26", "mot"])
def test_two_processes_give_the_rows_of_one(trees, tmp_path, evaluate, name):
    baseline = {"rmot26": "static-box"}.get(name, "first-box")
    results = ["--model", baseline]
    if name == "mot":
        for sequence in Mot(trees, "test").by_name.values():
            shutil.copy(sequence.folder / "gt/gt.txt", shown(tmp_path / f"r/{sequence.name}.txt"))
        results = ["--results", tmp_path / "r"]
    for jobs in (1, 2):
        code, _, error = evaluate(
            name, "--data", trees, "--split", "test", *results, "--jobs", jobs, "--out", tmp_path / str(jobs)
        )
        assert (code, error) == (0, "")
    assert (tmp_path / "1/rows.jsonl").read_bytes() == (tmp_path / "2/rows.jsonl").read_bytes()
    report = (tmp_path / "1/report.md").read_text()
    assert KITS[name].headline[0] in report


def test_a_model_of_the_package_runs_and_is_scored(trees, tmp_path, evaluate):
    for name in ("lasot", "interacttrack", "rmot26", "mot"):
        code, figures, error = evaluate(
            *(name, "--data", trees, "--split", "test", "--model", "nano", "--device", "cpu"),
            *("--limit", 1, "--out", tmp_path / name),
        )
        assert (code, error) == (0, "")
        assert set(KITS[name].headline) <= set(figures)
        assert "How the tracker behaved" in (tmp_path / name / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(MOVING)[:-2], "ends at line 6 (6 boxes for 8 frames); wanted a line per frame"),
        ([*lines(MOVING), "1,2,3,4"], "goes on after line 8 (9 boxes for 8 frames)"),
        ([*lines(MOVING)[:3], "1,2,x,4", *lines(MOVING)[4:]], "line 4 is '1,2,x,4', wanted four numbers x,y,w,h"),
        ([*lines(MOVING)[:3], "1,2,3", *lines(MOVING)[4:]], "line 4 is '1,2,3'"),
        ([*lines(MOVING)[:3], "1,2,NaN,4", *lines(MOVING)[4:]], "line 4 is 1,2,nan,4, wanted w, h >= 0 and no NaN"),
        ([*lines(MOVING)[:3], "1,2,-3,4", *lines(MOVING)[4:]], "line 4 is 1,2,-3,4, wanted w, h >= 0"),
        ([], "empty, wanted a line"),
    ],
)
def test_a_malformed_result_is_named_by_file_and_line(tmp_path, evaluate, content, message):
    data = lasot_tree(tmp_path / "LaSOT", "a-1")
    path = shown(tmp_path / "r/a-1.txt", *content)
    code, _, error = evaluate("lasot", "--data", data, "--results", tmp_path / "r", "--out", tmp_path / "o")
    assert code == 3
    assert f"{path}: {message}" in error
    assert error.count("\n") == 1


def test_missing_results_are_counted_and_left_out_only_when_asked(tmp_path, evaluate):
    data = lasot_tree(tmp_path / "LaSOT", "a-1", "b-1")
    shown(tmp_path / "r/a-1.txt", *lines(MOVING))
    command = ("lasot", "--data", data, "--results", tmp_path / "r")
    code, _, error = evaluate(*command, "--out", tmp_path / "o")
    assert code == 3
    assert "no results for 1 of 2 tasks (b-1); wanted SEQUENCE.txt, x,y,w,h per line" in error
    code, figures, _ = evaluate(*command, "--partial", "--out", tmp_path / "p")
    assert (code, figures["lasot_matlab/AUC"]) == (0, f"{CEILING:.2f}")
    assert "**Partial: 1 of 2 tasks have no results" in (tmp_path / "p/report.md").read_text()
    (tmp_path / "empty").mkdir()
    code, _, error = evaluate("lasot", "--data", data, "--results", tmp_path / "empty", "--out", tmp_path / "q")
    assert code == 3
    assert "empty: missing or empty; wanted result files SEQUENCE.txt" in error


def test_results_are_found_in_the_folder_of_one_tracker(tmp_path, evaluate):
    data = lasot_tree(tmp_path / "LaSOT", "a-1")
    shown(tmp_path / "tracking_results/ostrack/vitb_256/a-1.txt", *(line.replace(",", "\t") for line in lines(MOVING)))
    shown(tmp_path / "tracking_results/ostrack/vitb_256/a-1_time.txt", *["0.02"] * 8)
    for place in (tmp_path / "tracking_results", tmp_path / "tracking_results/ostrack/vitb_256"):
        code, figures, _ = evaluate(
            "lasot", "--data", data, "--results", place, "--out", tmp_path / f"o{len(place.parts)}"
        )
        assert (code, figures["lasot_matlab/AUC"]) == (0, f"{CEILING:.2f}")
    summary = json.loads((tmp_path / f"o{len(place.parts)}/summary.json").read_text())
    assert summary["figures"]["fps"] == pytest.approx(50)
    shown(tmp_path / "tracking_results/other/a-1.txt", *lines(MOVING))
    with pytest.raises(InputError, match="give the folder of one tracker as --results"):
        result_file(tmp_path / "tracking_results", "a-1", "")
    shown(tmp_path / "tracking_results/ostrack/vitb_256/a-1_time.txt", "0.02", "fast")
    code, _, error = evaluate("lasot", "--data", data, "--results", place, "--out", tmp_path / "t")
    assert code == 3
    assert "a-1_time.txt: line 2 is 'fast', wanted the seconds of a frame" in error


def test_a_model_needs_frames_and_results_do_not(tmp_path, evaluate, tiny):
    data = lasot_tree(tmp_path / "LaSOT", "a-1")
    code, _, error = evaluate("lasot", "--data", data, "--model", tiny, "--out", tmp_path / "o")
    assert code == 3
    assert "no frames; unpack them to run a model, or score --results without them" in error


def test_figures_of_a_part_of_the_list_say_so(tmp_path, evaluate):
    data = lasot_tree(tmp_path / "LaSOT", "a-1", "b-1")
    (data / "annos/b-1.txt").unlink()
    shown(tmp_path / "r/a-1.txt", *lines(MOVING))
    evaluate("lasot", "--data", data, "--results", tmp_path / "r", "--out", tmp_path / "o")
    assert "**Only 1 of the list's 2 sequences are here.**" in (tmp_path / "o/report.md").read_text()


def test_attributes_have_a_table_and_bars(tmp_path, drawn):
    data = lasot_tree(tmp_path / "LaSOT", "a-1", "b-1")
    shown(data / "annos/att/a-1.txt", ",".join("10000000000000"))
    shown(data / "annos/att/b-1.txt", ",".join("11000000000000"))
    code, _, _ = drawn("lasot", "--data", data, "--model", "first-box", "--out", tmp_path / "o")
    assert code == 0
    report = (tmp_path / "o/report.md").read_text()
    assert [line.split("|")[1].strip() for line in report.splitlines() if line.startswith(("| IV", "| POC"))] == [
        "IV",
        "POC",
    ]
    for picture in ("success", "precision", "normalised_precision", "by_attribute"):
        assert (tmp_path / f"o/{picture}.png").exists()


# Real files


def test_perfect_results_on_the_real_lasot_reach_the_ceiling_less_what_is_absent(shared, tmp_path):
    kit = Lasot(shared / "data/lasot", "test")
    for task, sequence in kit.by_name.items():
        shutil.copy(sequence.boxes, tmp_path / f"{task}.txt")
    figures = kit.summarise([row for task in kit.tasks() for row in kit.score(task, tmp_path)])
    truths = [sequence.truth() for sequence in kit.by_name.values()]
    visible = [((truth.boxes > 0).all(axis=1) & ~truth.absent).mean() for truth in truths]  # one has a height of 0
    assert figures["lasot_matlab/AUC"] == pytest.approx(CEILING * np.mean(visible))
    assert figures["pytracking_lasot/AUC"] == pytest.approx(CEILING * np.mean(visible), abs=1e-4)
    assert "**Only 42 of the list's 280 sequences are here.**" in kit.protocol


def test_real_annotations_of_tnl2k_score_and_the_odd_sequence_takes_either_length(shared, tmp_path):
    odd = "advSamp_monitor_bikeyellow"
    with tarfile.open(shared / "data/tnl2k/annos/annos.tar.gz") as archive:
        names = {f"annos/gt_rect/{odd}.txt", f"annos/absent/{odd}.txt", f"annos/att/{odd}_attribute.txt"}
        archive.extractall(tmp_path, [m for m in archive.getmembers() if m.name in names], filter="data")
    kit = Tnl2k(tmp_path, "all")
    boxes = (tmp_path / f"annos/gt_rect/{odd}.txt").read_text().split()
    for count in (929, 930):
        shown(tmp_path / f"r/{odd}.txt", *[*boxes, boxes[-1]][:count])
        (row,) = kit.score(odd, tmp_path / "r")
        assert row.said["note"] == "929 boxes and 930 flags: cut to 929"
        assert row.figures["lasot_matlab/frames"] == 929
    shown(tmp_path / f"r/{odd}.txt", *boxes, boxes[-1], boxes[-1])
    with pytest.raises(InputError, match="goes on after line 929"):
        kit.score(odd, tmp_path / "r")


def test_the_truth_of_sportsmot_is_perfect_and_results_on_mot15_are_those_of_mmtracking(shared, tmp_path):
    kit = Mot(shared / "data/mot/sportsmot", "val")
    (task,) = kit.tasks()
    (tmp_path / f"{task}.txt").write_text((kit.by_name[task].folder / "gt/gt.txt").read_text())
    figures = kit.summarise(kit.score(task, tmp_path))
    assert (figures["HOTA"], figures["MOTA"], figures["IDF1"]) == pytest.approx((100, 100, 100))
    assert "Only 1 of the list's 45 sequences" in kit.protocol
    root = shared / "data/mot/mot15_tud"
    kit = Mot(root, "train")
    figures = kit.summarise([row for task in kit.tasks() for row in kit.score(task, root / "train/results")])
    assert [round(figures[name], 1) for name in ("MOTA", "IDF1", "HOTA")] == [55.5, 62.4, 40.0]
    assert (figures["FP"], figures["FN"], figures["IDSW"]) == (58, 602, 14)


def test_a_broken_line_of_a_mot_result_is_named(trees, tmp_path, evaluate):
    kit = Mot(trees, "test")
    for task in kit.tasks():
        shown(tmp_path / f"r/{task}.txt", "1,1,2,3,4,5,1,-1,-1,-1", "99,1,2,3,4,5,1,-1,-1,-1")
    command = ("mot", "--data", trees, "--split", "test", "--results", tmp_path / "r", "--out", tmp_path / "o")
    code, _, error = evaluate(*command)
    assert code == 3
    assert f"{kit.tasks()[0]}.txt, line 2: frame 99 of a sequence whose frames are 1 to {FRAMES}" in error
