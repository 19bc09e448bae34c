"""davis-text on a DAVIS written here, figures of rows whose content is known, and speed with counts too small to mean
anything: what is checked of speed is that every part runs and that its numbers are numbers."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_trackgpt

from eval.__main__ import main
from eval.commands import davis_text, figures, speed
from eval.kits import davis_text as kit
from eval.kits import synthtrack
from trackgpt.errors import InputError, UsageError
from trackgpt.types import Cue, Prediction

HEADER = "video_id;instance_id;ref_exp;ref_exp_difficulty;ref_exp_information\n"
SAID = (
    "walk;1;a dog, walking;Trivial;Redundant\n"
    + "pair;2;the one on the right;Non-trivial;Minimum\n"
    + "pair;1;the one on the left;Non-trivial;Minimum\n"
    + "crowd;1;a boy;Trivial;Minimum\ncrowd;2;a bike;Trivial;Minimum\n"
    + "elsewhere;1;a swan;Trivial;Redundant"
)
FRAMES, HEIGHT, WIDTH = 4, 24, 40


def write_sequence(root: Path, name: str, labels: np.ndarray, size: str = "480p", palette: bool = True) -> None:
    """Frames and masks of labels, uint8 (T, height, width)."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / size / name).mkdir(parents=True)
    for t, label in enumerate(labels):
        frame = np.full((*label.shape, 3), 20 * t, np.uint8)
        frame[label > 0] = 200
        Image.fromarray(frame).save(root / "JPEGImages" / size / name / f"{t:05d}.jpg")
        mask = Image.fromarray(label)
        if palette:
            mask.putpalette([value // 3 for value in range(768)])
        mask.save(root / "Annotations" / size / name / f"{t:05d}.png")


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    """A DAVIS of four sequences, with its csv.

    `walk` has 2016 masks of one object, `pair` ids of two, `crowd` a 2016 mask of two, `quiet` no expression. `pair` is
    there in 240p too.
    """
    root = tmp_path_factory.mktemp("davis")
    walk = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    walk[:, 4:12, 4:12] = 255
    pair = np.zeros_like(walk)
    pair[:, 2:10, 2:12] = 1
    pair[:, 2:10, 24:34] = 2
    pair[:, 20:, :] = 255  # void
    write_sequence(root, "walk", walk, palette=False)
    write_sequence(root, "pair", pair)
    write_sequence(root, "pair", pair[:, ::2, ::2], size="240p")
    write_sequence(root, "crowd", walk, palette=False)
    write_sequence(root, "quiet", pair)
    (root / "said.csv").write_text(HEADER + SAID, encoding="utf-8-sig")
    return root


@pytest.fixture(scope="module")
def footage(davis) -> dict[str, kit.Footage]:
    found, _ = kit.find_sequences(davis, kit.read_expressions(davis / "said.csv"))
    return {each.name: each for each in found}


class Marking:
    """Marks the same pixels on every frame, bool (height, width), or with `forgets` on the first one alone."""

    def __init__(self, mask: np.ndarray, score: float = 0.5, forgets: bool = False) -> None:
        self.mask, self.score, self.forgets = mask, score, forgets

    def initialize(self, frame, prompt):
        self.asked = prompt.text
        return self.see(self.mask, "prompt")

    def track(self, frame, prompt=None):
        return self.see(self.mask & (not self.forgets), "")

    def see(self, mask, reason):
        one, boxes = np.ones(1), np.full((1, 4), np.nan, np.float32)
        scores = np.full(1, self.score, np.float32)
        return Prediction(boxes, mask[None], scores, one > 0, one.astype(np.int64), Cue("Sure."), reason)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def last_line(text: str) -> dict[str, float]:
    return {key: float(value) for key, value in (pair.split("=") for pair in text.splitlines()[-1].split())}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a tiny model in nano's layout."""
    folder = tmp_path_factory.mktemp("model")
    tiny_trackgpt("conv", "conv", tied=True, max_instruction_tokens=99).save_pretrained(folder)
    return folder


# davis-text: what is read


def test_expressions_are_read_by_sequence_and_object(davis):
    said = kit.read_expressions(davis / "said.csv")
    assert list(said) == ["crowd", "elsewhere", "pair", "walk"]
    assert [(e.object, e.text) for e in said["pair"]] == [(1, "the one on the left"), (2, "the one on the right")]
    assert said["walk"][0] == kit.Expression("walk", 1, "a dog, walking", "Trivial")


def test_the_61_expressions_of_refvos_name_61_objects_of_30_videos(shared):
    path = shared / "data/refer_davis17/refvos_text/RE_categorization/DAVIS17_RE_categorization.csv"
    said = kit.read_expressions(path)
    assert len(said) == 30
    assert sum(len(group) for group in said.values()) == 61
    assert all([e.object for e in group] == list(range(1, len(group) + 1)) for group in said.values())
    assert sum(len(group) == 1 for group in said.values()) == 13


def test_every_sequence_of_the_sample_has_one_object_and_can_be_scored(shared):
    said = kit.read_expressions(
        shared / "data/refer_davis17/refvos_text/RE_categorization/DAVIS17_RE_categorization.csv"
    )
    found, left_out = kit.find_sequences(shared / "data/davis", said)
    assert left_out == []
    assert {len(each.expressions) for each in found} == {1}
    assert [each.name for each in found if each.resolution == "480p"] == [
        "blackswan",
        "car-shadow",
        "dog",
        "drift-chicane",
        "drift-straight",
        "libby",
    ]
    assert len(found) == 10
    frames, labels = kit.load(found[0])
    assert frames.shape == (50, 480, 854, 3)
    assert labels.shape == (50, 480, 854)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column video_id, instance_id, ref_exp"),
        ("video_id,instance_id,ref_exp\n", "no column"),
        (HEADER + "walk;one;a dog;Trivial;x\n", "line 2 reads 'walk', 'one'"),
        (HEADER + "walk;1;a dog;Trivial;x\nwalk;1;;Trivial;x\n", "line 3"),
        (HEADER + "walk\n", "line 2"),
    ],
)
def test_a_file_that_is_not_refvos_csv_says_where(tmp_path, text, words):
    (tmp_path / "said.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        kit.read_expressions(tmp_path / "said.csv")


def test_a_2016_mask_of_several_objects_is_left_out_and_said_so(davis):
    found, left_out = kit.find_sequences(davis, kit.read_expressions(davis / "said.csv"))
    assert [(each.name, each.resolution, each.union) for each in found] == [
        ("pair", "480p", False),
        ("walk", "480p", True),
    ]
    assert left_out == ["crowd: its DAVIS-2016 masks are the union of 2 objects", "quiet: no expression"]


def test_240p_is_taken_where_it_is_asked_for_or_all_there_is(davis, tmp_path):
    said = kit.read_expressions(davis / "said.csv")
    found, _ = kit.find_sequences(davis, said, "240p")
    assert [(each.name, each.resolution) for each in found] == [("pair", "240p")]
    write_sequence(tmp_path, "pair", np.ones((2, 8, 8), np.uint8), size="240p")
    assert kit.find_sequences(tmp_path, said)[0][0].resolution == "240p"


def test_a_frame_without_a_mask_is_named(tmp_path):
    write_sequence(tmp_path, "walk", np.ones((3, 8, 8), np.uint8))
    (tmp_path / "Annotations/480p/walk/00001.png").unlink()
    found, _ = kit.find_sequences(tmp_path, {"walk": (kit.Expression("walk", 1, "a dog", ""),)})
    with pytest.raises(InputError, match=r"frame 00001: .*00001.png is missing"):
        kit.load(found[0])


def test_a_mask_of_another_size_than_its_frame_is_refused(tmp_path):
    write_sequence(tmp_path, "walk", np.ones((2, 8, 8), np.uint8))
    Image.fromarray(np.ones((8, 9), np.uint8)).save(tmp_path / "Annotations/480p/walk/00001.png")
    found, _ = kit.find_sequences(tmp_path, {"walk": (kit.Expression("walk", 1, "a dog", ""),)})
    with pytest.raises(InputError, match=r"shape \(8, 9\) for a frame of \(8, 8\)"):
        kit.load(found[0])


def test_an_object_that_no_mask_shows_is_an_error_not_a_score(footage):
    frames, labels = kit.load(footage["pair"])
    nobody = kit.Expression("pair", 3, "the third", "")
    with pytest.raises(InputError, match="object 3 .* is in none of the masks"):
        kit.evaluate(footage["pair"], nobody, frames, labels, Marking(labels[0] == 1))


# davis-text: what is scored


def test_each_expression_is_scored_against_its_own_object_over_all_frames(footage):
    pair = footage["pair"]
    frames, labels = kit.load(pair)
    left = Marking(labels[0] == 1)
    rows = [kit.evaluate(pair, said, frames, labels, left) for said in pair.expressions]
    assert left.asked == "the one on the right"
    # The left one twice: right for the left expression, wrong for the right one. Nothing is matched afterwards.
    assert [(row.object, row.j, row.f) for row in rows] == [(1, 1.0, 1.0), (2, 0.0, 0.0)]
    assert [row.frames for row in rows] == [FRAMES, FRAMES]
    forgetful = kit.evaluate(pair, pair.expressions[0], frames, labels, Marking(labels[0] == 1, forgets=True))
    assert forgetful.j == 1 / FRAMES  # the first frame counts, and so does the last


def test_void_counts_as_background(footage):
    pair = footage["pair"]
    frames, labels = kit.load(pair)
    # 8 x 10 pixels of the object and 4 x 40 of void.
    both = kit.evaluate(pair, pair.expressions[0], frames, labels, Marking((labels[0] == 1) | (labels[0] == 255)))
    assert both.j == pytest.approx(80 / (80 + 160))


def test_a_2016_mask_is_the_object(footage):
    walk = footage["walk"]
    frames, labels = kit.load(walk)
    row = kit.evaluate(walk, walk.expressions[0], frames, labels, Marking(labels[0] == 255, score=0.75))
    assert (row.j, row.truth, row.resolution, row.answer) == (1.0, "DAVIS-2016", "480p", "Sure.")
    assert (row.scores, row.ious) == ([0.75] * FRAMES, [1.0] * FRAMES)


def test_osvos_results_score_what_the_official_toolkit_gives_them(shared):
    """car-shadow: J .928, F .917 by davis2017-evaluation, whose protocol drops the first and the last frame."""
    said = {"car-shadow": (kit.Expression("car-shadow", 1, "a white car crossing a signal", ""),)}
    found, _ = kit.find_sequences(shared / "data/davis", said)
    frames, labels = kit.load(found[0])
    files = sorted((shared / "data/davis/osvos_results/semi-supervised/osvos/car-shadow").glob("*.png"))

    class Replaying(Marking):
        def see(self, mask, reason):
            with Image.open(next(self.results)) as image:
                return super().see(np.asarray(image) == 1, reason)

    tracker = Replaying(labels[0] == 255)
    tracker.results = iter(files[1:-1])
    row = kit.evaluate(found[0], said["car-shadow"][0], frames[1:-1], labels[1:-1], tracker)
    assert (round(row.j, 3), round(row.f, 3)) == (0.928, 0.917)


def davis_row(sequence: str, j: float, f: float, **fields) -> kit.Row:
    plain = {"answer": "", "refused": False, "rethinks": 0, "frames": 10, "scores": [], "ious": [], **fields}
    return kit.Row(
        sequence=sequence, object=1, resolution="480p", truth="ids", difficulty="", text="", j=j, f=f, **plain
    )


def test_the_mean_is_over_expressions_and_its_interval_draws_sequences():
    rows = [
        davis_row("a", 0.9, 0.7, rethinks=2, scores=[0.2, 0.9], ious=[0.1, 0.8]),
        davis_row("a", 0.5, 0.5, refused=True, scores=[0.5], ious=[0.6]),
        davis_row("b", 0.1, 0.3, frames=20, rethinks=1),
    ]
    summary = kit.summarise(rows)
    assert (summary["J"], summary["F"], summary["J&F"]) == pytest.approx((50, 50, 50))
    # Two sequences: a draw takes a twice (65), b twice (20), or both (50).
    assert (summary["J&F_low"], summary["J&F_high"]) == pytest.approx((20, 65))
    assert (summary["sequences"], summary["expressions"], summary["frames"]) == (2, 3, 40)
    assert summary["refusal_rate"] == pytest.approx(100 / 3)
    assert summary["rethink_rate"] == pytest.approx(7.5)  # 3 of 40 frames
    assert summary["spearman"] == pytest.approx(1)


# davis-text: the command


def follow_davis(davis: Path, model: Path, out: Path, *more: object) -> int:
    return run(
        "davis-text", "--model", model, "--root", davis, "--expressions", davis / "said.csv", "--out", out, *more
    )


def test_davis_text_reports_resumes_and_ends_with_a_line(davis, model, tmp_path, capsys):
    assert follow_davis(davis, model, tmp_path) == 0
    figures_ = last_line(capsys.readouterr().out)
    assert list(figures_) == ["J&F", "J", "F", "sequences"]
    assert figures_["sequences"] == 2
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["sequence"], row["object"]) for row in rows] == [("pair", 1), ("pair", 2), ("walk", 1)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["run"]["protocol"] == "davis-text"
    assert figures_["J&F"] == pytest.approx(summary["summary"]["J&F"], abs=0.005)
    assert set(summary["sequences"]) == {"pair", "walk"}
    report = (tmp_path / "report.md").read_text()
    assert "all frames scored" in report
    assert "crowd: its DAVIS-2016 masks" in report
    # Killed in the second line: what follows makes it whole again.
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text[: text.index("\n") + 50])
    assert follow_davis(davis, model, tmp_path) == 0
    assert (tmp_path / "rows.jsonl").read_text() == text
    assert json.loads((tmp_path / "summary.json").read_text())["summary"] == summary["summary"]


