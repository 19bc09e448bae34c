"""Sources: every kind gives the same frames, damage keeps its place, and every refusal is one clear line."""

import gc
import itertools
import os
import random
import re
import struct
import threading
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.video import decoder as decoder_module
from trackgpt.video import stream as stream_module
from trackgpt.video.decoder import Clock, Decoder, believed_fps, stated_fps
from trackgpt.video.frames import DEFAULT_FPS, FrameSource, ReadOptions, SourceFrame
from trackgpt.video.source import open_source
from trackgpt.video.stream import StreamSource
from trackgpt.video.writer import VideoWriter

av = pytest.importorskip("av")
SHARED = Path(__file__).parents[2] / "shared"


def level(index: int) -> int:
    """The grey level of a test frame tells its index."""
    return 20 + 5 * index


def grey(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level(index), np.uint8)


def textured(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Noise does not compress: every packet is large enough to be damaged inside."""
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def encode(path: Path, frames, rate=10, codec="libx264", stamps=None, size=(48, 64), options=None, form=None) -> Path:
    with av.open(
        str(path), "w", format=form, options={"movflags": "faststart"} if path.suffix == ".mp4" else {}
    ) as out:
        stream = out.add_stream(codec, rate=Fraction(rate), options=options or {"threads": "1"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        base = Fraction(1, 1000) if stamps else Fraction(1, rate)
        stream.codec_context.time_base = base
        for index, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = (stamps[index] if stamps else index), base
            for packet in stream.encode(picture):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


def save(folder: Path, names: list[str], size=(48, 64)) -> Path:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(grey(index, *size)).save(folder / name)
    return folder


def packets(path: Path) -> list[tuple[int, int, int]]:
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.pts) for p in container.demux(video=0) if p.size]


def packet_bytes(path: Path, index: int) -> bytes:
    """A packet's content; where a container gives no byte position, it is found by this."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(video=0) if p.size][index]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def read(source, **options) -> list[SourceFrame]:
    with open_source(source, **options) as opened:
        return list(opened)


def indices(frames: list[SourceFrame]) -> list[int]:
    return [frame.index for frame in frames]


def levels(frames: list[SourceFrame]) -> list[int]:
    """The index that each image shows."""
    return [round((float(frame.image.mean()) - 20) / 5) for frame in frames if frame.image is not None]


def refusal(source, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return encode(tmp_path / "clip.mp4", [grey(i) for i in range(20)])


# --- the same frames from every kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
def test_every_container_gives_all_frames_in_order_of_presentation_with_even_times(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    encode(path, [grey(i) for i in range(20)], form="h264" if suffix == "h264" else None)
    frames = read(path)
    assert indices(frames) == list(range(20))
    assert levels(frames) == list(range(20))
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(20)], abs=2e-3)
    assert not any(frame.problem for frame in frames)


def test_a_file_a_folder_a_glob_and_arrays_agree(tmp_path, clip):
    save(tmp_path / "frames", [f"{i}.png" for i in range(20)])
    for source in (clip, tmp_path / "frames", str(tmp_path / "frames" / "*.png"), [grey(i) for i in range(20)]):
        frames = read(source, fps=10)
        assert levels(frames) == list(range(20))
        assert [frame.time for frame in frames] == [i / 10 for i in range(20)]
        assert frames[0].image.dtype == np.uint8
        assert frames[0].image.shape == (48, 64, 3)


def test_reading_leaves_the_threads_of_the_process_as_they_are(clip):
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(3)
    cv2.setNumThreads(3)
    try:
        with open_source(clip) as opened:
            fit(opened.size, 32).apply(next(opened).image)
            assert len(list(opened)) == 19
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_an_open_source_knows_its_name_kind_size_rate_and_length(clip):
    with open_source(clip) as source:
        assert (source.name, source.kind, source.size, source.fps) == ("clip.mp4", "file", (48, 64), 10.0)
        assert (source.frames_hint, source.fps_note, source.end_note) == (20, "", "")


@pytest.mark.parametrize("kind", ["file", "array"])
def test_start_end_and_stride_select_frames_that_keep_their_index(clip, kind):
    given = clip if kind == "file" else (grey(i) for i in itertools.count())
    with open_source(given, start=3, end=12, stride=4) as source:
        assert source.frames_hint == 3
        frames = list(source)
    assert indices(frames) == levels(frames) == [3, 7, 11]
    if kind == "file":
        assert [frame.time for frame in frames] == pytest.approx([0.3, 0.7, 1.1])


def test_an_endless_iterator_is_read_one_array_at_a_time():
    taken = []

    def camera():
        for index in itertools.count():
            taken.append(index)
            yield grey(index % 40)

    with open_source(camera()) as source:
        assert source.frames_hint is None
        assert indices(list(itertools.islice(source, 5))) == [0, 1, 2, 3, 4]
    assert taken == [0, 1, 2, 3, 4]


def test_an_iterator_may_lose_a_frame():
    frames = read([grey(0), None, grey(2)])
    assert indices(frames) == [0, 1, 2]
    assert frames[1].image is None
    assert frames[1].problem


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_an_array_that_is_not_uint8_rgb_is_refused_with_its_index(array):
    assert "frame 1 of the arrays" in str(refusal([np.zeros((8, 8, 3), np.uint8), array]))


def test_a_closed_source_gives_nothing_more(clip):
    with open_source(clip) as source:
        next(source)
    assert list(source) == []


def test_digests_change_with_content_and_with_names_and_with_nothing_else(tmp_path, clip):
    def digest(source) -> str:
        with open_source(source) as opened:
            return opened.digest()

    folder = save(tmp_path / "frames", ["0.png", "1.png"])
    before = digest(folder)
    assert re.fullmatch("[0-9a-f]{64}", before)
    assert digest(folder) == before
    (folder / "notes.txt").write_text("no frame")
    assert digest(folder) == before
    (folder / "1.png").rename(folder / "2.png")
    assert digest(folder) != before
    whole = digest(clip)
    clip.write_bytes(clip.read_bytes() + b"\0")
    assert digest(clip) != whole
    assert digest([grey(0)]) == ""


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"fps": float("nan")}, {"start": -1}, {"stride": 0}, {"start": 5, "end": 5}]
)
def test_options_that_select_nothing_are_a_usage_error(clip, options):
    with pytest.raises(UsageError):
        open_source(clip, **options)


