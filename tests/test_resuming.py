"""A run that is killed goes on where it was, and ends with the bytes of a run that nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import pytest
import torch  # noqa: F401 - before processes are forked
from scripted_model import ScriptedModel, film, folder

import trackgpt.hub
from trackgpt.app import cli
from trackgpt.session import resuming

FRAMES = 24
ODD = {"unsure": (5, 11, 17), "hidden": (8, 9, 14)}
SAID = ("-i", "the red square", "-i", "13: the red square and the green square")
NEVER = 3600.0


class Nursery:
    """A process without threads, in which everything is imported, and which forks one that is killed per request."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def killed(self, arguments: list[object], at: int, every: float, by: int = signal.SIGKILL) -> None:
        """Run `trackgpt ARGUMENTS` in a process that is killed when it looks at its frame number `at`."""
        request = os.getcwd(), [str(each) for each in arguments], at, every, by
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ended\n"


def serve() -> None:
    """The nursery's side."""
    for name in ("presets", "systems.trackgpt", "session.playback", "app.tracking", "export.overlay", "export.davis"):
        import_module(f"trackgpt.{name}")  # once, instead of in every child
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            try:
                be_killed(*request)
            finally:
                os._exit(0)
        os.waitpid(number, 0)
        print("ended", flush=True)  # noqa: T201 - the answer


def be_killed(place: str, arguments: list[str], at: int, every: float, by: int) -> None:
    """What a child of the nursery does."""
    os.chdir(place)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    model = ScriptedModel(before=lambda looked: os.kill(os.getpid(), by) if looked == at else None)
    trackgpt.hub.load_model = lambda *_, **__: model
    resuming.EVERY = every
    sys.argv = ["trackgpt", *arguments]
    cli.main()


@pytest.fixture(scope="module")
def nursery():
    """One for all tests."""
    nursery = Nursery()
    yield nursery
    nursery.process.communicate()


@pytest.fixture
def killed(nursery):
    """See `Nursery.killed`."""
    return nursery.killed


def contents(out: str | Path) -> dict[str, bytes]:
    """What must not depend on a cut: the log and the masks, by name."""
    files = [Path(out) / "tracks.jsonl", Path(out) / "events.jsonl", *sorted((Path(out) / "masks").glob("*"))]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture
def clip(tmp_path):
    """Frames with doubts and absences; the tenth cannot be decoded."""
    place = folder(tmp_path / "clip", FRAMES, **ODD)
    (place / "00010.png").write_bytes(b"no picture")
    return place


@pytest.fixture
def whole(command, model, clip):
    """The undisturbed run's log and masks."""
    assert command("track", clip, *SAID, "-o", "whole", "--format", "jsonl,davis,mot").code == 0
    found = contents("whole")
    assert len(found) == 2 + FRAMES
    assert "state.safetensors" not in os.listdir("whole")
    return found


@pytest.mark.parametrize("at", [1, 13, 22])
def test_a_run_that_was_killed_goes_on_and_is_byte_equal(command, killed, model, clip, whole, at):
    killed(["track", clip, *SAID, "-o", "cut", "--format", "jsonl,davis,mot"], at, every=0.0)
    assert len(contents("cut")["tracks.jsonl"]) < len(whole["tracks.jsonl"])
    # What a kill may leave: half a line, and masks that were not written any more.
    with open("cut/tracks.jsonl", "ab") as log:
        log.write(b'{"v":3,"take":1,')
    for mask in sorted(Path("cut/masks").glob("*"))[-2:]:
        mask.unlink()
    model.looked = 0
    done = command("track", clip, "--resume", "cut")
    assert done.code == 0, done.err
    assert "going on after frame" in done.err
    assert model.looked <= FRAMES - at
    assert contents("cut") == whole
    assert done.values() == dict(command_line(whole), out="cut")
    assert Path("cut/mot.txt").read_bytes() == Path("whole/mot.txt").read_bytes()
    assert "state.safetensors" not in os.listdir("cut")


def command_line(log: dict[str, bytes]) -> dict[str, str]:
    """The counts of a run's last line, by its log."""
    records = [json.loads(line) for line in log["tracks.jsonl"].splitlines()]
    types = [json.loads(line)["type"] for line in log["events.jsonl"].splitlines()]
    scores = [item["score"] for record in records for item in record["objs"] if item["score"] is not None]
    return {
        "frames": str(len(records)),
        "rethinks": str(types.count("rethink")),
        "score": f"{sum(scores) / len(scores):.3f}",
        "warnings": str(types.count("warn")),
    }


