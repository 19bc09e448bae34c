"""SynthTrack-Interact: scripts whose truth is exact, their files, a run as a sequence, and a user who corrects."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from command_line import command_of
from toy_systems import ToyImat, scene

from data_tools.box_writers import boxes_of_object, write_interacttrack
from data_tools.check import check_tree
from eval import __main__ as evaluation
from eval.corrections import User, corrections_summary, watch, watch_sequence
from eval.kits.box_sequences import OneTarget
from eval.kits.interacttrack import InteractTrack
from trackgpt.data.box_video import INTERACTION, interacttrack
from trackgpt.errors import InputError, OutputError
from trackgpt.export.exporting import export
from trackgpt.export.prompts import written_prompt
from trackgpt.export.records import EventRecord, ObjectRecord, RunFolder, TrackRecord
from trackgpt.synthtrack.clips import make_case
from trackgpt.synthtrack.interaction import KINDS, LEFT_OUT, SAID, Script, scene_flags, script_of, write_script
from trackgpt.synthtrack.language import Seen
from trackgpt.types import Prediction, Prompt

FRAMES, SCENES = 24, 8


def seen(number: int, category: str, colour: str, x: float) -> Seen:
    """A clear actor whose box begins at x, a share of the frame's width."""
    return Seen(number, category, colour, "medium", (x, 0.4, x + 0.15, 0.6), 0.03, 1.0)


RED, BLUE, CLOCK = seen(1, "dog", "red", 0.05), seen(2, "dog", "blue", 0.4), seen(3, "clock", "green", 0.75)
LEAVING = [[RED, BLUE, CLOCK]] * 12 + [[BLUE, CLOCK]] * 6 + [[RED, BLUE, CLOCK]] * 12


def scripts(frames: list[list[Seen]], count: int = 40, split: str = "test") -> list[Script]:
    made = [write_script(frames, "free", [None] * len(frames), split, np.random.default_rng(k)) for k in range(count)]
    return [script for script in made if script is not None]


@pytest.fixture(scope="module")
def leaving():
    """Scripts of 30 frames on which the red dog is out of sight from 12 to 17."""
    return scripts(LEAVING)


@pytest.fixture(scope="module")
def cases():
    return [make_case(40_000 + index, frames=FRAMES, longest=96) for index in range(SCENES)]


@pytest.fixture(scope="module")
def written(cases, tmp_path_factory):
    """(tree, cases that have a script)."""
    root = tmp_path_factory.mktemp("data") / "InteractTrack"
    counts = write_interacttrack(root, cases, "test")
    told = [case for case in cases if script_of(case.scene, case.clip.ids)]
    assert (counts.videos, counts.skipped) == (len(told), len(cases) - len(told))
    return root, told


def sequences(written):
    root, told = written
    by_name = {sequence.name: sequence for sequence in interacttrack(root, "test").sequences}
    for case in told:
        script = script_of(case.scene, case.clip.ids)
        yield by_name[f"v_{case.clip.name}-{script.said[0].targets[0]}"], case, script


# Scripts


def test_every_kind_but_the_one_that_needs_parts_is_said_and_none_too_rarely(leaving):
    counts = Counter(each.kind for script in leaving for each in script.said)
    assert set(counts) == set(KINDS) - set(LEFT_OUT)
    assert set(LEFT_OUT) == {"refine"}
    assert min(counts.values()) >= 5


def test_the_same_seed_says_the_same_and_another_one_says_something_else(cases):
    case = cases[0]
    again = make_case(40_000, frames=FRAMES, longest=96)
    assert script_of(case.scene, case.clip.ids) == script_of(again.scene, again.clip.ids)
    assert len(set(scripts([[RED, BLUE, CLOCK]] * 20, count=10))) > 5


def test_the_truth_follows_from_what_is_said_frame_by_frame(leaving):
    for script in leaving:
        assert len(script.followed) == len(LEAVING)
        assert [each.frame for each in script.said] == sorted({each.frame for each in script.said})
        now = script.said[0]
        for t, followed in enumerate(script.followed):
            new = next((each for each in script.said[1:] if each.frame == t), None)
            if new is not None:
                if new.kind in ("correct", "state", "absence", "question"):
                    assert (new.targets, new.instead, new.old) == (now.targets, now.instead, 0)
                if new.kind in ("switch", "resume"):
                    assert new.old == script.followed[t - 1][0] or now.instead
                    assert new.targets[0] != new.old
                if new.kind == "resume":
                    assert any(new.targets[0] in each.targets for each in script.said if each.frame < t)
                if new.kind == "add":
                    assert new.targets[:-1] == now.targets
                if new.kind == "drop":
                    assert set(new.targets) < set(now.targets)
                now = new
            hidden = now.targets[0] not in {one.id for one in LEAVING[t]}
            assert followed == ((now.instead,) if now.instead and hidden else now.targets)