def test_a_source_of_an_unknown_type_or_scheme_is_a_usage_error():
    with pytest.raises(UsageError, match="float"):
        open_source(1.5)
    with pytest.raises(UsageError, match="gopher"):
        open_source("gopher://somewhere")


# --- IN01, IN02: missing and empty ------------------------------------------------------------------------------------


def test_a_missing_file_names_what_lies_nearby_whatever_its_case(tmp_path):
    (tmp_path / "Race.MP4").write_bytes(b"")
    error = refusal(tmp_path / "race.mp4")
    assert error.code == "IN01"
    assert "Nearby" in str(error)
    assert "Race.MP4" in str(error)


def test_a_missing_folder_on_the_way_is_named(tmp_path):
    (tmp_path / "videos").mkdir()
    error = refusal(tmp_path / "vidoes" / "deep" / "race.mp4")
    assert error.code == "IN01"
    assert str(tmp_path / "videos") in str(error)


def test_a_file_without_permission_says_so(clip, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    error = refusal(clip)
    assert error.code == "IN01"
    assert "permission" in str(error)


def test_a_glob_that_matches_nothing_or_several_videos_is_refused(tmp_path, clip):
    assert refusal(str(tmp_path / "*.png")).code == "IN01"
    assert len(read(str(tmp_path / "c*.mp4"))) == 20
    clip.with_name("clip2.mp4").write_bytes(clip.read_bytes())
    assert "2 entries" in str(refusal(str(tmp_path / "c*.mp4")))


@pytest.mark.parametrize("name", ["talk.mp4", "talk.txt", "talk.m3u8"])
def test_text_is_no_video_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_text("this is a sentence\n" * 100)
    error = refusal(tmp_path / name)
    assert error.code == "IN02"
    assert "text" in str(error)


def test_a_playlist_cannot_reach_other_files(tmp_path, clip):
    playlist = tmp_path / "upload.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {clip}\n")
    assert refusal(playlist).code == "IN02"


def test_an_empty_file_says_that_it_is_empty(tmp_path):
    (tmp_path / "none.mp4").write_bytes(b"")
    error = refusal(tmp_path / "none.mp4")
    assert error.code == "IN02"
    assert "empty" in str(error)


def test_a_video_whose_frames_are_all_damaged_names_container_and_codec(tmp_path):
    path = encode(tmp_path / "clip.mp4", [textured(i) for i in range(3)], size=(96, 128))
    for at, size, _ in packets(path):
        overwrite(path, at, bytes(size))
    error = refusal(path)
    assert error.code == "IN02"
    assert "h264" in str(error)
    assert "mov" in str(error)


def test_a_file_with_sound_only_names_what_it_holds(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 48000, 0
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            out.mux(packet)
    error = refusal(tmp_path / "song.mp4")
    assert error.code == "IN02"
    assert "audio aac" in str(error)


def test_a_start_behind_the_end_says_how_many_frames_there_are(clip):
    assert "only 20 frames" in str(refusal(clip, start=20))


def test_no_arrays_at_all_are_an_error_not_an_empty_result():
    assert refusal([]).code == "IN02"


def test_a_folder_without_images_names_what_it_holds(tmp_path):
    (tmp_path / "img1").mkdir()
    error = refusal(tmp_path)
    assert error.code == "IN02"
    assert "img1/" in str(error)


# --- IN03: damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_an_unreadable_packet_keeps_its_index_and_its_time(tmp_path, suffix):
    # Every frame a key frame: nothing else depends on the damaged one.
    path = encode(tmp_path / f"c.{suffix}", [grey(i) for i in range(20)], options={"x264-params": "keyint=1"})
    _, size, _ = packets(path)[7]
    overwrite(path, path.read_bytes().index(packet_bytes(path, 7)), b"\xff" * size)
    frames = read(path)
    assert indices(frames) == list(range(20))
    assert [frame.index for frame in frames if frame.image is None] == [7]
    assert "undecodable" in frames[7].problem
    assert levels(frames) == [*range(7), *range(8, 20)]
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(20)])


