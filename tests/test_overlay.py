"""The pictures for people: what is drawn where, in which colour, at any size, in a video and on the timeline."""

import time
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import decoded, shows_the_same
from PIL import Image

from trackgpt.errors import InputError
from trackgpt.export.exporting import export
from trackgpt.export.overlay import FILL, OKABE_ITO, _font, _length, _wrapped, annotated, colour_of, draw
from trackgpt.export.records import EventRecord, ObjectRecord, RunFolder, State, TrackRecord, record_of
from trackgpt.export.timeline import score_timeline
from trackgpt.geometry.masks import boxes_of, resize
from trackgpt.types import Prediction

HEIGHT, WIDTH = 240, 320
GREY = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def prediction(*masks: np.ndarray) -> Prediction:
    stack = np.stack(masks)
    count = len(stack)
    scores = np.linspace(0.84, 0.4, count, dtype=np.float32)
    return Prediction(boxes_of(stack), stack, scores, stack.any(axis=(1, 2)), np.arange(1, count + 1))


def tinted(number: int, below: int = 120) -> np.ndarray:
    return np.array([(1 - FILL) * below + FILL * channel for channel in colour_of(number)])


# One frame


def test_the_inside_of_a_mask_is_tinted_and_the_rest_left_alone():
    picture = draw(GREY, prediction(square(100, 60, 60), square(100, 200, 60)))
    assert np.abs(picture[130, 90] - tinted(1)).max() <= 1
    assert np.abs(picture[130, 230] - tinted(2)).max() <= 1
    away = picture[:70]
    assert (away == 120).all()
    assert (picture[180:] == 120).all()


def test_a_hole_in_a_mask_is_not_tinted_and_has_a_contour():
    picture = draw(GREY, prediction(square(80, 80, 90) & ~square(100, 100, 50)))
    assert (picture[125, 125] == 120).all()
    assert np.abs(picture[125, 99].astype(int) - colour_of(1)).max() <= 20


def test_the_contour_has_the_full_colour():
    picture = draw(GREY, prediction(square(100, 60, 60)))
    assert np.abs(picture[130, 60].astype(int) - colour_of(1)).max() <= 20


def test_the_frame_given_is_not_changed_and_may_be_read_only():
    frame = GREY.copy()
    frame.setflags(write=False)
    draw(frame, prediction(square(100, 60, 60)), "the cup", "This one.", "purport")
    assert (frame == 120).all()


