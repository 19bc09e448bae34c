"""Scripts of `trackgpt track --script`: three forms of the same words, and what is refused, by file and line."""

import re
from pathlib import Path

import pytest
from scripted_model import film
from toy_memory import hire

from trackgpt.app.instructions import TimedInstruction, read_script
from trackgpt.errors import InputError
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import read_tracks
from trackgpt.types import VisualPrompt


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_jsonl_line_has_the_fields_of_an_instruction_event(tmp_path):
    text = """
        {"frame": 240, "text": "the blue one", "kind": "correct", "ids": [1], "visual": [{"box": [1, 2, 30, 40]}]}
        {"second": 8.5, "text": "the dog"}

        {"kind": "drop", "frame": 300}
        {"v":3,"seq":3,"take":1,"i":12,"t":0.5,"type":"instruction","text":"the cat","kind":"start"}
    """
    how = {"kind": "correct", "ids": (1,), "visual": (VisualPrompt((1, 2, 30, 40)),)}
    assert read_script(written(tmp_path, "words.jsonl", text)).said == (
        TimedInstruction("the blue one", 240, how=how),
        TimedInstruction("the dog", second=8.5),
        TimedInstruction("", 300, how={"kind": "drop"}),
        TimedInstruction("the cat", 12, how={"kind": "start"}),
    )


def test_a_text_file_is_interacttracks_description_one_line_a_frame(tmp_path):
    path = written(tmp_path, "description.txt", "the red car\n\n\n  the bus \n\n")
    assert read_script(path).said == (TimedInstruction("the red car", 0), TimedInstruction("the bus", 3))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("the red car", "line 2: no JSON"),
        ("[1]", "line 2: a list; wanted an object with frame, second, text"),
        ('{"txt": "the red car"}', "line 2: no field 'txt'; wanted some of frame"),
        ('{"frame": 3}', "line 2: says nothing"),
        ('{"frame": -3, "text": "it"}', "line 2: frame -3; wanted a whole number from 0"),
        ('{"frame": 1.5, "text": "it"}', "line 2: frame 1.5"),
        ('{"second": NaN, "text": "it"}', "line 2: second nan"),
        ('{"frame": 1, "second": 2, "text": "it"}', "line 2: frame and second are two moments"),
        ('{"text": 3}', "line 2: kind 'start'; wanted a text"),
        ('{"text": "it", "kind": "jump"}', "line 2: kind 'jump'; wanted a text and one of start"),
        ('{"text": "it", "ids": [0]}', "line 2: ids [0]; wanted whole numbers from 1"),
        ('{"visual": [{"box": [1, 2]}]}', "line 2: "),
        ('{"v":3,"seq":3,"take":1,"i":12,"t":0.5,"type":"lost","id":1}', "an event of type 'lost'"),
    ],
)
def test_what_is_no_instruction_is_refused_by_file_and_line(tmp_path, line, why):
    path = written(tmp_path, "words.jsonl", '{"text": "the red car"}\n' + line + "\n")
    with pytest.raises(InputError, match=re.escape(str(path)) + ".*" + re.escape(why)):
        read_script(path)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.txt", "empty.jsonl", "empty.txt"])
def test_a_script_that_is_missing_or_says_nothing_is_refused(tmp_path, name):
    if name.startswith("empty"):
        written(tmp_path, name, "\n\n")
    why = "says nothing; wanted" if name.startswith("empty") else "no such file; wanted a script: a JSONL file"
    with pytest.raises(InputError, match=f"{name}: {why}"):
        read_script(tmp_path / name)


def test_a_script_says_what_i_says_and_both_may_be_given(command, model, tmp_path):
    clip = film(tmp_path / "clip.mp4", 8)
    words = ["-i", "the red square", "-i", "3: the green square", "-i", "6: the red square and the green square"]
    lines = "the red square\n\n\nthe green square\n"
    written(tmp_path, "description.txt", lines)
    assert command("track", clip, *words, "-o", "a", "--format", "jsonl").code == 0
    done = command("track", clip, "--script", "description.txt", *words[4:], "-o", "b", "--format", "jsonl")
    assert done.code == 0, done.err
    for name in ("tracks.jsonl", "events.jsonl"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    assert command("track", clip, "--script", "a", "-o", "c", "--format", "jsonl").code == 0
    assert Path("c/tracks.jsonl").read_bytes() == Path("a/tracks.jsonl").read_bytes()
    done = command("track", clip, "--script", "description.txt", "-i", "3: the dog", "-o", "d")
    assert (done.code, "-i '3: the dog' is one of two instructions for the same frame" in done.err) == (2, True)


def test_what_is_pointed_at_comes_back_from_a_log(command, tmp_path, monkeypatch):
    hire(monkeypatch, tmp_path / "toy")
    clip = film(tmp_path / "clip.mp4", 8)
    shown = ["--box", "8,24,16,16", "--box", "@3:2:72,48,16,16", "--drop", "@5:1"]
    assert command("track", clip, *shown, "-o", "a", "--format", "jsonl").code == 0
    done = command("track", clip, "--script", "a", "-o", "b", "--format", "jsonl")
    assert done.code == 0, done.err
    assert list(read_tracks("a")) == list(read_tracks("b"))
    assert read_prompts("a") == read_prompts("b")
