"""`trackgpt chat`: what a line means, and what it does to a run, without a terminal and without a model."""

import base64
import io
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted_model import ScriptedModel, film
from toy_memory import hire, pointed
from toy_systems import ToyImat, scene

from trackgpt.app import pictures
from trackgpt.app.chat import COMMANDS, ChatOrder, Dialogue, read_order, talk
from trackgpt.app.tracking import RunSummary
from trackgpt.errors import UsageError
from trackgpt.export.records import read_events, read_takes, read_tracks
from trackgpt.session.playback import InstructionTracker

FRAMES = 12


def squares() -> list[np.ndarray]:
    """Three squares: red goes right, green stands still, blue goes down."""
    return [scene(red=(2 + 3 * t, 5), green=(60, 40), blue=(30, 10 + 2 * t)) for t in range(FRAMES)]


class Written:
    """Lines that are written beforehand, and what was told."""

    def __init__(self, *lines: str) -> None:
        self.lines = [*lines, ":quit"]
        self.told: list[str] = []
        self.shown: list[str] = []

    def take(self, wait: float | None) -> str:
        return self.lines.pop(0)

    def tell(self, text: str) -> None:
        self.told.append(text)

    def status(self, text: str) -> None:
        self.shown.append(text)


def held(tmp_path: Path, *lines: str, model: object = None) -> Written:
    """What came of the lines; the run is in `out`."""
    written = Written(*lines)
    with InstructionTracker(model or ToyImat(), "toy").open(squares(), out=tmp_path / "out") as playback:
        talk(Dialogue(playback, written.tell), written, RunSummary(tmp_path / "out"))
    return written


def colours(run: Path, take: int | None = None) -> str:
    """The colour that is followed on every frame of a take, a letter each."""
    found = ""
    for record in read_tracks(run, take):
        box = record.objects[0].box if record.objects else None
        if box is None:
            found += "-"
        else:
            pixel = squares()[record.index][int(box[1]) + 3, int(box[0]) + 3]
            found += "rgb"[int(pixel.argmax())]
    return found


# --- what a line means ---


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("the red one", ChatOrder("say", "the red one")),
        ("  ", ChatOrder("nothing")),
        ("@40", ChatOrder("wait", number=40)),
        ("@end", ChatOrder("wait", number=math.inf)),
        ("@home", ChatOrder("say", "@home")),
        (":seek 12", ChatOrder("seek", "12", 12)),
        (":take 2 ", ChatOrder("take", "2", 2)),
        (":box 1:2,3,4,5", ChatOrder("box", "1:2,3,4,5")),
        (":add the dog", ChatOrder("add", "the dog")),
        (":drop", ChatOrder("drop")),
        (r"\:quit", ChatOrder("say", r"\:quit")),
    ],
)
def test_a_line_is_words_a_wait_or_a_command(line, order):
    assert read_order(line) == order


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (":seak 3", "did you mean :seek?"),
        (":xyzzy", ":help shows what there is"),
        (":seek", "wanted a whole number"),
        (":seek -1", "wanted a whole number"),
        (":box", "wanted [ID:]x,y,w,h after it"),
        (":add", "wanted TEXT after it"),
    ],
)
def test_a_command_that_is_none_is_refused_with_what_was_meant(line, why):
    with pytest.raises(UsageError, match=re.escape(why)):
        read_order(line)


# --- what it does to a run ---


def test_a_command_without_its_colon_and_a_number_without_a_choice_leave_the_target_and_say_what_to_do(tmp_path):
    written = held(tmp_path, "the red one", "@4", "undo", "seek 2", "7", "show the green one", "@6", "\\quit", "@end")
    assert colours(tmp_path / "out")[:6] == "rrrrgg"
    assert "  ! 'undo': did you mean :undo?" in written.told
    assert "  ! 'seek 2': did you mean :seek 2?" in written.told
    assert "  ! '7': there is nothing to choose from; say in words what to follow" in written.told