def test_nothing_to_show_gives_the_frame_back():
    nothing = TrackRecord(0, 0.0, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(draw(GREY, nothing), GREY)


def test_a_record_is_drawn_as_the_prediction_it_was_made_from():
    found = prediction(square(100, 60, 60), np.zeros((HEIGHT, WIDTH), bool))
    np.testing.assert_array_equal(draw(GREY, record_of(0, 0.0, (HEIGHT, WIDTH), found)), draw(GREY, found))


def test_a_record_of_a_small_frame_is_scaled_to_a_large_one():
    found = record_of(0, 0.0, (HEIGHT, WIDTH), prediction(square(100, 60, 60)))
    large = draw(np.full((2 * HEIGHT, 2 * WIDTH, 3), 120, np.uint8), found)
    assert np.abs(large[260, 180] - tinted(1)).max() <= 1
    assert (large[340:] == 120).all()


def test_an_absent_object_is_named_not_hidden():
    record = TrackRecord(0, 0.0, (HEIGHT, WIDTH), (ObjectRecord(1, state="absent"),))
    changed = np.argwhere((draw(GREY, record) != GREY).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].min() > HEIGHT * 0.8


def test_what_is_said_is_at_the_top_and_what_is_answered_at_the_bottom():
    nothing = TrackRecord(0, 0.0, (HEIGHT, WIDTH))
    said = np.argwhere((draw(GREY, nothing, instruction="the red cup") != GREY).any(axis=2))[:, 0]
    answered = np.argwhere((draw(GREY, nothing, answer="It is on the left.") != GREY).any(axis=2))[:, 0]
    assert said.max() < HEIGHT * 0.2
    assert answered.min() > HEIGHT * 0.8


def test_asking_again_is_marked_at_the_upper_right():
    nothing = TrackRecord(0, 0.0, (HEIGHT, WIDTH))
    for reason in ("purport", "searching", "a reason of its own"):
        marked = np.argwhere((draw(GREY, nothing, asked=reason) != GREY).any(axis=2))
        assert marked[:, 0].max() < HEIGHT * 0.2
        assert marked[:, 1].min() > WIDTH * 0.3


def test_a_tag_keeps_off_the_banner_and_the_other_tag():
    words = "the two that stand at the very top of the picture, side by side"
    plain = draw(GREY, TrackRecord(0, 0.0, (HEIGHT, WIDTH)), words)
    banner = (plain != GREY).any(axis=2)
    both = prediction(square(24, 20, 80), square(24, 20, 80) & ~square(60, 20, 1))
    picture = draw(GREY, both, words)
    # Above the boxes is the banner: both tags are lower, one in either colour, full and side to side.
    rows = [np.flatnonzero((picture == colour_of(k)).all(axis=2).sum(axis=1) > 12) for k in (1, 2)]
    assert all(len(r) for r in rows)
    assert not set(rows[0].tolist()) & set(rows[1].tolist())
    np.testing.assert_array_equal(picture[:20][banner[:20]], plain[:20][banner[:20]])


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (31, 401), (401, 31), (1080, 1920)])
def test_any_size_of_frame_can_be_drawn_on(size):
    frame = np.full((*size, 3), 90, np.uint8)
    mask = np.zeros(size, bool)
    mask[: size[0] // 2, size[1] // 2 :] = True
    found = Prediction(boxes_of(mask[None]), mask[None], np.array([0.9]), np.array([True]), np.array([12]))
    words = "the one that comes towards the camera " * 12
    picture = draw(frame, found, words, words, "purport")
    assert picture.shape == frame.shape
    assert picture.dtype == np.uint8
    assert (picture != frame).any()


@pytest.mark.parametrize(
    "words", ["où est le vélo – là", "где собака", "الكلب", "红色的车 1", "🐕", "a\nb\tc", " ", "\u200b"]
)
def test_words_in_any_script_can_be_drawn(words):
    picture = draw(GREY, TrackRecord(0, 0.0, (HEIGHT, WIDTH)), words, words)
    assert picture.shape == GREY.shape


def test_letters_that_the_first_face_lacks_are_drawn_by_another():
    assert _font("red car", 17).getname()[0] == "Aileron"
    assert _font("vélo bleu", 17).getname()[0] == "DejaVu Sans"


def test_long_words_are_wrapped_within_the_width_and_end_in_an_ellipsis():
    font = _font("x", 17)
    rows = _wrapped("one two three four five six seven eight nine ten", font, 120, 3)
    assert len(rows) == 3
    assert rows[-1].endswith("…")
    assert max(_length(row, font) for row in rows) <= 120
    assert _wrapped("one two", font, 120, 3) == ["one two"]
    long = _wrapped("w" * 60, font, 120, 99)
    assert "".join(long) == "w" * 60
    assert max(_length(row, font) for row in long) <= 120


def test_colours_repeat_after_seven_and_are_those_of_okabe_and_ito():
    assert [colour_of(k) for k in range(1, 9)] == [*OKABE_ITO, OKABE_ITO[0]]
    assert len(set(OKABE_ITO)) == 7
    assert {(230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178)} <= set(OKABE_ITO)


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)])
def test_a_frame_that_is_no_rgb_picture_is_refused(frame):
    with pytest.raises(InputError, match=r"wanted uint8 \(height, width, 3\)"):
        draw(frame, TrackRecord(0, 0.0, (8, 8)))


