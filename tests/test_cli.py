"""The command line: what it prints where, what it writes, and that the same run gives the same bytes."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from encoded import shows_the_same
from PIL import Image
from rich.console import Console
from scripted_model import ScriptedModel, film, folder, hire, pictures

import trackgpt
from trackgpt.app import live
from trackgpt.app.summary import sparkline, summarise
from trackgpt.app.tracking import TimedInstruction, next_folder, parse_instruction
from trackgpt.export.exporting import export
from trackgpt.export.records import EventRecord, RunFolder, TrackRecord, read_events, read_tracks
from trackgpt.hub import ASSETS
from trackgpt.video.source import open_source
from trackgpt.video.writer import VideoWriter

ROOT = Path(__file__).parents[1]
NANO = ASSETS / "nano" / "model.safetensors"
EVERYTHING = ["coco.json", "events.jsonl", "masks", "mot.txt", "run.json", "timeline.png", "tracks.jsonl", "video.mp4"]
VERBS = ("track", "chat", "demo", "doctor", "convert", "merge", "models", "show")

# The command line with the scripted model, in a process of its own.
PIPED = """
import sys; sys.path.insert(0, sys.argv.pop(1))
import pytest, scripted_model, trackgpt.app.cli, trackgpt.app.tracking, trackgpt.session.playback, av
scripted_model.hire(pytest.MonkeyPatch())
print("ready", flush=True)
trackgpt.app.cli.main()
"""


@pytest.fixture
def clip(tmp_path):
    return film(tmp_path / "clip.mp4", unsure=(2,))


def instructions(run):
    return [(event.index, event.data["text"]) for event in read_events(run) if event.type == "instruction"]


# --- a run ---


def test_a_run_prints_the_answer_and_one_line_of_values_and_writes_every_format(command, model, clip):
    done = command("track", clip, "-i", "the red square", "-o", "out")
    assert done.out.splitlines() == [
        "You said: the red square",
        "frames=6 rethinks=1 score=0.783 warnings=0 out=out",
    ]
    assert (done.code, done.err) == (0, "")
    assert sorted(os.listdir("out")) == EVERYTHING
    assert sorted(os.listdir("out/masks")) == [f"{i:05d}.png" for i in range(6)]
    with Image.open("out/masks/00003.png") as image:
        mask = np.asarray(image)
    assert mask[32, 28] == 1
    assert mask[32, 12] == 0
    assert len(Path("out/mot.txt").read_text().splitlines()) == 6


def test_the_video_keeps_times_and_sound_and_shows_the_answer(command, model, tmp_path):
    av = pytest.importorskip("av")
    silent = film(tmp_path / "silent.mp4", 12)
    with av.open(str(silent)) as video, av.open(str(tmp_path / "clip.mp4"), "w") as out:
        picture_stream, sound = out.add_stream_from_template(video.streams.video[0]), out.add_stream("aac", rate=8000)
        for packet in video.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture_stream
                out.mux(packet)
        for n in range(8):
            samples = np.zeros((1, 1024), np.float32)
            wave = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            wave.sample_rate, wave.pts = 8000, n * 1024
            out.mux(sound.encode(wave))
        out.mux(sound.encode(None))
    assert command("track", "clip.mp4", "-i", "the red square", "-o", "out", "--format", "mp4").code == 0
    with av.open("out/video.mp4") as made:
        assert [stream.type for stream in made.streams] == ["video", "audio"]
        context = made.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    with open_source("out/video.mp4") as made, open_source(silent) as source:
        shown, given = list(made), list(source)
    assert [f.time for f in shown] == pytest.approx([f.time for f in given])
    assert np.abs(shown[5].image.astype(int) - given[5].image).mean() > 3


def test_only_the_formats_asked_for_are_written(command, model, clip):
    assert command("track", clip, "-i", "the red square", "-o", "out", "--format", "mot, coco").code == 0
    assert sorted(os.listdir("out")) == ["coco.json", "events.jsonl", "mot.txt", "run.json", "tracks.jsonl"]


def test_without_a_name_runs_are_numbered_under_the_name_of_the_source(command, model, clip):
    for number in (1, 2):
        done = command("track", clip, "-i", "the red square", "--format", "jsonl")
        assert done.values()["out"] == f"runs/clip-{number}"
    assert next_folder("rtsp://camera.local/live?x=1").name == "live_x_1-1"
    assert next_folder("frames/").name == "frames-1"
    assert next_folder("0").name == "0-1"
    assert next_folder("-").name == "stdin-1"


def test_runs_that_begin_at_once_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: next_folder("clip.mp4").name, range(40)))
    assert sorted(made) == sorted(f"clip-{number}" for number in range(1, 41))


def test_frames_keep_the_names_of_their_files_in_the_log_the_masks_and_coco(command, model, tmp_path):
    named = ["00000.png", "00005.png", "00010.png"]
    for old, new in zip(sorted(folder(tmp_path / "frames", 3).iterdir()), named[::-1]):
        old.rename(old.with_name(f"x{new}"))
    for file in (tmp_path / "frames").iterdir():
        file.rename(file.with_name(file.name[1:]))
    assert command("track", "frames", "-i", "the red square", "-o", "out", "--format", "davis,coco").code == 0
    assert [(record.index, record.name) for record in read_tracks("out")] == list(enumerate(named))
    assert sorted(os.listdir("out/masks")) == named
    coco = json.loads(Path("out/coco.json").read_text())
    assert coco["videos"][0]["file_names"] == [image["file_name"] for image in coco["images"]] == named
    Path("out/masks/00005.png").unlink()
    Path("out/masks/00007.png").write_text("mine")
    assert command("repair", "out").values()["made"] == "davis"
    assert command("track", "frames", "-i", "a square", "-o", "out", "--overwrite", "--format", "mot").code == 0
    assert os.listdir("out/masks") == ["00007.png"]


def test_a_video_from_standard_input_is_tracked_once_as_from_its_file(tmp_path, clip):
    run = [sys.executable, "-c", PIPED, str(ROOT / "tests"), "track", "-", "-i", "the red square"]
    done = subprocess.run(run, input=clip.read_bytes(), capture_output=True, cwd=tmp_path, timeout=100)
    assert done.stderr.decode() == "trackgpt: note: read once, from a pipe: no checksum, no sound\n"
    assert done.stdout.decode().splitlines()[-1] == "frames=6 rethinks=1 score=0.783 warnings=0 out=runs/stdin-1"
    source = json.loads((tmp_path / "runs/stdin-1/run.json").read_text())["source"]
    assert (source["kind"], source["sha256"], source["rereadable"]) == ("pipe", "", False)


@pytest.mark.parametrize("sent", [None, 0, 1500])
def test_ctrl_c_ends_the_wait_for_a_pipe(tmp_path, clip, sent):
    os.mkfifo(tmp_path / "pipe")
    run = [sys.executable, "-c", PIPED, str(ROOT / "tests"), "track", "pipe", "-i", "the red square"]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True)
    assert process.stdout.readline() == "ready\n"
    if sent is not None:
        writer = os.open(tmp_path / "pipe", os.O_WRONLY)
        os.write(writer, clip.read_bytes()[:sent])
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=100)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch("trackgpt: interrupted(; nothing was tracked yet)?\n", said)
    if sent is not None:
        os.close(writer)


def test_a_source_that_is_read_once_cannot_be_repaired_without_another_one(command, model, clip):
    command("track", clip, "-i", "the red square", "-o", "out")
    facts = json.loads(Path("out/run.json").read_text())
    facts["source"]["rereadable"] = False
    Path("out/run.json").write_text(json.dumps(facts))
    Path("out/video.mp4").unlink()
    done = command("repair", "out")
    assert done.code == 3
    assert "read once, from a pipe" in done.err
    assert command("repair", "out", "--source", clip).code == 0


def test_the_overlay_keeps_the_shape_of_pixels_while_tracking_and_afterwards(command, model, tmp_path):
    with VideoWriter(tmp_path / "wide.mp4", 12, (72, 96), pixel_aspect=Fraction(4, 3), crf=4) as video:
        for index, image in enumerate(pictures(3)):
            video.write(image, index / 12)
    assert command("track", "wide.mp4", "-i", "the red square", "-o", "out", "--format", "mp4").code == 0
    assert json.loads(Path("out/run.json").read_text())["source"]["pixel_aspect"] == "4/3"
    made = Path("out/video.mp4").rename("made.mp4")
    with open_source(made) as video:
        assert video.pixel_aspect == Fraction(4, 3)
    with open_source("wide.mp4") as source:
        path = export("out", ["mp4"], ((frame.index, frame.image) for frame in source))["mp4"]
    with open_source(path) as video:
        assert video.pixel_aspect == Fraction(4, 3)
    assert shows_the_same(path, made)


def test_what_the_source_itself_leaves_out_is_said_and_is_no_warning(command, model, shared):
    file = shared / "cases" / "strangers" / "editlist.mp4"
    said = ["-i", "the red square", "--format", "mp4", "--strict"]
    done = command("track", file, *said, "-o", "out")
    assert done.err.splitlines()[0] == "trackgpt: note: its edit list leaves out 4 of 16 frames"
    assert done.values()["warnings"] == "0"
    assert next(iter(read_events("out"))).data["notes"] == ["its edit list leaves out 4 of 16 frames"]
    assert "note:" not in command("track", file, *said, "-o", "quiet", "-q").err


def test_what_had_to_be_assumed_of_a_source_is_a_warning(command, model, tmp_path):
    folder(tmp_path / "frames", 3)
    for file in sorted((tmp_path / "frames").iterdir()):
        Image.new("L", (128, 96)).save(file.with_name(f"{file.stem}_mask.png"))
    done = command("track", "frames", "-i", "the red square", "-o", "out", "--strict")
    assert (done.code, done.values()["frames"]) == (1, "3")
    assert done.err.startswith("trackgpt: warning: 00000_mask.png, 00001_mask.png, 00002_mask.png: masks of other")


def test_overwrite_replaces_a_run_of_other_formats_and_keeps_strangers(command, model, clip):
    command("track", clip, "-i", "the red square", "-o", "out")
    Path("out/note.txt").write_text("mine")
    assert command("track", clip, "-i", "a square", "-o", "out", "--overwrite", "--format", "mot").code == 0
    assert sorted(os.listdir("out")) == ["events.jsonl", "mot.txt", "note.txt", "run.json", "tracks.jsonl"]
    assert instructions("out") == [(0, "a square")]


def test_run_json_holds_what_is_needed_to_run_again(command, model, clip):
    command("track", clip, "-i", "2: a square", "-o", "out", "--format", "jsonl", "--stride", "2")
    facts = json.loads(Path("out/run.json").read_text())
    assert facts["instructions"] == ["2: a square"]
    assert facts["reading"]["stride"] == 2
    assert (facts["schema"], facts["device"], facts["rethink"]) == (2, "auto", "auto")
    assert facts["source"]["fps"] == 12
    assert facts["trackgpt"] == trackgpt.__version__
    assert set(facts["versions"]) == {"python", "torch", "transformers", "numpy", "opencv-python-headless", "av"}


def test_rethink_off_never_asks_again(command, model, clip):
    done = command("track", clip, "-i", "the red square", "-o", "out", "--format", "jsonl", "--rethink", "off")
    assert done.values()["rethinks"] == "0"
    assert model.heard == ["the red square"]


def test_start_end_and_stride_keep_the_indices_of_the_source(command, model, clip):
    options = ["--start", 1, "--end", 6, "--stride", 2]
    command("track", clip, "-i", "the red square", "-o", "out", "--format", "jsonl", *options)
    assert [(r.index, r.time) for r in read_tracks("out")] == [(1, 0.083333), (3, 0.25), (5, 0.416667)]


# --- the same bytes ---


def test_a_video_exported_afterwards_shows_what_the_one_made_while_tracking_does(command, model, clip):
    said = ["-i", "the red square", "-i", "4: the green square"]
    assert command("track", clip, *said, "-o", "out", "--format", "mp4").values()["rethinks"] == "1"
    made = Path("out/video.mp4").rename("made.mp4")
    with open_source(clip) as source:
        path = export("out", ["mp4"], ((frame.index, frame.image) for frame in source))["mp4"]
    assert shows_the_same(path, made)


def test_the_same_run_twice_gives_equal_bytes_in_every_file(command, tiny, clip):
    files = []
    for turn in ("a", "b"):
        out = Path(turn, "run")
        done = command("track", clip, "-i", "the red square", "-m", tiny, "-o", out)
        assert done.code == 0, done.err
        made = sorted(path for path in out.rglob("*") if path.is_file())
        files.append({str(path.relative_to(out)): path.read_bytes() for path in made})
    assert len(files[0]) == 7 + 6
    assert [name for name in files[0] if files[0][name] != files[1][name] and name != "video.mp4"] == []
    assert shows_the_same("a/run/video.mp4", "b/run/video.mp4")
    assert any(record.objects[0].box for record in read_tracks("a/run"))


def test_file_folder_and_python_give_equal_logs(command, tiny, clip, tmp_path):
    with open_source(clip) as source:
        decoded = [frame.image for frame in source]
    (tmp_path / "frames").mkdir()
    for index, image in enumerate(decoded):
        Image.fromarray(image).save(tmp_path / "frames" / f"{index:05d}.png")
    for source, out in ((clip, "file"), ("frames", "folder"), ("frames/*.png", "glob")):
        common = ["-m", tiny, "--fps", 12, "--format", "jsonl"]
        assert command("track", source, "-i", "1: the red square", "-o", out, *common).code == 0
    with trackgpt.load(tiny).open(decoded, fps=12, out="python") as playback:
        playback.say("the red square", frame=1)
        list(playback)
    logs = [Path(out, "tracks.jsonl").read_text() for out in ("file", "folder", "glob", "python")]
    logs[1:3] = [re.sub(r',"name":"\d{5}.png"', "", log) for log in logs[1:3]]
    assert len(logs[0].splitlines()) == 6
    assert logs == [logs[0]] * 4
    words = [Path(out, "events.jsonl").read_text().replace('"source":"clip.mp4"', "") for out in ("file", "folder")]
    assert words[0] == words[1].replace('"source":"frames"', "")


# --- instructions and their moments ---


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("the dog", TimedInstruction("the dog")),
        ("240: no, the red one", TimedInstruction("no, the red one", frame=240)),
        ("@8.5: the dog", TimedInstruction("the dog", second=8.5)),
        ("@8: the dog", TimedInstruction("the dog", second=8.0)),
        ("\\240: the dog", TimedInstruction("240: the dog")),
        ("\\\\ a backslash", TimedInstruction("\\ a backslash")),
        ("240:the dog", TimedInstruction("the dog", frame=240)),
        ("@8.5:the dog", TimedInstruction("the dog", second=8.5)),
        ("12:30 train", TimedInstruction("12:30 train")),
        ("at 3: the dog", TimedInstruction("at 3: the dog")),
        ("2: 3: the dog", TimedInstruction("3: the dog", frame=2)),
    ],
)
def test_a_prefix_says_when_and_a_backslash_turns_it_off(text, spoken):
    assert parse_instruction(text) == spoken


def test_later_instructions_are_answered_when_they_are_reached(command, model, clip):
    said = ["-i", "the red square", "-i", "3: a square and a square", "-i", "@0.4: the green square"]
    done = command("track", clip, *said, "-o", "out", "--format", "jsonl")
    assert done.out.splitlines()[:-1] == [
        "You said: the red square",
        "3: You said: a square and a square",
        "5: You said: the green square",
    ]
    assert instructions("out") == [(0, "the red square"), (3, "a square and a square"), (5, "the green square")]
    ids = [[item.id for item in record.objects] for record in read_tracks("out")]
    assert ids == [[1], [1], [1], [2, 3], [2, 3], [4]]
    events = list(read_events("out"))
    assert [event.seq for event in events] == list(range(len(events)))
    assert [event.index for event in events] == sorted(event.index for event in events)


def test_an_escaped_prefix_is_read_as_words(command, model, clip):
    command("track", clip, "-i", "\\3: square", "-o", "out", "--format", "jsonl")
    assert instructions("out") == [(0, "3: square")]


def test_an_instruction_for_a_later_frame_alone_leaves_the_frames_before_it_empty(command, model, clip):
    done = command("track", clip, "-i", "4: the red square", "-o", "out")
    assert done.out.splitlines()[0] == "4: You said: the red square"
    assert [len(record.objects) for record in read_tracks("out")] == [0, 0, 0, 0, 1, 1]
    with Image.open("out/masks/00002.png") as mask:
        assert np.asarray(mask).max() == 0


def test_an_instruction_behind_the_end_is_a_line_on_stderr(command, model, clip):
    done = command("track", clip, "-i", "the red square", "-i", "99: never", "-o", "out", "--format", "jsonl")
    assert done.err == "trackgpt: warning: the source ended before frame 99, so 'never' was never read\n"
    assert (done.code, done.values()["warnings"]) == (0, "1")


def test_nothing_but_an_instruction_behind_the_end_is_nothing_found(command, model, clip):
    done = command("track", clip, "-i", "99: never", "-o", "out", "--format", "jsonl")
    assert done.code == 5
    assert "NL05: no instruction was read on any of 6 frames" in done.err


def test_words_that_the_terminal_cannot_show_are_printed_as_escapes(command, model, clip, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", line_buffering=True))
    done = command("track", clip, "-i", "le carré: a square", "-o", "out", "--format", "jsonl")
    assert done.code == 0
    assert raw.getvalue().splitlines()[0] == b"You said: le carr\\xe9: a square"
    assert instructions("out") == [(0, "le carré: a square")]


def test_overlapping_targets_are_reported(command, model, clip, monkeypatch):
    def everywhere(frame, state, cued):
        prediction, memory = ScriptedModel.perceive(model, frame, state, cued)
        prediction.masks[:] = True
        return prediction, memory

    monkeypatch.setattr(model, "perceive", everywhere)
    done = command("track", clip, "-i", "a square and a square", "-o", "out", "--format", "davis")
    assert "objects overlap on 6 frames; in masks/ the higher score has the pixel" in done.err


def test_two_instructions_for_one_moment_are_refused_with_advice(command, model, clip):
    for second in ("the cat", "0: the cat"):
        done = command("track", clip, "-i", "the dog", "-i", second, "-o", "out")
        assert done.code == 2
        assert "-i '240: the dog'" in done.err
        assert not Path("out").exists()


# --- what is printed ---


def test_json_prints_events_and_frames_as_lines_and_the_values_last(command, model, clip):
    done = command("track", clip, "-i", "the red square", "-o", "out", "--format", "jsonl", "--json")
    *rows, last = done.out.splitlines()
    parsed = [json.loads(row) for row in rows]
    assert [row["i"] for row in parsed if "objs" in row] == [0, 1, 2, 3, 4, 5]
    assert [row["type"] for row in parsed if "type" in row] == [event.type for event in read_events("out")]
    frames = [row for row in rows if '"objs"' in row]
    assert frames == Path("out/tracks.jsonl").read_text().splitlines()
    # What happened on a frame stands before the frame.
    assert rows.index(next(row for row in rows if '"rethink"' in row)) < rows.index(frames[3])
    assert last.startswith("frames=6 ")
    assert done.err == ""


def test_quiet_prints_neither_bar_nor_warnings(command, model, clip):
    said = ["-i", "the red square", "-i", "99: never"]
    done = command("track", clip, *said, "-o", "out", "--format", "jsonl", "--quiet")
    assert done.err == ""
    assert done.values()["warnings"] == "1"


def test_strict_makes_warnings_an_exit_code(command, model, clip):
    said = ["-i", "the red square", "-i", "99: never"]
    assert command("track", clip, *said, "-o", "a", "--format", "jsonl", "--strict").code == 1
    assert command("track", clip, *said[:2], "-o", "b", "--format", "jsonl", "--strict").code == 0


def test_many_warnings_are_cut_on_the_terminal_and_whole_in_the_log(command, model, tmp_path):
    frames = folder(tmp_path / "frames", 12)
    for index in range(2, 10):
        (frames / f"{index:05d}.png").write_bytes(b"x")
    done = command("track", frames, "-i", "the red square", "-o", "out", "--format", "jsonl")
    assert done.err.count("warning: IN03: frame ") == 5
    assert done.err.splitlines()[-1] == "trackgpt: more warnings are in events.jsonl"
    assert sum(event.type == "warn" for event in read_events("out")) == 8


def bar(quiet=False, terminal=True):
    """What the progress bar draws over three frames."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=terminal, width=100, color_system=None)
    with live.progress(3, quiet, console) as advance:
        for score in (0.91, 0.52, 0.75):
            advance(SimpleNamespace(objects=[SimpleNamespace(score=score), SimpleNamespace(score=None)]))
            print("data")  # noqa: T201 - what goes to stdout is the question
    return drawn.getvalue()