def test_damage_among_reordered_frames_keeps_every_index(tmp_path):
    path = encode(
        tmp_path / "c.mp4", [grey(i) for i in range(30)], options={"x264-params": "bframes=3:b-adapt=0:keyint=10"}
    )
    order = packets(path)
    assert [p[2] for p in order] != sorted(p[2] for p in order)  # there are B-frames
    victim = next(p for p in order if p[2] == sorted(q[2] for q in order)[14])
    overwrite(path, victim[0], b"\xff" * victim[1])
    frames = read(path)
    assert indices(frames) == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(30)])
    assert frames[14].image is None
    assert levels(frames)[:14] == list(range(14))
    assert levels(frames)[-7:] == list(range(23, 30))  # from the next key frame on


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_hole_of_random_bytes_in_the_middle_never_moves_the_frames_behind_it(tmp_path, suffix):
    path = encode(
        tmp_path / f"c.{suffix}",
        [textured(i) for i in range(40)],
        size=(96, 128),
        options={"x264-params": "keyint=5:bframes=0:scenecut=0", "threads": "1"},
    )
    whole = read(path)
    middle = path.stat().st_size // 2
    overwrite(path, middle, random.Random(0).randbytes(path.stat().st_size // 10))
    frames = read(path)
    assert indices(frames) == list(range(40))
    assert [frame.time for frame in frames] == pytest.approx([frame.time for frame in whole], abs=2e-3)
    lost = [frame.index for frame in frames if frame.image is None]
    assert lost
    assert min(lost) >= 15
    assert max(lost) <= 30
    np.testing.assert_array_equal(frames[-1].image, whole[-1].image)


def test_a_truncated_file_keeps_the_frames_before_the_cut(tmp_path):
    path = encode(
        tmp_path / "c.mp4", [textured(i) for i in range(20)], size=(96, 128), options={"x264-params": "bframes=0"}
    )
    whole = read(path)
    at, size, _ = packets(path)[12]
    os.truncate(path, at + size // 2)
    with open_source(path) as source:
        assert source.frames_hint == 20
        frames = list(source)
        assert "promises 20 frames" in source.end_note
    for index in range(12):
        np.testing.assert_array_equal(frames[index].image, whole[index].image)
    assert [frame.image for frame in frames[12:]] in ([], [None])


def test_damage_in_the_last_packet_still_counts_as_a_frame(tmp_path):
    path = encode(tmp_path / "c.mp4", [grey(i) for i in range(6)], options={"x264-params": "keyint=1"})
    at, size, _ = packets(path)[5]
    overwrite(path, at, b"\xff" * size)
    frames = read(path)
    assert [frame.image is None for frame in frames] == [False] * 5 + [True]
    assert frames[5].time == pytest.approx(0.5)


class Scripted:
    """A container whose decoder does what a script says: for each packet its stamp, then the stamps it releases."""

    def __init__(self, script: list[tuple[int, list[int] | None]]) -> None:
        self._script = script
        self.format = SimpleNamespace(name="scripted")

    def demux(self, stream):
        for order, (stamp, released) in enumerate(self._script):
            decode = partial(self._decode, released)
            yield SimpleNamespace(pts=stamp, dts=order, size=1, is_discard=False, is_corrupt=False, decode=decode)

    def _decode(self, released: list[int] | None) -> list[SimpleNamespace]:
        if released is None:
            raise av.error.InvalidDataError(1, "broken")
        base = Fraction(1, 10)
        return [
            SimpleNamespace(pts=p, is_corrupt=False, key_frame=False, rotation=None, time_base=base) for p in released
        ]


def decoded(script: list[tuple[int, list[int] | None]]) -> list[tuple[float, bool]]:
    """Times and whether there is a picture."""
    clock = Clock(10)
    stream = SimpleNamespace(time_base=Fraction(1, 10))
    decoder = Decoder(Scripted(script), stream, clock, "x", ReadOptions(), regular=True)
    return [(pytest.approx(raw.time), raw.load is not None) for raw in decoder]


def test_a_decoder_in_disorder_after_damage_is_put_in_order_again():
    script = [(0, [0]), (1, None), (2, []), (3, [3]), (4, [2]), (5, [5]), (6, [4]), (7, [6, 7])]
    assert decoded(script) == [(i / 10, i != 1) for i in range(8)]


def test_a_frame_that_comes_after_it_was_given_up_takes_no_second_place():
    late = 20
    script = [
        (0, [0]),
        (1, None),
        (2, []),
        *((i, [i]) for i in range(3, late)),
        (late, [2, late]),
        (late + 1, [late + 1]),
    ]
    assert decoded(script) == [(i / 10, i not in (1, 2)) for i in range(late + 2)]


def test_reading_keeps_no_frame_alive_even_without_the_garbage_collector(tmp_path):
    path = encode(tmp_path / "c.mp4", [grey(i % 40) for i in range(60)])
    gc.collect()
    gc.disable()
    gc.freeze()  # what other tests have left in the process is no frame of this one, and slow to look through
    alive = []
    try:
        with open_source(path) as source:
            for _ in source:
                # By type(), not isinstance(): that asks an object for its class, and some (torch's) warn when asked.
                alive.append(sum(issubclass(type(thing), av.VideoFrame) for thing in gc.get_objects()))
    finally:
        gc.unfreeze()
        gc.enable()
    assert len(alive) == 60
    assert 1 <= max(alive) <= 8, f"frames held after each frame: {alive}"


def test_frames_that_codecs_hide_are_not_taken_for_losses(tmp_path):
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "b": "200k"}
    frames = read(
        encode(tmp_path / "c.webm", [textured(i) for i in range(30)], codec="libvpx", size=(96, 128), options=options)
    )
    assert indices(frames) == list(range(30))
    assert not any(frame.problem for frame in frames)


def test_a_damaged_image_in_a_folder_keeps_its_place(tmp_path):
    folder = save(tmp_path / "frames", ["0.png", "1.png", "2.png", "3.png"])
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    (folder / "2.png").write_text("no image")
    frames = read(folder)
    assert indices(frames) == [0, 1, 2, 3]
    assert [frame.image is None for frame in frames] == [False, True, True, False]
    assert all("undecodable" in frames[i].problem and "\n" not in frames[i].problem for i in (1, 2))


def test_a_folder_of_damaged_images_only_is_an_error(tmp_path):
    (tmp_path / "0.png").write_text("no image")
    error = refusal(tmp_path)
    assert error.code == "IN02"
    assert "frame 0" in str(error)


# --- IN04: rates and timestamps ---------------------------------------------------------------------------------------


class Header:
    """What `believed_fps` and `stated_fps` read of a stream."""

    def __init__(self, rate: Fraction | None, stated: Fraction | None = None) -> None:
        self.average_rate = self.guessed_rate = rate
        self.codec_context = SimpleNamespace(framerate=stated)


@pytest.mark.parametrize("rate", [None, Fraction(0), Fraction(90000), Fraction(5)])
def test_a_rate_that_cannot_be_gives_way_to_the_median_of_the_timestamps(rate):
    fps, note = believed_fps(Header(rate), [0.0, 0.04, 0.08, 0.12, 0.5])
    assert fps == pytest.approx(25)
    assert "using timestamps (25)" in note


def test_a_plausible_rate_is_believed_over_jitter():
    assert believed_fps(Header(Fraction(24)), [0.0, 0.033, 0.066, 0.1]) == (24.0, "")


def test_without_any_clock_the_default_rate_is_named():
    fps, note = believed_fps(Header(None), [])
    assert fps == DEFAULT_FPS
    assert "--fps" in note


def test_without_timestamps_the_codecs_own_rate_holds_and_any_other_is_a_guess():
    assert stated_fps(Header(Fraction(24), Fraction(12))) == (12.0, "")
    for rate, fps in ((Fraction(25), 25), (None, DEFAULT_FPS), (Fraction(1_200_000), DEFAULT_FPS)):
        found, note = stated_fps(Header(rate))
        assert found == fps
        assert note == f"no timestamps and no fps in the stream; {fps:g} is a guess, pass --fps"


def test_a_raw_stream_of_12_frames_per_second_has_12(tmp_path):
    path = encode(tmp_path / "a.h264", [grey(i) for i in range(8)], rate=12, form="h264")
    with open_source(path) as source:
        assert (source.fps, source.fps_note) == (12, "")
        assert [frame.time for frame in source] == pytest.approx([i / 12 for i in range(8)])
    Image.fromarray(grey(0)).save(tmp_path / "0.jpg")
    (tmp_path / "a.mjpeg").write_bytes((tmp_path / "0.jpg").read_bytes() * 4)
    with open_source(tmp_path / "a.mjpeg") as source:
        assert "is a guess" in source.fps_note


def test_what_an_edit_list_leaves_out_is_a_note_and_no_lie_of_the_header(shared):
    with open_source(shared / "cases" / "strangers" / "editlist.mp4") as source:
        assert source.frames_hint == len(list(source)) == 12
        assert source.notes == ["its edit list leaves out 4 of 16 frames"]
        assert source.end_note == ""


def test_the_shape_of_pixels_is_known_and_turns_with_the_picture(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 10, (48, 64), pixel_aspect=Fraction(4, 3)) as writer:
        for i in range(3):
            writer.write(grey(i), i / 10)
    with open_source(path) as source:
        assert source.pixel_aspect == Fraction(4, 3)
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    with open_source(turned) as source:
        assert (source.size, source.pixel_aspect) == ((64, 48), Fraction(3, 4))


def test_of_several_tracks_the_one_marked_as_default_is_read_and_the_others_are_named(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=10) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.disposition = av.stream.Disposition.default if number else av.stream.Disposition(0)
        for index in range(3):
            for number, stream in enumerate(streams):
                picture = av.VideoFrame.from_ndarray(grey(index + 10 * number), format="rgb24")
                out.mux(stream.encode(picture))
        for stream in streams:
            out.mux(stream.encode(None))
    with open_source(path) as source:
        assert levels(list(source)) == [10, 11, 12]
        assert source.notes == ["it has 2 video tracks, of which number 1 is read"]


def test_variable_frame_times_are_kept(tmp_path):
    stamps = [0, 40, 80, 500, 540, 580, 2000]
    frames = read(encode(tmp_path / "c.mkv", [grey(i) for i in range(7)], stamps=stamps))
    assert [frame.time for frame in frames] == pytest.approx([s / 1000 for s in stamps])


def test_a_file_whose_header_lies_says_so_and_fps_overrules_it(tmp_path):
    stamps = [0, 40, 80, 120, 160, 60_000]
    path = encode(tmp_path / "c.mkv", [grey(i) for i in range(6)], rate=5000, stamps=stamps)
    with open_source(path) as source:
        assert source.fps == pytest.approx(25)
        assert source.fps_note == "fps in header is 5000; using timestamps (25)"
    with open_source(path, fps=5) as source:
        assert (source.fps, source.fps_note) == (5, "")
        assert [frame.time for frame in source] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_joined_files_go_on_counting_where_the_first_ends(tmp_path):
    first = encode(tmp_path / "a.ts", [grey(i) for i in range(10)])
    second = encode(tmp_path / "b.ts", [grey(i, 32, 32) for i in range(10)], size=(32, 32))
    (tmp_path / "ab.ts").write_bytes(first.read_bytes() + second.read_bytes())
    frames = read(tmp_path / "ab.ts")
    assert levels(frames) == [*range(10), *range(10)]
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(20)])
    assert frames[10].problem == "size changed 64x48 -> 32x32"  # IN05
    assert frames[10].image.shape == (32, 32, 3)
    assert [frame.index for frame in frames if frame.problem] == [10]