def test_drawing_a_real_480p_frame_takes_milliseconds(shared):
    folder = shared / "data" / "davis"
    frame = np.asarray(Image.open(folder / "JPEGImages" / "480p" / "dog" / "00020.jpg").convert("RGB"))
    mask = np.asarray(Image.open(folder / "Annotations" / "480p" / "dog" / "00020.png").convert("L")) > 0
    found = Prediction(boxes_of(mask[None]), mask[None], np.array([0.8]), np.array([True]), np.array([1]))
    spent = []
    for _ in range(12):
        begin = time.process_time()
        draw(frame, found, "the dog that walks towards the camera", "The brown dog in front.", "purport")
        spent.append(time.process_time() - begin)
    # About 2 ms on one core; the limit is that of the design, and the fastest of twelve ignores a busy machine.
    assert min(spent) < 0.006


# A video


def write_run(path: Path, sizes: tuple[tuple[int, int], ...] = ((HEIGHT, WIDTH),) * 7) -> Path:
    with RunFolder(path) as run:
        run.event(EventRecord.of(0, "instruction", 0, 0.0, text="the square"))
        run.event(EventRecord.of(1, "answer", 0, 0.0, text="It is grey."))
        run.event(EventRecord.of(2, "rethink", 2, 0.5, id=1, reason="purport", old=0.3, new=0.9))
        run.event(EventRecord.of(3, "instruction", 4, 1.0, text="no, the other one ($x$)"))
        for index, size in enumerate(sizes):
            mask = resize(square(100, 60, 60), *size)
            state: State = "absent" if index == 3 else "tracked"
            shown = ObjectRecord(1, None, None, 0.1, state)
            if state == "tracked":
                found = Prediction(boxes_of(mask[None]), mask[None], np.array([0.8]), np.array([True]), np.array([1]))
                shown = record_of(index, 0.0, size, found).objects[0]
            run.track(TrackRecord(index, index / 4, size, (shown,)))
    return path


def frames_of(sizes: tuple[tuple[int, int], ...] = ((HEIGHT, WIDTH),) * 7) -> list[tuple[int, np.ndarray]]:
    return [(index, np.full((*size, 3), 120, np.uint8)) for index, size in enumerate(sizes)]


def test_words_and_marks_come_with_their_frames_and_a_mark_stays_for_a_moment(tmp_path):
    run = write_run(tmp_path)
    records = [record for record, _ in annotated(run, frames_of())]
    shown = [picture for _, picture in annotated(run, frames_of())]
    said = [("the square", "It is grey.", "")] * 2 + [("the square", "It is grey.", "purport")] * 2
    # Asked at 0.5 s, the mark stays for 0.8 s: it is there at 1.25 s and gone at 1.5 s.
    said += [("no, the other one ($x$)", "", "purport")] * 2 + [("no, the other one ($x$)", "", "")]
    assert [r.index for r in records] == [0, 1, 2, 3, 4, 5, 6]
    for record, picture, words in zip(records, shown, said):
        np.testing.assert_array_equal(picture, draw(GREY, record, *words))


def test_frames_that_were_skipped_on_either_side_are_left_out(tmp_path):
    run = write_run(tmp_path)
    assert [r.index for r, _ in annotated(run, frames_of()[1::2])] == [1, 3, 5]
    more = [*frames_of(), (7, GREY), (8, GREY)]
    assert [r.index for r, _ in annotated(run, more)] == [0, 1, 2, 3, 4, 5, 6]
    lines = (run / "tracks.jsonl").read_text().splitlines(keepends=True)
    (run / "tracks.jsonl").write_text("".join(lines[::3]))
    assert [r.index for r, _ in annotated(run, more)] == [0, 3, 6]