def test_start_wrong_undo_switch_seek_and_back_is_one_run_of_takes(tmp_path):
    lines = "the red one", "@4", "no, the green one", "@6", ":undo", "the blue one", "@8", ":takes", ":take 1", "@end"
    written = held(tmp_path, *lines)
    out = tmp_path / "out"
    assert colours(out, 1) == "rrrrgg"
    assert colours(out, 2) == "rrrrbbbb"
    assert colours(out, 3) == "rrrrgggggggg"
    assert [(take.number, take.parent, take.start) for take in read_takes(out)] == [(1, 0, 0), (2, 1, 4), (3, 2, 4)]
    assert "  grounded the red one  #1 2,5,12,12" in written.told
    assert "  took back 'no, the green one': 'the red one' holds" in written.told
    assert "  take 2, goes on from take 1 at frame 4" in written.told
    assert any(text.startswith("  as in take 1 from frame 4") for text in written.told)
    assert written.shown[0] == f"frame 0 / {FRAMES}  00:00.0  #1 1.00 tracked"


def test_seek_goes_back_in_a_new_take_and_forward_by_tracking(tmp_path):
    held(tmp_path, "the red one", ":seek 6", "the green one", "@8", ":seek 2", "the blue one", ":seek 5")
    assert colours(tmp_path / "out", 1) == "rrrrrrgg"
    assert colours(tmp_path / "out", 2) == "rrbbb"


def test_words_of_a_kind_and_at_a_frame_to_come(tmp_path):
    held(tmp_path, "the red one", "6: the green one", "@4", ":add the blue one", "@8", ":resume the red one", "@end")
    said = [(e.index, e.data["kind"]) for e in read_events(tmp_path / "out") if e.type == "instruction"]
    assert said == [(0, "start"), (4, "add"), (6, "switch"), (8, "resume")]
    ids = [[o.id for o in record.objects] for record in read_tracks(tmp_path / "out")]
    assert ids == [[1]] * 4 + [[1, 2]] * 2 + [[3]] * 2 + [[1]] * 4


def test_what_is_pointed_at_starts_corrects_and_drops(tmp_path):
    lines = ":box 2,5,12,12", "@3", ":box 60,40,12,12", "@6", ":point 2:65,45,-", ":drop 1", "@end"
    written = held(tmp_path, *lines, model=pointed())
    events = [event for event in read_events(tmp_path / "out") if event.type == "instruction"]
    said = [(event.index, event.data["kind"], event.data.get("ids")) for event in events]
    assert said == [(0, "start", None), (3, "add", None), (6, "correct", [2]), (6, "drop", [1])]
    assert "  ! " not in "".join(written.told)
    lines = ":box 1,1", ":point 1,1,-", ":box @4:1,1,2,2", ":mask nowhere.png", ":box 500,500,5,5"
    refused = held(tmp_path / "more", *lines, model=pointed()).told
    assert [line[:8] for line in refused] == ["  ! --bo", "  ! targ", "  ! box ", "  ! nowh", "  ! the "], refused


def test_what_cannot_be_done_is_told_and_the_run_goes_on(tmp_path):
    lines = "@3", ":undo", ":seek 3", "the red one", ":take 7", ":take 1", ":jump", "3: ", ":show", "@end"
    told = [text for text in held(tmp_path, *lines).told if text.startswith("  ! ")]
    assert [" ".join(text[4:].split()[:4]) for text in told] == [
        "nothing to track yet;",
        "nothing has been said",
        "nothing to track yet;",
        f"{tmp_path / 'out'}: there is no",
        f"{tmp_path / 'out'}: there is no",
        ":jump: no such command;",
        "-i '3:': no moment",
        ":show: there is no",
    ]
    assert colours(tmp_path / "out") == "r" * FRAMES


def test_help_names_every_command_on_lines_of_eighty(tmp_path):
    told = held(tmp_path, ":help").told
    assert [verb for verb in COMMANDS if not any(line.startswith(f"  :{verb}") for line in told)] == []
    assert max(map(len, told)) < 80


# --- the command ---


