"""--box, --mask, --point and --drop: what they mean, what is refused in one line, and what runs that point write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_memory import hire, pointed
from toy_systems import scene

from trackgpt.app.pointing import Pointing, masks_in, read_pointing
from trackgpt.errors import InputError, UsageError
from trackgpt.export.davis import PALETTE
from trackgpt.export.overlay import draw
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import read_events, read_tracks
from trackgpt.session.playback import InstructionTracker
from trackgpt.types import VisualPrompt

FRAMES = 10


def read(first=0, **options):
    """The prompts of options as (frame or "8.5s", kind, {id: what is shown})."""
    found = []
    for prompt, second in read_pointing(Pointing(**{name: tuple(values) for name, values in options.items()}), first):
        assert prompt.kind == "drop" or len(prompt.ids) == len(prompt.visual)
        shown = dict(zip(prompt.ids, prompt.visual or [None] * len(prompt.ids), strict=True))
        found.append((prompt.frame if second is None else f"{second:g}s", prompt.kind, shown))
    return found


def save(path, values, palette=False, **how):
    """An image of values, (height, width) or with colours; indexed where there is to be a palette."""
    image = Image.fromarray(np.asarray(values))
    if palette:
        image.putpalette(PALETTE)
    image.save(path, **how)
    return str(path)


def labels(*boxes):
    """A label map of the toy's frames, uint8 (60, 80); box k has the label k + 1."""
    values = np.zeros((60, 80), np.uint8)
    for number, (x, y) in enumerate(boxes, 1):
        values[y : y + 12, x : x + 12] = number
    return values


# What options mean


def test_a_box_is_x_y_width_and_height_and_without_an_id_boxes_count_from_one():
    assert read(box=["10,20,30,40", "1.5,2,3,4"]) == [
        (0, "start", {1: VisualPrompt((10, 20, 40, 60)), 2: VisualPrompt((1.5, 2, 4.5, 6))})
    ]


def test_ids_are_kept_and_the_others_take_the_numbers_that_are_free():
    (only,) = read(box=["2:0,0,5,5", "0,0,6,6", "0,0,7,7", "7:0,0,8,8"])
    assert {number: shown.box[2] for number, shown in only[2].items()} == {2: 5, 1: 6, 3: 7, 7: 8}


def test_a_frame_in_front_is_when_and_later_frames_add_or_correct():
    found = read(box=["@240:2:10,20,30,40", "1:0,0,5,5", "@100:1:1,1,5,5"])
    assert [(frame, kind, list(shown)) for frame, kind, shown in found] == [
        (0, "start", [1]),
        (100, "correct", [1]),
        (240, "add", [2]),
    ]
    found = read(box=["0,0,5,5", "0,0,6,6", "@9:1:1,1,5,5", "@9:3:1,1,5,5", "@20:1:2,2,5,5"], point=["@20:3:9,9"])
    assert [kind for _, kind, _ in found] == ["start", "add", "correct"]
    found = read(box=["0,0,5,5", "0,0,6,6", "@100:9,9,5,5", "@200:2:1,1,5,5"], point=["@50:2:3,3,-"])
    assert [(frame, list(shown)) for frame, _, shown in found] == [(0, [1, 2]), (50, [2]), (100, [3]), (200, [2])]
    assert [frame for frame, _, _ in read(12, box=["0,0,5,5", "@20:0,0,5,5"])] == [12, 20]


def test_points_of_one_target_and_frame_join_and_so_do_its_box_and_its_mask(tmp_path):
    file = save(tmp_path / "mask.png", labels((4, 8)) * 255)
    ((_, _, shown),) = read(box=["3:0,0,5,5"], point=["3:1,2", "3:4,4,-", "8:9,9"], mask=[f"3:{file}"])
    assert shown[3] == VisualPrompt((0, 0, 5, 5), ((1, 2, 1), (4, 4, 0)))
    assert shown[3].mask.sum() == 144
    assert shown[8] == VisualPrompt(points=((9, 9, 1),))