def test_a_condition_has_the_target_change_without_a_word_and_back(leaving):
    changes = []
    for script in leaving:
        spoken = {each.frame for each in script.said}
        changes += [t for t in range(1, 30) if script.followed[t][0] != script.followed[t - 1][0] and t not in spoken]
    assert set(changes) == {12, 18}


def test_absence_is_hinted_at_shortly_before_or_while_the_target_is_out_of_sight(leaving):
    hints = [(each, script) for script in leaving for each in script.said if each.kind == "absence"]
    assert hints
    for each, script in hints:
        main = script.followed[each.frame][0]
        assert any(main not in {one.id for one in LEAVING[t]} for t in range(each.frame, each.frame + 4))


def test_a_short_correction_leaves_the_noun_out_only_where_it_was_said_and_the_colour_tells():
    for script in scripts([[RED, BLUE, CLOCK]] * 20):
        for t, (short, full) in enumerate(script.corrections):
            said = " ".join(each.text for each in script.said if each.frame <= t)
            name = {1: "red", 2: "blue", 3: "green"}[script.followed[t][0]]
            carried = f"the {name} one"
            assert short.endswith(carried) or short.endswith(full)
            if short.endswith(carried) and full != carried:
                assert ("clock" if name == "green" else "dog") in said


def test_what_is_out_of_sight_is_corrected_by_nobody():
    script = scripts([[RED, BLUE]] * 4 + [[BLUE]] * 4, count=1)[0]
    for t, (short, full) in enumerate(script.corrections):
        hidden = t >= 4 and script.followed[t][0] == 1
        assert (short == full == "") == hidden


def test_training_never_hears_the_last_wording_and_tests_do():
    last = {table: wordings[-1].split("{")[0] for table, wordings in SAID.items() if wordings[-1][0] != "{"}
    heard = {
        split: [each.text for s in scripts([[RED, BLUE, CLOCK]] * 20, 30, split) for each in s.said[1:]]
        for split in ("train", "test")
    }
    assert not [text for text in heard["train"] if text.startswith(tuple(last.values()))]
    assert len([text for text in heard["test"] if text.startswith(tuple(last.values()))]) > 10


def test_nothing_is_said_where_nothing_can_be_named_alone():
    twins = [seen(1, "dog", "red", 0.1), seen(2, "dog", "red", 0.13)]
    assert scripts([twins] * 4, count=3) == []


# Files


def test_a_sequence_is_read_back_equal_to_its_script(written):
    for sequence, case, script in sequences(written):
        video = sequence.video()
        assert sequence.script() == script
        assert [(p.frame, p.text) for p in video.prompts] == [(each.frame, each.text) for each in script.said]
        boxes = {actor.id: boxes_of_object(case.clip.ids, actor.id) for actor in case.scene.actors}
        truth = np.array([boxes[ids[0]][t] for t, ids in enumerate(script.followed)])
        np.testing.assert_array_equal(sequence.written_boxes(), truth)
        np.testing.assert_array_equal(np.isnan(video.boxes).any(axis=1), ~truth.any(axis=1))
        old = np.zeros((FRAMES, 4))
        for each in script.said:
            old[each.frame] = boxes[each.old][each.frame] if each.old else 0
        np.testing.assert_array_equal(sequence.old_targets()[:FRAMES], old)
        assert video.attributes == set(scene_flags(case.scene, script))
        assert len(video) == FRAMES


def test_prompts_with_an_old_target_in_sight_are_switches(written):
    for sequence, case, script in sequences(written):
        said = {each.frame: each for each in script.said}
        for prompt in sequence.prompts()[1:]:
            old = said[prompt.frame].old
            in_sight = bool(old and (case.clip.ids[prompt.frame] == old).any())
            assert prompt.kind == ("switch" if in_sight else "correct")


def test_a_script_that_does_not_fit_its_sequence_is_refused(written, tmp_path):
    root, _ = written
    sequence = interacttrack(root, "test").sequences[0]
    values = json.loads(sequence.interaction.read_text())
    for change, wanted in (
        ({"said": []}, "wanted 0 first"),
        ({"followed": values["followed"][:-1]}, "wanted one and a target each"),
        ({"corrections": 3}, "holds no script"),
        ({"said": [{**values["said"][0], "text": "the moon"}]}, "says other things than"),
    ):
        path = tmp_path / INTERACTION
        path.write_text(json.dumps(values | change))
        with pytest.raises(InputError, match=wanted) as refused:
            replace(sequence, interaction=path).script()
        assert str(refused.value).startswith(str(path))