def test_limit_takes_the_first_sequences(davis, model, tmp_path, capsys):
    assert follow_davis(davis, model, tmp_path, "--limit", 1) == 0
    assert last_line(capsys.readouterr().out)["sequences"] == 1
    assert {row.sequence for row in davis_text.read_rows(tmp_path)} == {"pair"}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--root": "nowhere"}, 3, "nowhere: no sequences of 480p or 240p; --root is a folder with JPEGImages/480p"),
        ({"--expressions": "nothing.csv"}, 3, "nothing.csv: cannot be read"),
        ({"--model": "nowhere"}, 4, "MD01"),
        ({"--resolution": "1080p"}, 2, "choose auto, 480p or 240p"),
    ],
)
def test_what_davis_text_lacks_is_said_in_one_line(davis, tmp_path, capsys, change, code, words):
    options = {"--root": davis, "--expressions": davis / "said.csv", "--out": tmp_path, **change}
    assert run("davis-text", *[part for pair in options.items() for part in pair]) == code
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_root_without_named_sequences_is_an_error(davis, tmp_path):
    write_sequence(tmp_path, "quiet", np.ones((2, 8, 8), np.uint8))
    with pytest.raises(InputError, match="none of its 1 sequences can be scored"):
        kit.find_sequences(tmp_path, kit.read_expressions(davis / "said.csv"))


