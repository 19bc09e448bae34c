"""davis-text on a DAVIS written here, pictures of rows whose content is known, and speed with counts too small to mean
anything: what is checked of speed is that every part runs and that its numbers are numbers."""

import dataclasses
import json
import math
import shutil
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from tiny_models import tiny_trackgpt
from tracks import Showing

from eval import pictures
from eval.__main__ import app, main
from eval.commands.kits import KITS, RunOptions
from eval.following import Following
from eval.kit import Row
from eval.kits.davis_text import DavisText, find_sequences, read_expressions
from eval.run_folder import read_rows
from eval.speed import bench as speed
from eval.speed import loop, start
from trackgpt.data.videos import Expression, Video
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
REFVOS = "data/refer_davis17/refvos_text/RE_categorization/DAVIS17_RE_categorization.csv"
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
def kit(davis) -> DavisText:
    return DavisText(davis, davis / "said.csv")


class Marking(Showing):
    """Marks the same pixels on every frame, bool (height, width), or with `forgets` on the first one alone."""

    def __init__(self, mask: np.ndarray, score: float = 0.5, forgets: bool = False) -> None:
        self.mask, self.score, self.forgets = mask, score, forgets

    def see(self, t, frame, text):
        self.asked, mask = text, self.mask & (t == 0 or not self.forgets)
        one, boxes = np.ones(1), np.full((1, 4), np.nan, np.float32)
        scores, reason = np.full(1, self.score, np.float32), "" if t else "prompt"
        return Prediction(boxes, mask[None], scores, one > 0, one.astype(np.int64), {}, Cue("Sure."), reason)


def follow(kit: DavisText, task: str, tracker: Marking, results: Path) -> list[Row]:
    kit.run(task, Following(tracker), results)
    return kit.score(task, results)


def labels_of(video: Video) -> np.ndarray:
    with Image.open(video.masks.files[0]) as image:
        return np.asarray(image)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def last_line(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.splitlines()[-1].split())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with a tiny model in nano's layout."""
    folder = tmp_path_factory.mktemp("model")
    tiny_trackgpt("conv", "conv", tied=True, max_instruction_tokens=99).save_pretrained(folder)
    return folder


# davis-text: what is read


def test_expressions_are_read_by_sequence_and_object(davis):
    said = read_expressions(davis / "said.csv")
    assert list(said) == ["crowd", "elsewhere", "pair", "walk"]
    assert [(e.objects, e.text) for e in said["pair"]] == [
        (("1",), "the one on the left"),
        (("2",), "the one on the right"),
    ]
    assert said["walk"] == (Expression("1", "a dog, walking", ("1",), {"difficulty": "Trivial"}),)


def test_the_61_expressions_of_refvos_name_61_objects_of_30_videos(shared):
    said = read_expressions(shared / REFVOS)
    assert len(said) == 30
    assert sum(len(group) for group in said.values()) == 61
    assert all([e.id for e in group] == [str(n + 1) for n in range(len(group))] for group in said.values())
    assert sum(len(group) == 1 for group in said.values()) == 13


def test_every_sequence_of_the_sample_has_one_object_and_can_be_scored(shared):
    found, left_out = find_sequences(shared / "data/davis", read_expressions(shared / REFVOS))
    assert left_out == []
    assert {len(each.expressions) for each in found} == {1}
    assert [each.name for each in found if "480p" in each.images[0].parts] == [
        "blackswan",
        "car-shadow",
        "dog",
        "drift-chicane",
        "drift-straight",
        "libby",
    ]
    assert len(found) == 10
    assert len(found[0]) == 50
    assert found[0].frame(49).shape == (480, 854, 3)
    assert found[0].masks.mask(("1",), 49).shape == (480, 854)


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
        read_expressions(tmp_path / "said.csv")


def test_a_2016_mask_of_several_objects_is_left_out_and_said_so(kit):
    found, left_out = kit.found
    assert [(each.name, each.images[0].parts[-3], each.masks.union) for each in found] == [
        ("pair", "480p", False),
        ("walk", "480p", True),
    ]
    assert left_out == ["crowd: its DAVIS-2016 masks are the union of 2 objects", "quiet: no expression"]


