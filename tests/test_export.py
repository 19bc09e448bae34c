"""The run folder and every format made from it: round trips, equal bytes, cut runs, full disks, damaged lines."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoded import shows_the_same
from PIL import Image
from pycocotools.coco import COCO

from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.davis import PALETTE, DavisWriter
from trackgpt.export.exporting import check_space, estimate, export
from trackgpt.export.overlay import annotated, draw
from trackgpt.export.records import (
    EventRecord,
    ObjectRecord,
    RunFolder,
    Take,
    TrackRecord,
    events_of_take,
    read_events,
    read_takes,
    read_tracks,
    record_of,
)
from trackgpt.files import write_whole
from trackgpt.geometry.masks import boxes_of, decode_rle, encode_rle
from trackgpt.types import Prediction

HEIGHT, WIDTH = 12, 16
SIZE = (HEIGHT, WIDTH)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def prediction(*masks: np.ndarray, scores: tuple[float, ...] = (0.84, 0.5)) -> Prediction:
    stack = np.stack(masks) if masks else np.zeros((0, HEIGHT, WIDTH), bool)
    present = stack.any(axis=(1, 2))
    ids, trusted = np.arange(1, len(stack) + 1), np.array(scores[: len(stack)], np.float32)
    return Prediction(boxes_of(stack), stack, trusted, present, ids, {"purport": trusted})


def logged(index: int, *masks: np.ndarray, **more: object) -> TrackRecord:
    """Of a frame at `index` seconds, with these masks."""
    return replace(record_of(index, index, SIZE, prediction(*masks)), **more)


EMPTY = np.zeros((HEIGHT, WIDTH), bool)
# Frame 0: two squares of 16 pixels that share 4. Frame 1: the second is away. Frame 2: both are. Frame 3: unreadable.
FRAMES = [(square(2, 3, 4), square(4, 5, 4)), (square(2, 4, 4), EMPTY), (EMPTY, EMPTY)]


def write_run(path: Path, **options: bool) -> Path:
    with RunFolder(path, **options) as run:
        run.event(EventRecord.of(0, "start", 0, 0.0))
        run.event(EventRecord.of(1, "instruction", 0, 0.0, text="the left square"))
        for index, masks in enumerate(FRAMES):
            run.track(record_of(index, index / 3, SIZE, prediction(*masks)))
        scores = {"old": np.float32(0.3), "new": float("nan")}
        run.event(EventRecord.of(2, "rethink", 2, 2 / 3, id=1, reason="purport", **scores))
        run.track(TrackRecord(3, 1.0, SIZE, problem="undecodable"))
        run.event(EventRecord.of(3, "done", 3, 1.0))
        run.describe({"seed": 0, "model": "nano", "size": np.int64(3)})
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


# The log


def test_a_frame_is_one_line_with_rounded_numbers():
    line = record_of(240, 8 / 3, SIZE, prediction(square(2, 3, 4), EMPTY)).to_json()
    rle = json.dumps(encode_rle(square(2, 3, 4)))
    assert line == (
        '{"v":3,"take":1,"i":240,"t":2.666667,"size":[12,16],"objs":['
        f'{{"id":1,"box":[3.0,2.0,7.0,6.0],"rle":{rle},"score":0.84,"state":"tracked","purport":0.84}},'
        '{"id":2,"box":null,"rle":null,"score":0.5,"state":"absent","purport":0.5}]}'
    )


def test_what_is_written_is_read_back_equal(run):
    records = list(read_tracks(run))
    assert [r.index for r in records] == [0, 1, 2, 3]
    assert [TrackRecord.from_json(r.to_json()) for r in records] == records
    assert records[1].objects[1] == ObjectRecord(2, None, None, 0.5, "absent", {"purport": 0.5})
    assert records[3].problem == "undecodable"
    np.testing.assert_array_equal(records[0].masks(), np.stack(FRAMES[0]))
    assert records == list(read_tracks(run / "tracks.jsonl"))


def test_the_name_of_a_frame_comes_back_and_stands_last_in_its_line():
    record = TrackRecord(5, 0.5, SIZE, name=os.fsdecode(b"\xff\n.jpg"))
    assert TrackRecord.from_json(record.to_json()) == record
    assert record.to_json().endswith('"name":"\udcff\\n.jpg"}')
    assert TrackRecord(5, 0.5, SIZE).mask_name == "00005.png"
    assert TrackRecord(5, 0.5, SIZE, name="b.c.jpg").mask_name == "b.c.png"


def test_no_negative_zero_reaches_the_log():
    moved = replace(prediction(square(0, 0, 4)), boxes=np.array([[-0.001, 0, 4, 4]], np.float32))
    assert '"box":[0.0,0.0,4.0,4.0]' in record_of(0, -0.0, SIZE, moved).to_json()


def test_a_prediction_without_targets_is_a_record_without_objects():
    line = '{"v":3,"take":1,"i":5,"t":0.2,"size":[12,16],"objs":[]}'
    assert record_of(5, 0.2, SIZE, prediction()).to_json() == line


def test_a_box_without_a_mask_keeps_its_box():
    bare = Prediction(
        np.array([[1, 2, 3, 4]], np.float32), EMPTY[None], np.array([np.nan]), np.array([True]), np.array([7])
    )
    assert record_of(0, 0, SIZE, bare).objects == (ObjectRecord(7, (1, 2, 3, 4), None, None, "tracked"),)


def test_states_are_kept_and_must_fit_the_prediction():
    found = prediction(square(2, 3, 4), EMPTY)
    assert [o.state for o in record_of(0, 0, SIZE, found, ["suspect", "absent"]).objects] == ["suspect", "absent"]
    assert [o.state for o in record_of(0, 0, SIZE, found).objects] == ["tracked", "absent"]
    with pytest.raises(UsageError, match="1 states for 2 objects"):
        record_of(0, 0, SIZE, found, ["tracked"])
    with pytest.raises(UsageError, match="object 2 is called tracked but is not present"):
        record_of(0, 0, SIZE, found, ["tracked", "tracked"])


def test_two_equal_runs_give_equal_bytes_in_every_format(tmp_path):
    # Both folders have one name, since coco.json names the video after its folder.
    first, second = write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")
    for folder in (first, second):
        export(folder, ["davis", "coco", "mot", "timeline"])
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 3 + 4 + 3
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_events_are_counted_cleaned_and_read_back(run):
    events = list(read_events(run))
    assert [(e.seq, e.type) for e in events] == [(0, "start"), (1, "instruction"), (2, "rethink"), (3, "done")]
    assert events[2] == EventRecord(2, 2, 0.666667, "rethink", 1, {"reason": "purport", "old": 0.3, "new": None})
    assert (run / "events.jsonl").read_text().splitlines()[2] == (
        '{"v":3,"seq":2,"take":1,"i":2,"t":0.666667,"type":"rethink","id":1,"reason":"purport","old":0.3,"new":null}'
    )


def test_an_event_without_its_fields_or_with_reserved_ones_is_refused():
    with pytest.raises(UsageError, match="missing fields .'new', 'old'."):
        EventRecord.of(0, "rethink", 0, 0.0, reason="purport")
    with pytest.raises(UsageError, match="missing fields .'parent'."):
        EventRecord.of(0, "take", 0, 0.0)
    with pytest.raises(UsageError, match="reserved fields .'v'."):
        EventRecord.of(0, "warn", 0, 0.0, text="careful", v=4)
    with pytest.raises(UsageError, match="'verdict' does not exist"):
        EventRecord.of(0, "verdict", 0, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["谁会赢? “é” 🐕", "line\nbreak \u2028 \x00", "half a pair \udc80", '{"v":1}'])
def test_any_words_survive_the_log(tmp_path, text):
    with RunFolder(tmp_path) as run:
        run.event(EventRecord.of(0, "instruction", 0, 0.0, text=text))
        run.event(EventRecord.of(1, "done", 0, 0.0))
    assert [e.data.get("text") for e in read_events(tmp_path)] == [text, None]


def test_every_line_is_in_the_file_when_the_call_returns(tmp_path):
    with RunFolder(tmp_path) as run:
        for index in range(3):
            run.track(TrackRecord(index, 0.0, (4, 4)))
            assert (tmp_path / "tracks.jsonl").read_bytes().count(b"\n") == index + 1


def test_run_json_is_replaced_whole_and_leaves_no_temporary_file(run):
    assert json.loads((run / "run.json").read_text()) == {"seed": 0, "model": "nano", "size": 3}
    with RunFolder(run, overwrite=True) as folder:
        folder.describe({"b": Path("x") / "y", "a": float("inf"), "rate": 1e-7})
    assert (run / "run.json").read_text() == '{\n  "a": null,\n  "b": "x/y",\n  "rate": 1e-07\n}\n'
    assert sorted(os.listdir(run)) == ["events.jsonl", "run.json", "tracks.jsonl"]


def test_a_line_of_version_1_is_read_with_its_purport_as_the_score():
    rle = json.dumps(encode_rle(square(2, 3, 4)))
    line = (
        '{"v":1,"i":240,"t":2.666667,"size":[12,16],"objs":['
        f'{{"id":1,"box":[3.0,2.0,7.0,6.0],"rle":{rle},"purport":0.84,"state":"tracked"}},'
        '{"id":2,"box":null,"rle":null,"purport":null,"state":"absent"}]}'
    )
    record = TrackRecord.from_json(line)
    assert (record.index, record.take, record.parent) == (240, 1, 0)
    assert [(o.score, dict(o.own_scores), o.state) for o in record.objects] == [
        (0.84, {"purport": 0.84}, "tracked"),
        (None, {"purport": None}, "absent"),
    ]
    np.testing.assert_array_equal(record.masks()[0], square(2, 3, 4))
    assert TrackRecord.from_json(record.to_json()) == record
    with pytest.raises(InputError, match='"purport" is missing; wanted a number or null'):
        TrackRecord.from_json(line.replace('"purport":null,', ""))


def test_an_event_of_version_1_is_read():
    line = '{"v":1,"seq":2,"i":2,"t":0.5,"type":"rethink","id":1,"reason":"purport","old":[0.3],"new":[0.9]}'
    event = EventRecord(2, 2, 0.5, "rethink", 1, {"reason": "purport", "old": [0.3], "new": [0.9]})
    assert EventRecord.from_json(line) == event
    assert EventRecord.from_json(event.to_json()) == event


def test_a_run_of_version_1_is_exported_as_before(tmp_path):
    objects = '[{"id":1,"box":[3,2,7,6],"rle":null,"purport":0.84,"state":"tracked"}]'
    lines = [f'{{"v":1,"i":{i},"t":{i / 4},"size":[12,16],"objs":{objects}}}\n' for i in range(2)]
    (tmp_path / "tracks.jsonl").write_text("".join(lines))
    (tmp_path / "events.jsonl").write_text('{"v":1,"seq":0,"i":0,"t":0.0,"type":"instruction","text":"it"}\n')
    made = export(tmp_path, ["mot", "coco", "timeline"])
    assert made["mot"].read_text() == "".join(f"{i},1,3.00,2.00,4.00,4.00,0.8400,-1,-1,-1\n" for i in (1, 2))
    assert json.loads(made["coco"].read_text())["annotations"][0]["score"] == 0.84
    assert read_takes(tmp_path) == [Take(1)]


# Takes


def write_takes(path: Path) -> Path:
    """Frames 0 to 4; then take 2 from frame 2 of take 1, and take 3 from frame 3 of take 2; what is seen differs."""
    with RunFolder(path) as run:
        for index in range(5):
            run.track(logged(index, square(1, index, 3)))
        run.track(logged(2, square(4, 2, 3), take=2, parent=1))
        run.track(logged(3, square(4, 3, 3), take=2))
        run.track(logged(4, square(4, 4, 3), take=2))
        run.track(logged(3, square(8, 3, 3), take=3, parent=2))
        run.track(logged(4, square(8, 4, 3), take=3))
        for seq, (index, take, text) in enumerate([(0, 1, "a"), (4, 1, "b"), (2, 2, "c"), (3, 2, "d"), (3, 3, "e")]):
            run.event(EventRecord.of(seq, "instruction", index, index, take, text=text))
        run.describe({})
    return path


def tops(run: Path, take: int | None = None) -> list[float]:
    return [record.objects[0].box[1] for record in read_tracks(run, take)]


def test_a_take_shows_the_frames_of_those_it_goes_on_from_up_to_its_own(tmp_path):
    run = write_takes(tmp_path / "run")
    assert read_takes(run) == [Take(1), Take(2, 1, 2), Take(3, 2, 3)]
    assert tops(run, 1) == [1, 1, 1, 1, 1]
    assert tops(run, 2) == [1, 1, 4, 4, 4]
    assert tops(run, 3) == tops(run) == [1, 1, 4, 8, 8]
    for take in (1, 2, 3, None):
        assert [record.index for record in read_tracks(run, take)] == [0, 1, 2, 3, 4]
    heard = {take: "".join(e.data["text"] for e in events_of_take(run, take)) for take in (1, 2, 3, None)}
    assert heard == {1: "ab", 2: "acd", 3: "ace", None: "ace"}
    with pytest.raises(UsageError, match="there is no take 4; wanted one of 1, 2, 3"):
        list(read_tracks(run, 4))


def test_the_first_line_of_a_take_says_what_it_goes_on_from(tmp_path):
    lines = (write_takes(tmp_path / "run") / "tracks.jsonl").read_text().splitlines()
    assert [json.loads(line).get("parent") for line in lines] == [None] * 5 + [1, None, None, 2, None]
    assert [TrackRecord.from_json(line).to_json() for line in lines] == lines


def test_takes_of_one_parent_do_not_know_of_each_other(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        for index in range(4):
            run.track(logged(index, square(1, index, 3)))
        run.track(logged(3, square(4, 3, 3), take=2, parent=1))
        run.track(logged(1, square(8, 1, 3), take=3, parent=1))
        run.track(logged(1, square(6, 1, 3), take=4, parent=2))
    path = tmp_path / "run"
    assert (tops(path, 2), tops(path, 3), tops(path, 4)) == ([1, 1, 1, 4], [1, 8], [1, 6])


@pytest.mark.parametrize("parent", [b"", b',"parent":3', b',"parent":7', b',"parent":-1', b',"parent":0'])
def test_a_take_without_a_parent_among_the_lines_before_it_is_refused(tmp_path, parent):
    run = write_takes(tmp_path / "run")
    whole = (run / "tracks.jsonl").read_bytes()
    assert whole.count(b',"parent":2') == 1
    (run / "tracks.jsonl").write_bytes(whole.replace(b',"parent":2', parent))
    wanted = (
        "wanted a whole number from 0" if parent == b',"parent":-1' else "take 3 has no parent among the lines before"
    )
    for read in (read_takes, lambda run: list(read_tracks(run)), lambda run: export(run, ["mot"])):
        with pytest.raises(InputError, match=f"line 9: .*{wanted}"):
            read(run)


def test_every_format_shows_the_last_take(tmp_path):
    run, alone = write_takes(tmp_path / "a" / "run"), tmp_path / "b" / "run"
    with RunFolder(alone) as folder:
        for record in read_tracks(run):
            folder.track(replace(record, take=1, parent=0))
        for event in events_of_take(run):
            folder.event(replace(event, take=1))
    frames = [(index, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)) for index in range(5)]
    names = ["coco", "mot", "davis", "timeline", "mp4"]
    made, wanted = (export(folder, names, frames) for folder in (run, alone))
    assert sorted(os.listdir(made["davis"])) == [f"{index:05d}.png" for index in range(5)]
    for index in range(5):
        name = f"{index:05d}.png"
        assert (made["davis"] / name).read_bytes() == (wanted["davis"] / name).read_bytes()
    for name in ("coco", "mot", "timeline"):
        assert made[name].read_bytes() == wanted[name].read_bytes(), name
    assert shows_the_same(made["mp4"], wanted["mp4"])
    assert [line.split(",")[3] for line in made["mot"].read_text().splitlines()] == [
        "1.00",
        "1.00",
        "4.00",
        "8.00",
        "8.00",
    ]


# Trackers of boxes


def test_a_prediction_without_masks_is_logged_drawn_and_exported(tmp_path):
    boxes = np.array([[3, 2, 7.5, 6], [np.nan] * 4], np.float32)
    seen = np.array([True, False])
    trusted = np.array([0.75, 0.1], np.float32)
    found = Prediction(boxes, None, trusted, seen, np.array([4, 9]), {"presence": trusted, "margin": -trusted})
    record = record_of(2, 0.5, SIZE, found)
    assert record.objects == (
        ObjectRecord(4, (3, 2, 7.5, 6), None, 0.75, "tracked", {"presence": 0.75, "margin": -0.75}),
        ObjectRecord(9, None, None, 0.1, "absent", {"presence": 0.1, "margin": -0.1}),
    )
    assert (TrackRecord.from_json(record.to_json()), record.masks().any()) == (record, False)
    picture = np.full((4 * HEIGHT, 4 * WIDTH, 3), 90, np.uint8)
    drawn = draw(picture, record)
    assert (drawn != picture).any()
    large = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    np.testing.assert_array_equal(draw(large, found), draw(large, record))
    with RunFolder(tmp_path / "run") as run:
        run.track(record)
    assert [r.index for r, _ in annotated(tmp_path / "run", [(2, large)])] == [2]
    made = export(tmp_path / "run", ["coco", "mot", "timeline"])
    assert made["mot"].read_text() == "3,4,3.00,2.00,4.50,4.00,0.7500,-1,-1,-1\n"
    (annotation,) = json.loads(made["coco"].read_text())["annotations"]
    assert (annotation["bbox"], annotation["area"], annotation["segmentation"]) == ([3, 2, 4.5, 4], 18, [])
    with pytest.raises(OutputError, match="holds boxes, and the davis format holds masks; export mot or coco"):
        export(tmp_path / "run", ["davis"])
    assert not (tmp_path / "run/masks").exists()


# Damaged and cut logs


def test_a_log_cut_at_any_byte_keeps_the_frames_before_the_cut(run):
    whole = (run / "tracks.jsonl").read_bytes()
    for cut in range(0, len(whole), 7):
        (run / "tracks.jsonl").write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")
        assert [r.index for r in read_tracks(run)] == list(range(complete))


def test_a_run_that_was_killed_exports_what_it_has(run):
    whole = (run / "tracks.jsonl").read_bytes()
    (run / "tracks.jsonl").write_bytes(whole[: whole.index(b"\n", whole.index(b'"i":1')) + 20])
    made = export(run, ["davis", "coco", "mot", "timeline"])
    assert sorted(os.listdir(made["davis"])) == ["00000.png", "00001.png"]
    assert len(json.loads(made["coco"].read_text())["images"]) == 2
    assert made["mot"].read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (b'"v":3', b'"v":4', "\"v\" is '4'; wanted 1 or 2 or 3; a newer trackgpt may have written it"),
        (b'"v":3', b'"v":true', "\"v\" is 'True'; wanted 1 or 2 or 3"),
        (b'"take":1', b'"take":0', "\"take\" is '0'; wanted a whole number from 1"),
        (b'"take":1,', b"", '"take" is missing; wanted a whole number from 1'),
        (b'"purport":0.84', b'"purport":"high"', "\"purport\" is 'high'; wanted a number or null"),
        (b'"score":0.84,', b"", '"score" is missing; wanted a number or null'),
        (b'"i":1', b'"i":-1', "\"i\" is '-1'; wanted a whole number from 0"),
        (b'"i":1', b'"i":0', "frame 0 after frame 0; wanted a later frame"),
        (b'"size":[12,16]', b'"size":[12]', "wanted .height, width."),
        (b'"size":[12,16]', b'"size":[12,17]', "covers 192 pixels; wanted 12 x 17 = 204"),
        (b'"state":"absent"', b'"state":"gone"', "wanted one of tracked, suspect, absent$"),
        (b'"box":null', b'"box":[1,2,3]', "wanted four numbers x1, y1, x2, y2 or null"),
        (b'"box":null', b'"box":[1,2,3,NaN]', "wanted four numbers"),
        (b'"id":2', b'"id":true', "wanted a whole number from 1"),
        (b'"t":', b'"time":', '"t" is missing; wanted seconds'),
        (b'"objs":', b'"objs"', "not JSON"),
    ],
)
def test_a_malformed_line_is_named_with_what_was_wanted(run, old, new, wanted):
    lines = (run / "tracks.jsonl").read_bytes().splitlines(keepends=True)
    assert old in lines[1]
    lines[1] = lines[1].replace(old, new)
    (run / "tracks.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=wanted) as caught:
        export(run, ["davis"])
    assert "tracks.jsonl, line 2: " in str(caught.value) or "run, line 2: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "masks").exists()


def test_a_folder_without_a_log_is_named_and_nothing_is_made_in_it(tmp_path):
    for name in ("davis", "coco", "mot", "timeline", "jsonl"):
        with pytest.raises(InputError, match=r"IN01: .*tracks.jsonl: cannot be read"):
            export(tmp_path, [name])
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="IN01"):
        export(tmp_path / "absent", ["mot"])
    assert not (tmp_path / "absent").exists()


# The folder


def test_a_folder_in_use_needs_overwrite(run):
    before = (run / "tracks.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"OUT01: .*needs --overwrite"):
        RunFolder(run)
    assert (run / "tracks.jsonl").read_bytes() == before


def test_overwrite_removes_an_earlier_run_and_leaves_strangers_files(run):
    export(run, ["davis", "coco", "mot", "timeline"])
    for name in ("video.mp4", "video.part.mp4", "video.finished.mp4"):
        (run / name).write_bytes(b"of a run that was killed")
    (run / "notes.txt").write_text("mine")
    (run / "masks" / "best.png").write_text("mine")
    (run / "lasot").mkdir()
    RunFolder(run, overwrite=True).close()
    assert sorted(os.listdir(run)) == ["events.jsonl", "lasot", "masks", "notes.txt", "tracks.jsonl"]
    assert os.listdir(run / "masks") == ["best.png"]
    assert (run / "tracks.jsonl").read_bytes() == b""


def test_overwrite_removes_the_masks_that_the_log_names_and_no_others(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        for index, name in enumerate(("b.jpg", "", "c.d.png")):
            run.track(logged(index, square(2, 3, 4), name=name))
    export(tmp_path / "run", ["davis"])
    masks = tmp_path / "run" / "masks"
    assert sorted(os.listdir(masks)) == ["00001.png", "b.png", "c.d.png"]
    for name in ("00000.png", "a.png", ".b.png.part"):
        (masks / name).write_text("of a stranger; the last one is of a run that was killed")
    RunFolder(tmp_path / "run", overwrite=True).close()
    assert sorted(os.listdir(masks)) == ["00000.png", "a.png"]


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/b.jpg", "..", "a\\b.jpg", "a\0b", 5])
def test_a_log_cannot_name_a_file_in_another_folder(name):
    line = json.dumps(json.loads(logged(0, square(2, 3, 4)).to_json()) | {"name": name})
    with pytest.raises(InputError, match='"name" is'):
        TrackRecord.from_json(line)


def test_two_writers_of_one_folder_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run"), pytest.raises(OutputError, match="OUT01"):
        RunFolder(tmp_path / "run")


def test_a_strangers_masks_are_not_taken_for_an_earlier_run(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "00000.png").write_text("annotated by hand")
    with pytest.raises(OutputError, match=r"OUT01: .*holds masks but no tracks.jsonl"):
        RunFolder(tmp_path, overwrite=True)
    assert (tmp_path / "masks" / "00000.png").read_text() == "annotated by hand"


def test_overwrite_does_not_follow_a_link_out_of_the_folder(run, tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "00000.png").write_text("truth")
    (run / "masks").symlink_to(tmp_path / "dataset")
    RunFolder(run, overwrite=True).close()
    assert (tmp_path / "dataset" / "00000.png").read_text() == "truth"
    assert not (run / "masks").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError, match=r"OUT01: .*is a file"):
        RunFolder(tmp_path / "run", overwrite=True)
    with pytest.raises(OutputError, match="OUT02"):
        RunFolder(tmp_path / "run" / "below")


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path):
    record = logged(0, *FRAMES[0])
    length = len(record.to_json()) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunFolder(tmp_path / "run") as run:
        # A limit on the size of files makes the system write half a line and then refuse, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * length + length // 2, hard))
        try:
            run.track(record)
            run.track(TrackRecord(1, 0.0, record.size, record.objects))
            with pytest.raises(OutputError, match=r"OUT02: .*tracks.jsonl: cannot be written") as caught:
                run.track(TrackRecord(2, 0.0, record.size, record.objects))
            with pytest.raises(OutputError, match="OUT02"):
                run.describe({"long": "x" * 10 * length})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.exit_code == 6
        assert (tmp_path / "run" / "tracks.jsonl").stat().st_size == 2 * length
        run.track(TrackRecord(3, 0.0, record.size, record.objects))
    assert [r.index for r in read_tracks(tmp_path / "run")] == [0, 1, 3]
    assert sorted(os.listdir(tmp_path / "run")) == ["events.jsonl", "tracks.jsonl"]


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = write_whole(tmp_path / "mot.txt", ["old"])

    def parts():
        yield "new"
        raise InputError("the log ends here")

    with pytest.raises(InputError):
        write_whole(path, parts())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["mot.txt"]


def test_space_is_checked_on_the_disk_of_a_folder_that_is_yet_to_be_made(tmp_path):
    check_space(tmp_path / "a" / "b", 1000)
    with pytest.raises(OutputError, match=r"OUT02: .*about 1000000000000.0 MB needed, .* MB free"):
        check_space(tmp_path / "a" / "b", 10**18)
    assert not (tmp_path / "a").exists()


def test_the_estimate_is_above_what_a_run_needs_and_not_absurd(run):
    made = export(run, ["davis", "coco", "mot"])
    needed = (run / "tracks.jsonl").stat().st_size + sum(f.stat().st_size for f in made["davis"].iterdir())
    needed += made["coco"].stat().st_size + made["mot"].stat().st_size
    assert needed < estimate(4, HEIGHT, WIDTH, ["davis", "coco", "mot"], objects=2) < needed + 2**21
    assert estimate(1000, 480, 854, ["mp4"]) > estimate(1000, 480, 854) + 1000 * 480 * 854 * 0.05


# DAVIS


def test_the_palette_interleaves_the_bits_of_the_index():
    colours = np.frombuffer(PALETTE, np.uint8).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(colours[index].tolist()) for index in known} == known
    assert len(np.unique(colours, axis=0)) == 256


def test_the_palette_is_that_of_the_davis_annotations(shared):
    files = sorted((shared / "data" / "davis" / "osvos_results").rglob("*.png"))
    palettes = {bytes(image.getpalette("RGB")) for image in map(Image.open, files[:3]) if image.mode == "P"}
    if not palettes:
        pytest.skip("no indexed picture among the DAVIS samples")
    assert all(PALETTE.startswith(palette.rstrip(b"\0")) for palette in palettes)


def test_every_frame_has_a_picture_and_the_higher_score_has_the_overlap(run):
    folder = export(run, ["davis"])["davis"]
    assert sorted(os.listdir(folder)) == ["00000.png", "00001.png", "00002.png", "00003.png"]
    pictures = [Image.open(folder / f"{index:05d}.png") for index in range(4)]
    assert {(p.mode, p.size) for p in pictures} == {("P", (WIDTH, HEIGHT))}
    assert bytes(pictures[0].getpalette("RGB")) == PALETTE[: len(pictures[0].getpalette("RGB"))]
    first = np.asarray(pictures[0])
    np.testing.assert_array_equal(first == 1, FRAMES[0][0])
    np.testing.assert_array_equal(first == 2, FRAMES[0][1] & ~FRAMES[0][0])
    np.testing.assert_array_equal(np.asarray(pictures[1]), FRAMES[1][0].astype(np.uint8))
    assert not np.asarray(pictures[2]).any()
    assert not np.asarray(pictures[3]).any()


def test_overlaps_are_counted_and_reported(tmp_path, run, caplog):
    writer = DavisWriter(tmp_path / "masks")
    for record in read_tracks(run):
        writer.write(record, HEIGHT, WIDTH)
    assert (writer.frames_overlapping, writer.pixels_overlapping) == (1, 4)
    export(run, ["davis"])
    assert "objects overlap on 1 frames (4 pixels)" in caplog.text


def test_a_lower_score_gives_way_whatever_the_order_and_equal_ones_to_the_lower_id(tmp_path):
    writer = DavisWriter(tmp_path)
    for scores, winner in (((0.2, 0.9), 2), ((0.9, 0.2), 1), ((0.5, 0.5), 1), ((0.0, float("nan")), 1)):
        values = writer.indices(record_of(0, 0, SIZE, prediction(*FRAMES[0], scores=scores)), HEIGHT, WIDTH)
        assert set(values[FRAMES[0][0] & FRAMES[0][1]]) == {winner}


def test_pictures_can_have_another_size_than_the_record(tmp_path):
    record = logged(12345, square(2, 3, 4))
    path = DavisWriter(tmp_path).write(record, 2 * HEIGHT, 2 * WIDTH)
    assert path.name == "12345.png"
    assert np.asarray(Image.open(path)).sum() == 64


def test_an_id_that_does_not_fit_one_byte_is_refused_with_advice(tmp_path):
    mask = encode_rle(square(0, 0, 2))
    fits = TrackRecord(0, 0.0, (HEIGHT, WIDTH), (ObjectRecord(255, (0, 0, 2, 2), mask, 0.5),))
    assert np.asarray(Image.open(DavisWriter(tmp_path / "masks").write(fits, HEIGHT, WIDTH))).max() == 255
    with RunFolder(tmp_path / "run") as run:
        run.track(TrackRecord(0, 0.0, (HEIGHT, WIDTH), (ObjectRecord(256, (0, 0, 2, 2), mask, 0.5),)))
    with pytest.raises(OutputError, match="object id 256 does not fit .* up to 255; export coco instead"):
        export(tmp_path / "run", ["davis"])


# COCO and MOT


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_pycocotools_reads_coco_json_and_gives_the_masks_back(run, capsys):
    coco = COCO(str(export(run, ["coco"])["coco"]))
    assert coco.getImgIds() == [1, 2, 3, 4]
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "object", "supercategory": "object"}]
    found = coco.loadAnns(coco.getAnnIds())
    assert [(a["image_id"], a["track_id"], a["bbox"], a["area"], a["score"]) for a in found] == [
        (1, 1, [3.0, 2.0, 4.0, 4.0], 16, 0.84),
        (1, 2, [5.0, 4.0, 4.0, 4.0], 16, 0.5),
        (2, 1, [4.0, 2.0, 4.0, 4.0], 16, 0.84),
    ]
    assert [a["id"] for a in found] == [1, 2, 3]
    for annotation, mask in zip(found, [*FRAMES[0], FRAMES[1][0]]):
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
        counts = annotation["segmentation"]["counts"]
        np.testing.assert_array_equal(decode_rle(counts, *annotation["segmentation"]["size"]), mask)


def test_coco_json_says_which_video_and_frame_an_image_is(run):
    content = json.loads(export(run, ["coco"])["coco"].read_text())
    assert content["videos"] == [
        {
            "id": 1,
            "name": "run",
            "height": 12,
            "width": 16,
            "length": 4,
            "file_names": ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg"],
        }
    ]
    assert content["tracks"] == [{"id": k, "category_id": 1, "video_id": 1} for k in (1, 2)]
    image = {"id": 3, "video_id": 1, "frame_id": 2, "file_name": "00002.jpg", "height": 12, "width": 16}
    assert content["images"][2] == image


def test_mot_counts_frames_from_one_and_leaves_absent_objects_out(run):
    assert export(run, ["mot"])["mot"].read_text() == (
        "1,1,3.00,2.00,4.00,4.00,0.8400,-1,-1,-1\n"
        "1,2,5.00,4.00,4.00,4.00,0.5000,-1,-1,-1\n"
        "2,1,4.00,2.00,4.00,4.00,0.8400,-1,-1,-1\n"
    )


def test_a_box_without_a_mask_or_score_is_exported(tmp_path):
    with RunFolder(tmp_path) as run:
        run.track(TrackRecord(4, 0.0, (HEIGHT, WIDTH), (ObjectRecord(3, (1.5, 2.0, 3.0, 4.0)),)))
    made = export(tmp_path, ["mot", "coco"])
    assert made["mot"].read_text() == "5,3,1.50,2.00,1.50,2.00,1.0000,-1,-1,-1\n"
    annotation = json.loads(made["coco"].read_text())["annotations"][0]
    assert (annotation["bbox"], annotation["area"], annotation["segmentation"]) == ([1.5, 2.0, 1.5, 2.0], 3.0, [])
    assert "score" not in annotation
    with pytest.raises(OutputError, match="this run holds boxes, and the davis format holds masks"):
        export(tmp_path, ["davis"])


def test_a_run_without_frames_gives_empty_files(tmp_path):
    RunFolder(tmp_path).close()
    made = export(tmp_path, ["jsonl", "davis", "coco", "mot", "timeline"])
    assert os.listdir(made["davis"]) == []
    assert made["mot"].read_text() == made["jsonl"].read_text() == ""
    assert json.loads(made["coco"].read_text())["videos"][0]["length"] == 0


def test_an_unknown_format_is_refused_before_anything_is_written(run):
    with pytest.raises(UsageError, match=r"'cocoo' does not exist; did you mean coco\?"):
        export(run, ["mot", "cocoo"])
    with pytest.raises(UsageError, match="mp4 needs the frames"):
        export(run, ["mot", "mp4"])
    assert not (run / "mot.txt").exists()


def test_formats_come_back_in_the_order_asked(run):
    assert list(export(run, ["mot", "jsonl", "mot"])) == ["mot", "jsonl"]
