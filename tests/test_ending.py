"""How programs end: exit codes of one table, one line on stderr, a standard output that may close, fill or break."""

import errno
import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from scripted_model import film

from trackgpt import ending
from trackgpt.errors import InputError
from trackgpt.export.records import read_events, read_tracks

ROOT = Path(__file__).parents[1]
SAY = ("-i", "the red square")


def ended(command, capsys):
    """Exit code, stdout and stderr of a program `tool`."""
    with pytest.raises(SystemExit) as left:
        ending.run("tool", command)
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


def raising(error):
    def command():
        raise error

    return command


class Refusing(io.StringIO):
    """A standard output that takes so many writes and then fails."""

    def __init__(self, number, takes=1):
        super().__init__()
        self.number, self.takes = number, takes

    def write(self, text):
        if not self.takes:
            raise OSError(self.number, os.strerror(self.number))
        self.takes -= 1
        return super().write(text)

    def fileno(self):
        raise io.UnsupportedOperation


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.mp4: the file is empty", "IN02"), 3, "tool: IN02: a.mp4: the file is empty\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
        (MemoryError(), 7, "tool: MD05: out of memory; use a smaller model"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            6,
            "tool: OUT02: out/x: cannot be written (No space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 6, "tool: OUT02: x: cannot be written (Permission"),
        (OSError(errno.EIO, "Input/output error", "x"), 3, "tool: x: cannot be read (Input/output error)"),
        (ZeroDivisionError("division by zero"), 70, "tool: a defect of trackgpt, please report it: ZeroDivisionError"),
    ],
)
def test_every_failure_is_one_line_and_a_code_of_the_table(error, code, line, capsys):
    found, out, err = ended(raising(error), capsys)
    assert (found, out) == (code, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert code in ending.EXIT_CODES


def test_a_command_that_returns_gives_its_code(capsys):
    assert ended(lambda: None, capsys) == (0, "", "")
    assert ended(lambda: 5, capsys) == (5, "", "")


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (errno.EPIPE, 0, ""),
        (errno.ENOSPC, 6, "tool: OUT02: standard output cannot be written (No space left on device)"),
    ],
)
def test_what_stdout_cannot_take_is_dropped_and_the_work_goes_on(number, code, line, monkeypatch, capsys):
    out, done = Refusing(number), []
    monkeypatch.setattr(sys, "stdout", out)

    def command():
        for step in range(4):
            sys.stdout.write(f"{step}\n")
            done.append(step)

    found, _, err = ended(command, capsys)
    assert (found, done) == (code, [0, 1, 2, 3])
    assert err.startswith(line)
    assert out.getvalue() == "0\n"
    assert sys.stdout is out


