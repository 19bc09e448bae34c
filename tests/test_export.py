"""The run folder and every format made from it: round trips, equal bytes, cut runs, full disks, damaged lines."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.davis import PALETTE, DavisWriter
from trackgpt.export.exporting import check_space, estimate, export
from trackgpt.export.records import (
    EventRecord,
    ObjectRecord,
    RunFolder,
    TrackRecord,
    read_events,
    read_run,
    read_tracks,
    record_of,
)
from trackgpt.files import write_whole
from trackgpt.geometry.masks import boxes_of, decode_rle, encode_rle
from trackgpt.types import Prediction

HEIGHT, WIDTH = 12, 16


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def prediction(*masks: np.ndarray, scores: tuple[float, ...] = (0.84, 0.5)) -> Prediction:
    stack = np.stack(masks) if masks else np.zeros((0, HEIGHT, WIDTH), bool)
    present = stack.any(axis=(1, 2))
    ids = np.arange(1, len(stack) + 1)
    return Prediction(boxes_of(stack), stack, np.array(scores[: len(stack)], np.float32), present, ids)


EMPTY = np.zeros((HEIGHT, WIDTH), bool)
# Frame 0: two squares of 16 pixels that share 4. Frame 1: the second is away. Frame 2: both are. Frame 3: unreadable.
FRAMES = [(square(2, 3, 4), square(4, 5, 4)), (square(2, 4, 4), EMPTY), (EMPTY, EMPTY)]


def write_run(path: Path, **options: bool) -> Path:
    with RunFolder(path, **options) as run:
        run.event("start", 0, 0.0)
        run.event("instruction", 0, 0.0, text="the left square")
        for index, masks in enumerate(FRAMES):
            run.track(record_of(index, index / 3, prediction(*masks)))
        run.event("rethink", 2, 2 / 3, id=1, reason="purport", old=np.float32(0.3), new=float("nan"), ms=812)
        run.track(TrackRecord(3, 1.0, (HEIGHT, WIDTH), problem="undecodable"))
        run.event("done", 3, 1.0)
        run.describe({"seed": 0, "model": "nano", "size": np.int64(3)})
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


# The log


def test_a_frame_is_one_line_with_rounded_numbers():
    line = record_of(240, 8 / 3, prediction(square(2, 3, 4), EMPTY)).to_json()
    rle = json.dumps(encode_rle(square(2, 3, 4)))
    assert line == (
        '{"v":1,"i":240,"t":2.666667,"size":[12,16],"objs":['
        f'{{"id":1,"box":[3.0,2.0,7.0,6.0],"rle":{rle},"purport":0.84,"state":"tracked"}},'
        '{"id":2,"box":null,"rle":null,"purport":0.5,"state":"absent"}]}'
    )


def test_what_is_written_is_read_back_equal(run):
    records = list(read_tracks(run))
    assert [r.index for r in records] == [0, 1, 2, 3]
    assert [TrackRecord.from_json(r.to_json()) for r in records] == records
    assert records[1].objects[1] == ObjectRecord(2, None, None, 0.5, "absent")
    assert records[3].problem == "undecodable"
    np.testing.assert_array_equal(records[0].masks(), np.stack(FRAMES[0]))
    assert records == list(read_tracks(run / "tracks.jsonl"))


def test_no_negative_zero_reaches_the_log():
    moved = replace(prediction(square(0, 0, 4)), boxes=np.array([[-0.001, 0, 4, 4]], np.float32))
    assert '"box":[0.0,0.0,4.0,4.0]' in record_of(0, -0.0, moved).to_json()


def test_a_prediction_without_targets_is_a_record_without_objects():
    assert record_of(5, 0.2, prediction()).to_json() == '{"v":1,"i":5,"t":0.2,"size":[12,16],"objs":[]}'


def test_a_box_without_a_mask_keeps_its_box():
    bare = Prediction(
        np.array([[1, 2, 3, 4]], np.float32), EMPTY[None], np.array([np.nan]), np.array([True]), np.array([7])
    )
    assert record_of(0, 0, bare).objects == (ObjectRecord(7, (1, 2, 3, 4), None, None, "tracked"),)


def test_states_are_kept_and_must_fit_the_prediction():
    found = prediction(square(2, 3, 4), EMPTY)
    assert [o.state for o in record_of(0, 0, found, ["suspect", "searching"]).objects] == ["suspect", "searching"]
    with pytest.raises(UsageError, match="1 states for 2 objects"):
        record_of(0, 0, found, ["tracked"])
    with pytest.raises(UsageError, match="object 2 is called tracked but is not present"):
        record_of(0, 0, found, ["tracked", "tracked"])


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
        '{"v":1,"seq":2,"i":2,"t":0.666667,"type":"rethink","id":1,"reason":"purport","old":0.3,"new":null}'
    )


def test_milliseconds_are_kept_only_when_asked_for(tmp_path):
    run = write_run(tmp_path / "run", timings=True)
    assert [e.data.get("ms") for e in read_events(run)] == [None, None, 812, None]


def test_an_event_without_its_fields_or_with_reserved_ones_is_refused(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        with pytest.raises(UsageError, match="missing fields .'new', 'old'."):
            run.event("rethink", 0, 0.0, reason="purport")
        with pytest.raises(UsageError, match="reserved fields .'seq'."):
            run.event("warn", 0, 0.0, text="careful", seq=4)
        with pytest.raises(UsageError, match="'verdict' does not exist"):
            run.event("verdict", 0, 0.0)  # type: ignore[arg-type]
    assert (tmp_path / "run" / "events.jsonl").read_text() == ""


@pytest.mark.parametrize("text", ["谁会赢? “é” 🐕", "line\nbreak \u2028 \x00", "half a pair \udc80", '{"v":1}'])
def test_any_words_survive_the_log(tmp_path, text):
    with RunFolder(tmp_path) as run:
        run.event("instruction", 0, 0.0, text=text)
        run.event("done", 0, 0.0)
    assert [e.data.get("text") for e in read_events(tmp_path)] == [text, None]


def test_every_line_is_in_the_file_when_the_call_returns(tmp_path):
    with RunFolder(tmp_path) as run:
        for index in range(3):
            run.track(TrackRecord(index, 0.0, (4, 4)))
            assert (tmp_path / "tracks.jsonl").read_bytes().count(b"\n") == index + 1


def test_run_json_is_replaced_whole_and_leaves_no_temporary_file(run):
    assert read_run(run) == {"seed": 0, "model": "nano", "size": 3}
    with RunFolder(run, overwrite=True) as folder:
        folder.describe({"b": Path("x") / "y", "a": float("inf"), "rate": 1e-7})
    assert (run / "run.json").read_text() == '{\n  "a": null,\n  "b": "x/y",\n  "rate": 1e-07\n}\n'
    assert sorted(os.listdir(run)) == ["events.jsonl", "run.json", "tracks.jsonl"]


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
        (b'"v":1', b'"v":2', "\"v\" is '2'; wanted 1; a newer trackgpt may have written it"),
        (b'"i":1', b'"i":-1', "\"i\" is '-1'; wanted a whole number from 0"),
        (b'"i":1', b'"i":0', "frame 0 after frame 0; wanted a later frame"),
        (b'"size":[12,16]', b'"size":[12]', "wanted .height, width."),
        (b'"size":[12,16]', b'"size":[12,17]', "covers 192 pixels; wanted 12 x 17 = 204"),
        (b'"state":"absent"', b'"state":"gone"', "wanted one of tracked, suspect, absent, searching"),
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
    record = TrackRecord(0, 0.0, (HEIGHT, WIDTH), record_of(0, 0, prediction(*FRAMES[0])).objects)
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
        values = writer.indices(record_of(0, 0, prediction(*FRAMES[0], scores=scores)), HEIGHT, WIDTH)
        assert set(values[FRAMES[0][0] & FRAMES[0][1]]) == {winner}


def test_pictures_can_have_another_size_than_the_record(tmp_path):
    record = record_of(12345, 0, prediction(square(2, 3, 4)))
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
    made = export(tmp_path, ["mot", "coco", "davis"])
    assert made["mot"].read_text() == "5,3,1.50,2.00,1.50,2.00,1.0000,-1,-1,-1\n"
    annotation = json.loads(made["coco"].read_text())["annotations"][0]
    assert (annotation["bbox"], annotation["area"], annotation["segmentation"]) == ([1.5, 2.0, 1.5, 2.0], 3.0, [])
    assert "score" not in annotation
    assert not np.asarray(Image.open(made["davis"] / "00004.png")).any()


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