def test_240p_is_taken_where_it_is_asked_for_or_all_there_is(davis, tmp_path):
    said = read_expressions(davis / "said.csv")
    found, _ = find_sequences(davis, said, "240p")
    assert [(each.name, each.images[0].parts[-3]) for each in found] == [("pair", "240p")]
    write_sequence(tmp_path, "pair", np.ones((2, 8, 8), np.uint8), size="240p")
    assert find_sequences(tmp_path, said)[0][0].images[0].parts[-3] == "240p"


def test_a_frame_without_a_mask_is_named(tmp_path):
    write_sequence(tmp_path, "walk", np.ones((3, 8, 8), np.uint8))
    (tmp_path / "Annotations/480p/walk/00001.png").unlink()
    with pytest.raises(InputError, match=r"00001.png: missing; wanted a mask for every frame"):
        find_sequences(tmp_path, {"walk": (Expression("1", "a dog", ("1",)),)})


def test_a_mask_of_another_size_than_the_first_is_refused(davis, tmp_path):
    write_sequence(tmp_path, "walk", np.ones((2, 8, 8), np.uint8))
    Image.fromarray(np.ones((8, 9), np.uint8)).save(tmp_path / "Annotations/480p/walk/00001.png")
    kit = DavisText(tmp_path, davis / "said.csv")
    with pytest.raises(InputError, match=r"truth of frame 1 is bool of shape \(8, 9\), wanted bool \(8, 8\)"):
        follow(kit, "walk", Marking(np.ones((8, 8), bool)), tmp_path / "results")


def test_an_object_that_no_mask_shows_is_an_error_not_a_score(davis, tmp_path):
    (tmp_path / "said.csv").write_text(HEADER + "pair;3;the third;Trivial;Minimum\n")
    kit = DavisText(davis, tmp_path / "said.csv")
    with pytest.raises(InputError, match="object 3, 'the third', is in none of the masks of pair"):
        follow(kit, "pair", Marking(np.zeros((HEIGHT, WIDTH), bool)), tmp_path / "results")


# davis-text: what is scored


def test_each_expression_is_scored_against_its_own_object_over_all_frames(kit, tmp_path):
    left = Marking(labels_of(kit.by_name["pair"]) == 1)
    rows = follow(kit, "pair", left, tmp_path / "left")
    assert left.asked == "the one on the right"
    # The left one twice: right for the left expression, wrong for the right one. Nothing is matched afterwards.
    assert [(row.unit, row.figures["J"], row.figures["F"]) for row in rows] == [
        ("pair/1", 1.0, 1.0),
        ("pair/2", 0.0, 0.0),
    ]
    assert [len(row.series["iou"]) for row in rows] == [FRAMES, FRAMES]
    forgetful = follow(kit, "pair", Marking(left.mask, forgets=True), tmp_path / "forgetful")
    assert forgetful[0].figures["J"] == 1 / FRAMES  # the first frame counts, and so does the last


def test_void_counts_as_background(kit, tmp_path):
    labels = labels_of(kit.by_name["pair"])
    # 8 x 10 pixels of the object and 4 x 40 of void.
    rows = follow(kit, "pair", Marking((labels == 1) | (labels == 255)), tmp_path)
    assert rows[0].figures["J"] == pytest.approx(80 / (80 + 160))


def test_a_2016_mask_is_the_object(kit, tmp_path):
    (row,) = follow(kit, "walk", Marking(labels_of(kit.by_name["walk"]) == 255), tmp_path)
    assert (row.figures["J"], row.series["iou"], row.tags) == (1.0, [1.0] * FRAMES, {"difficulty": ["Trivial"]})