# figures


def synthetic_rows(count: int = 12) -> list[synthtrack.Row]:
    """Rows of two variants with every kind, form and difficulty; J&F of instruction i is i / count."""
    rows = []
    for variant in ("full", "random-object"):
        for i in range(count):
            for kind in ("explicit", "implicit", "multi", "none"):
                value = i / count
                scores = [value] * 3 if variant == "full" else []
                rows.append(
                    synthtrack.Row(
                        video=i,
                        difficulty=("easy", "medium", "hard")[i % 3],
                        kind=kind,
                        form=("category", "part")[i % 2],
                        wording=0,
                        variant=variant,
                        text="",
                        answer="",
                        j=value,
                        f=value,
                        refused=kind == "none",
                        rethinks=0,
                        frames=3,
                        scores=scores,
                        ious=[score / 2 for score in scores],
                    )
                )
    return rows


def write_run(folder: Path, rows: list[synthtrack.Row]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(synthtrack.as_json(row)) + "\n" for row in rows))
    return folder


def test_figures_draws_four_pictures(tmp_path, capsys):
    folder = write_run(tmp_path / "run", synthetic_rows())
    assert run("figures", folder) == 0
    named = dict(pair.split("=") for pair in capsys.readouterr().out.split())
    assert list(named) == ["histogram", "reliability", "breakdown", "variants"]
    for name, path in named.items():
        with Image.open(path) as image:
            assert image.width >= 600, name
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10, name


