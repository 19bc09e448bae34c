"""What is there already: no command replaces it unasked, nor in a folder what this package did not write."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from data_tools import nanotrack
from data_tools.__main__ import main as data_tools
from eval.__main__ import main as evaluate
from eval.commands.kits import KITS
from eval.kit import Row
from eval.pictures import draw
from eval.run_folder import MADE, open_run, write_json, write_rows
from eval.speed import gpu_rows, gpu_training
from trackgpt.data.box_video import lasot
from trackgpt.errors import InputError, OutputError
from trackgpt.files import refuse_existing, refuse_existing_file, refuse_strangers, refuse_to_hold

PROGRAMS = ("trackgpt.app.cli", "train.__main__", "eval.__main__", "data_tools.__main__")
ALWAYS_NEW = {"lisa", "sam"}
"""Verbs that take a new or empty folder and no other."""
GO_ON = {*KITS, "interaction", "gpu-rows", "build-instrack"}
"""Verbs that go on with a folder of their own, known by what it holds, and touch no other."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents():
    """Every file below the working folder, with its bytes."""
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def code_of(main, *arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


# The four functions


def test_a_file_that_is_there_is_refused_until_it_may_be_replaced(here):
    refuse_existing_file(Path("new.png"), overwrite=False)
    Path("old.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="OUT01: old.png: exists; needs --overwrite, or another name") as refused:
        refuse_existing_file(Path("old.png"), overwrite=False)
    assert refused.value.exit_code == 6
    refuse_existing_file(Path("old.png"), overwrite=True)


def test_a_file_that_is_read_or_no_file_at_all_is_refused_whatever_was_asked(here):
    Path("source.png").write_bytes(b"mine")
    Path("link.png").symlink_to("source.png")
    Path("folder.png").mkdir()
    with pytest.raises(OutputError, match="OUT01: link.png: is read; choose another name"):
        refuse_existing_file(Path("link.png"), overwrite=True, reads=[Path("other.png"), Path("source.png")])
    for name in ("folder.png", "/dev/null"):
        with pytest.raises(OutputError, match=f"OUT01: {name}: is no file"):
            refuse_existing_file(Path(name), overwrite=True)


def test_a_link_that_leads_nowhere_is_something_that_is_there(here):
    Path("link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="OUT01: link: exists"):
        refuse_existing_file(Path("link"), overwrite=False)
    with pytest.raises(OutputError, match="OUT01: link: is a file; wanted a folder"):
        refuse_existing(Path("link"), overwrite=True)


def test_a_folder_is_refused_while_it_holds_anything_and_an_empty_one_is_taken(here):
    Path("full/inner").mkdir(parents=True)
    refuse_existing(Path("full/inner"), overwrite=False)
    refuse_existing(Path("full"), overwrite=True)
    with pytest.raises(OutputError, match="OUT01: full: exists and is not empty; needs --overwrite"):
        refuse_existing(Path("full"), overwrite=False)


def test_files_that_would_be_replaced_are_a_strangers_where_the_mark_is_missing(here):
    for name in ("report.md", "notes.txt"):
        Path(name).write_text("mine")
    refuse_strangers(Path(), ("table.md",), ("run.json",))
    with pytest.raises(OutputError, match=r"OUT01: \.: holds report.md but no run.json, so it is no run; choose"):
        refuse_strangers(Path(), ("report.md", "table.md"), ("run.json", "log.json"))
    Path("log.json").write_text("{}")
    refuse_strangers(Path(), ("report.md", "table.md"), ("run.json", "log.json"))
    refuse_strangers(Path("nowhere"), ("report.md",), ("run.json",))


def test_a_folder_that_holds_what_is_read_is_refused_by_what_links_lead_to(here):
    Path("data/set").mkdir(parents=True)
    Path("link").symlink_to("data")
    refuse_to_hold(Path("data/set"), [Path("data")])  # below what is read nothing of it is replaced
    for out, read in (("data", "data/set"), ("link", "data"), ("data", "link/set")):
        with pytest.raises(OutputError, match=f"OUT01: {out}: holds {read}, which is read"):
            refuse_to_hold(Path(out), [Path(read)])


# Every command


def verbs(command, name=""):
    """Every command of a program with its name."""
    if hasattr(command, "commands"):
        for verb, each in command.commands.items():
            yield from verbs(each, verb)
    else:
        yield name, command


def test_every_command_that_writes_asks_before_it_replaces_or_is_known_to_replace_nothing():
    found = {}
    for program in PROGRAMS:
        for name, command in verbs(typer.main.get_command(import_module(program).app)):
            options = {option.name for option in command.params}
            if options & {"out", "output"}:
                found[name] = "overwrite" in options
    assert {name for name, asks in found.items() if not asks} == ALWAYS_NEW | GO_ON
    asking = {"track", "demo", "merge", "onnx", "make", "view", "rephrase", "nanotrack", "atlas", "compare", "speed"}
    asking |= {"chat", "corrections"}
    assert {name for name, asks in found.items() if asks} == asking


SCENE = ("view", "--videos", 1, "--frames", 2)


def test_view_replaces_a_picture_only_when_it_is_told_to(here, capsys):
    assert code_of(data_tools, *SCENE, "-o", "sheet.png") == 0
    drawn = contents()
    Path("sheet.png").write_bytes(b"mine")
    assert code_of(data_tools, *SCENE, "-o", "sheet.png") == 6
    assert "OUT01: sheet.png: exists; needs --overwrite" in capsys.readouterr().err
    assert contents() == {"sheet.png": b"mine"}
    assert code_of(data_tools, *SCENE, "-o", "sheet.png", "--overwrite") == 0
    assert contents() == drawn


def test_view_never_draws_over_the_data_it_shows(here, capsys):
    assert code_of(data_tools, "make", "-o", "data", "--videos", 1, "--frames", 2, "--longest", 64) == 0
    picture = next(Path("data/JPEGImages").rglob("*.jpg"))
    before = contents()
    assert code_of(data_tools, "view", "data", "--videos", 1, "-o", picture, "--overwrite") == 6
    assert f"OUT01: {picture}: lies in the data that is shown" in capsys.readouterr().err
    assert contents() == before


@pytest.mark.parametrize("file", ["seeds.jsonl", "answers.jsonl"])
def test_rephrase_never_writes_over_the_seeds_or_the_answers(here, capsys, file):
    Path(file).write_text("mine")
    words = ("--model", "a", "--cache", "answers.jsonl", "--overwrite")
    assert code_of(data_tools, "rephrase", "seeds.jsonl", "-o", file, *words) == 6
    assert f"OUT01: {file}: is read; choose another name" in capsys.readouterr().err
    assert contents() == {file: b"mine"}


def test_an_atlas_is_replaced_only_when_asked_for(here, capsys):
    Path("assets").mkdir()
    Path("assets/atlas.json").write_text("mine")
    Path("font.ttf").write_bytes(b"no font")
    assert code_of(data_tools, "atlas", "font.ttf", "-o", "assets") == 6
    assert "OUT01: assets/atlas.json: exists; needs --overwrite" in capsys.readouterr().err
    assert code_of(data_tools, "atlas", "font.ttf", "-o", "assets", "--overwrite") == 3  # then the font is looked at


class Still:
    """A tracker that stays where it began."""

    def init(self, picture, box):
        self.box = box

    def update(self, picture):
        return True, self.box


@pytest.fixture
def davis(here, monkeypatch):
    """Two frames of a sequence of DAVIS, and a tracker that needs no weights."""
    monkeypatch.setattr(nanotrack, "nanotrack", lambda weights: Still())
    for kind, end in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = Path("DAVIS", kind, "480p/dog")
        folder.mkdir(parents=True)
        for t in range(2):
            picture = np.zeros((20, 30), np.uint8)
            picture[4:9, 5:15] = 1
            Image.fromarray(picture).save(folder / f"{t:05d}.{end}")
    return ("nanotrack", "DAVIS", "--weights", "weights", "-o")


def test_nanotrack_replaces_its_own_files_when_asked_and_nobody_elses(davis, capsys):
    assert code_of(data_tools, *davis, "out") == 0
    Path("out/notes.txt").write_text("mine")
    whole = contents()
    assert "out/results/dog.txt" in whole
    assert code_of(data_tools, *davis, "out") == 6
    assert "OUT01: out: exists and is not empty; needs --overwrite" in capsys.readouterr().err
    Path("out/results/cat.txt").write_text("of an earlier run over other sequences")
    assert code_of(data_tools, *davis, "out", "--overwrite") == 0
    assert contents().keys() == whole.keys()  # the times differ
    assert Path("out/notes.txt").read_text() == "mine"
    Path("out/nanotrack.json").unlink()
    before = contents()
    assert code_of(data_tools, *davis, "out", "--overwrite") == 6
    assert "so it was not made by `data_tools nanotrack`" in capsys.readouterr().err
    assert code_of(data_tools, *davis, ".", "--overwrite") == 6
    assert "OUT01: .: holds DAVIS, which is read" in capsys.readouterr().err
    assert contents() == before


def test_the_annotations_beside_nanotrack_hold_the_frames_so_that_a_model_can_begin_from_the_same_boxes(davis):
    assert code_of(data_tools, *davis, "out") == 0
    (sequence,) = lasot("out/annotations", "test").sequences
    assert [path.name for path in sequence.video().images] == ["00000.jpg", "00001.jpg"]
    assert sequence.video().boxes.tolist() == [[5, 4, 15, 9]] * 2
    assert sequence.video().frame(1).shape == (20, 30, 3)


def test_an_onnx_export_is_refused_before_the_model_is_loaded(here, command, model):
    Path("out").mkdir()
    Path("out/encoder.onnx").write_bytes(b"mine")
    done = command("convert", "onnx", "nano", "out")
    assert (done.code, model.loads) == (6, 0)
    assert "OUT01: out: exists and is not empty; needs --overwrite" in done.err
    done = command("convert", "onnx", "nano", "out", "--overwrite")
    assert (done.code, model.loads) == (6, 0)
    assert "OUT01: out: holds encoder.onnx but no onnx.json, so it is no export of this command" in done.err
    assert contents() == {"out/encoder.onnx": b"mine"}


# Evaluation


def run_of(name, value):
    """A finished run of one kit with two units."""
    write_json(Path(name) / "run.json", {"kit": "numbers", "headline": ["J"]})
    write_rows(Path(name) / "rows.jsonl", [Row(f"t{k}", f"t{k}/0", {"J": value + k / 8}) for k in range(2)])


def test_compare_replaces_a_table_only_when_told_to_and_never_a_run_it_compares(here, capsys):
    for name, value in (("a", 0.25), ("b", 0.5)):
        run_of(name, value)
    Path("table.md").write_text("mine")
    before = contents()
    assert code_of(evaluate, "compare", "a", "b", "--out", "table.md") == 6
    assert "OUT01: table.md: exists; needs --overwrite" in capsys.readouterr().err
    assert code_of(evaluate, "compare", "a", "b", "--out", "a/rows.jsonl", "--overwrite") == 6
    assert "OUT01: a/rows.jsonl: is read" in capsys.readouterr().err
    assert contents() == before
    assert code_of(evaluate, "compare", "a", "b", "--out", "table.md", "--overwrite") == 0
    assert Path("table.md").read_text().startswith("| figure |")


def test_speed_refuses_a_file_before_it_measures(here, capsys, monkeypatch):
    monkeypatch.setattr("eval.speed.bench.measure_part", lambda *_: pytest.fail("something was measured"))
    Path("speed.json").write_text("mine")
    assert code_of(evaluate, "speed", "--only", "data", "--out", "speed.json") == 6
    assert "OUT01: speed.json: exists; needs --overwrite" in capsys.readouterr().err
    assert contents() == {"speed.json": b"mine"}


@pytest.mark.parametrize("found", [{"part": "second", "note": "mine"}, {"part": "first", "figures": {}}, {}])
def test_gpu_rows_repeats_no_part_over_a_file_of_something_else(here, capsys, monkeypatch, found):
    monkeypatch.setattr(gpu_rows, "parts_of", lambda size: {name: lambda at: {"x": 1} for name in ("first", "second")})
    Path("out").mkdir()
    Path("out/second.json").write_text(json.dumps(found))
    before = contents()
    assert code_of(evaluate, "gpu-rows", "--size", "tiny", "--device", "cpu", "--out", "out") == 6
    assert "OUT01: out/second.json: no `gpu-rows` wrote it" in capsys.readouterr().err
    assert contents() == before


def test_gpu_rows_removes_no_folder_that_is_no_run_of_training(here, monkeypatch):
    monkeypatch.setattr(gpu_training, "run_module", lambda *_: None)
    for name in ("data", "model-tiny-tiny", "run-encoded"):
        Path("out/training", name).mkdir(parents=True)
    Path("out/training/run-encoded/notes.txt").write_text("mine")
    at = gpu_rows.Setting(Path("out"), "cpu", gpu_rows.SIZES["tiny"])
    with pytest.raises(OutputError, match="OUT01: out/training/run-encoded: holds no run of `python -m train`"):
        gpu_training.train(at, "tiny", "tiny", cached=False)
    assert contents() == {"out/training/run-encoded/notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["report.md", "rows.jsonl", "summary.json", "by_kind.svg", "submission.zip"])
def test_an_evaluation_into_a_folder_of_something_else_is_refused_before_it_begins(here, name):
    Path(name).write_text("mine")
    with (
        pytest.raises(OutputError, match=rf"OUT01: \.: holds {name} but no run.json, so it is no run"),
        open_run(Path(), {"seed": 1}, fills=False),
    ):
        pytest.fail("the run began")
    assert contents() == {name: b"mine"}


def fail_beside_another():
    with open_run(Path("runs"), {"seed": 1}):
        Path("runs/report.md").write_text("ours")
        Path("runs/another").mkdir()
        Path("runs/another/run.json").write_text("{}")
        raise InputError("no results")


def test_a_run_that_fails_leaves_what_others_wrote_beside_it_meanwhile(here):
    Path("runs").mkdir()
    with pytest.raises(InputError):
        fail_beside_another()
    assert contents() == {"runs/another/run.json": b"{}"}


def test_every_picture_of_a_run_is_known_as_one(here):
    rows = [
        Row(
            f"t{k}",
            f"t{k}/0",
            {"J": k / 8, "F": k / 8},
            tags={"kind": ["explicit", "none"][k % 2 : k % 2 + 1]},
            series={"score": [k / 8] * 3, "iou": [k / 9] * 3, "success": [0.5] * 21, "seconds": [0.1] * 3},
        )
        for k in range(4)
    ]
    names = [path.name for path in draw(rows, "J", Path())]
    assert len(names) >= 8
    assert [name for name in names if not MADE.fullmatch(name)] == []