def test_osvos_results_score_what_the_official_toolkit_gives_them(shared, tmp_path):
    """car-shadow: J .928, F .917 by davis2017-evaluation, whose protocol drops the first and the last frame."""
    root = tmp_path / "davis"
    for folder in ("JPEGImages", "Annotations"):
        shutil.copytree(shared / "data/davis" / folder / "480p/car-shadow", root / folder / "480p/car-shadow")
        for name in ("00000", "00039"):
            next((root / folder / "480p/car-shadow").glob(f"{name}.*")).unlink()
    results = shutil.copytree(
        shared / "data/davis/osvos_results/semi-supervised/osvos/car-shadow", tmp_path / "results/car-shadow/1"
    )
    assert Path(results).is_dir()
    (row,) = DavisText(root, shared / REFVOS).score("car-shadow", tmp_path / "results")
    assert (round(row.figures["J"], 3), round(row.figures["F"], 3)) == (0.928, 0.917)


# davis-text: the command


@pytest.fixture
def plain(monkeypatch):
    """No pictures, which take longer than all the rest."""
    monkeypatch.setattr("eval.report.draw", lambda *_: [])


def davis_text(davis: Path, model: Path, out: Path, *more: object) -> int:
    options = ("--data", davis, "--expressions", davis / "said.csv", "--out", out, "--device", "cpu")
    return run("davis-text", "--model", model, *options, *more)


@pytest.mark.usefixtures("plain")
def test_davis_text_reports_resumes_and_ends_with_a_line(davis, model, tmp_path, capsys):
    assert davis_text(davis, model, tmp_path) == 0
    said = capsys.readouterr()
    figures = last_line(said.out)
    assert list(figures) == ["J&F", "J", "F", "units", "out"]
    assert figures["units"] == "3"
    assert "left out: crowd: its DAVIS-2016 masks" in said.err
    assert [row.unit for row in read_rows(tmp_path)] == ["pair/1", "pair/2", "walk/1"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["run"]["protocol"].startswith("Protocol davis-text: MeViS-style")
    assert float(figures["J&F"]) == pytest.approx(summary["figures"]["J&F"], abs=0.005)
    # Killed while it tracked the second sequence: what follows makes it whole again.
    (tmp_path / "diagnostics/walk.json").unlink()
    (tmp_path / "results/walk/1/00002.png").unlink()
    assert davis_text(davis, model, tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["figures"] == summary["figures"]


@pytest.mark.usefixtures("plain")
def test_limit_takes_the_first_sequences(davis, model, tmp_path, capsys):
    assert davis_text(davis, model, tmp_path, "--limit", 1) == 0
    assert last_line(capsys.readouterr().out)["units"] == "2"
    assert {row.task for row in read_rows(tmp_path)} == {"pair"}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--data": "nowhere"}, 3, "nowhere: no sequences of 480p or 240p; --data is a folder with JPEGImages/480p"),
        ({"--expressions": "nothing.csv"}, 3, "nothing.csv: cannot be read"),
        ({"--model": "nowhere"}, 4, "MD01"),
        ({"--resolution": "1080p"}, 2, "choose auto, 480p or 240p"),
    ],
)
def test_what_davis_text_lacks_is_said_in_one_line(davis, tmp_path, capsys, change, code, words):
    options = {"--data": davis, "--expressions": davis / "said.csv", "--model": "nano", "--out": tmp_path, **change}
    assert run("davis-text", *[part for pair in options.items() for part in pair]) == code
    message = capsys.readouterr().err.splitlines()
    assert words in message[-1]
    assert all(line.startswith("left out: ") for line in message[:-1])


def test_a_root_without_named_sequences_is_an_error(davis, tmp_path):
    write_sequence(tmp_path, "quiet", np.ones((2, 8, 8), np.uint8))
    with pytest.raises(InputError, match="none of its 1 sequences can be scored"):
        find_sequences(tmp_path, read_expressions(davis / "said.csv"))


# Every kit's command


def test_every_kit_takes_the_common_options_beside_its_own():
    commands = typer.main.get_command(app).commands
    common = {field.name for field in dataclasses.fields(RunOptions)}
    own = {name: {each.name for each in commands[name].params} - common for name in KITS}
    assert {name: options for name, options in own.items() if options != {"data", "split"}} == {
        "synthtrack": {"seed", "videos", "split"},
        "davis-text": {"data", "expressions", "resolution"},
        "davis": {"data", "split", "prompt", "resolution"},
        **dict.fromkeys(("lasot", "tnl2k", "tnllt", "mot-query"), {"data", "split", "prompt"}),
    }
    assert all(common <= {each.name for each in commands[name].params} for name in KITS)
    assert len(KITS) == 18