def test_the_progress_bar_shows_frames_speed_and_score_on_a_terminal(capsys):
    drawn = bar()
    assert "3/3" in drawn
    assert re.search(r"\d+ fps  score 0\.75", drawn)
    # What goes to stdout is data, and stays there also while the bar is drawn.
    assert capsys.readouterr().out == "data\n" * 3
    assert "data" not in drawn


def test_there_is_no_bar_in_a_file_or_when_quiet():
    assert bar(terminal=False).strip() == ""
    assert bar(quiet=True).strip() == ""


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_fits_a_screen_and_has_an_example(command, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    done = command(verb, "--help")
    assert done.code == 0
    assert len(done.out.splitlines()) < 60
    assert f"trackgpt {verb}" in re.sub(r"\s+", " ", done.out.replace("│", ""))


def test_no_verb_at_all_shows_the_help_and_is_a_wrong_use(command):
    done = command()
    assert (done.code, done.err) == (2, "")
    for verb in VERBS:
        assert f" {verb} " in done.out


# --- the other verbs ---


def test_show_tells_the_run_from_its_log(command, model, tmp_path):
    clip = film(tmp_path / "clip.mp4", 8, unsure=(2,), hidden=(5, 6))
    command("track", clip, "-i", "the red square", "-o", "out", "--format", "jsonl")
    done = command("show", "out")
    assert done.out.splitlines() == [
        "out: 8 frames, 1 rethink, 0 warnings, complete",
        "     0  instruction   the red square",
        "     0  answer        You said: the red square",
        "     3  rethink       purport  score 0.20 -> 0.90",
        "     3  answer        You said: the red square",
        "     5  lost #1",
        "     7  found #1",
        "#1  score 0.78 on 6 of 8 frames",
        "    ██▂██··█",
    ]


def test_show_tells_what_was_taken_back(command):
    with RunFolder("out") as run:
        run.track(TrackRecord(0, 0.0, (4, 4)))
        run.event(EventRecord.of(0, "instruction", 0, 0.0, text="no, the other one"))
        run.event(EventRecord.of(1, "undo", 0, 0.0, text="no, the other one"))
        run.track(TrackRecord(0, 0.0, (4, 4), take=2, parent=1))
        run.event(EventRecord.of(2, "take", 0, 0.0, take=2, parent=1))
    assert command("show", "out").out.splitlines() == [
        "out: 1 frame, 0 rethinks, 0 warnings, cut short",
        "     0  instruction   no, the other one",
        "     0  undo          no, the other one",
        "     0  take          take 2 goes on from take 1",
    ]


def test_show_reads_a_run_that_was_cut(command, model, clip):
    command("track", clip, "-i", "the red square", "-o", "out", "--format", "jsonl")
    for name in ("tracks.jsonl", "events.jsonl"):
        whole = Path("out", name).read_bytes()
        Path("out", name).write_bytes(whole[:-10])
    assert summarise(Path("out")).startswith("out: 5 frames, 1 rethink, 0 warnings, cut short")
    assert command("show", "nothing").code == 3


def test_a_sparkline_has_at_most_72_bars_and_dots_for_gaps():
    assert sparkline([0.0, 0.5, 1.0, None]) == "▁▅█·"
    assert len(sparkline([0.5] * 1000)) <= 72


def test_models_lists_what_ships(command):
    done = command("models")
    assert re.match(r"nano +(missing|[\d.]+ MiB)  a whole TrackGPT", done.out)


def test_doctor_passes_on_a_whole_model_and_says_what_it_saw(command, tiny):
    done = command("doctor", "-m", tiny)
    assert done.code == 0, done.out
    report = dict(re.findall(r"^(\S+) +(.*)$", done.out, re.MULTILINE))
    assert report["trackgpt"]
    assert report["h264"].startswith("read and written")
    assert "sha256" in report["weights"]
    assert re.match(r"5 frames in [\d.]+ s, \d+ fps", report["self-test"])
    assert report["memory"].endswith(": it fits")
    assert done.last == f"ok=1 checks=7 failed=0 model={tiny}"


def test_doctor_goes_on_after_a_failure_and_exits_with_its_code(command, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("doctor", "-m", "empty")
    assert done.code == 4
    assert "FAILED: MD01" in done.out
    assert done.last == "ok=0 checks=7 failed=3 model=empty"


def test_doctor_says_what_a_model_needs_before_it_is_loaded_and_loads_nothing_that_does_not_fit(
    command, tiny, monkeypatch
):
    monkeypatch.setattr("trackgpt.app.doctor.free_memory", lambda device: 2**10)
    done = command("doctor", "-m", tiny, "--device", "cpu", "--dtype", "bfloat16", "--tokens", "50")
    assert done.code == 7
    assert re.search(r"memory +FAILED: MD05: 0\.0\d GiB in bfloat16 on cpu, from config.json and headers", done.out)
    assert re.search(r"memory +[\d.]+ MiB  cache of 106 tokens", done.out)
    assert "self-test              not run: the model does not fit" in done.out
    assert "loading" not in done.out


DEMO = r"J&F=\d+\.\d frames=\d+ rethinks=\d+ clip=\S+ out=\S+"


def test_demo_ends_with_its_values_and_can_be_run_again(command, tiny):
    for again in ((), ("--overwrite",)):
        done = command("demo", "-m", tiny, "-o", "demo", "--frames", 3, "--kind", "explicit", *again)
        assert done.code == 0, done.err
        assert re.fullmatch(DEMO, done.last)
        values = {"J&F": done.values()["J&F"], "frames": "3", "rethinks": "0", "clip": "demo-clip.mp4", "out": "demo"}
        assert done.values() == values
        assert done.out.splitlines()[0].startswith("instruction: ")
        assert sorted(os.listdir("demo")) == EVERYTHING
        assert Path("demo-clip.mp4").is_file()


def test_demo_scores_what_was_found_against_the_truth(command, monkeypatch):
    from trackgpt.synthtrack.clips import make_case

    case = make_case(8, split="test", frames=2, longest=480)
    said = next(expression for expression in case.expressions if expression.kind == "explicit")
    truth = iter(np.isin(case.clip.ids, said.targets))

    class Oracle(ScriptedModel):
        def reason(self, frame, state, prompt):
            return super().reason(frame, state, trackgpt.Prompt("square"))

        def perceive(self, frame, state, cued):
            image = np.zeros_like(frame)
            mask = next(truth)
            image[: mask.shape[0], : mask.shape[1], 0][mask] = 255
            return super().perceive(image, state, cued)

    hire(monkeypatch, Oracle())
    done = command("demo", "-o", "demo", "--frames", 2, "--kind", "explicit")
    assert done.last == "J&F=100.0 frames=2 rethinks=0 clip=demo-clip.mp4 out=demo"


def test_demo_leaves_a_folder_alone_that_is_no_run(command, model):
    Path("mine").mkdir()
    Path("mine/note.txt").write_text("x")
    done = command("demo", "-o", "mine", "--frames", 2)
    assert done.code == 6
    assert "OUT01" in done.err
    assert os.listdir() == ["mine"]


def contents(folder="."):
    """Every file below a folder with its bytes."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_demo_replaces_an_earlier_one_only_when_it_is_told_to(command, model):
    demo = ("demo", "-o", "demo", "--frames", 2, "--kind", "explicit")
    assert command(*demo).code == 0
    before = contents()
    done = command(*demo)
    assert (done.code, done.out) == (6, "")
    assert "OUT01: demo: exists and is not empty; needs --overwrite" in done.err
    shutil.rmtree("demo")  # its clip stays
    assert "OUT01: demo-clip.mp4: exists; needs --overwrite" in command(*demo).err
    assert contents() == {"demo-clip.mp4": before["demo-clip.mp4"]}
    assert command(*demo, "--overwrite").code == 0
    after = contents()  # encoders give other bytes for the same pictures once in a while, and run.json a file's digest
    assert after.keys() == before.keys()
    assert after["demo/tracks.jsonl"] == before["demo/tracks.jsonl"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("demo/run.json", "OUT01: demo: holds run.json but no tracks.jsonl, so it is no run; choose another folder"),
        ("demo-clip.mp4", "OUT01: demo-clip.mp4: was not drawn by `trackgpt demo`; move it away"),
    ],
)
def test_demo_never_replaces_what_no_demo_made(command, model, name, line):
    assert command("demo", "-o", "demo", "--frames", 2, "--kind", "explicit").code == 0
    if name == "demo/run.json":
        shutil.rmtree("demo")
        os.mkdir("demo")
    Path(name).write_text("mine")
    before = contents()
    done = command("demo", "-o", "demo", "--frames", 2, "--kind", "explicit", "--overwrite")
    assert done.code == 6
    assert line in done.err
    assert contents() == before


def test_make_demo_can_be_run_again_and_again():
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    assert recipe.split("trackgpt ")[1] == "demo --overwrite"


def test_demo_names_the_kinds_there_are(command, model):
    done = command("demo", "--kind", "hard")
    assert done.code == 2
    assert "explicit, implicit, multi, none" in done.err


@pytest.mark.skipif(not NANO.exists(), reason="nano's weights are not in this checkout yet")
def test_the_demo_of_nano_beats_chance(command):
    done = command("demo", "-o", "demo", "--frames", 6)
    assert done.code == 0, done.err
    assert float(done.values()["J&F"]) > 30


@pytest.mark.skipif(not NANO.exists(), reason="nano's weights are not in this checkout yet")
def test_doctor_finds_nano_healthy(command):
    assert command("doctor").last == "ok=1 checks=7 failed=0 model=nano"


def test_python_m_trackgpt_is_the_command_and_help_loads_nothing_heavy(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.argv = ['trackgpt', 'track', '--help']\n"
        "try: runpy.run_module('trackgpt', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as left: code = left.code\n"
        "heavy = ['torch', 'transformers', 'av', 'cv2', 'matplotlib']\n"
        "print(code, [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "Usage: python -m trackgpt track" in done.stdout


def test_arrays_from_the_clip_are_those_of_the_film(tmp_path):
    # The tests above rely on it: what the scripted model sees in a film is what it sees in the pictures.
    with open_source(film(tmp_path / "c.mp4")) as source:
        for frame, image in zip(source, pictures(), strict=True):
            assert np.array_equal(frame.image[:, :, 0] > 150, image[:, :, 0] > 150)