def test_lines_from_a_pipe_make_the_run_folder_of_track(command, model, tmp_path, monkeypatch):
    clip = film(tmp_path / "clip.mp4", 12)
    lines = "the red square\n@4\nthe green square\n:show\n@9\n:undo\n"
    for out in ("a", "b"):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        done = command("chat", clip, "-o", out, "--format", "mp4,davis,mot")
        assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "  You said: the red square  #1 8,24,16,16"
    assert done.values()["frames"] == str(9 + 8)
    everything = {"masks", "mot.txt", "picture.png", "video.mp4"}
    assert set(os.listdir("b")) == everything | {"events.jsonl", "run.json", "tracks.jsonl"}
    for name in ("tracks.jsonl", "events.jsonl", "picture.png"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    assert len(os.listdir("b/masks")) == 12
    assert "was a chat" in command("track", clip, "--resume", "b").err


def test_what_was_said_in_a_chat_can_be_said_again_from_its_log(command, model, tmp_path, monkeypatch):
    clip = film(tmp_path / "clip.mp4", 12)
    monkeypatch.setattr("sys.stdin", io.StringIO("the red square\n@4\nthe green square\n@6\n:undo\n@8\nthe square\n"))
    assert command("chat", clip, "-o", "chat", "--format", "jsonl").code == 0
    assert command("track", clip, "--script", "chat", "-o", "track", "--format", "jsonl").code == 0
    again, first = list(read_tracks("track")), list(read_tracks("chat"))
    assert [(r.index, r.objects) for r in again] == [(r.index, r.objects) for r in first]


def test_ctrl_c_keeps_what_was_tracked(command, monkeypatch, tmp_path):
    import trackgpt.hub

    def stop(looked: int) -> None:
        if looked == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(trackgpt.hub, "load_model", lambda *_, **__: ScriptedModel(before=stop))
    monkeypatch.setattr("sys.stdin", io.StringIO("the red square\n"))
    done = command("chat", film(tmp_path / "clip.mp4", 12), "-o", "out", "--format", "davis")
    assert (done.code, "interrupted; 5 frames are kept in out" in done.err) == (130, True), done.err
    assert len(os.listdir("out/masks")) == 5


def test_boxes_need_a_model_that_is_shown_targets(command, tmp_path, monkeypatch):
    hire(monkeypatch, tmp_path / "toy")
    monkeypatch.setattr("sys.stdin", io.StringIO(":box 8,24,16,16\n"))
    done = command("chat", film(tmp_path / "clip.mp4", 6), "-m", "nano-memory", "-o", "out", "--format", "mot")
    assert (done.code, done.values()["frames"]) == (0, "6"), done.err


# --- pictures ---


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "inline"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({}, ""),
    ],
)
def test_a_terminal_says_how_it_takes_pictures(environment, protocol):
    assert pictures.protocol_of(environment) == protocol


def test_pictures_come_back_from_what_a_terminal_is_sent():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (50, 70, 3), np.uint8)
    parts = re.findall(r"\x1b_G(.*?);(.*?)\x1b\\", pictures.kitty(picture), re.DOTALL)
    assert [head for head, _ in parts] == ["a=T,f=100,m=1", *["m=1"] * (len(parts) - 2), "m=0"]
    assert max(len(part) for _, part in parts) == 4096
    sent = base64.b64decode("".join(part for _, part in parts))
    assert (np.asarray(Image.open(io.BytesIO(sent))) == picture).all()
    (size, data) = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\a", pictures.inline(picture)).groups()
    assert len(base64.b64decode(data)) == int(size)


def test_sixels_paint_every_pixel_once():
    picture = np.zeros((8, 5, 3), np.uint8)
    picture[2:7, 1:4] = (255, 0, 0)
    head, body = re.fullmatch(r'\x1bPq("1;1;5;8(?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\', pictures.sixel(picture)).groups()
    reds = {int(k) for k, r, g, b in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", head) if (r, g, b) == ("100", "0", "0")}
    painted = np.zeros((8, 5, 2), int)
    for row, band in enumerate(body.split("-")):
        for line in band.split("$"):
            colour, runs = re.fullmatch(r"#(\d+)((?:!\d+.)+)", line).groups()
            column = 0
            for length, letter in re.findall(r"!(\d+)(.)", runs):
                for bit in range(6):
                    if ord(letter) - 63 >> bit & 1:
                        painted[6 * row + bit, column : column + int(length), int(int(colour) in reds)] += 1
                column += int(length)
            assert column == 5
    assert (painted.sum(axis=2) == 1).all()
    assert (painted[:, :, 1] == (picture[:, :, 0] > 0)).all()