@pytest.mark.usefixtures("plain")
def test_davis_text_runs_in_the_dtype_asked_for(davis, model, tmp_path):
    assert davis_text(davis, model, tmp_path, "--limit", 1, "--dtype", "bfloat16") == 0
    assert ", dtype bfloat16" in (tmp_path / "report.md").read_text().splitlines()[0]


# Pictures


def rows_of_kinds(count: int = 12, scored: bool = True) -> list[Row]:
    """A row of each of three kinds in every video; J&F of video i is i / count, its IoU half its score."""
    rows = []
    for i in range(count):
        value = i / count
        series = {"score": [value] * 3, "iou": [value / 2] * 3} if scored else {}
        for kind in ("explicit", "implicit", "multi"):
            tags = {"kind": [kind], "form": [("category", "part")[i % 2]]}
            rows.append(Row(f"{i:05d}", f"{i:05d}/{kind}", {"J": value, "F": value}, tags, series))
    return rows


def with_jf(rows: list[Row]) -> list[Row]:
    return [Row(r.task, r.unit, {"J&F": r.figures["J"], **r.figures}, r.tags, r.series) for r in rows]


def test_pictures_are_drawn_as_png_and_svg(tmp_path):
    drawn = pictures.draw(rows_of_kinds(), "J&F", tmp_path)
    names = ("histogram", "reliability", "by_form", "by_kind")
    assert [path.name for path in drawn] == [f"{name}{end}" for name in names for end in (".png", ".svg")]
    for path in drawn[::2]:
        with Image.open(path) as image:
            assert image.width >= 600, path.name
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10, path.name
    assert all(path.read_text().startswith("<?xml") for path in drawn[1::2])


def test_a_histogram_holds_every_unit():
    (axis,) = pictures.histogram(with_jf(rows_of_kinds()), "J&F").axes
    assert sum(bar.get_height() for bar in axis.containers[0]) == 36
    assert axis.get_title(loc="right") == "mean 45.8 (dashed), n 36"  # 100 * (0 + 1 + ... + 11) / 144


def test_a_reliability_curve_shows_the_mean_iou_of_each_score():
    curve, counts = pictures.reliability_curve(rows_of_kinds()).axes
    line = next(line for line in curve.lines if line.get_label() == "mean")
    np.testing.assert_allclose(line.get_ydata(), np.asarray(line.get_xdata()) / 2)  # the rows' IoU is half the score
    assert sum(bar.get_height() for bar in counts.patches) == pytest.approx(100)


def test_bars_stand_for_the_values_of_a_tag_best_first():
    (axis,) = pictures.bars(with_jf(rows_of_kinds()), "J&F", "form").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["part  (18)", "category  (18)"]
    # Videos 1, 3, 5, 7, 9, 11 of 12 are of the form "part".
    assert axis.patches[0].get_width() == pytest.approx(100 * 6 / 12)
    assert pictures.bars(with_jf(rows_of_kinds()), "J&F", "colour") is None


def test_a_curve_is_the_mean_of_the_sequences():
    rows = [Row(str(i), str(i), {}, {}, {"success": [1.0] * 11 + [float(i)] * 10}) for i in range(2)]
    (axis,) = pictures.threshold_curve(rows, "success").axes
    assert axis.lines[0].get_ydata().tolist() == [100.0] * 11 + [50.0] * 10
    assert pictures.threshold_curve(rows, "precision") is None


def test_pictures_that_the_rows_do_not_allow_are_left_out_and_the_others_are_the_same_each_time(tmp_path):
    only = rows_of_kinds(1, scored=False)
    drawn = pictures.draw(only, "J&F", tmp_path)
    assert [path.stem for path in drawn[::2]] == ["histogram", "by_kind"]
    again = pictures.draw(only, "J&F", tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


# speed: that it runs, never how fast


def test_contestants_take_turns_after_one_warm_up():
    order = []
    seconds = speed.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each.wall) for name, each in seconds.items()} == {"a": 3, "b": 3}