def test_a_histogram_holds_every_instruction_of_a_kind():
    mine = [row for row in synthetic_rows() if row.variant == "full"]
    figure = figures.histogram(mine, [])
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["explicit", "implicit", "multi", "none"]
    for axis in figure.axes:
        bars = axis.containers[0]
        assert sum(bar.get_height() for bar in bars) == 12
        assert axis.get_title(loc="right") == "mean 45.8, n 12"  # 100 * (0 + 1 + ... + 11) / 144


def test_a_reliability_curve_shows_the_mean_iou_of_each_score():
    mine = [row for row in synthetic_rows() if row.variant == "full"]
    curve, counts = figures.reliability_curve(mine).axes
    line = next(line for line in curve.lines if line.get_label() == "mean")
    np.testing.assert_allclose(line.get_ydata(), np.asarray(line.get_xdata()) / 2)  # the rows' IoU is half the score
    assert sum(bar.get_height() for bar in counts.patches) == pytest.approx(100)


def test_a_breakdown_has_a_bar_for_every_form_and_difficulty_of_a_kind():
    mine = [row for row in synthetic_rows() if row.variant == "full"]
    forms, levels = figures.breakdown(mine).axes
    assert [label.get_text() for label in forms.get_yticklabels()][:2] == ["part  (6)", "category  (6)"]  # best first
    assert [label.get_text() for label in levels.get_yticklabels()] == ["easy  (4)", "medium  (4)", "hard  (4)"] * 3
    # Instructions 1, 3, 5, 7, 9, 11 of 12 are of the form "part".
    assert forms.patches[0].get_width() == pytest.approx(100 * 6 / 12)


