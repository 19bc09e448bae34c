"""What the README shows works as it stands there; only the model and the video are replaced by small ones."""

import ast
import io
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_line import command_of
from PIL import Image
from scripted_model import HEIGHT, WIDTH, film, folder, picture
from toy_memory import hire

import trackgpt
from trackgpt.hub import ASSETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NANO = ASSETS / "nano" / "model.safetensors"
FRAMES = 27  # the example says something new on frame 24
MODELS = [
    "tiny",
    pytest.param(
        "nano",
        marks=pytest.mark.skipif(not NANO.exists(), reason="nano's weights are not in this checkout yet"),
    ),
]


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language, "" for those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def example_of(docstring: str) -> str:
    """The indented lines of a docstring, as a program."""
    lines = [line.removeprefix("    ") for line in docstring.splitlines() if line.startswith("    ") or not line]
    return "\n".join(lines)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the video of the examples, to be in."""
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "race.mp4", FRAMES)
    return tmp_path


@pytest.mark.parametrize("model", MODELS)
def test_the_python_example_of_the_readme_runs(place, tiny, capsys, model):
    _, example, pushed = blocks("python")
    assert '"nano"' in example
    assert '"nano"' in pushed
    if model == "tiny":
        example = example.replace('"nano"', repr(str(tiny)))
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    names["playback"].close()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Sure, I track the object." or model == "nano"
    rows = [line.split(" ", 1) for line in printed[1:]]
    # What is taken back begins a second take at its frame.
    assert [int(index) for index, _ in rows] == [*range(FRAMES), *range(25, FRAMES)]
    assert {"video.mp4", "masks", "coco.json", "mot.txt", "tracks.jsonl", "run.json"} <= set(os.listdir("out"))
    if model == "tiny":
        # The new instruction of frame 24 begins a new track at frame 25.
        ids = [[item[0] for item in ast.literal_eval(row)] for _, row in rows[:FRAMES]]
        assert ids == [[1]] * 25 + [[2]] * 2
        names = {"trackgpt": trackgpt, "camera": [picture(t) for t in range(3)]}
        exec(compile(pushed.replace('"nano"', repr(str(tiny))), "README.md", "exec"), names)
        assert names["result"].index == 2
        assert names["state"].frame == 3


def test_the_example_of_pointing_runs(place, capsys, monkeypatch):
    example, *_ = blocks("python")
    assert '"nano-memory"' in example
    hire(monkeypatch, place / "toy")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    names["playback"].close()
    rows = [ast.literal_eval(line.split(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()]
    assert [[item[0] for item in row] for row in rows] == [[1]] * 6 + [[1, 7]] * (FRAMES - 6)
    assert rows[8][0][1] == (40, 24, 56, 40)
    assert [prompt.kind for prompt in names["playback"].session.prompts] == ["start", "add", "correct"]


def test_the_example_of_the_package_itself_runs(place, tiny, capsys):
    example = example_of(trackgpt.__doc__).replace('"nano"', repr(str(tiny)))
    names: dict[str, object] = {}
    exec(compile(example, "trackgpt/__init__.py", "exec"), names)
    names["playback"].close()
    assert len(capsys.readouterr().out.splitlines()) == 1 + FRAMES
    assert (place / "out/video.mp4").exists()


ELSEWHERE = {
    *("--grounder", "small", "reason", "--resume", "imat:nano+nano-memory", "runs/nano-memory/mine/model"),
    *("reasoningtrack-nano", "qtrack-nano", "qtrack:policy-nano+nano-memory"),
}
"""What needs a file that is not here, a cut run, or minutes with real weights; their parts have tests of their own."""


def test_the_commands_of_the_readme_run(place, tiny, capsys, monkeypatch):
    folder(place / "frames", 6)
    hire(monkeypatch, place / "toy")
    targets = np.zeros((HEIGHT, WIDTH), np.uint8)
    targets[24:40, 8:24], targets[48:64, 72:88] = 1, 2
    Image.fromarray(targets).save(place / "first.png")
    (place / "description.txt").write_text("the red square\n\nthe green square\n")
    command = command_of(capsys, monkeypatch)
    lines = [line.split("#")[0] for block in blocks("") for line in block.splitlines() if line.startswith("trackgpt ")]
    assert {shlex.split(line)[1] for line in lines} >= {"track", "show", "doctor"}
    for line in lines:
        _, verb, *rest = shlex.split(line)
        if ELSEWHERE & set(rest):
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO("the red square\n"))
        shown = {"--box", "--mask", "--point"} & set(rest)
        done = command(verb, *rest, *([] if verb in ("show", "models") or shown else ["-m", tiny]))
        assert done.code == 0, (line, done.err)
    # The second instruction is about frame 240 of a folder that has 6: said, not kept quiet about.
    assert "frame 240" in (place / "out/events.jsonl").read_text()
    assert sorted(os.listdir("runs/race-1")) == sorted(files_of_the_table())


def files_of_the_table() -> set[str]:
    """What the README says a run folder holds."""
    table = README.split("A run folder holds:")[1].split("\n\n")[1]
    names = re.findall(r"`([\w./]+)`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    return {name.split("/")[0] for name in names}


def test_the_files_the_readme_links_to_exist():
    # Pictures and figures are made with the trained model; until it is there they may be missing.
    linked = re.findall(r"\]\(([\w./-]+)\)", README)
    later = set() if NANO.exists() else {"docs/nano.jpg", "eval/RESULTS.md"}
    assert [name for name in linked if name not in later and not (ROOT / name).exists()] == []
    code = re.findall(r"`((?:trackgpt|train|eval)/[\w/]+\.py|online\.py|configs/[\w/]+\.yaml)`", README)
    assert [name for name in code if not ((ROOT / name).exists() or (ROOT / "trackgpt" / name).exists())] == []
