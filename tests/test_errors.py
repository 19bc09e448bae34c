"""The error table of the README: each row met from the command line, with one clear line and the listed exit code."""

import errno
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ambiguous_squares import command_of
from PIL import Image
from scripted_model import HEIGHT, WIDTH, ScriptedModel, film, folder, hire, picture, pictures
from test_sam_parity import build_sam

import trackgpt.hub
from trackgpt.app.live import WAITING
from trackgpt.ending import EXIT_CODES, table
from trackgpt.errors import CODES, InputError, OutputError, TrackGPTError
from trackgpt.export.records import read_events, read_tracks
from trackgpt.video.source import open_source

ROOT = Path(__file__).parents[1]
SAY = ["-i", "the red square"]
LOG = ["--format", "jsonl"]


@pytest.fixture
def clip(tmp_path):
    return film(tmp_path / "clip.mp4")


def refused(done, code, exit_code, *words):
    """One line on stderr, with its code, and nothing else anywhere."""
    assert done.code == exit_code, done.err
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith(f"trackgpt: {code}: " if code else "trackgpt: ")
    for word in words:
        assert str(word) in done.err
    assert not Path("out").exists()


def warnings(run="out"):
    return [(e.index, e.data.get("code", ""), e.data["text"]) for e in read_events(run) if e.type == "warn"]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def encode(path, frames, rate=12, stamps=None, options=None):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(rate), options={"threads": "1", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        base = Fraction(1, 1000) if stamps else Fraction(1, rate)
        stream.codec_context.time_base = base
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps[index] if stamps else index), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


# --- IN: the source ---


def test_in01_a_missing_file_names_what_lies_nearby_before_the_model_is_loaded(command, model, clip):
    clip.rename("Race.MP4")
    refused(command("track", "race.mp4", *SAY, "-o", "out"), "IN01", 3, "race.mp4: not found", "Race.MP4")
    refused(command("track", "no*.png", *SAY, "-o", "out"), "IN01", 3, "no*.png")
    refused(command("track", "nowhere/frames", *SAY), "IN01", 3, "nowhere")
    assert model.loads == 0
    assert os.listdir() == ["Race.MP4"]


def test_in01_an_absent_camera_is_named(command, model):
    if not sys.platform.startswith("linux") or Path("/dev/video97").exists():
        pytest.skip("cameras are found by /dev/video on Linux")
    refused(command("track", "97", *SAY, "-o", "out"), "IN01", 3, "camera 97")


@pytest.mark.parametrize("kind", ["empty file", "text", "empty folder", "damaged images"])
def test_in02_a_source_without_frames_is_an_error_never_an_empty_result(command, model, kind):
    source = Path("source")
    if kind == "empty file":
        source.touch()
    elif kind == "text":
        source.write_text("hello\n")
    else:
        source.mkdir()
        if kind == "damaged images":
            (source / "0.png").write_bytes(b"no image")
    refused(command("track", "source", *SAY, "-o", "out"), "IN02", 3, "source")
    assert model.loads == 0


def test_in03_a_damaged_frame_in_the_middle_of_a_video_is_recorded_and_tracking_goes_on(command, model):
    av = pytest.importorskip("av")
    clip = encode("clip.mp4", pictures(9), options={"x264-params": "keyint=1"})  # nothing else needs the damaged frame
    with av.open(clip) as video:
        at, size = [(p.pos, p.size) for p in video.demux(video=0) if p.size][4]
    with open(clip, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * size)
    done = command("track", clip, *SAY, "-o", "out")
    assert done.code == 0
    assert done.values()["frames"] == "9"
    assert [line[:45] for line in done.err.splitlines()] == ["trackgpt: warning: IN03: frame 4: undecodable"]
    records = list(read_tracks("out"))
    assert [r.index for r in records] == list(range(9))
    assert [r.index for r in records if r.problem] == [4]
    assert [o.state for o in records[4].objects] == ["absent"]
    assert [round(r.objects[0].box[0]) for r in records if not r.problem] == [8 + 4 * i for i in range(9) if i != 4]
    assert [(index, code) for index, code, _ in warnings()] == [(4, "IN03")]
    assert len(os.listdir("out/masks")) == 9
    assert pixels("out/masks/00004.png").max() == 0
    with open_source("out/video.mp4") as video:
        assert [frame.time for frame in video] == pytest.approx([i / 12 for i in range(9) if i != 4])