# --- rotation ---------------------------------------------------------------------------------------------------------


def rotate_header(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write the display matrix of the only track: a, b, c, d of ISO/IEC 14496-12."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * 65536 for value in matrix)
    overwrite(path, at, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


@pytest.mark.parametrize(
    ("matrix", "bright_corner"),
    [((1, 0, 0, 1), "top left"), ((0, 1, -1, 0), "top right"), ((-1, 0, 0, -1), "bottom right"),
     ((0, -1, 1, 0), "bottom left"), ((-1, 0, 0, 1), "top right"), ((1, 0, 0, -1), "bottom left")],
)  # fmt: skip
def test_the_display_matrix_turns_and_mirrors_frames(tmp_path, matrix, bright_corner):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16] = 255
    path = encode(tmp_path / "c.mp4", [image] * 2)
    rotate_header(path, matrix)
    with open_source(path) as source:
        turned = next(source).image
        assert source.size == turned.shape[:2] == ((64, 48) if matrix[0] == 0 else (48, 64))
    corners = {
        "top left": turned[:16, :16],
        "top right": turned[:16, -16:],
        "bottom left": turned[-16:, :16],
        "bottom right": turned[-16:, -16:],
    }
    assert max(corners, key=lambda name: corners[name].mean()) == bright_corner


def test_the_orientation_of_a_photograph_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey(0, 48, 64)).save(tmp_path / "0.jpg", exif=exif)
    with open_source(tmp_path / "0.jpg") as source:
        assert source.size == (64, 48)
        assert next(source).image.shape == (64, 48, 3)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_frame_2_stands_before_frame_10_and_other_files_are_ignored(tmp_path):
    folder = save(tmp_path / "f", [f"frame{i}.png" for i in range(1, 13)])
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_text("x")
    frames = read(folder)
    assert levels(frames) == list(range(12))
    assert [frame.name for frame in frames] == [f"frame{i}.png" for i in range(1, 13)]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "tif"])