def test_pictures_that_the_rows_do_not_allow_are_left_out_and_the_others_are_the_same_each_time(tmp_path):
    only = [replace(row, scores=[], ious=[]) for row in synthetic_rows(1) if row.variant == "random-object"]
    drawn = figures.draw(only, "random-object", tmp_path)
    assert [path.name for path in drawn] == ["histogram.png", "breakdown.png"]
    again = figures.draw(only, "random-object", tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


@pytest.mark.parametrize(("variant", "code", "words"), [("full", 3, "no rows.jsonl"), ("guess", 2, "the run has full")])
def test_figures_says_what_a_folder_lacks(tmp_path, capsys, variant, code, words):
    folder = tmp_path if code == 3 else write_run(tmp_path / "run", synthetic_rows(1))
    assert run("figures", folder, "--variant", variant) == code
    assert words in capsys.readouterr().err


# speed: that it runs, never how fast


def test_contestants_take_turns_after_one_warm_up():
    order = []
    seconds = speed.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each.wall) for name, each in seconds.items()} == {"a": 3, "b": 3}


def test_the_memory_slope_leaves_out_the_first_quarter():
    steady = {frame: 1_000_000 + 5 * frame for frame in range(10, 401, 10)}
    assert speed.memory_slope(steady) == pytest.approx(5)
    grown = {frame: size if frame > 100 else 10 * size for frame, size in steady.items()}
    assert speed.memory_slope(grown) == pytest.approx(5)
    with pytest.raises(UsageError, match="more --stream frames"):
        speed.memory_slope({10: 1})


