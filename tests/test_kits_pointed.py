"""Kits whose tracks begin by a mask, a box or a point of the first frame: DAVIS in both layouts, and the box kits."""

import json

import numpy as np
import pytest
from PIL import Image
from toy_memory import hire
from toy_systems import scene

from eval.__main__ import main
from eval.kits.davis import Davis, first_masks, shown_objects
from eval.label_maps import read_label_map
from eval.run_folder import read_rows
from trackgpt.errors import InputError, UsageError
from trackgpt.export.davis import PALETTE, label_map

FRAMES = 6


def places(t):
    """Corners of the squares on frame t."""
    return {"red": (4 + 2 * t, 8), "green": (30, 8 + 2 * t), "blue": (50, 40)}


def save_labels(path, labels, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(PALETTE)
    image.save(path)


def labels_of(t, **ids):
    """The label map of frame t: the square of each colour with its id, and a void column where there is a palette."""
    labels = np.zeros((60, 80), np.uint8)
    for name, number in ids.items():
        x, y = places(t)[name]
        labels[y : y + 12, x : x + 12] = number
    return labels


@pytest.fixture
def davis(tmp_path):
    """DAVIS with a sequence of three objects (2017's masks), and one of one object (2016's)."""
    root = tmp_path / "DAVIS"
    for name, ids in (("one", {"red": 255}), ("three", {"red": 2, "green": 1, "blue": 3})):
        for t in range(FRAMES):
            labels = labels_of(t, **ids)
            if name == "three":
                labels[:, -2:] = 255
            for resolution in ("480p", "240p"):
                save_labels(root / f"Annotations/{resolution}/{name}/{t:05d}.png", labels, name == "three")
                frame = root / f"JPEGImages/{resolution}/{name}/{t:05d}.jpg"
                frame.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(scene(**places(t))).save(frame, quality=100, subsampling=0)
    return root


@pytest.fixture
def evaluate(monkeypatch, tmp_path, capsys):
    """Runs `python -m eval ARGS...` with the toy as `nano-memory`: exit code, values of the last line, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("typer.echo", print_to_stdout)
    hire(monkeypatch, tmp_path / "toy")

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        lines = said.out.splitlines()
        pairs = [pair for pair in lines[-1].split(" ") if "=" in pair] if lines else []
        return left.value.code, dict(pair.split("=", 1) for pair in pairs), said.err

    return run


def print_to_stdout(text="", err=False):
    """`typer.echo`, whose stream would be the one that was there when typer was imported."""
    import sys

    print(text, file=sys.stderr if err else sys.stdout)


@pytest.mark.parametrize("prompt", ["mask", "box", "point"])
def test_davis_follows_all_objects_of_a_sequence_from_what_is_shown_of_them(prompt, davis, evaluate, tmp_path):
    code, last, error = evaluate("davis", "--data", davis, "--model", "nano-memory", "--prompt", prompt, "--out", "run")
    assert (code, error) == (0, "")
    assert float(last["J&F"]) > 97
    rows = {row.unit: row for row in read_rows(tmp_path / "run")}
    assert sorted(rows) == ["one/1", "three/1", "three/2", "three/3"]
    for row in rows.values():
        assert row.series["score"] == pytest.approx([0.9] * FRAMES, abs=1e-3)
        assert np.isnan([row.series["iou"][0], row.series["iou"][-1]]).all()
        assert len(row.series["iou"]) == len(row.series["seconds"]) == FRAMES
    assert rows["three/2"].said["instruction"].startswith(f"start 1: {prompt if prompt != 'point' else '1 point'}")
    shown = read_label_map(tmp_path / "run/results/three/00003.png")
    truth = read_label_map(davis / "Annotations/480p/three/00003.png")
    assert (shown != np.where(truth == 255, 0, truth)).mean() < 0.01
    settings = json.loads((tmp_path / "run/run.json").read_text())
    assert (settings["prompt"], settings["resolution"], settings["model"]) == (prompt, "480p", "nano-memory")
    report = (tmp_path / "run/report.md").read_text()
    assert ("which is not the benchmark's protocol" in report) == (prompt != "mask")


def test_davis_runs_at_240p_with_an_ablation_and_by_several_processes_alike(davis, evaluate, tmp_path):
    options = ("davis", "--data", davis, "--model", "nano-memory", "--resolution", "240p")
    first = evaluate(*options, "--out", "a")
    assert first[0] == 0, first[2]
    assert "those of 240p, not of 480p" in (tmp_path / "a/report.md").read_text()
    worse = evaluate(*options, "--variant", "no-memory", "--out", "b")
    assert float(worse[1]["J&F"]) < 10
    assert evaluate(*options, "--set", "near=2", "--out", "c")[0] == 0
    code, _, error = evaluate(*options, "--variant", "no-window", "--out", "d")
    assert (code, "not one of full, no-memory" in error) == (2, True)


def test_davis_refuses_words_and_other_prompts(davis, evaluate, tmp_path):
    for arguments, said in (
        (("--prompt", "scribble"), "--prompt scribble: choose mask, box, point"),
        (("--resolution", "1080p"), "--resolution 1080p: choose 480p or 240p"),
        (("--split", "unsupervised/val"), "nothing is shown or said in the unsupervised task"),
    ):
        code, _, error = evaluate("davis", "--data", davis, "--model", "nano-memory", "--out", "run", *arguments)
        assert (code, said in error, error.count("\n")) == (2, True, 1), error
    save_labels(davis / "Annotations/480p/one/00000.png", np.zeros((60, 80), np.uint8), palette=False)
    code, _, error = evaluate("davis", "--data", davis, "--model", "nano-memory", "--out", "other")
    assert (code, "one/00000.png: shows no object" in error) == (3, True)


def test_the_objects_of_a_first_mask_are_shown_under_their_ids_and_void_is_not(davis):
    masks = first_masks(davis / "Annotations/480p/three/00000.png")
    assert {number: mask.sum() for number, mask in masks.items()} == {1: 144, 2: 144, 3: 144}
    assert list(first_masks(davis / "Annotations/480p/one/00000.png")) == [1]
    prompt = shown_objects(masks, "box")
    assert (prompt.ids, prompt.kind) == ((1, 2, 3), "start")
    assert [shown.box for shown in prompt.visual] == [(30, 8, 42, 20), (4, 8, 16, 20), (50, 40, 62, 52)]
    for number, shown in zip(prompt.ids, shown_objects(masks, "point").visual, strict=True):
        ((x, y, side),) = shown.points
        assert (masks[number][int(y), int(x)], side) == (True, 1)


def test_an_overlapping_pixel_is_of_the_higher_score_and_of_equal_ones_of_the_lower_id():
    masks = np.zeros((3, 2, 4), bool)
    masks[0, :, :3] = masks[1, :, 1:] = masks[2, 1] = True
    values, shared = label_map(masks, [5, 2, 9], [0.5, 0.5, 0.9], 2, 4)
    assert values.tolist() == [[5, 2, 2, 2], [9, 9, 9, 9]]
    assert shared == 6
    assert label_map(None, [], [], 2, 2)[0].tolist() == [[0, 0], [0, 0]]


@pytest.fixture
def lasot(tmp_path):
    """LaSOT with one sequence: red, which moves right by two pixels per frame."""
    folder = tmp_path / "LaSOT/red/red-1"
    (folder / "img").mkdir(parents=True)
    for t in range(8):
        Image.fromarray(scene(**places(t))).save(folder / f"img/{t + 1:08d}.jpg", quality=95)
    (folder / "groundtruth.txt").write_text("".join(f"{5 + 2 * t},9,12,12\n" for t in range(8)))
    (folder / "nlp.txt").write_text("the red one\n")
    for flags in ("full_occlusion.txt", "out_of_view.txt"):
        (folder / flags).write_text(",".join("0" * 8) + "\n")
    (tmp_path / "LaSOT/testing_set.txt").write_text("red-1\n")
    return tmp_path / "LaSOT"


def test_a_box_kit_begins_with_the_true_box_of_the_first_frame_where_that_is_wanted(lasot, evaluate, tmp_path):
    options = ("lasot", "--data", lasot, "--model", "nano-memory")
    code, last, error = evaluate(*options, "--prompt", "box", "--out", "run")
    assert (code, error) == (0, "")
    assert float(last["lasot_matlab/AUC"]) > 85
    boxes = np.loadtxt(tmp_path / "run/results/red-1.txt", delimiter=",")
    assert boxes[5] == pytest.approx([15, 9, 12, 12], abs=1)
    report = (tmp_path / "run/report.md").read_text()
    assert "The true box of the first frame begins the track, and nothing is said." in report
    code, _, error = evaluate(*options, "--out", "words")
    assert (code, "nano-memory follows what it is shown, not words" in error, "--prompt" in error) == (2, True, True)
    assert not (tmp_path / "words").exists()
    code, _, error = evaluate(*options, "--prompt", "point", "--out", "run")
    assert (code, "--prompt point: choose sentence or box" in error) == (2, True)


def test_a_box_kit_says_when_the_first_frame_has_no_box(lasot, evaluate):
    (lasot / "red/red-1/out_of_view.txt").write_text("1,0,0,0,0,0,0,0\n")
    code, _, error = evaluate("lasot", "--data", lasot, "--model", "nano-memory", "--prompt", "box")
    assert (code, "red-1: the target is not on the first frame" in error) == (3, True)


def test_davis_on_real_video_gives_a_score_for_every_object(shared, evaluate, tmp_path):
    options = ("davis", "--data", shared / "data/davis", "--model", "nano-memory", "--resolution", "240p")
    code, last, error = evaluate(*options, "--limit", "1", "--prompt", "box", "--out", "run")
    assert (code, error) == (0, "")
    assert 0 <= float(last["J&F"]) < 100
    assert [row.unit for row in read_rows(tmp_path / "run")] == ["blackswan/1"]


def test_the_kit_itself_refuses_what_its_command_refuses(tmp_path):
    for wrong in ({"prompt": "words"}, {"resolution": "full"}):
        with pytest.raises(UsageError, match="choose"):
            Davis(tmp_path, "semi-supervised/val", **wrong)
    with pytest.raises(InputError, match="00000.png"):
        first_masks(tmp_path / "00000.png")