def test_every_image_type_is_read(tmp_path, suffix):
    frames = read(save(tmp_path / "f", [f"{i}.{suffix}" for i in range(2)]))
    assert levels(frames) == [0, 1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_every_pixel_type_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 100 * 256, np.uint16))
    else:
        image = Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).convert(mode)
    image.save(tmp_path / "0.png")
    pixels = read(tmp_path)[0].image
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert abs(float(pixels.mean()) - 100) <= 3


def grey_files(folder: Path, *levels: tuple[float, float], kind: type) -> Path:
    """TIFF files of 8 x 8 pixels whose upper half has the first level and whose lower half has the second one."""
    folder.mkdir()
    for index, (upper, lower) in enumerate(levels):
        values = np.full((8, 8), upper, kind)
        values[4:] = lower
        Image.fromarray(values).save(folder / f"{index}.tif")
    return folder


@pytest.mark.parametrize(
    ("kind", "levels", "seen", "white"),
    [
        (np.int32, [(0, 51), (102, 255)], [0, 51, 102, 255], "255"),
        (np.int32, [(0, 256), (12800, 65535)], [0, 1, 50, 255], "65535"),
        (np.float32, [(0, 0.2), (0.4, 1)], [0, 51, 102, 255], "1"),
        (np.float32, [(0, 0.2), (0.4, 255)], [0, 0, 0, 255], "255"),
        (np.float32, [(0, 256), (12800, 65535)], [0, 1, 50, 255], "65535"),
    ],
)
def test_grey_without_a_range_of_its_own_is_scaled_by_the_values_of_all_pictures(tmp_path, kind, levels, seen, white):
    with open_source(grey_files(tmp_path / "f", *levels, kind=kind)) as source:
        assert [frame.image[row, 0, 0] for frame in source for row in (0, 4)] == seen
        assert len(source.warnings) == 1
        assert source.warnings[0].endswith(f": {white} is taken as white")


@pytest.mark.parametrize(
    ("kind", "level"), [(np.int32, -1), (np.int32, 65536), (np.float32, -0.5), (np.float32, np.nan), (np.float32, 1e6)]
)
def test_grey_with_values_that_fit_no_range_is_refused(tmp_path, kind, level):
    error = refusal(grey_files(tmp_path / "f", (0, 1), (0, level), kind=kind))
    assert error.code == "IN02"
    assert "convert it to 8 bits" in str(error)


def test_twelve_bits_in_sixteen_are_read_by_their_type_and_said_to_be_dark(tmp_path):
    with open_source(grey_files(tmp_path / "f", (0, 4095), kind=np.uint16)) as source:
        assert next(source).image.max() == 15
        assert source.warnings == [
            "16-bit grey with values up to 4095 in the first picture: 65535 is white, so it is almost black"
        ]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_black_and_the_others_keep_their_bits(tmp_path, mode):
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(values).convert("L" if mode == "LA" else "RGB")
    if mode == "P":
        picture = picture.quantize(16)
        opaque = np.asarray(picture) != 3
        wanted = np.asarray(picture.convert("RGB"))
        picture.save(tmp_path / "0.png", transparency=3)
    else:
        opaque = np.arange(8) >= 4
        wanted = np.asarray(picture.convert("RGB"))
        picture.putalpha(Image.fromarray(np.repeat(opaque[None] * np.uint8(255), 8, 0)))
        picture.save(tmp_path / "0.png")
        opaque = np.broadcast_to(opaque, (8, 8))
    with open_source(tmp_path / "0.png") as source:
        pixels = next(source).image
        assert source.notes == ["transparent parts are shown on black"]
    assert 0 < opaque.sum() < 64
    np.testing.assert_array_equal(pixels, wanted * opaque[:, :, None])


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "YCbCr"])
def test_modes_of_8_bits_are_what_pillow_makes_of_them(tmp_path, mode):
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "0.tif", compression="raw")
    with Image.open(tmp_path / "0.tif") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(read(tmp_path / "0.tif")[0].image, np.asarray(image.convert("RGB")))