def test_a_point_without_an_id_belongs_to_the_only_target():
    assert read(point=["1,2", "3,4,-"]) == [(0, "start", {1: VisualPrompt(points=((1, 2, 1), (3, 4, 0)))})]
    assert list(read(box=["5:0,0,9,9"], point=["1,2"])[0][2]) == [5]
    found = read(box=["5:0,0,9,9"], point=["@7:1,2,-"])
    assert found[1] == (7, "correct", {5: VisualPrompt(points=((1, 2, 0),))})
    with pytest.raises(UsageError, match="--point @7:1,2: of which of the targets 1, 2[?] Write ID:x,y"):
        read(box=["0,0,9,9", "5,5,9,9"], point=["@7:1,2"])


def test_a_drop_ends_a_target_and_comes_before_what_is_shown_on_its_frame():
    found = read(box=["0,0,9,9", "5,5,9,9", "@300:6,6,9,9"], drop=["@300:2", "@300:1"])
    assert [(frame, kind, list(shown)) for frame, kind, shown in found] == [
        (0, "start", [1, 2]),
        (300, "drop", [1, 2]),
        (300, "add", [3]),
    ]


def test_a_second_in_front_is_a_time_of_the_source_and_later_than_the_first_frame():
    found = read(12, box=["@8.5s:2:1,1,5,5", "@0.25s:1:0,0,6,6", "1:0,0,5,5"], drop=["@10s:1"], point=["@8.5s:1:3,3"])
    assert [(when, kind, list(shown)) for when, kind, shown in found] == [
        (12, "start", [1]),
        ("0.25s", "correct", [1]),
        ("8.5s", "add", [2, 1]),
        ("10s", "drop", [1]),
    ]
    with pytest.raises(UsageError, match="--box @9:2:1,1,5,5 beside --drop @10s:1: frames and seconds in one command"):
        read(box=["0,0,5,5", "@9:2:1,1,5,5"], drop=["@10s:1"])
    with pytest.raises(UsageError, match="a second box of target 1 at second 8.5; wanted one"):
        read(box=["1:0,0,5,5", "@8.5s:1:0,0,5,5", "@8.50s:1:0,0,6,6"])


def test_only_where_it_is_not_after_a_drop_says_how_to_resume_the_target():
    options = {"box": ["0,0,9,9"], "drop": ["@3:1"]}
    assert [kind for _, kind, _ in read(**options, point=["@5:1:1,2,-"])] == ["start", "drop", "add"]
    with pytest.raises(UsageError, match=r"--point @5:1,2,-: nothing is followed then; to resume 1, write ID:x,y,-"):
        read(**options, point=["@5:1,2,-"])