def test_the_video_plays_at_the_times_of_the_source(tmp_path):
    run = write_run(tmp_path / "run")
    path = export(run, ["mp4"], frames_of())["mp4"]
    times, pictures = decoded(path)
    assert times == [0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert {p.shape for p in pictures} == {GREY.shape}
    assert np.abs(pictures[0][130, 90].astype(int) - tinted(1)).max() < 12
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


def test_odd_sides_and_a_change_of_size_do_not_stop_a_video(tmp_path):
    sizes = ((121, 161), (121, 161), (60, 80))
    run = write_run(tmp_path, sizes)
    _, pictures = decoded(export(run, ["mp4"], frames_of(sizes))["mp4"])
    assert [p.shape for p in pictures] == [(122, 162, 3)] * 3


def test_two_equal_runs_give_equal_videos(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    assert shows_the_same(*(export(run, ["mp4"], frames_of())["mp4"] for run in (first, second)))


def test_frames_of_another_video_are_refused_and_leave_nothing(tmp_path):
    run = write_run(tmp_path)
    with pytest.raises(InputError, match="none of the frames given belongs to this run"):
        export(run, ["mp4"], [(99, GREY)])
    assert not list(tmp_path.glob("*video*"))


# The timeline


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(axis=2) <= 6).sum())


def test_the_timeline_is_a_picture_of_1200_by_420_with_each_objects_colour(tmp_path):
    picture = pixels(score_timeline(write_run(tmp_path)))
    assert picture.shape == (420, 1200, 3)
    assert count(picture, colour_of(1)) > 500
    assert count(picture, colour_of(2)) == 0


def test_the_timeline_has_the_same_bytes_twice(tmp_path):
    run = write_run(tmp_path)
    first = score_timeline(run).read_bytes()
    assert score_timeline(run).read_bytes() == first
    assert b"matplotlib" not in first.lower()


def test_absence_is_grey_and_as_long_as_it_lasted(tmp_path):
    with RunFolder(tmp_path) as run:
        for index in range(100):
            away = 40 <= index < 60
            shown = ObjectRecord(1, state="absent") if away else ObjectRecord(1, (0, 0, 1, 1), None, 0.9)
            run.track(TrackRecord(index, index / 10, (8, 8), (shown,)))
    row = pixels(score_timeline(tmp_path))[200]
    grey = np.flatnonzero(np.abs(row - (233, 236, 240)).max(axis=1) <= 1)
    left, right = 0.055 * 1200, 0.985 * 1200
    assert abs(grey.min() - (left + 0.4 * (right - left))) < 3
    assert abs(grey.max() - (left + 0.6 * (right - left))) < 3


def test_a_rethink_and_an_instruction_change_the_timeline(tmp_path):
    drawn = []
    for name, kinds in (("a", ()), ("b", ("rethink",)), ("c", ("rethink", "instruction"))):
        with RunFolder(tmp_path / name / "$_{$") as run:
            for index in range(10):
                run.track(TrackRecord(index, index / 10, (8, 8), (ObjectRecord(1, (0, 0, 1, 1), None, 0.9),)))
            if "rethink" in kinds:
                asked = {"reason": "$\\frac{$", "old": None, "new": [0.7, 0.6]}
                run.event(EventRecord.of(0, "rethink", 5, 0.5, **asked))
            if "instruction" in kinds:
                run.event(EventRecord.of(1, "instruction", 5, 0.5, text="红 $\\frac{$"))
        drawn.append(score_timeline(tmp_path / name / "$_{$").read_bytes())
    assert len(set(drawn)) == 3


def test_a_run_of_one_frame_and_of_many_objects_has_a_timeline(tmp_path):
    with RunFolder(tmp_path) as run:
        objects = tuple(ObjectRecord(k, (0, 0, 1, 1), None, k / 20) for k in range(1, 13))
        run.track(TrackRecord(0, 0.0, (8, 8), objects))
    assert pixels(score_timeline(tmp_path)).shape == (420, 1200, 3)


def test_the_threshold_is_drawn_for_purport_scores_alone(tmp_path):
    drawn = []
    for name in ("purport", "iou"):
        with RunFolder(tmp_path / name / "run") as run:
            for index in range(10):
                shown = ObjectRecord(1, (0, 0, 1, 1), None, 0.9, own_scores={name: 0.9})
                run.track(TrackRecord(index, index / 10, (8, 8), (shown,)))
        drawn.append(pixels(score_timeline(tmp_path / name / "run")))
    dashes = (drawn[0] != drawn[1]).any(axis=2)[60:].sum(axis=1)  # below the legend
    assert 400 < dashes.max() < 1200
    assert (dashes > 0).sum() <= 3