# --- files of several pictures ---


def pictures_in_one(path: Path, count: int = 5, **options) -> Path:
    first, *others = [Image.fromarray(grey(i)) for i in range(count)]
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_an_animation_given_alone_is_read_whole_with_its_own_times(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    path = pictures_in_one(tmp_path / name, duration=[100, 200, 300, 40, 50], **options)
    frames = read(path)
    assert levels(frames) == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.6, 0.64])
    assert [frame.time for frame in read(path, fps=10)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert indices(read(path, start=1, stride=2)) == [1, 3]


def test_pages_of_a_tiff_are_frames_but_its_thumbnails_are_not(tmp_path):
    with open_source(pictures_in_one(tmp_path / "a.tif")) as source:
        assert (source.kind, source.fps, source.frames_hint) == ("animation", DEFAULT_FPS, 5)
        frames = list(source)
    assert levels(frames) == [0, 1, 2, 3, 4]
    assert frames[4].time == pytest.approx(4 / 24)
    small = Image.fromarray(grey(3, 12, 16))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(grey(2)).save(tmp_path / "b.tif", save_all=True, append_images=[small])
    assert [frame.image.shape for frame in read(tmp_path / "b.tif")] == [(48, 64, 3)]


def test_the_still_of_an_apng_for_old_viewers_is_no_frame(tmp_path):
    path = pictures_in_one(tmp_path / "a.png", duration=100, default_image=True)
    assert levels(read(path)) == [1, 2, 3, 4]


def test_pictures_without_a_duration_last_as_long_as_in_a_browser(tmp_path):
    path = pictures_in_one(tmp_path / "a.webp", lossless=True, duration=[50, 0, 50, 50, 50])
    assert [frame.time for frame in read(path)] == pytest.approx([0, 0.05, 0.15, 0.2, 0.25])


def test_an_animation_that_is_cut_says_how_many_pictures_are_left(tmp_path):
    path = tmp_path / "a.png"
    noise = [Image.fromarray(textured(i)) for i in range(5)]
    noise[0].save(path, save_all=True, append_images=noise[1:], duration=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with open_source(path) as source:
        assert len(list(source)) == 3
        assert source.end_note == "the header promises 5 pictures, 3 can be decoded"


def test_among_frames_a_file_of_several_pictures_is_one_frame_and_a_warning(tmp_path):
    folder = save(tmp_path / "f", ["0.tif", "1.tif", "2.tif"])
    pictures_in_one(folder / "1.tif", 4)
    with open_source(folder) as source:
        assert source.warnings == [
            "files of several pictures: 1.tif (4); among frames the first picture of each is used"
        ]
        assert levels(list(source)) == [0, 0, 2]


# --- names, masks, and a folder that changes ---


def test_masks_beside_their_images_are_no_frames(tmp_path):
    folder = save(tmp_path / "f", ["0.jpg", "1.jpg", "0_mask.png", "1_mask.png"])
    for source in (folder, str(folder / "*")):
        with open_source(source) as opened:
            assert [frame.name for frame in opened] == ["0.jpg", "1.jpg"]
            assert opened.warnings == [
                "0_mask.png, 1_mask.png: masks of other images by their names, which are no frames and are left out"
            ]
    assert [frame.name for frame in read(str(folder / "*_mask.png"))] == ["0_mask.png", "1_mask.png"]


def test_images_that_differ_in_their_endings_alone_have_no_names_of_their_own(tmp_path):
    folder = save(tmp_path / "f", ["a.png", "a.bmp", "b.png"])
    with open_source(folder) as source:
        assert [frame.name for frame in source] == ["", "", ""]
        assert source.warnings == ["several images differ in their endings alone, so frames are named by their numbers"]


def test_a_folder_that_changes_while_it_is_read_says_so(tmp_path):
    folder = save(tmp_path / "f", ["0.png", "1.png", "2.png"])
    with open_source(folder) as source:
        (folder / "2.png").unlink()
        (folder / "3.png").write_bytes((folder / "1.png").read_bytes())
        frames = list(source)
        assert [frame.problem for frame in frames] == ["", "", "undecodable: No such file or directory"]
        assert source.end_note == "images came while the others were read, and are left out: 3.png"
        assert len(source.digest()) == 64


def test_a_file_that_is_written_to_while_it_is_read_says_so(tmp_path):
    path = encode(tmp_path / "a.ts", [grey(i) for i in range(10)])
    with open_source(path) as source:
        with path.open("ab") as file:
            file.write(b"more")
        assert len(list(source)) == 10
        assert source.end_note.startswith("the file changed while it was read")


@pytest.mark.parametrize("name", ["a\nb.png", "ü ½.png", "-1.png", "a:b%20.png", os.fsdecode(b"\xff.png")])
def test_a_frame_may_have_any_name(tmp_path, name):
    folder = save(tmp_path / "f", [name])
    with open_source(folder) as source:
        assert [frame.name for frame in source] == [name]
        assert len(source.digest()) == 64


def test_mixed_sizes_in_a_folder_are_listed_unless_allowed(tmp_path):
    folder = save(tmp_path / "f", ["0.png", "1.png", "2.png"])
    Image.fromarray(grey(1, 10, 20)).save(folder / "1.png")
    error = refusal(folder)
    assert error.code == "IN08"
    assert "0.png is 64x48, but 1.png is 20x10" in str(error)
    frames = read(folder, allow_gaps=True)
    assert [frame.problem for frame in frames] == ["", "size changed 64x48 -> 20x10", "size changed 20x10 -> 64x48"]
    assert levels(frames) == [0, 1, 2]


def test_gaps_in_the_numbering_are_listed_unless_allowed(tmp_path):
    folder = save(tmp_path / "f", ["00000.png", "00001.png", "00004.png", "00005.png"])
    error = refusal(folder)
    assert error.code == "IN08"
    assert "after 00001.png comes 00004.png" in str(error)
    assert indices(read(folder, allow_gaps=True)) == [0, 1, 2, 3]


def test_only_the_first_offenders_are_listed(tmp_path):
    folder = save(tmp_path / "f", [f"{n}.png" for n in (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)])
    assert "after 6.png comes 8.png" in str(refusal(folder))
    assert "and 2 more" in str(refusal(folder))


def test_a_number_given_twice_is_a_fault(tmp_path):
    folder = save(tmp_path / "f", ["1.png", "01.png", "2.png", "3.png"])
    assert "repeats the number" in str(refusal(folder))


def test_every_fifth_frame_is_no_gap(tmp_path):
    assert len(read(save(tmp_path / "f", [f"{i:05d}.png" for i in range(0, 30, 5)]))) == 6


# --- pipes ---


def through(path: Path, data: bytes, seconds: float = 0.0) -> Path:
    """A named pipe into which data goes, in the middle of which the writer waits."""
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            time.sleep(seconds)
            file.write(data[len(data) // 2 :])

    threading.Thread(target=write, daemon=True).start()
    return path


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_a_pipe_gives_the_frames_of_the_file_once(tmp_path, name):
    path = encode(tmp_path / name, [grey(i) for i in range(20)])
    with open_source(through(tmp_path / "pipe", path.read_bytes(), 0.3)) as source:
        assert (source.kind, source.fps, source.rereadable, source.digest()) == ("pipe", 10, False, "")
        frames = list(source)
    assert levels(frames) == list(range(20))
    assert [frame.time for frame in frames] == [frame.time for frame in read(path)]


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "it is empty"), (b"hello", "it holds text"), (b"\0" * 99, "not a vi")]
)
def test_a_pipe_without_a_video_is_one_line(tmp_path, data, words):
    error = refusal(through(tmp_path / "pipe", data))
    assert error.code == "IN02"
    assert words in str(error)


def test_an_mp4_with_its_index_at_the_end_cannot_come_through_a_pipe_and_says_why(tmp_path):
    path = encode(tmp_path / "a.mov", [textured(i) for i in range(20)], size=(96, 128))
    assert "-movflags +faststart" in str(refusal(through(tmp_path / "pipe", path.read_bytes())))


def test_a_reader_that_waits_for_a_pipe_can_be_stopped_by_another_thread(tmp_path):
    data = encode(tmp_path / "a.mkv", [textured(i) for i in range(20)], size=(96, 128)).read_bytes()
    with open_source(through(tmp_path / "pipe", data, 60)) as source:
        threading.Timer(0.2, source.stop).start()
        assert 0 < len(list(source)) < 20


def test_a_playlist_in_a_pipe_reaches_no_file(tmp_path, clip):
    text = f"#EXTM3U\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n"
    assert refusal(through(tmp_path / "pipe", text.encode())).code == "IN02"


# --- IN07: size -------------------------------------------------------------------------------------------------------


def test_an_enormous_video_is_refused_from_its_header(clip, monkeypatch):
    monkeypatch.setattr(decoder_module, "_pixels", lambda *_: pytest.fail("decoded"))
    error = refusal(clip, max_pixels=48 * 64 - 1)
    assert error.code == "IN07"
    assert "64x48" in str(error)


def test_an_enormous_image_is_refused_from_its_header(tmp_path):
    # A PNG that claims 30000 x 30000 pixels and holds none.
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
    error = refusal(tmp_path)
    assert error.code == "IN07"
    assert str(900_000_000) in str(error) or "30000x30000" in str(error)


def test_an_enormous_array_is_refused():
    assert refusal([np.zeros((20, 20, 3), np.uint8)], max_pixels=399).code == "IN07"


# --- IN06: streams and cameras ----------------------------------------------------------------------------------------


class LiveContainer:
    """A file that behaves like a live stream: no duration, and it may break after some packets."""

    def __init__(self, path: Path, packets: int | None = None) -> None:
        self._file = av.open(str(path))
        self._packets = packets
        self.streams = self._file.streams
        self.format = self._file.format
        self.duration = None

    def demux(self, stream):
        for count, packet in enumerate(self._file.demux(stream)):
            if count == self._packets:
                raise av.error.ConnectionResetError(104, "Connection reset by peer")
            yield packet

    def close(self) -> None:
        self._file.close()


def live(steps: list, sleeps: list[float], **options) -> FrameSource:
    """A stream whose every connection is the next of `steps`: a container or an error; then nobody answers."""
    left = iter(steps)

    def connect():
        step = next(left, av.error.ConnectionRefusedError(111, "Connection refused"))
        if isinstance(step, Exception):
            raise step
        return step

    return StreamSource("rtsp://camera/1", connect, ReadOptions(**options), sleep=sleeps.append)._begin()


def test_a_stream_that_drops_is_joined_again_and_goes_on_counting(tmp_path, monkeypatch):
    path = encode(
        tmp_path / "c.ts", [grey(i) for i in range(10)], options={"x264-params": "bframes=0", "tune": "zerolatency"}
    )
    refused = av.error.ConnectionRefusedError(111, "Connection refused")
    sleeps: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 100 + sum(sleeps))
    monkeypatch.setattr(stream_module, "wall", clock)
    source = live([LiveContainer(path, 6), refused, LiveContainer(path)], sleeps, end=12)
    frames = list(source)
    assert indices(frames) == list(range(12))
    assert sleeps == [0.5, 1.0]
    again = next(frame.index for frame in frames if frame.problem)
    assert "lost for 1.5 s" in frames[again].problem
    assert frames[again].time - frames[again - 1].time == pytest.approx(1.5)
    assert "Connection" in frames[again].problem
    assert frames[again].image is not None
    assert all(later.time > earlier.time for earlier, later in itertools.pairwise(frames))