def test_ctrl_c_keeps_the_last_frame_and_a_cut_run_may_be_cut_again(command, killed, model, clip, whole):
    killed(["track", clip, *SAID, "-o", "cut", "--format", "jsonl,davis"], 6, NEVER, signal.SIGINT)
    assert '"text":"interrupted"' in Path("cut/events.jsonl").read_text()
    killed(["track", clip, "--resume", "cut"], 9, 0.0)
    assert contents("cut") != whole
    assert command("track", clip, "--resume", "cut").code == 0
    assert contents("cut") == whole


def test_a_run_without_a_saved_state_starts_over_and_says_so(command, killed, model, clip, whole):
    killed(["track", clip, *SAID, "-o", "cut", "--format", "jsonl,davis"], 9, NEVER)
    done = command("track", clip, "--resume", "cut")
    assert (done.code, "cut: no state was saved before the run was cut, so it starts over" in done.err) == (0, True)
    assert contents("cut") == whole


def test_a_video_in_batches_goes_on_with_its_overlay(command, killed, model, tmp_path):
    clip = film(tmp_path / "clip.mp4", FRAMES, **ODD)
    options = ["track", clip, *SAID, "--start", 2, "--stride", 2, "--batch", 3, "--ahead", 6, "--format", "mp4,davis"]
    assert command(*options, "-o", "whole").code == 0
    killed([*options, "-o", "cut"], 6, 0.0)
    assert command("track", clip, "--resume", "cut").code == 0
    assert contents("cut") == contents("whole")
    assert sorted(os.listdir("cut")) == sorted(os.listdir("whole"))


def test_options_of_the_first_run_hold_and_others_are_refused(command, killed, model, clip):
    killed(["track", clip, *SAID, "-o", "cut", "--format", "jsonl,davis"], 9, 0.0)
    before = contents("cut")
    for more, line in {
        ("-i", "the dog"): "--instruction: the run began with the red square, 13: the red square and the green",
        ("--stride", 2): "--stride: the run began with 1, not 2; leave it out to go on",
        ("-m", "other"): "--model: the run began with nano, not other",
        ("--batch", 4): "--batch: the run began with none",
        ("-o", "out"): "--output beside --resume, which goes on in the run's own folder",
        ("--box", "1,2,3,4"): "--box: the run began with none, not 1,2,3,4",
        ("--set", "every=4"): "--set: the run began with none, not every=4",
    }.items():
        done = command("track", clip, "--resume", "cut", *more)
        assert (done.code, line in done.err) == (2, True), done.err
    assert contents("cut") == before
    assert command("track", clip, "--resume", "cut", "--stride", 1, "-q", "--format", "jsonl,davis").code == 0


def test_what_has_changed_since_or_is_complete_is_refused(command, killed, model, clip, whole):
    assert "whole: this run is complete" in command("track", clip, "--resume", "whole").err
    assert command("track", clip, "--resume", "nowhere").code == 3
    Path("words.txt").write_text("the red square\n")
    killed(["track", clip, "--script", "words.txt", "-o", "cut"], 9, 0.0)
    Path("words.txt").write_text("the green square\n")
    done = command("track", clip, "--resume", "cut")
    assert (done.code, "OUT03: words.txt: is not what it was when cut began" in done.err) == (6, True)
    Path("words.txt").write_text("the red square\n")
    (clip / "00020.png").unlink()
    (clip / "00021.png").rename(clip / "00020.png")
    done = command("track", clip, "--resume", "cut", "-q")
    assert (done.code, "OUT03" in done.err) in ((6, True), (3, False)), done.err


@pytest.mark.slow
def test_twenty_kills_at_random_frames_leave_no_trace(command, killed, model, clip, whole):
    chance = random.Random(0)
    for number in range(20):
        at, out = chance.randrange(1, FRAMES - 1), f"cut-{number}"
        killed(["track", clip, *SAID, "-o", out, "--format", "jsonl,davis"], at, chance.choice((0.0, 0.005)))
        assert command("track", clip, "--resume", out).code == 0
        assert contents(out) == whole, at


if __name__ == "__main__":
    serve()
