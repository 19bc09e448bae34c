"""A tracker that is spoken to, and the tables of interactive tracking that come of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import command_of
from toy_memory import ColourNetwork
from toy_memory import pointed as pointed_toy
from toy_systems import ToyImat, scene

from data_tools.box_writers import write_interacttrack
from eval import __main__ as evaluation
from eval.corrections import Watched
from eval.interaction import benchmark_table, compared_systems, figure
from eval.kit import Row
from eval.kits.interacttrack import InteractTrack, read_heard, write_heard
from eval.listening import Heard, listen
from eval.metrics.interactive import paper_figures, paper_values
from eval.trackers import Choice
from trackgpt.errors import InputError, UsageError
from trackgpt.session.session import Session
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.imat import Imat, TrackerGrounder

FRAME = scene(red=(4, 8), green=(30, 8), yellow=(60, 40))


def imat() -> Imat:
    return Imat(TrackerGrounder(ToyImat(), "toy"), ColourNetwork(), "imat:toy+toy")


def told(*said: str, system=None):
    """What came of these sentences, one per frame, "" for none."""
    return list(listen((system or imat()).tracker(), lambda t: said[t], [FRAME] * len(said)))


# Sentences


def test_a_sentence_does_what_it_does_in_a_session():
    said = ("the red one", "", "no, the green one", "why?", "also the yellow one", "it is about to leave", "forget 99")
    session = Session(imat().tracker())
    for t, one in enumerate(told(*said)):
        if one.heard and one.heard.refused:
            with pytest.raises(UsageError, match=f"^{one.heard.refused}$"):
                session.say(said[t])
        elif said[t]:
            session.say(said[t])
        seen = session.step(FRAME).prediction
        assert one.seen.ids.tolist() == seen.ids.tolist()
        np.testing.assert_array_equal(one.seen.boxes, seen.boxes)
    kinds = [one.heard.kind if one.heard else "" for one in told(*said)]
    assert kinds == ["start", "", "correct", "question", "add", "absence", "drop"]


def test_what_is_refused_changes_nothing_but_a_beginning_that_is_refused_is_an_error():
    heard = told("the red one", "forget number 99")[1]
    assert heard.heard == Heard("drop", "drop 99: tracked are 1")
    assert heard.seen.ids.tolist() == [1]
    with pytest.raises(UsageError, match="follows what it is shown, not words"):
        told("the red one", system=pointed_toy())


def test_readings_count_the_options_of_a_condition_that_were_tried():
    frames = told("the red one", "", "the blue one; if it is not visible, the green one")
    assert [one.readings for one in frames] == [1, 0, 2]
    assert frames[2].heard.kind == "conditional"
    assert frames[2].seen.boxes[0].tolist() == [30, 8, 42, 20]


def test_before_anything_is_said_nothing_is_seen():
    (first, second) = told("", "the red one")
    assert (len(first.seen.ids), first.heard, first.readings) == (0, None, 0)
    assert second.seen.boxes[0].tolist() == [4, 8, 16, 20]


# Files


def test_what_was_heard_is_read_back_and_other_files_are_refused(tmp_path):
    path, heard = tmp_path / "a_heard.txt", {0: Heard("start"), 2: Heard("drop", "drop 99: tracked are 1")}
    write_heard(path, heard, 4)
    assert path.read_text() == "start\n\ndrop\tdrop 99: tracked are 1\n\n"
    assert read_heard(path, 4) == heard
    assert read_heard(tmp_path / "missing", 4) == {}
    with pytest.raises(InputError, match="ends at line 4"):
        read_heard(path, 5)
    path.write_text("begin\n")
    with pytest.raises(InputError, match="line 1 is 'begin'; wanted one of start"):
        read_heard(path, 1)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Two trees of two short sequences each."""
    roots = [tmp_path_factory.mktemp("data") / name for name in ("one", "two")]
    for k, root in enumerate(roots):
        write_interacttrack(root, [make_case(40_000 + 10 * k + i, frames=12, longest=96) for i in range(4)], "test")
    return roots


