"""The writer: it keeps clocks and colours, kill -9 leaves something readable, and nothing half-made is published."""

import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from encoded import shows_the_same

from trackgpt.errors import OutputError, UsageError
from trackgpt.video.frames import SourceFrame
from trackgpt.video.source import open_source
from trackgpt.video.writer import VideoWriter

av = pytest.importorskip("av")
ROOT = Path(__file__).parents[1]


def smooth(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Gradients in all three colours that move a little from frame to frame."""
    y, x = np.mgrid[0:height, 0:width]
    blue = 128 + 100 * np.sin((x + y) / 40 + index / 5)
    return np.stack([40 + 160 * x / width, 220 - 180 * y / height, blue], -1).astype(np.uint8)


def write(path: Path, times: list[float], height: int = 96, width: int = 128, **options) -> VideoWriter:
    with VideoWriter(path, 25, (height, width), **options) as writer:
        for index, time in enumerate(times):
            writer.write(smooth(index, height, width), time)
    return writer


def read(path: Path) -> list[SourceFrame]:
    with open_source(path) as source:
        return list(source)


def with_sound(path: Path, codec: str = "aac", layout: str = "mono") -> Path:
    """A video of 25 frames per second with a quiet sound track."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("mpeg4", rate=25), out.add_stream(codec, rate=48000)
        video.height, video.width, video.pix_fmt, audio.layout = 32, 32, "yuv420p", layout
        for index in range(50):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts = index
            out.mux(video.encode(picture))
        kind = audio.codec_context.codec.audio_formats[0].name
        for start in range(0, 96000, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            for converted in av.AudioResampler(kind, layout, 48000).resample(sound):
                out.mux(audio.encode(converted))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path


def tracks(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


@pytest.mark.parametrize("height", [240, 720])
def test_a_smooth_image_comes_back_with_a_mean_error_below_3(tmp_path, height):
    path = tmp_path / "v.mp4"
    write(path, [i / 25 for i in range(4)], height, 320)
    for index, frame in enumerate(read(path)):
        error = np.abs(frame.image.astype(int) - smooth(index, height, 320)).mean((0, 1))
        assert error.max() < 3, f"error per channel: {error}"


@pytest.mark.parametrize(("height", "code"), [(240, 6), (720, 1)])
def test_the_colour_matrix_used_is_the_one_written_in_the_file(tmp_path, height, code):
    write(tmp_path / "v.mp4", [0.0], height, 320)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (code, code, code, 1)
    assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_uneven_times_come_back_as_they_were_given(tmp_path):
    times = [0.0, 0.04, 0.1, 1.0, 1.001, 7.25]
    write(tmp_path / "v.mp4", times)
    assert [frame.time for frame in read(tmp_path / "v.mp4")] == pytest.approx(times, abs=1e-4)


def test_the_first_frame_is_the_zero_of_the_file(tmp_path):
    write(tmp_path / "v.mp4", [8.0, 8.5, 9.0])
    with av.open(str(tmp_path / "v.mp4")) as container:
        stamps = [float(frame.time) for frame in container.decode(video=0)]
    assert stamps == pytest.approx([0.0, 0.5, 1.0])


def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25, (95, 127)) as writer:
        for index in range(3):
            writer.write(smooth(index)[:95, :127], index / 25)
    image = read(tmp_path / "v.mp4")[0].image.astype(int)
    assert image.shape == (96, 128, 3)
    assert np.abs(image[95] - image[94]).mean() < 3
    assert np.abs(image[:, 127] - image[:, 126]).mean() < 3
    assert np.abs(image[:95, :127] - smooth(0)[:95, :127]).mean() < 3


def test_the_same_frames_give_the_same_pictures_at_the_same_times(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, [i / 25 for i in range(40)])
    assert shows_the_same(tmp_path / "a.mp4", tmp_path / "b.mp4")
    with VideoWriter(tmp_path / "c.mp4", 25, (96, 128)) as writer:
        for index in range(40):
            image = smooth(index)
            image[40:44, 60:64] = 0 if index == 20 else image[40:44, 60:64]
            writer.write(image, index / 25)
    assert not shows_the_same(tmp_path / "a.mp4", tmp_path / "c.mp4")


def test_the_finished_file_has_its_index_in_front_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "v.mp4"
    write(path, [i / 25 for i in range(30)])
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert b"Lavf" not in data  # no version of the muxer, hence no difference between machines with the same encoder
    assert os.listdir(tmp_path) == ["v.mp4"]


KILLED = """
import sys, time
import numpy as np
from trackgpt.video.writer import VideoWriter

writer = VideoWriter(sys.argv[1], 10, (96, 128))
for index in range(45):
    writer.write(np.full((96, 128, 3), 5 * index, np.uint8), index / 10)
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_9_in_the_middle_leaves_a_readable_part_and_no_final_file(tmp_path):
    path = tmp_path / "v.mp4"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "written\n"
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == ["v.part.mp4"]
    frames = read(tmp_path / "v.part.mp4")
    assert 20 <= len(frames) <= 45  # all but what the encoder and the last, open fragment held
    for frame in frames:
        assert frame.image.mean() == pytest.approx(5 * frame.index, abs=3)
        assert frame.time == pytest.approx(frame.index / 10, abs=1e-4)


def test_an_error_in_the_block_keeps_every_frame_in_the_part_and_publishes_nothing(tmp_path):
    writer = VideoWriter(tmp_path / "v.mp4", 25, (96, 128))

    def interrupted() -> None:
        with writer:
            for index in range(7):
                writer.write(smooth(index), index / 25)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["v.part.mp4"]
    assert len(read(writer.part_path)) == 7


def test_an_existing_video_is_replaced_only_when_asked_and_only_at_the_end(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(OutputError) as caught:
        VideoWriter(path, 25, (96, 128))
    assert caught.value.code == "OUT01"
    with VideoWriter(path, 25, (96, 128), overwrite=True) as writer:
        writer.write(smooth(0), 0.0)
        assert path.read_bytes() == b"old"
    assert len(read(path)) == 1


def test_a_video_without_frames_is_an_error_and_no_file(tmp_path):
    with pytest.raises(OutputError, match="no frame"), VideoWriter(tmp_path / "v.mp4", 25, (96, 128)):
        pass
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OutputError) as caught:
        VideoWriter(tmp_path / "absent" / "v.mp4", 25, (96, 128))
    assert caught.value.code == "OUT02"
    (tmp_path / "v.part.mp4").mkdir()
    with pytest.raises(OutputError) as caught:
        VideoWriter(tmp_path / "v.mp4", 25, (96, 128))
    assert caught.value.code == "OUT02"


def test_a_frame_of_another_size_or_type_is_refused_with_its_number(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.write(smooth(0), 0.0)
        with pytest.raises(UsageError, match=r"frame 1 is uint8 \(95, 128, 3\)"):
            writer.write(smooth(0)[:95], 0.04)
        with pytest.raises(UsageError, match="frame 1 is float32"):
            writer.write(smooth(0).astype(np.float32), 0.04)


def test_time_cannot_stand_still_or_run_backwards(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.write(smooth(0), 1.0)
        for second in (1.0, 0.5, float("nan")):
            with pytest.raises(UsageError, match="time"):
                writer.write(smooth(1), second)


@pytest.mark.parametrize(
    ("name", "fps", "size"), [("v.avi", 25, (96, 128)), ("v.mp4", 0, (96, 128)), ("v.mp4", 25, (0, 128))]
)
def test_requests_that_make_no_video_are_refused(tmp_path, name, fps, size):
    with pytest.raises(UsageError):
        VideoWriter(tmp_path / name, fps, size)


def test_a_rate_below_one_frame_in_a_quarter_of_an_hour_is_written(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 1e-4, (96, 128)) as writer:
        for index in range(2):
            writer.write(smooth(index), 1e4 * index)
    assert [frame.time for frame in read(tmp_path / "v.mp4")] == [0.0, 1e4]


def test_nothing_can_be_written_after_closing(tmp_path):
    writer = write(tmp_path / "v.mp4", [0.0])
    writer.close()
    with pytest.raises(UsageError, match="closed"):
        writer.write(smooth(1), 1.0)


def test_sound_is_copied_as_it_is_and_ends_with_the_video(tmp_path):
    source = with_sound(tmp_path / "s.mp4")
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.copy_audio(source)
        for index in range(25):
            writer.write(smooth(index), index / 25)
    assert tracks(tmp_path / "v.mp4") == ["video", "audio"]
    assert writer.audio_note == ""

    def sound(path: Path) -> list[tuple[float, bytes]]:
        with av.open(str(path)) as container:
            return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]

    original, copied = sound(source), sound(tmp_path / "v.mp4")
    assert copied == [packet for packet in original if 0 <= packet[0] < 1.0]
    assert len(copied) == 47  # 48000 samples a second, 1024 a packet


def test_sound_of_a_later_part_starts_with_its_first_frame(tmp_path):
    source = with_sound(tmp_path / "s.mp4")
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.copy_audio(source)
        for index in range(25, 35):
            writer.write(smooth(index), index / 25)
    with av.open(str(tmp_path / "v.mp4")) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    assert 0 <= times[0] < 1024 / 48000
    assert times[-1] < 0.4


def test_of_several_sound_tracks_the_default_one_is_copied_and_named(tmp_path):
    source = tmp_path / "s.mkv"
    with av.open(str(source), "w") as out:
        first, second = (out.add_stream("aac", rate=rate, layout="mono") for rate in (48000, 32000))
        first.disposition, second.disposition = av.stream.Disposition(0), av.stream.Disposition.default
        for stream, rate in ((first, 48000), (second, 32000)):
            for start in range(0, rate, 1024):
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = rate, start, Fraction(1, rate)
                out.mux(stream.encode(sound))
            out.mux(stream.encode(None))
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 25, (96, 128)) as writer:
        writer.copy_audio(source)
        for index in range(10):
            writer.write(smooth(index), index / 25)
    assert writer.audio_note == "of 2 sound tracks number 1 is copied"
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == 32000


def test_a_source_without_sound_gives_a_silent_video_without_a_note(tmp_path):
    write(tmp_path / "s.mp4", [0.0, 0.04])
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.copy_audio(tmp_path / "s.mp4")
        writer.write(smooth(0), 0.0)
    assert tracks(tmp_path / "v.mp4") == ["video"]
    assert writer.audio_note == ""


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le"])  # refused when the track is added, and by the header
def test_sound_that_mp4_cannot_hold_is_left_out_and_named(tmp_path, codec):
    source = with_sound(tmp_path / "s.mkv", codec, "stereo")
    with VideoWriter(tmp_path / "v.mp4", 25, (96, 128)) as writer:
        writer.copy_audio(source)
        writer.write(smooth(0), 0.0)
    assert tracks(tmp_path / "v.mp4") == ["video"]
    assert "s.mkv" in writer.audio_note
    assert sorted(os.listdir(tmp_path)) == ["s.mkv", "v.mp4"]


def test_the_readers_times_go_through_the_writer_unchanged(tmp_path):
    write(tmp_path / "s.mp4", [0.0, 0.033, 0.1, 0.2, 0.9])
    with open_source(tmp_path / "s.mp4") as source, VideoWriter(tmp_path / "v.mp4", source.fps, source.size) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    first, second = read(tmp_path / "s.mp4"), read(tmp_path / "v.mp4")
    assert [frame.time for frame in first] == [frame.time for frame in second]


def test_a_full_disk_is_named_and_ends_the_writing(tmp_path):
    class FullDisk:
        def encode(self, picture):
            raise OSError(28, "No space left on device")

    writer = VideoWriter(tmp_path / "v.mp4", 25, (96, 128))
    writer._stream = FullDisk()
    with pytest.raises(OutputError, match="No space left on device") as caught:
        writer.write(smooth(0), 0.0)
    assert caught.value.code == "OUT02"
    writer._close_part()
    assert not (tmp_path / "v.mp4").exists()