def test_a_sound_tree_passes_the_check_and_each_fault_is_one_line(written, tmp_path):
    root, told = written
    report = check_tree("interacttrack", root)
    assert report.problems == []
    assert report.counts["test"]["videos"] == len(told)
    copy = tmp_path / "InteractTrack/a"
    copy.mkdir(parents=True)
    (copy / "groundtruth.txt").write_text("1,1,5,5\n0\n")
    (copy / "description.txt").write_text("the dog\n\n\nthe cat\n")
    (copy / "switch.txt").write_text("\n3,3,5,5\n")
    (copy / "scene.txt").write_text("0,0,1\n")
    found = [str(problem) for problem in check_tree("interacttrack", tmp_path).problems]
    assert found == [
        "a/description.txt: something is said on frame 3 of 2; wanted a frame",
        "a/switch.txt: a switch on frame 1, where nothing is said; wanted switches on prompts",
        "a/scene.txt: 3 flags, wanted 6; is it the file of another sequence?",
    ]
    (copy / "groundtruth.txt").unlink()
    (first, *_) = check_tree("interacttrack", tmp_path).problems
    assert str(first).startswith("a/groundtruth.txt: missing; wanted x,y,w,h of the target")


def test_the_truth_is_perfect_in_the_kit(written, tmp_path):
    kit, rows = InteractTrack(written[0], "test"), []
    for task in kit.tasks():
        boxes = kit.by_name[task].written_boxes()
        (tmp_path / f"{task}.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes.tolist()))
        rows += kit.score(task, tmp_path)
    figures = kit.summarise(rows)
    assert figures["paper/Interactive"] == figures["paper/Responsiveness"] == figures["paper/Accuracy"] == 100
    assert figures["switches"] > 3
    assert {figures[name] for name in figures if name.startswith("after/")} == {100}
    assert "after/start" in figures


# A run as a sequence


def logged(path, said: dict[int, Prompt], objects: list[dict[int, tuple[float, ...] | None]], first: int = 0):
    """A run of these boxes by id for each frame, surest first."""
    with RunFolder(path) as run:
        for seq, (index, prompt) in enumerate(said.items()):
            run.event(EventRecord.of(seq, "instruction", index, index / 10, **written_prompt(prompt)))
        for index, here in enumerate(objects, first):
            items = tuple(
                ObjectRecord(number, box, None, 0.9 - 0.1 * k, "tracked" if box else "absent")
                for k, (number, box) in enumerate(here.items())
            )
            run.track(TrackRecord(index, index / 10, (60, 80), items))
    return path


A, B = (1.0, 2.0, 11.5, 22.0), (30.25, 2.0, 40.0, 12.0)


def test_a_session_exports_as_a_sequence_that_the_reader_reads_back(tmp_path):
    said = {0: Prompt("the dog"), 2: Prompt("no, the\nred one", 2, "correct"), 4: Prompt("the cat", 4, "switch")}
    run = logged(tmp_path / "runs/mine", said, [{1: A}, {1: None}, {1: A}, {1: B}, {2: B}, {2: B, 1: A}])
    assert export(run, ["interacttrack"]) == {"interacttrack": run / "groundtruth.txt"}
    (sequence,) = interacttrack(tmp_path / "runs", "test").sequences
    assert sequence.name == "mine"
    prompts = [(prompt.frame, prompt.text, prompt.kind) for prompt in sequence.prompts()]
    assert prompts == [(0, "the dog", "start"), (2, "no, the red one", "correct"), (4, "the cat", "switch")]
    np.testing.assert_array_equal(sequence.truth().xyxy(), np.float32([A, [np.nan] * 4, A, B, B, B]))
    assert sequence.old_targets().tolist() == [[0] * 4] * 4 + [[30.25, 2, 9.75, 10]] + [[0] * 4]
    assert (run / "meta_info.ini").read_text() == "[METAINFO]\nfps: 10\nresolution: (80, 60)\n"


def test_words_that_were_undone_are_not_exported_and_lines_are_frames_that_were_tracked(tmp_path):
    run = logged(tmp_path / "runs/mine", {7: Prompt("the dog", 7)}, [{}, {1: A}], first=7)
    with (run / "events.jsonl").open("a") as events:
        events.write(EventRecord.of(1, "instruction", 8, 0.8, text="the cat", kind="switch").to_json() + "\n")
        events.write(EventRecord.of(2, "undo", 8, 0.8, text="the cat", frame=8, recorded=False).to_json() + "\n")
    export(run, ["interacttrack"])
    (sequence,) = interacttrack(tmp_path / "runs", "test").sequences
    assert [(prompt.frame, prompt.text) for prompt in sequence.prompts()] == [(0, "the dog")]


def test_a_run_without_words_cannot_be_a_sequence(tmp_path):
    with pytest.raises(OutputError, match="nothing was said in words"):
        export(logged(tmp_path / "r", {}, [{1: A}]), ["interacttrack"])


# A user who corrects


def two_squares(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of a red and a blue square, and the box of the blue one."""
    frames = [scene(red=(4, 10 + t), blue=(50, 20)) for t in range(count)]
    return frames, np.tile(np.float32([50, 20, 62, 32]), (count, 1))


def test_a_user_corrects_after_so_many_wrong_frames_and_then_is_content():
    frames, truth = two_squares(12)
    start = {0: "the red square"}
    watched = watch(ToyImat().tracker(), frames, truth, start, lambda t: "no, the blue one", User(patience=3))
    assert watched.corrections == ((3, "no, the blue one"),)
    assert [(t, one.kind) for t, one in watched.heard] == [(0, "start"), (3, "correct")]
    assert watched.overlaps.tolist() == [0] * 3 + [1] * 9
    assert watched.settled
    silent = watch(ToyImat().tracker(), frames, truth, start, lambda t: "no, the blue one", User(says="nothing"))
    assert (silent.corrections, silent.settled) == ((), False)
    figures = corrections_summary([watched, silent])
    assert (figures["corrections"], figures["settled"]) == (0.5, 50)
    assert figures["right"] == figures["iou"] == pytest.approx(100 * 9 / 24)
    assert figures["groundings"] * 2 == sum(reason != "" for each in (watched, silent) for reason in each.reasons)
    assert figures["end_to_end_fps"] > 0


def test_a_correction_waits_for_what_is_said_anyway_and_absent_frames_count_for_nothing():
    frames, truth = two_squares(10)
    truth[1:4] = np.nan
    said = {0: "the red one", 6: "switch to the red one"}
    watched = watch(ToyImat().tracker(), frames, truth, said, lambda t: "the blue one", User(patience=3))
    assert watched.corrections == ((9, "the blue one"),)  # wrong on 0, 4, 5; spoken to on 6; wrong on 6, 7, 8
    assert np.isnan(watched.overlaps[1:4]).all()


def test_a_user_of_synthtrack_interact_says_the_scripts_words_for_the_frame(written):
    class Deaf(ToyImat):
        """Hears everything and sees nothing."""

        def reason(self, frame, state, prompt):
            heard.append((state.frame, prompt.text if prompt else ""))
            return super().reason(frame, state, None if prompt is None else replace(prompt, text="the yellow one"))

    for sequence, _, script in list(sequences(written))[:2]:
        heard: list[tuple[int, str]] = []
        watched = watch_sequence(Deaf().tracker(), sequence, User(patience=2, says="short"))
        needed = {e.frame for e in script.said if e.kind in ("start", "conditional") or e.old}
        assert watched.corrections
        for t, text in watched.corrections:
            assert text == script.corrections[t][0] != ""
            assert t not in needed


def test_the_command_prints_a_line_per_video_and_keeps_the_videos(written, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eval.trackers.Choice.load", lambda self: ToyImat().tracker())
    eval_command = command_of(capsys, monkeypatch, evaluation.main)
    out = tmp_path / "corrections.json"
    asked = ("corrections", "--model", "toy", "--data", written[0], "--limit", 2, "--patience", 2, "--out", out)
    done = eval_command(*asked)
    assert done.code == 0
    assert len(done.out.splitlines()) == 2 + 2 + 1  # a head of two lines, two videos, the figures
    kept = json.loads(out.read_text())
    assert [len(video["overlaps"]) for video in kept["videos"]] == [FRAMES] * 2
    assert float(done.values()["corrections"]) == pytest.approx(kept["figures"]["corrections"], abs=0.01)
    assert kept["user"] == {"patience": 2, "says": "full"}
    again = eval_command(*asked)
    assert again.code == 6
    assert "--overwrite" in again.err


def test_an_added_target_does_not_become_the_one_that_is_scored():
    boxes = np.float32([[0, 0, 2, 2], [4, 4, 8, 8]])
    both = Prediction(boxes, None, np.float32([0.3, 0.6]), np.ones(2, bool), np.array([1, 2]), reason="prompt")
    one = replace(both, boxes=boxes[:1], scores=both.scores[:1], present=both.present[:1], ids=both.ids[:1])
    target = OneTarget()
    assert target.box(one).tolist() == [0, 0, 2, 2]
    assert target.box(replace(both, verdict="add")).tolist() == [0, 0, 2, 2]
    assert target.box(replace(both, verdict="switch")).tolist() == [4, 4, 8, 8]