def test_resident_memory_follows_what_is_held():
    before = speed.resident_bytes()
    held = np.ones(64 * 2**20, np.uint8)
    assert speed.resident_bytes() - before > 32 * 2**20
    assert held.size


LAST = {
    "tracker": ["ratio", "ratio_file", "fps"],
    "state": ["state_bytes", "growth_bytes", "rss_slope_bytes_per_frame"],
    "data": ["data_fps_128", "data_fps_256", "data_ms_128"],
    "import": ["import_ms", "first_mask_s", "over_torch_s"],
    "forced": ["forced_ratio", "one_forward_ratio"],
}
TINY = ["--pairs", 1, "--frames", 3, "--stream", 60, "--size", 48, 64]


def in_this_process(program: str):
    """Runs what a fresh process would, here, where torch is loaded already."""
    return lambda: exec(program, {})


@pytest.mark.parametrize("part", LAST)
def test_a_part_of_speed_runs_and_its_last_line_parses(part, model, monkeypatch, capsys):
    monkeypatch.setattr(speed, "_process", in_this_process)
    assert run("speed", "--only", part, "--model", model, *TINY) == 0
    out = capsys.readouterr().out
    last = last_line(out)
    assert list(last) == LAST[part]
    assert all(math.isfinite(value) for value in last.values())
    assert "commit" in out


def test_speed_writes_every_part_with_its_conditions(model, tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert run("speed", "--only", "data", "--only", "state", "--model", model, "--out", path, *TINY) == 0
    assert list(last_line(capsys.readouterr().out)) == LAST["state"]  # one line a part, in the order asked for
    saved = json.loads(path.read_text())
    assert list(saved["parts"]) == ["data", "state"]
    assert {"load", "threads", "versions", "commit", "plan"} <= set(saved["conditions"])
    values = [value for part in saved["parts"].values() for line in part["lines"] for value in line["values"]]
    assert values
    assert all(value is not None and math.isfinite(value) for value in values)


def test_the_state_of_a_track_does_not_grow_while_the_brain_is_asked_again(model):
    part = speed.measure_state(speed.Plan(str(model), stream=60, height=48, width=64))
    assert part.last["growth_bytes"] == 0
    assert part.last["state_bytes"] > 0
    assert "1 rethinks" in next(line.how for line in part.lines if line.quantity == "process, growth")


def test_several_targets_are_tracked_at_once(model):
    plan = speed.Plan(str(model), pairs=1, frames=2, height=48, width=64, targets=3)
    loaded = speed._model(plan)
    cue = speed._cue(loaded, np.zeros((48, 64, 3), np.uint8), plan.targets)
    assert cue.targets == 3
    assert loaded.brain.config.answer == "generated"  # put back as it was
    assert math.isfinite(speed.measure_tracker(plan).last["ratio"])


def test_an_unknown_part_of_speed_is_refused(capsys):
    assert run("speed", "--only", "colour") == 2
    assert "choose from tracker, state, data, import, forced" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fresh_process_imports_and_makes_a_mask(model):
    last = speed.measure_import(speed.Plan(str(model), pairs=1, height=48, width=64)).last
    assert all(math.isfinite(value) for value in last.values())


def test_a_fresh_process_that_fails_says_why():
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        speed._process("1 / 0")()