def test_the_report_compares_kinds_as_said_with_kinds_as_understood(trees, tmp_path):
    kit, rows = InteractTrack(trees[0], "test"), []
    for task in kit.tasks():
        sequence = kit.by_name[task]
        said = sequence.script().said
        boxes = sequence.written_boxes()
        (tmp_path / f"{task}.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes.tolist()))
        heard = {each.frame: Heard("switch" if each.kind == "state" else each.kind) for each in said}
        heard[said[-1].frame] = replace(heard[said[-1].frame], refused="no")
        write_heard(tmp_path / f"{task}_heard.txt", heard, len(boxes))
        rows += kit.score(task, tmp_path)
    total = sum(len(kit.by_name[task].script().said) for task in kit.tasks())
    states = sum(each.kind == "state" for task in kit.tasks() for each in kit.by_name[task].script().said)
    figures = kit.summarise(rows)
    assert states > 0
    assert figures["kinds/right"] == pytest.approx(100 * (1 - states / total))
    assert figures["kinds/refused"] == pytest.approx(100 * len(rows) / total)
    (table,) = kit.tables(rows)
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()[2:]
    }
    assert lines["state"][lines[""].index("switch")] == str(states)
    assert sum(int(cell) for kind, cells in lines.items() if kind not in ("", "---") for cell in cells if cell) == total


def test_a_watched_video_is_read_back_equal():
    watched = Watched(
        "a",
        np.array([0.5, np.nan]),
        ((1, "no"),),
        ((0, Heard("start")), (1, Heard("drop", "none"))),
        ("prompt", ""),
        np.array([2, 0]),
        np.array([0.25, 0.5]),
        np.array([0.125, 0.25]),
        True,
    )
    again = Watched.from_json(json.loads(json.dumps(watched.as_json())))
    assert again.as_json() == watched.as_json()
    assert np.isnan(again.overlaps[1])
    with pytest.raises(InputError, match="holds no watched video"):
        Watched.from_json({"name": "a"})


# Tables


def test_the_values_behind_the_papers_figures_average_to_them(trees, tmp_path):
    kit, rows = InteractTrack(trees[0], "test"), []
    rng = np.random.default_rng(0)
    for task in kit.tasks():
        boxes = kit.by_name[task].written_boxes()
        boxes = boxes + rng.normal(0, 3, boxes.shape) * (rng.random((len(boxes), 1)) < 0.7)
        boxes[rng.random(len(boxes)) < 0.2] = 0
        (tmp_path / f"{task}.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes.tolist()))
        rows += kit.score(task, tmp_path)
    figures = kit.summarise(rows)
    for name in ("Interactive", "Responsiveness", "Accuracy", "Precision"):
        assert 100 * figure(rows, name, 100).mean == pytest.approx(figures[f"paper/{name}"])
    assert 100 * figure(rows, "Interactive", 100, strict=True).mean == pytest.approx(
        figures["paper_strict/Interactive"]
    )


def test_the_tables_have_a_row_per_system_and_what_is_computed_is_not_computed_again(
    trees, tmp_path, capsys, monkeypatch
):
    opened: list[Choice] = []
    monkeypatch.setattr(Choice, "open", lambda self: opened.append(self) or imat())
    monkeypatch.setattr("eval.commands.interaction.digest", lambda *_: "0" * 12)
    run, out = command_of(capsys, monkeypatch, evaluation.main), tmp_path / "out"
    asked = ("interaction", *trees, "--alone", "", "--limit", 1, "--out", out)
    done = run(*asked)
    assert done.code == 0, done.err
    assert (done.values()["systems"], done.values()["sequences"]) == ("7", "2")
    first, second, title, kinds = (out / "tables.md").read_text().split("\n\n")
    assert title.startswith("Kinds of instruction")
    assert kinds.splitlines()[2].startswith("| start | 2 |")
    names = [one.name for one in compared_systems("m", "")]
    assert [line.split("|")[1].strip() for line in first.splitlines()[2:]] == names
    hear = [one.name for one in compared_systems("m", "") if one.hears]
    assert [line.split("|")[1].strip() for line in second.strip().splitlines()[2:]] == hear
    assert len(opened) == 1
    again = run(*asked)
    assert len(opened) == 1
    assert (out / "tables.md").read_text().split("\n\n")[0] == first
    assert again.code == 0
    assert run("interaction", *trees, "--system", "fll", "--out", out).code == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/tables.md").write_text("mine")
    assert run("interaction", *trees, "--out", tmp_path / "mine").code == 6
    assert (tmp_path / "mine/tables.md").read_text() == "mine"


def test_the_system_itself_stands_last_and_is_compared_with_every_other(trees):
    row = Row("a", "a", {}, {}, {})
    with pytest.raises(KeyError):
        benchmark_table({"IMAT": [[row]]})
    assert compared_systems("imat:a+b", "a")[-1].name == "IMAT"
    assert [one.key for one in compared_systems("imat:a+b", "a") if not one.hears] == [
        "plain-memory",
        "distractor-aware",
        "no-language",
    ]
    assert paper_figures([], "zero", "paper").prompts == 0
    with pytest.raises(UsageError, match="wanted missing zero or skip"):
        paper_values(None, "none")  # type: ignore[arg-type]
