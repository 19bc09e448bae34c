"""Wrong command lines of `python -m eval`: one line on stderr, an exit code, and nothing left in the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import app
from trackgpt import ending

DAVIS = ("davis", "--data", "DAVIS", "--split", "semi-supervised/val")
NANO = ("synthtrack", "--videos", "1", "--model", "nano")
WRONG = [
    (("nokit",), 2, "No such command 'nokit'"),
    (("davis", "--results", "masks", "--datta", "DAVIS"), 2, "No such option: --datta"),
    ((*DAVIS, "--results", "masks", "--data", "nowhere"), 3, "nowhere"),
    ((*DAVIS, "--results", "nowhere"), 3, "nowhere: missing or empty; wanted result files SEQUENCE/00000.png"),
    ((*DAVIS, "--results", "empty"), 3, "empty: missing or empty"),
    ((*DAVIS, "--results", "notes.txt"), 3, "notes.txt: not a readable zip"),
    ((*DAVIS, "--results", "masks", "--out", "theirs"), 2, "theirs: holds another run (kit 'mevis', now 'davis'"),
    ((*DAVIS, "--results", "masks", "--out", "notes.txt"), 6, "notes.txt"),
    ((*DAVIS, "--results", "masks", "--split", "semi-supervised/vall"), 3, "ImageSets/2017 has no list vall.txt"),
    ((*DAVIS, "--results", "masks", "--split", "val"), 2, "wanted semi-supervised/SET or unsupervised/SET"),
    (("mevis", "--results", "masks", "--split", "vall"), 2, "mevis has no part 'vall'; choose train or valid_u"),
    (("refcoco", "--results", "masks", "--split", "refcoco"), 2, "--split refcoco: wanted SET/SPLIT"),
    (DAVIS, 2, "give --model NAME to run a model, or --results DIR"),
    ((*DAVIS, "--results", "masks", "--model", "first-mask"), 2, "give --model NAME to run a model, or --results DIR"),
    ((*DAVIS, "--model", "first-mask", "--jobs", "0"), 2, "--jobs"),
    ((*DAVIS, "--model", "first-mask", "--limit", "-1"), 2, "--limit"),
    ((*DAVIS, "--model", "no-such-model"), 4, "no-such-model"),
    ((*NANO, "--videos", "0"), 2, "--videos"),
    ((*NANO, "--seed", "-1"), 2, "--seed"),
    ((*NANO, "--split", "val"), 3, "split 'val': SynthTrack has test and train"),
    ((*NANO, "--variant", "nothing"), 2, "ablation nothing: not one of"),
    ((*NANO, "--set", "nonsense"), 2, "nonsense: wanted SETTING=VALUE"),
    ((*NANO, "--set", "cooldown=-3"), 2, "config.cooldown: wanted 0 to 1,000,000,000, found -3"),
    ((*NANO, "--set", "ratio=.inf"), 2, "config.ratio: wanted a finite number, found inf"),
    ((*NANO, "--set", "ratio=" + "[" * 3000), 2, "nested deeper than 64 levels"),
    ((*NANO, "--dtype", "float17"), 2, "`float17` is none of auto, float32"),
    ((*NANO, "--device", "tpu"), 4, "tpu"),
    (("compare", "theirs"), 2, "give two or more run folders"),
    (("compare", "theirs", "nowhere"), 3, "nowhere"),
    (("parity", "nowhere"), 3, "nowhere: holds none of vos_jf"),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a DAVIS of one sequence, results that fit it, and the run of another kit."""
    for folder in ("DAVIS/Annotations/480p/one", "masks/one"):
        (tmp_path / folder).mkdir(parents=True)
        for t in range(4):
            labels = Image.fromarray(np.eye(8, dtype=np.uint8))
            labels.putpalette([value // 3 for value in range(768)])
            labels.save(tmp_path / folder / f"{t:05d}.png")
    (tmp_path / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("one\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "mevis/valid_u").mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/run.json").write_text(json.dumps({"kit": "mevis"}))
    (tmp_path / "theirs/rows.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.report.draw", lambda *_: [])
    return tmp_path


def evaluate(arguments) -> int:
    """Runs `python -m eval ARGS...` as a program ends; gives its exit code."""
    with pytest.raises(SystemExit) as stop:
        ending.run("eval", lambda: app(args=list(arguments), standalone_mode=False))
    return int(stop.value.code or 0)


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=[" ".join(a)[-60:] for a, _, _ in WRONG])
def test_a_wrong_command_line_is_one_line_and_leaves_no_run_behind(arguments, code, words, here, capsys):
    before = sorted(here.rglob("*"))
    assert evaluate(arguments) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert [path for path in sorted(here.rglob("*")) if path not in before] in ([], [here / "runs"])


def test_the_corrected_command_finds_nothing_in_its_way(here, capsys):
    (here / "masks/one/00001.png").write_bytes(b"no picture")
    assert evaluate([*DAVIS, "--results", "masks", "--out", "run"]) == 3
    assert not (here / "run").exists()
    assert evaluate([*DAVIS, "--results", "DAVIS/Annotations/480p", "--out", "run"]) == 0
    assert "J&F=100.00" in capsys.readouterr().out