def test_the_memory_slope_leaves_out_the_first_quarter():
    steady = {frame: 1_000_000 + 5 * frame for frame in range(10, 401, 10)}
    assert loop.memory_slope(steady) == pytest.approx(5)
    grown = {frame: size if frame > 100 else 10 * size for frame, size in steady.items()}
    assert loop.memory_slope(grown) == pytest.approx(5)
    with pytest.raises(UsageError, match="more --stream frames"):
        loop.memory_slope({10: 1})


def test_resident_memory_follows_what_is_held():
    before = loop.resident_bytes()
    with mmap(-1, 64 * 2**20) as held:  # pages of its own: an array may lie in memory that the process has already
        held.write(b"x" * len(held))
        assert loop.resident_bytes() - before > 32 * 2**20


LAST = {
    "tracker": ["ratio", "ratio_file", "fps"],
    "state": ["state_bytes", "growth_bytes", "rss_slope_bytes_per_frame"],
    "data": ["data_fps_128", "data_fps_256", "data_ms_128"],
    "import": ["import_ms", "first_mask_s", "over_torch_s"],
    "forced": ["verified_ratio", "forced_ratio"],
    "naive": ["naive_ratio"],
}
TINY = ["--pairs", 1, "--frames", 3, "--stream", 60, "--size", 48, 64]


def in_this_process(program: str):
    """Runs what a fresh process would, here, where torch is loaded already."""
    return lambda: exec(program, {})


@pytest.mark.parametrize("part", LAST)
def test_a_part_of_speed_runs_and_its_last_line_parses(part, model, monkeypatch, capsys):
    monkeypatch.setattr(start, "fresh_process", in_this_process)
    assert run("speed", "--only", part, "--model", model, *TINY) == 0
    out = capsys.readouterr().out
    last = last_line(out)
    assert list(last) == LAST[part]
    assert all(math.isfinite(float(value)) for value in last.values())
    assert "commit" in out


def test_speed_writes_every_part_with_its_conditions(model, tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert run("speed", "--only", "data", "--only", "state", "--model", model, "--out", path, *TINY) == 0
    assert list(last_line(capsys.readouterr().out)) == LAST["state"]  # one line a part, in the order asked for
    saved = json.loads(path.read_text())
    assert list(saved["parts"]) == ["data", "state"]
    assert {"load", "threads", "versions", "commit", "workload"} <= set(saved["conditions"])
    values = [value for part in saved["parts"].values() for line in part["lines"] for value in line["values"]]
    assert values
    assert all(value is not None and math.isfinite(value) for value in values)


def test_the_state_of_a_track_does_not_grow_while_the_brain_is_asked_again(model):
    part = loop.measure_state(speed.Workload(str(model), stream=60, height=48, width=64))
    assert part.last["growth_bytes"] == 0
    assert part.last["state_bytes"] > 0
    assert "1 rethinks" in next(line.how for line in part.lines if line.quantity == "process, growth")


def test_several_targets_are_tracked_at_once(model):
    workload = speed.Workload(str(model), pairs=1, frames=2, height=48, width=64, targets=3)
    loaded = speed.model_of(workload)
    cue = speed.cue_of(loaded, np.zeros((48, 64, 3), np.uint8), workload.targets)
    assert cue.targets == 3
    assert loaded.brain.config.answer == "generated"  # put back as it was
    assert math.isfinite(loop.measure_tracker(workload).last["ratio"])


def test_an_unknown_part_of_speed_is_refused(capsys):
    assert run("speed", "--only", "colour") == 2
    assert "choose from tracker, state, data, import, forced, naive, scorer" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fresh_process_imports_and_makes_a_mask(model):
    last = start.measure_import(speed.Workload(str(model), pairs=1, height=48, width=64)).last
    assert all(math.isfinite(value) for value in last.values())


def test_a_fresh_process_that_fails_says_why():
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        start.fresh_process("1 / 0")()
