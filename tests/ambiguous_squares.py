"""Three squares that fit words alike, for what is done where several things fit: a grounder, frames, and a command."""

import numpy as np
from PIL import Image
from toy_memory import hire
from toy_systems import box_named, scene

from trackgpt import hub
from trackgpt.reasoners.grounder import Candidate, Grounding

COLOURS = ("red", "green", "blue")


class Squares:
    """A grounder to which all squares that words name fit alike, red before green before blue; it may be told `one`."""

    name, licence, checks_every, reads_motion = "squares", "", 0, False

    def __init__(self, one=""):
        self.one = one

    def later(self, words):
        return words

    def ground(self, image, words, nearby=()):
        named = [colour for colour in COLOURS if colour in words] or COLOURS
        boxes = {colour: box_named(image, colour) for colour in named}
        there = [Candidate(tuple(b.tolist()), 0.9, c) for c, b in boxes.items() if not np.isnan(b).any()]
        if self.one:
            return Grounding(tuple(one for one in there if one.label == self.one))
        return Grounding(tuple(there[:1]), tuple(there[1:]), alike=max(0, len(there) - 1))


def squares(count=10, hidden=()):
    """Red goes right, green stands still, blue goes down; none is there on `hidden` frames."""
    frames = []
    for t in range(count):
        here = {"red": (4 + 3 * t, 4), "green": (60, 40), "blue": (30, 20 + 2 * t)}
        frames.append(scene(**({} if t in hidden else here)))
    return frames


def command_of(command, tmp_path, monkeypatch):
    """Runs `trackgpt track` or another verb on the squares as a folder, with these options more."""
    for t, frame in enumerate(squares(6)):
        Image.fromarray(frame).save(tmp_path / f"{t:05d}.png")
    hire(monkeypatch, tmp_path / "toy")
    (tmp_path / "toy.onnx").touch()
    monkeypatch.setattr(hub, "load_grounder", lambda name, *how: Squares())
    common = tmp_path / "0*.png", "--grounder", tmp_path / "toy.onnx", "-o", "out", "--format", "jsonl"
    return lambda *more, verb="track": command(verb, *common, *more)