def test_a_stream_that_stays_away_ends_with_one_clear_line_after_three_retries(tmp_path):
    path = encode(tmp_path / "c.ts", [grey(i) for i in range(10)])
    sleeps: list[float] = []
    source = live([LiveContainer(path)], sleeps)
    assert indices(list(itertools.islice(source, 10))) == list(range(10))
    with pytest.raises(InputError) as caught:
        next(source)
    assert caught.value.code == "IN06"
    assert "lost after 10 frames" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert sleeps == [0.5, 1.0, 2.0]


def test_a_stream_joined_between_key_frames_begins_with_its_first_picture(tmp_path):
    path = encode(tmp_path / "c.mp4", [grey(i) for i in range(6)], options={"x264-params": "keyint=1"})
    for at, size, _ in packets(path)[:2]:
        overwrite(path, at, b"\xff" * size)
    frames = list(live([LiveContainer(path)], [], end=4))
    assert indices(frames) == [0, 1, 2, 3]
    assert levels(frames) == [2, 3, 4, 5]


def test_a_stream_that_never_answers_fails_when_it_is_opened():
    sleeps: list[float] = []
    with pytest.raises(InputError, match="cannot be opened") as caught:
        live([], sleeps)
    assert caught.value.code == "IN06"
    assert len(sleeps) == 3