def test_in03_a_damaged_image_in_a_folder_keeps_its_place_and_strict_says_so(command, model, tmp_path):
    frames = folder(tmp_path / "frames", 5)
    whole = (frames / "00002.png").read_bytes()
    (frames / "00002.png").write_bytes(whole[: len(whole) // 2])
    done = command("track", "frames", *SAY, "-o", "out", *LOG, "--strict")
    assert (done.code, done.values()["warnings"]) == (1, "1")
    assert [(r.index, bool(r.problem)) for r in read_tracks("out")] == [(i, i == 2) for i in range(5)]


def test_in04_a_header_that_lies_about_the_rate_gives_way_to_the_timestamps(command, model):
    stamps = [0, 40, 80, 120, 160, 60_000]
    encode("clip.mkv", pictures(6), rate=5000, stamps=stamps)
    done = command("track", "clip.mkv", *SAY, "-o", "out", "--format", "mp4")
    assert done.err == "trackgpt: warning: IN04: fps in header is 5000; using timestamps (25)\n"
    assert [r.time for r in read_tracks("out")] == pytest.approx([stamp / 1000 for stamp in stamps])
    with open_source("out/video.mp4") as video:
        assert [frame.time for frame in video] == pytest.approx([stamp / 1000 for stamp in stamps])
    done = command("track", "clip.mkv", *SAY, "-o", "out", *LOG, "--overwrite", "--fps", "10")
    assert done.err == ""
    assert [r.time for r in read_tracks("out")] == pytest.approx([i / 10 for i in range(6)])


def test_in05_frames_that_change_size_are_recorded_and_the_video_keeps_one(command, model, tmp_path):
    frames = folder(tmp_path / "frames", 4)
    Image.fromarray(picture(2)[:60, :90]).save(frames / "00002.png")
    done = command("track", "frames", *SAY, "-o", "out", "--allow-gaps")
    assert done.code == 0, done.err
    assert [r.size for r in read_tracks("out")] == [(72, 96), (72, 96), (60, 90), (72, 96)]
    assert [(index, code) for index, code, _ in warnings()] == [(2, "IN05"), (3, "IN05")]
    assert pixels("out/masks/00002.png").shape == (60, 90)
    with open_source("out/video.mp4") as video:
        assert {frame.image.shape for frame in video} == {(72, 96, 3)}


def test_in06_a_stream_that_is_lost_ends_the_run_and_keeps_it(command, model, monkeypatch):
    def stream():
        yield from pictures(4)
        raise InputError("rtsp://camera: the stream lost after 4 frames, 3 retries failed", "IN06")

    monkeypatch.setattr("trackgpt.video.source.open_source", lambda *_, **__: open_source(stream()))
    done = command("track", "rtsp://camera", *SAY, "-o", "out")
    assert done.code == 3
    assert done.err.startswith("trackgpt: IN06: ")
    assert done.values()["frames"] == "4"
    assert len(list(read_tracks("out"))) == 4
    assert list(read_events("out"))[-1].data["text"].startswith("IN06: rtsp://camera")
    with open_source("out/video.mp4") as video:
        assert len(list(video)) == 4
    assert Path("out/coco.json").exists()


def test_in07_an_enormous_frame_is_refused_from_its_header(command, model, clip):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    Path("huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
    refused(command("track", "huge.png", *SAY, "-o", "out"), "IN07", 3, "huge.png")
    refused(command("track", clip, *SAY, "-o", "out", "--max-pixels", 5000), "IN07", 3, "96x72", "5000")
    assert model.loads == 0


def test_in08_an_uneven_folder_is_refused_unless_allowed(command, model, tmp_path):
    frames = folder(tmp_path / "frames", 5)
    (frames / "00003.png").unlink()
    refused(command("track", "frames", *SAY, "-o", "out"), "IN08", 3, "00002.png comes 00004.png", "--allow-gaps")
    assert command("track", "frames", *SAY, "-o", "out", "--allow-gaps", *LOG).code == 0


# --- NL: the instruction ---


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "<image>", "<TK> <PO>", "\x07", "240: ", "\\"])
def test_nl01_an_empty_instruction_is_refused_before_anything_is_opened(command, model, text):
    refused(command("track", "missing.mp4", "-i", "the dog", "-i", text, "-o", "out"), "NL01", 2, "say what to track")
    assert model.loads == 0


def test_nl02_an_over_long_instruction_is_refused_with_both_numbers_and_makes_no_folder(command, tiny, clip):
    long = "3: " + "the red square " * 40
    done = command("track", clip, *SAY, "-i", long, "-m", tiny, "-o", "out")
    refused(done, "NL02", 2, "the limit is 40")
    assert int(re.search(r"has (\d+) tokens", done.err)[1]) > 40


def test_nl03_markup_is_taken_out_shown_and_never_interpreted(command, tiny, clip):
    rude = "the <image> red \x1b[31m <TK>\x00square</s> ASSISTANT <PO>"
    done = command("track", clip, "-i", rude, "-m", tiny, "-o", "out", *LOG)
    plain = "the red [31m square ASSISTANT"
    assert done.code == 0
    assert f"NL03: markup was taken out of the instruction, which is read as '{plain}'" in done.err
    assert [e.data["text"] for e in read_events("out") if e.type == "instruction"] == [plain]
    command("track", clip, "-i", plain, "-m", tiny, "-o", "clean", *LOG)
    assert Path("out/tracks.jsonl").read_bytes() == Path("clean/tracks.jsonl").read_bytes()
    assert warnings("clean") == []


def test_nl05_nothing_found_on_any_frame_is_an_exit_code_and_a_whole_run(command, model, clip):
    done = command("track", clip, "-i", "the zebra", "-o", "out")
    assert done.code == 5
    assert done.err == "trackgpt: NL05: nothing matched 'the zebra' on any of 6 frames\n"
    assert done.last == "frames=6 rethinks=0 score=nan warnings=0 out=out"
    assert len(os.listdir("out/masks")) == 6
    assert Path("out/video.mp4").exists()
    assert Path("out/mot.txt").read_text() == ""
    assert json.loads(Path("out/coco.json").read_text())["annotations"] == []


def test_nl06_several_things_fit_is_an_exit_code_and_a_line_that_names_them(command, tmp_path, monkeypatch):
    on_squares = command_of(command, tmp_path, monkeypatch)
    done = on_squares("-i", "the red square", "-i", "3: the green or blue square", "--on-ambiguous", "fail")
    assert done.code == 5
    line = done.err.splitlines()[-1]
    assert line.startswith(
        "trackgpt: NL06: frame 3: 2 things fit 'the green or blue square' about equally well: 1 at 60"
    )
    assert "--on-ambiguous best or all" in line
    assert len(list(read_tracks("out"))) == 3


# --- MD: the model ---


def test_md01_a_model_that_is_not_here_names_those_that_are(command, clip):
    refused(command("track", clip, *SAY, "-m", "huge", "-o", "out"), "MD01", 4, "huge", "shipped: nano")


def test_md01_a_shipped_model_without_weights_says_what_is_missing(command, clip, monkeypatch, tmp_path):
    monkeypatch.setattr(trackgpt.hub, "ASSETS", tmp_path / "assets")
    (tmp_path / "assets/nano").mkdir(parents=True)
    refused(command("track", clip, *SAY, "-o", "out"), "MD01", 4, "config.json is missing")


def test_md02_weights_that_are_cut_or_do_not_fit_are_refused(command, clip, tiny, tmp_path):
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in tiny.iterdir():
        (cut / file.name).write_bytes(file.read_bytes())
    whole = (tiny / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(command("track", clip, *SAY, "-m", cut, "-o", "out"), "MD02", 4, "not a whole safetensors file")
    (cut / "model.safetensors").write_bytes(whole)
    config = json.loads((cut / "config.json").read_text())
    config["perception"]["decoder"]["mlp_dim"] += 8
    (cut / "config.json").write_text(json.dumps(config))
    refused(command("track", clip, *SAY, "-m", cut, "-o", "out"), "MD02", 4, "differs in shape")


@pytest.mark.parametrize("device", ["cuda:77", "banana"])
def test_md04_a_device_that_is_not_there_is_named(command, clip, tiny, device):
    refused(command("track", clip, *SAY, "-m", tiny, "--device", device, "-o", "out"), "MD04", 4, device)


class OutOfMemoryError(RuntimeError):
    """torch raises one of this name."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_md05_running_out_of_memory_keeps_what_was_tracked(command, monkeypatch, clip, error):
    def full(number):
        if number == 3:
            raise error

    hire(monkeypatch, ScriptedModel(before=full))
    done = command("track", clip, *SAY, "-o", "out", *LOG)
    assert done.code == 7
    assert done.err.startswith("trackgpt: MD05: out of memory; ")
    assert len(done.err.splitlines()) == 1
    assert done.values()["frames"] == "3"
    assert len(list(read_tracks("out"))) == 3


def test_md06_a_model_of_a_kind_that_is_not_known_says_what_to_use(command, clip, tmp_path):
    for name, kind in (("brain", "florence2"), ("eyes", "edgetam")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": kind}))
    torch.save({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1)}, tmp_path / "mobile_sam.pt")
    torch.save(build_sam().state_dict(), tmp_path / "sam.pth")
    use = ("-m", "brain", "--perception")
    refused(command("track", clip, *SAY, *use, "sam.pth", "-o", "out"), "MD06", 4, "florence2", "there are llava")
    refused(command("track", clip, *SAY, *use, "eyes", "-o", "out"), "MD06", 4, "EdgeTAM", "use SAM 2.1 tiny")
    refused(command("track", clip, *SAY, *use, "mobile_sam.pt", "-o", "out"), "MD06", 4, "MobileSAM", "use SAM ViT-B")


# --- OUT: the output ---


def test_out01_a_folder_in_use_is_refused_before_the_model_is_loaded_and_stays_as_it_is(command, model, clip):
    command("track", clip, *SAY, "-o", "run", *LOG)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    loads = model.loads
    refused(command("track", clip, *SAY, "-o", "run"), "OUT01", 6, "run: exists", "--overwrite")
    refused(command("track", clip, *SAY, "-o", clip), "OUT01", 6, "is a file")
    assert model.loads == loads
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_out01_overwrite_does_not_touch_the_old_run_when_the_request_is_wrong(command, clip, tiny):
    assert command("track", clip, *SAY, "-m", tiny, "-o", "run", *LOG).code == 0
    before = Path("run/tracks.jsonl").read_bytes()
    wrong = {
        "NL01": ["-i", "", "-m", tiny],
        "NL02": ["-i", "square " * 50, "-m", tiny],
        "MD01": [*SAY, "-m", "huge"],
        "gif": [*SAY, "-m", tiny, "--format", "gif"],
        "IN02": [*SAY, "-m", tiny, "--start", "50"],
    }
    for word, arguments in wrong.items():
        done = command("track", clip, *arguments, "-o", "run", "--overwrite")
        assert done.code != 0
        assert word in done.err
        assert Path("run/tracks.jsonl").read_bytes() == before


def test_out02_a_disk_that_is_too_small_is_found_out_before_the_run(command, model, clip, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    refused(command("track", clip, *SAY, "-o", "out"), "OUT02", 6, "MB needed", "0.0 MB free", "fewer formats")
    assert model.loads == 0


def test_out02_a_disk_that_fills_up_stops_the_run_and_leaves_whole_lines(command, model, tmp_path):
    film(tmp_path / "clip.mp4", 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # the system then refuses what a full disk would
    try:
        done = command("track", "clip.mp4", *SAY, "-o", "out", "--format", "jsonl,davis,mot")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code == 6
    assert done.err.startswith("trackgpt: OUT02: out/tracks.jsonl: cannot be written")
    assert len(done.err.splitlines()) == 1
    kept = list(read_tracks("out"))
    assert 10 < len(kept) < 60
    assert Path("out/tracks.jsonl").read_bytes().endswith(b"}\n")
    assert done.values()["frames"] == str(len(kept))
    assert len(os.listdir("out/masks")) == len(kept)
    assert len(Path("out/mot.txt").read_text().splitlines()) == len(kept)


def test_out02_a_writer_that_is_refused_space_leaves_the_other_formats_whole(command, model, clip, monkeypatch):
    from trackgpt.export.davis import DavisWriter

    write, written = DavisWriter.write, []

    def full(self, record, height, width):
        from trackgpt.files import writing

        written.append(record.index)
        if record.index == 1:
            with writing(self.folder):
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, record, height, width)

    monkeypatch.setattr(DavisWriter, "write", full)
    done = command("track", clip, *SAY, "-o", "out")
    assert done.code == 6
    assert re.match(r"trackgpt: OUT02: out/masks: cannot be written \(No space left on device\)", done.err)
    kept = list(read_tracks("out"))
    assert 2 <= len(kept) <= 2 + WAITING + 1  # tracking may be ahead of writing by so much
    with open_source("out/video.mp4") as video:
        assert len(list(video)) == 1
    assert written == [0, 1]
    assert len(Path("out/mot.txt").read_text().splitlines()) == len(kept)
    assert list(read_events("out"))[-1].type == "error"


def test_out02_a_format_that_fails_at_the_end_takes_no_other_with_it(command, model, clip, monkeypatch):
    def full(run):
        raise OutputError("out/coco.json: cannot be written (No space left on device)", "OUT02")

    monkeypatch.setattr("trackgpt.export.coco.export_coco", full)
    done = command("track", clip, *SAY, "-o", "out")
    assert done.code == 6
    assert done.err == "trackgpt: OUT02: out/coco.json: cannot be written (No space left on device)\n"
    assert {"mot.txt", "timeline.png", "video.mp4"} <= set(os.listdir("out"))
    assert done.values()["frames"] == "6"


def test_out02_a_place_that_cannot_be_made_is_named(command, model, clip):
    Path("file").write_text("x")
    refused(command("track", clip, *SAY, "-o", "file/below"), "OUT02", 6, "file")


# --- wrong use ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["track", "clip.mp4"], ["nothing to track: say it, -i", "point at it, --box"]),
        (["track", *SAY], ["source"]),
        (["track", "clip.mp4", *SAY, "--bad"], ["--bad"]),
        (["track", "clip.mp4", *SAY, "--fps", "fast"], ["--fps"]),
        (["track", "clip.mp4", *SAY, "--format", "mp5"], ["format 'mp5' does not exist", "did you mean mp4?"]),
        (["track", "clip.mp4", *SAY, "--format", "gif"], ["format 'gif' does not exist", "jsonl, davis, coco"]),
        (["track", "clip.mp4", *SAY, "--rethink", "often"], ["auto, off or async"]),
        (["track", "clip.mp4", *SAY, "--start", "4", "--end", "2"], ["start 4, end 2"]),
        (["track", "clip.mp4", *SAY, "--fps", "-1"], ["fps is -1"]),
        (["track", "clip.mp4", *SAY, "--fps", "2e6"], ["fps is 2e+06", "at most 10000"]),
        (["track", "clip.mp4", *SAY, "--fps", "nan"], ["fps is nan"]),
        (["track", "", *SAY], ["the source is empty"]),
        (["track", "ftp://x/clip.mp4", *SAY], ["ftp://"]),
        (["demo", "--frames", "0"], ["--frames 0"]),
        (["fly"], ["fly"]),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(command, model, clip, arguments, words):
    refused(command(*arguments, *(["-o", "out"] if arguments[0] == "track" else [])), "", 2, *words)


def test_a_defect_is_one_line_that_asks_to_be_reported_and_keeps_the_run(command, monkeypatch, clip):
    def broken(number):
        if number == 2:
            raise ZeroDivisionError("division by zero")

    hire(monkeypatch, ScriptedModel(before=broken))
    done = command("track", clip, *SAY, "-o", "out", *LOG)
    assert done.code == 70
    assert done.err.startswith("trackgpt: a defect of trackgpt, please report it: ZeroDivisionError: division by zero")
    assert len(done.err.splitlines()) == 1
    assert len(list(read_tracks("out"))) == 2


# --- cut short ---

PROGRAM = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import scripted_model, trackgpt.hub
trackgpt.hub.load_model = lambda *_, **__: scripted_model.ScriptedModel(pause=0.03)
from trackgpt.app.cli import main
main()
"""


@contextmanager
def running(clip, frames):
    """A run in a process of its own, once it has printed this many frames; it does not outlive the block."""
    arguments = ["track", str(clip), *SAY, "-o", "out", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            seen = 0
            while seen < frames:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                seen += '"objs"' in line
            yield process
        finally:
            process.kill()


def test_ctrl_c_keeps_the_run_makes_its_formats_and_exits_130(command, tmp_path):
    with running(film(tmp_path / "clip.mp4", 200, fps=5), frames=8) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = list(read_tracks("out"))
    assert 8 <= len(kept) < 200
    assert Path("out/tracks.jsonl").read_bytes().endswith(b"}\n")
    assert re.fullmatch(r"trackgpt: interrupted; \d+ frames are kept in out, and --resume goes on\n", err)
    assert out.splitlines()[-1].startswith("frames=")
    assert list(read_events("out"))[-1].data == {"text": "interrupted"}
    assert len(Path("out/mot.txt").read_text().splitlines()) == len(kept)
    assert len(json.loads(Path("out/coco.json").read_text())["images"]) == len(kept)
    assert pixels("out/timeline.png").shape[:2] == (420, 1200)
    with open_source("out/video.mp4") as video:
        assert len(kept) - 1 <= len(list(video)) <= len(kept)


def test_kill_9_leaves_whole_lines_and_a_video_that_can_be_read(command, tmp_path):
    with running(film(tmp_path / "clip.mp4", 200, fps=5), frames=16) as process:
        process.kill()
        process.communicate()
    for name in ("tracks.jsonl", "events.jsonl"):
        assert Path("out", name).read_bytes().endswith(b"}\n")
    kept = list(read_tracks("out"))
    assert [r.index for r in kept] == list(range(len(kept)))
    assert len(kept) >= 16
    json.loads(Path("out/run.json").read_text())
    assert not Path("out/video.mp4").exists()
    with open_source("out/video.part.mp4") as video:
        assert 5 <= len(list(video)) <= len(kept)
    for name in os.listdir("out/masks"):
        if not name.startswith("."):
            assert pixels(Path("out/masks", name)).shape == (HEIGHT, WIDTH)
    assert "cut short" in command("show", "out").out


def test_ctrl_c_while_the_model_loads_leaves_nothing(command, monkeypatch, clip):
    def load(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trackgpt.hub, "load_model", load)
    refused(command("track", clip, *SAY, "-o", "out"), "", 130, "interrupted; nothing was tracked yet")


# --- the table itself ---


def raised_codes() -> set[str]:
    """The codes in the package's source, but for their own table."""
    found = set()
    for path in (ROOT / "trackgpt").rglob("*.py"):
        if path.name != "errors.py":
            found |= set(re.findall(r"\"((?:IN|MD|NL|OUT)\d\d)[\":]", path.read_text()))
    return found


def test_the_readme_shows_the_table_of_the_code():
    assert table() in (ROOT / "README.md").read_text(), (
        "run: python -c 'from trackgpt.ending import table; print(table())'"
    )


def test_the_table_lists_the_codes_that_the_package_raises_and_no_others():
    assert set(CODES) == raised_codes()
    exits = {each.exit_code for each in (TrackGPTError, *TrackGPTError.__subclasses__())}
    assert exits <= set(EXIT_CODES)
    assert {0, 1, 70, 130, 143} <= set(EXIT_CODES)


def test_out03_a_run_does_not_go_on_with_another_model(command, tmp_path):
    clip = film(tmp_path / "clip.mp4", 200, fps=5)
    with running(clip, frames=8) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    kept = Path("out/tracks.jsonl").read_bytes()
    done = command("track", clip, "--resume", "out")  # this process has a small model under the name of nano
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith("trackgpt: OUT03: nano: is not the model that out began with")
    assert Path("out/tracks.jsonl").read_bytes() == kept


def test_every_code_of_the_table_has_a_test_here():
    tested = set(re.findall(r"def test_((?:in|md|nl|out)\d\d)_", Path(__file__).read_text()))
    assert {code.lower() for code in CODES} == tested