def test_a_file_whose_name_has_a_colon_is_still_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("a:b.png", labels((4, 8)) * 255)
    assert list(read(mask=["a:b.png"])[0][2]) == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"box": ["10,20,30"]}, r"--box 10,20,30: wanted \[@FRAME:\]\[ID:\]x,y,w,h in pixels, with w and h above 0"),
        ({"box": ["10,20,0,5"]}, "with w and h above 0"),
        ({"box": ["10,20,nan,5"]}, "with w and h above 0"),
        ({"box": ["a:1,2,3,4"]}, "--box a:1,2,3,4: wanted"),
        ({"box": [""]}, "--box : wanted"),
        ({"box": ["0:1,2,3,4"]}, "--box 0:1,2,3,4: target 0; wanted an id from 1 to 255"),
        ({"box": ["@x:1:1,2,3,4"]}, "--box @x:1:1,2,3,4: no moment; wanted @FRAME: or @SECONDSs: in front, such as"),
        ({"box": ["@8.5:1,2,3,4"]}, "--box @8.5:1,2,3,4: no moment; wanted @FRAME: or @SECONDSs: in front, such as"),
        ({"point": ["@s:1,2"]}, "--point @s:1,2: no moment"),
        ({"box": ["256:1,2,3,4"]}, "--box 256:1,2,3,4: target 256; wanted an id from 1 to 255, which indexed masks"),
        ({"box": ["2:0,0,5,5", "2:1,1,5,5"]}, "--box 2:1,1,5,5: a second box of target 2 on frame 0; wanted one"),
        ({"point": ["1"]}, r"--point 1: wanted \[@FRAME:\]\[ID:\]x,y or x,y,- in pixels"),
        ({"point": ["1,2,+"]}, "--point 1,2,[+]: wanted"),
        ({"point": ["1,2,-"]}, "--point 1,2,-: target 1 is new; show where it is, too"),
        ({"box": ["0,0,5,5"], "point": ["@9:4:1,2,-"]}, "--point @9:4:1,2,-: target 4 is new"),
        ({"drop": ["2"]}, "--drop 2: wanted @FRAME:ID, the target that ends and the frame, such as @300:2"),
        ({"drop": ["@300"]}, "--drop @300: wanted @FRAME:ID"),
        ({"drop": ["@300:2:5"]}, "--drop @300:2:5: wanted @FRAME:ID"),
        ({"box": ["0,0,5,5"], "drop": ["@300:2"]}, "--drop @300:2: target 2 is not followed then; followed are 1"),
        ({"drop": ["@3:1"]}, "followed are none"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_with_what_was_wanted(options, said):
    with pytest.raises(UsageError, match=said):
        read(**options)


# Masks


def test_the_labels_of_an_indexed_picture_are_the_ids_of_its_targets_and_void_is_none(tmp_path):
    values = labels((4, 8), (30, 8), (50, 8))
    values[values == 2] = 9
    values[:2] = 255
    for palette in (True, False):
        found = masks_in(Path(save(tmp_path / f"{palette}.png", values, palette)))
        assert [(number, mask.sum()) for number, mask in found] == [(1, 144), (3, 144), (9, 144)]


def test_a_mask_of_two_values_is_one_target_whose_number_is_its_label_where_it_is_indexed(tmp_path):
    one = labels((4, 8))
    cases = [(one * 255, False, None), (one, False, None), (one > 0, False, None), (one, True, 1), (one * 6, True, 6)]
    cases += [(one * 255, True, None), (np.repeat(one[:, :, None] * 255, 3, 2), False, None)]
    cases += [(np.dstack([one * 255] * 3 + [one * 0 + 7]), False, None), (np.dstack([one * 255, one]), False, None)]
    for values, palette, number in cases:
        file = Path(save(tmp_path / "mask.png", values, palette))
        ((found, mask),) = masks_in(file)
        assert (found, mask.tolist()) == (number, (one > 0).tolist())
        assert masks_in(file, 4)[0][0] == 4


@pytest.mark.parametrize(
    ("values", "number", "said"),
    [
        (np.zeros((8, 8), np.uint8), None, "every pixel is 0; wanted another value where the target is"),
        (np.arange(256, dtype=np.uint8).reshape(16, 16), None, "holds 254 values, up to 254; wanted 0 and 255, or"),
        (labels((4, 8), (30, 8)), 3, "holds the targets 1, 2, not 3 alone; leave the id out to follow all"),
        (np.dstack([labels((4, 8)) * 255] * 2 + [labels((30, 8))]), None, "a colour image; wanted a grey or indexed"),
    ],
)
def test_a_picture_that_is_no_mask_is_refused(tmp_path, values, number, said):
    with pytest.raises(InputError, match=said):
        masks_in(Path(save(tmp_path / "mask.png", values)), number)


def test_a_mask_that_is_not_there_or_is_damaged_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="none.png: missing; wanted a mask"):
        masks_in(tmp_path / "none.png")
    with pytest.raises(InputError, match="text.png: not a readable mask: no image file by its contents; wanted a mask"):
        masks_in(tmp_path / "text.png")
    with pytest.raises(InputError, match="a folder; wanted a mask, which is one file$"):
        masks_in(tmp_path)
    whole = Path(save(tmp_path / "cut.png", labels((4, 8)) * 255)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    with pytest.raises(InputError, match="cut.png: not a readable mask .*; copy or unpack it again"):
        masks_in(tmp_path / "cut.png")
    save(tmp_path / "float.tiff", np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match="values of type float32; wanted a grey or indexed PNG of whole numbers"):
        masks_in(tmp_path / "float.tiff")


# Runs


def square(name, t):
    """Corners of a square on frame t: red moves right, green moves down, blue stands still."""
    return {"red": (4 + 4 * t, 4), "green": (20, 20 + 2 * t), "blue": (60, 44)}[name]


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs `trackgpt track frames ...`, with the toy as `nano-memory`."""
    hire(monkeypatch, tmp_path / "toy")
    (tmp_path / "frames").mkdir()
    for t in range(FRAMES):
        frame = scene(**{name: square(name, t) for name in ("red", "green", "blue")})
        Image.fromarray(frame).save(tmp_path / "frames" / f"{t:05d}.png")

    def track(*arguments):
        return command("track", "frames", *arguments)

    return track


def lefts(run):
    """Of every frame: the left edges of the boxes by id."""
    return [{o.id: o.box[0] if o.box else None for o in record.objects} for record in read_tracks(run)]


def test_boxes_a_label_map_and_points_start_add_and_end_targets_and_every_output_is_written(run, tmp_path):
    first = save(tmp_path / "first.png", labels(square("red", 0), square("green", 0)), palette=True)
    done = run("--mask", first, "--point", "@3:65,50", "--drop", "@6:1", "-o", "out")
    # A point without an id is about the only target; here there are two.
    assert (done.code, "of which of the targets 1, 2?" in done.err) == (2, True)
    done = run("--mask", first, "--point", "@3:5:65,50", "--drop", "@6:1", "-o", "out")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["frames=10 rethinks=0 score=0.900 warnings=0 out=out"]
    assert [sorted(each) for each in lefts("out")] == [[1, 2]] * 3 + [[1, 2, 5]] * 3 + [[2, 5]] * 4
    assert lefts("out")[5] == {1: 24, 2: 20, 5: 60}
    out = tmp_path / "out"
    names = {"coco.json", "events.jsonl", "masks", "mot.txt", "run.json", "timeline.png", "tracks.jsonl", "video.mp4"}
    assert {path.name for path in out.iterdir()} == names
    with Image.open(out / "masks/00004.png") as image:
        shown = np.asarray(image)
    assert np.array_equal(shown == 1, labels(square("red", 4)) == 1)
    assert set(np.unique(shown)) == {0, 1, 2, 5}
    assert (out / "mot.txt").read_text().splitlines()[:2] == [
        "1,1,4.00,4.00,12.00,12.00,0.9000,-1,-1,-1",
        "1,2,20.00,20.00,12.00,12.00,0.9000,-1,-1,-1",
    ]
    coco = json.loads((out / "coco.json").read_text())
    assert sorted(track["id"] for track in coco["annotations"]) is not None
    facts = json.loads((out / "run.json").read_text())
    assert facts["model"]["config"]["name"] == "nano-memory"
    assert facts["pointing"] == {"box": [], "mask": [first], "point": ["@3:5:65,50"], "drop": ["@6:1"]}
    assert [prompt.summary for prompt in read_prompts(out)] == ["start 1: mask; 2: mask", "add 5: 1 point", "drop 1"]


def test_the_same_run_twice_gives_the_same_bytes_and_ahead_and_batch_change_nothing(run, tmp_path):
    pointing = ("--box", "4,4,12,12", "--box", "@4:60,44,12,12", "--format", "jsonl")
    for name, more in (("a", ()), ("b", ()), ("c", ("--ahead", "0")), ("d", ("--batch", "3", "--ahead", "4"))):
        assert run(*pointing, "-o", name, *more).code == 0
    for name in "bcd":
        for file in ("tracks.jsonl", "events.jsonl"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_a_cut_run_is_repaired_shown_and_exported_like_any_other(run, command, tmp_path):
    assert run("--box", "7:4,4,12,12", "-o", "out", "--format", "mp4,davis,mot,jsonl").code == 0
    made = {name: (tmp_path / "out" / name).read_bytes() for name in ("mot.txt", "masks/00003.png")}
    (tmp_path / "out/mot.txt").unlink()
    (tmp_path / "out/masks/00003.png").unlink()
    (tmp_path / "out/video.mp4").unlink()
    done = command("repair", "out")
    assert (done.code, done.values()["made"]) == (0, "mp4,davis,mot")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in made} == made
    shown = command("show", "out").out
    assert "     0  instruction   start 7: box" in shown
    assert "#7  score 0.90 on 10 of 10 frames" in shown


def test_an_overlay_shows_a_pointed_target_like_any_other(run):
    assert run("--box", "7:4,4,12,12", "-o", "out", "--format", "jsonl").code == 0
    record = next(iter(read_tracks("out")))
    frame = scene(red=(4, 4))
    assert (draw(frame, record) != frame).any()


def test_pointing_may_be_about_frames_by_the_sources_own_count(run):
    assert run("--box", "@8:60,44,12,12", "--start", "4", "--stride", "2", "-o", "out", "--format", "jsonl").code == 0
    assert [(record.index, len(record.objects)) for record in read_tracks("out")] == [(4, 0), (6, 0), (8, 1)]
    assert run("--box", "20,4,12,12", "--start", "4", "-o", "other", "--format", "jsonl").code == 0
    assert lefts("other")[0] == {1: 20}


def test_a_target_that_was_dropped_can_be_shown_again(run):
    options = ("--box", "4,4,12,12", "--box", "20,20,12,12", "--drop", "@2:1", "--box", "@5:1:60,44,12,12")
    assert run(*options, "-o", "out", "--format", "jsonl").code == 0
    assert [each.get(1) for each in lefts("out")] == [4, 8, None, None, None] + [60] * 5
    events = [e for e in read_events("out") if e.type == "instruction"]
    assert [(e.index, e.data["kind"], e.data["ids"]) for e in events] == [
        (0, "start", [1, 2]),
        (2, "drop", [1]),
        (5, "add", [1]),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("", 2, "nothing to track: say it, -i 'the red car', or point at it, --box x,y,w,h (see --help)"),
        (
            "--box 90,4,12,12",
            2,
            "frame 0: target 1: the box from 90,4 to 102,16 lies outside of the frame, which",
        ),
        ("--box @3:2:90,4,12,12 --box 1,1,9,9", 2, "frame 3: target 2: the box from 90,4 to 102,16 lies outside"),
        ("--point 4,60", 2, "frame 0: target 1: the point 4,60 lies outside of the frame, which is 80 pixels wide"),
        (
            "--mask small.png",
            2,
            "frame 0: target 1: the mask is 8 pixels wide and 8 high; wanted the size of the",
        ),
        ("--mask none.png", 3, "none.png: missing; wanted a mask"),
        ("--mask toy", 3, "toy: a folder; wanted a mask, which is one file"),
        ("--box @10:1,1,9,9", 2, "@10: no such frame; the frames that are read are 0 to 9"),
        ("--box @3:1,1,9,9 --start 5", 2, "@3: no such frame; the frames that are read are 5 to 9"),
        ("--box @5:1,1,9,9 --stride 2", 2, "@5: left out by --stride 2; wanted a frame such as 4"),
        ("--box @7:1,1,9,9 --end 6", 2, "@7: no such frame; the frames that are read are 0 to 5"),
        ("--box 1:1,1,9,9 --box 1:2,2,9,9", 2, "--box 1:2,2,9,9: a second box of target 1 on frame 0; wanted one"),
        ("--box 1,1,9,9 -m nano", 2, "nano is told what to track in words; leave boxes, points and masks out, or"),
        ("--box @1s:90,4,12,12 --box 1,1,9,9", 2, "second 1: target 2: the box from 90,4 to 102,16 lies outside"),
        ("-i red -m nano-memory", 2, "nano-memory follows what it is shown, not words: point at the target with --box"),
        ("-i red --box 1,1,9,9", 2, "nano-memory takes words or pointing, and both were given; leave one of them out"),
        ("-i red --box 1,1,9,9 -m nano", 2, "nano takes words or pointing, and both were given; leave one of them out"),
        ("--box 1,1,9,9 --backend onnxruntime", 2, "a memory segmenter runs in torch"),
        ("--box 1,1,9,9 --perception x", 2, "nano-memory is a whole model, and needs no perception beside it"),
    ],
)
def test_a_wrong_command_is_one_line_and_makes_no_folder(run, tmp_path, arguments, code, said):
    save(tmp_path / "small.png", np.eye(8, dtype=np.uint8) * 255)
    done = run(*arguments.split(), "-o", "out")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_second_of_pointing_is_the_frame_that_an_instruction_of_that_second_is_about(run):
    """At 4 frames per second the first frame that is not before second 1.1 is frame 5."""
    options = ("--fps", "4", "--format", "jsonl")
    assert run("--box", "4,4,12,12", "--box", "@1.1s:60,44,12,12", "--drop", "@2s:1", *options, "-o", "out").code == 0
    assert [sorted(each) for each in lefts("out")] == [[1]] * 5 + [[1, 2]] * 3 + [[2]] * 2
    with InstructionTracker(pointed()).open("frames", fps=4) as playback:
        playback.say(box=(4, 4, 16, 16), second=1.1)
        assert [len(result.objects) for result in playback] == [0] * 5 + [1] * 5
    playback.close()
    done = run("--box", "4,4,12,12", "--drop", "@9s:1", *options, "-o", "late")
    assert (done.code, "the source ended before second 9, so 'drop 1' was never read" in done.err) == (0, True)


def test_words_beside_pointing_are_refused_before_the_default_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr(InstructionTracker, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    for more in ((), ("-m", "nano")):
        done = run("-i", "red", "--box", "1,1,9,9", *more, "-o", "out")
        assert (done.code, "takes words or pointing, and both were given" in done.err) == (2, True)


def test_a_correction_is_called_one_in_the_log(run, command):
    assert run("--box", "1:4,4,12,12", "--box", "@4:1:60,44,12,12", "-o", "out", "--format", "jsonl").code == 0
    assert "     4  instruction   correct 1: box" in command("show", "out").out
    assert lefts("out")[4] == {1: 60}


def test_a_target_that_is_added_and_dropped_later_may_be_resumed_by_where_it_is_not(run):
    options = ("--box", "@2:2:20,24,12,12", "--drop", "@4:2", "--point", "@6:2:62,46,-", "--format", "jsonl")
    done = run("--box", "1:4,4,12,12", *options, "-o", "out")
    assert (done.code, done.err) == (0, "")
    assert [sorted(each) for each in lefts("out")] == [[1]] * 2 + [[1, 2]] * 2 + [[1]] * 2 + [[1, 2]] * 4


def test_two_targets_on_one_object_are_one_warning_and_quiet_prints_neither_it_nor_notes(run):
    options = ("--box", "4,4,12,12", "--box", "5,5,9,9")
    done = run(*options, "-o", "out")
    warning = "trackgpt: warning: frame 4: targets 1 and 2 have been on one object for 5 frames; show one of them again"
    assert [line[: len(warning)] for line in done.err.splitlines()] == [
        warning,
        "trackgpt: note: objects overlap on 10 frames; in masks/ the higher score has the pixel"[: len(warning)],
    ]
    assert done.out.splitlines() == ["frames=10 rethinks=0 score=0.900 warnings=1 out=out"]
    assert run(*options, "-q", "-o", "quiet").err == ""


def test_a_point_that_the_mask_of_its_own_box_denies_is_a_warning(run):
    done = run("--box", "4,4,12,12", "--point", "1:65,50", "--point", "1:8,8", "--format", "jsonl", "-o", "out")
    said = "frame 0: target 1: the point 65,50 is on the target and outside of its box and its mask; look at its mask"
    assert (done.code, done.values()["warnings"], said in done.err) == (0, "1", True)
    done = run("--box", "4,4,12,12", "--point", "1:65,50,-", "--format", "jsonl", "-o", "other")
    assert (done.code, done.err) == (0, "")


def test_the_help_shows_pointing_in_a_group_of_its_own(command):
    shown = command("track", "--help").out
    assert "Pointing" in shown
    assert all(name in shown for name in ("--box", "--mask", "--point", "--drop", "ID:x,y,w,h", "as displayed"))