def test_a_recording_served_as_a_stream_ends_without_an_error(tmp_path):
    path = encode(tmp_path / "c.mp4", [grey(i) for i in range(10)])
    assert levels(list(live([av.open(str(path))], []))) == list(range(10))


def test_an_address_keeps_its_password_out_of_messages(monkeypatch):
    def unreachable(url):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(stream_module, "_open_stream", unreachable)
    monkeypatch.setattr(stream_module, "RETRY_DELAYS", ())
    error = refusal("rtsp://user:secret@camera/1")
    assert "secret" not in str(error)
    assert "rtsp://camera/1" in str(error)


@pytest.mark.skipif(not os.path.isdir("/dev"), reason="device files exist on Unix only")
@pytest.mark.parametrize("camera", [97, "97"])
def test_an_absent_camera_is_named(camera, monkeypatch):
    monkeypatch.setattr(stream_module.sys, "platform", "linux")
    error = refusal(camera)
    assert error.code == "IN01"
    assert "/dev/video97 not found" in str(error)


def test_a_folder_named_like_a_camera_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "0", ["0.png"])
    with open_source("0") as source:
        assert source.kind == "folder"


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "frames", "fps", "size"),
    [
        ("data/pumavos_chair/chair.mp4", 60, 30.0, (480, 720)),
        ("data/mot/mmtracking_demo.mp4", 8, 3.0, (1080, 1920)),
        ("data/davis/JPEGImages/240p/libby", 49, 24.0, (240, 427)),
    ],
)
def test_real_sources_give_every_frame(path, frames, fps, size):
    if not (SHARED / path).exists():
        pytest.skip(f"the real sample {path} is not on this machine")
    with open_source(SHARED / path) as source:
        assert (source.fps, source.size, source.frames_hint) == (fps, size, frames)
        read_frames = list(source)
    assert indices(read_frames) == list(range(frames))
    assert not any(frame.problem for frame in read_frames)


def test_a_tiff_whose_next_page_is_damaged_gives_those_before_it_and_says_so(tmp_path):
    pages = [Image.new("L", (8, 6), 10 * page) for page in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "pages.tif").read_bytes()
    widths = [found.start() for found in re.finditer(b"\x00\x01[\x03\x04]\x00\x01\x00\x00\x00\x08\x00", data)]
    assert len(widths) == 3
    (tmp_path / "pages.tif").write_bytes(data[: widths[1]] + b"\xff" + data[widths[1] + 1 :])
    with open_source(tmp_path / "pages.tif") as source:
        shown = [frame.image for frame in source]
    assert [image is not None and int(image.max()) for image in shown[:1]] == [0]
    assert source.end_note == "the header promises 2 pictures, 1 can be decoded"