PROGRAM = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import scripted_model, trackgpt.hub
trackgpt.hub.load_model = lambda *_, **__: scripted_model.ScriptedModel()
from trackgpt.app.cli import main
main()
"""


@pytest.mark.parametrize(("stdout", "code"), [("| head -n 1 > first", 0), (">&-", 0), ("> /dev/full", 6)])
def test_a_run_is_whole_whatever_becomes_of_stdout(tmp_path, stdout, code):
    film(tmp_path / "clip.mp4", 8)
    (tmp_path / "program.py").write_text(PROGRAM)
    line = f"set -o pipefail; {sys.executable} program.py track clip.mp4 -i 'the red square' -o out -q --json {stdout}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (1 if code else 0)
    assert len(list(read_tracks(tmp_path / "out"))) == 8
    assert [*read_events(tmp_path / "out")][-1].type == "done"
    names = {"video.mp4", "masks", "coco.json", "mot.txt", "timeline.png"}
    assert names <= set(os.listdir(tmp_path / "out"))


@pytest.mark.parametrize("program", ["trackgpt.app.cli", "train.__main__", "eval.__main__", "data_tools.__main__"])
def test_help_is_shown_for_the_short_option_too(program, capsys, monkeypatch):
    main, shown = import_module(program).main, []
    for option in ("-h", "--help"):
        monkeypatch.setattr(sys, "argv", ["program", option])
        with pytest.raises(SystemExit) as left:
            main() if program.startswith("trackgpt") else main([option])
        assert left.value.code == 0
        shown.append(capsys.readouterr().out)
    assert "Usage: " in shown[0]
    assert shown[0] == shown[1]


# --- outputs that know their source ---


def test_every_module_that_is_run_by_itself_ends_as_every_program_does():
    files = [file for folder in ("train", "eval", "data_tools") for file in (ROOT / folder).rglob("*.py")]
    run = {str(file): file.read_text() for file in files if "if __name__ ==" in file.read_text()}
    assert len(run) > 5
    assert [name for name, text in run.items() if "ending.run(" not in text] == []


@pytest.mark.parametrize("source", ["run/video.mp4", "run/masks", "link.mp4", "run/masks/0000*.png", "run"])
def test_a_run_folder_that_holds_the_source_is_refused_before_anything_is_cleared(command, model, tmp_path, source):
    film(tmp_path / "clip.mp4", 4)
    assert command("track", "clip.mp4", *SAY, "-o", "run").code == 0
    (tmp_path / "link.mp4").symlink_to("run/video.mp4")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = command("track", source, *SAY, "-o", "run", "--overwrite")
    assert done.code == 6
    assert done.err.startswith("trackgpt: OUT01: run: holds ")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_an_export_onto_the_source_is_refused(tiny, tmp_path):
    import trackgpt
    from trackgpt.errors import OutputError

    (tmp_path / "out").mkdir()
    film(tmp_path / "out/clip.mp4", 3)
    with trackgpt.load(tiny, device="cpu").open(tmp_path / "out/clip.mp4") as playback:
        playback.say("the red square")
        assert len(list(playback)) == 3
        with pytest.raises(OutputError, match="OUT01"):
            playback.export(tmp_path / "out", overwrite=True)
        playback.export(tmp_path / "other")
    playback.close()
    assert (tmp_path / "out/clip.mp4").exists()


# --- repair ---


def test_repair_makes_what_is_missing_and_nothing_else(command, model, tmp_path):
    film(tmp_path / "clip.mp4", 6)
    assert command("track", "clip.mp4", *SAY, "-o", "run").code == 0
    run = tmp_path / "run"
    wanted = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "video.mp4"}
    for name in ("video.mp4", "coco.json", "mot.txt", "masks/00002.png"):
        (run / name).unlink()
    (run / "tracks.jsonl").write_bytes((run / "tracks.jsonl").read_bytes() + b'{"v":3,"take":1,"i":6,')
    done = command("repair", "run")
    assert (done.code, done.values()) == (0, {"frames": "6", "made": "mp4,davis,coco,mot", "out": "run"})
    assert all(path.read_bytes() == data for path, data in wanted.items() if path.name != "tracks.jsonl")
    assert (run / "video.mp4").stat().st_size > 1000
    assert command("repair", "run").values()["made"] == "nothing"


def test_repair_of_a_video_whose_source_has_moved_asks_for_it(command, model, tmp_path):
    film(tmp_path / "clip.mp4", 3)
    assert command("track", "clip.mp4", *SAY, "-o", "run").code == 0
    (tmp_path / "run/video.mp4").unlink()
    (tmp_path / "clip.mp4").rename(tmp_path / "moved.mp4")
    assert command("repair", "run").code == 3
    assert command("repair", "run", "--source", "moved.mp4").code == 0
    assert command("repair", "nothing").code == 3


def test_repair_leaves_sources_links_and_live_runs_alone(command, model, tmp_path):
    from trackgpt.export.records import RunFolder

    film(tmp_path / "clip.mp4", 3)
    assert command("track", "clip.mp4", *SAY, "-o", "run").code == 0
    run, mine = tmp_path / "run", tmp_path / "mine.txt"
    (run / "video.mp4").rename(run / "video.part.mp4")
    part = (run / "video.part.mp4").read_bytes()
    assert command("repair", "run", "--source", "run/video.part.mp4").code == 6
    assert (run / "video.part.mp4").read_bytes() == part
    mine.write_text("precious")
    (run / "coco.json").unlink()
    (run / ".coco.json.part").symlink_to(mine)
    assert command("repair", "run").code == 0
    assert mine.read_text() == "precious"
    (run / "mot.txt").unlink()
    (run / "mot.txt").symlink_to(mine)
    assert command("repair", "run").code == 6
    with RunFolder(tmp_path / "live"):
        done = command("repair", "live")
        assert (done.code, "run.json" in done.err or "being written" in done.err) == (done.code, True)
        again = command("track", "clip.mp4", *SAY, "-o", "live", "--overwrite")
        assert (again.code, "a run is being written there" in again.err) == (6, True)


@pytest.mark.parametrize("facts", ['{"reading":[1]}', '{"reading":{"bogus":1}}', '{"formats":5}', "[1]", "{"])
def test_repair_of_a_damaged_description_is_a_line(command, model, tmp_path, facts):
    film(tmp_path / "clip.mp4", 3)
    assert command("track", "clip.mp4", *SAY, "-o", "run").code == 0
    (tmp_path / "run/video.mp4").unlink()
    (tmp_path / "run/run.json").write_text(facts)
    done = command("repair", "run", "--source", "clip.mp4")
    assert (done.code, done.err.count("\n")) == (3, 1)
