"""Running a kit, resuming, merging, reports, comparisons, submissions: a kit whose results are one number a file."""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tracks import Showing

from eval import runner
from eval.__main__ import main
from eval.commands.compare import paired
from eval.following import Following
from eval.kit import MissingResultError, Reported, Row, interval, percent_means, with_jf
from eval.report import last_line, report
from eval.run_folder import open_run, read_rows, write_json, write_rows
from eval.runner import Job, RunResult, behaviour, run, with_diagnostics
from eval.submission import beginning, pack, unpack
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.types import Cue, Prediction, Prompt

TASKS = ("a", "b", "empty", "nested/c", "d")


class Numbers:
    """A kit whose result files hold J of every unit, one a line; `empty` has no unit."""

    name = "numbers"
    protocol = "Protocol numbers: what the file says."
    headline = ("J&F", "J", "F")
    pixels = frozenset({"px"})
    layout = "TASK.txt, a number a line"
    reported = (Reported("Theirs", {"J": 61.25}, "their paper, Table 9"),)

    def __init__(self) -> None:
        self.written: list[str] = []

    @property
    def baselines(self):
        return {"half": self.half}

    def half(self, task: str, results: Path) -> None:
        self.written.append(task)
        write(results, task, *((0.5,) if task != "empty" else ()))

    def tasks(self) -> Sequence[str]:
        return TASKS

    def score(self, task: str, results: Path) -> list[Row]:
        file = results / f"{task}.txt"
        if not file.exists():
            raise MissingResultError(f"{file}: missing")
        values = [float(line) for line in file.read_text().split()]
        return [
            Row(
                task,
                f"{task}/{n}",
                {"J": j, "F": j / 2, "px": 100 * j},
                {"first": [str(n == 0)]},
                {"iou": [j, math.nan]},
            )
            for n, j in enumerate(values)
        ]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        figures = with_jf(percent_means(rows, ("J", "F")))
        total = sum(row.figures["px"] for row in rows)
        return {**figures, "px": total / len(rows), "sum": total}


def write(results: Path, task: str, *values: float) -> None:
    file = results / f"{task}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{value}\n" for value in values))


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "theirs"
    for n, task in enumerate(TASKS):
        write(folder, task, *((0.1 * n, 0.2 * n) if task != "empty" else ()))
    return folder


def job(results: Path, out: Path, **more: object) -> Job:
    return Job(Numbers, results, out, **more)


# Running


def test_rows_come_in_the_benchmarks_order_and_are_kept(results, tmp_path):
    outcome = run(job(results, tmp_path / "out"))
    assert [row.unit for row in outcome.rows] == [f"{t}/{n}" for t in TASKS if t != "empty" for n in (0, 1)]
    assert (outcome.tasks, outcome.missing) == (5, ())
    kept = read_rows(tmp_path / "out")
    assert [row.figures for row in kept] == [row.figures for row in outcome.rows]
    assert math.isnan(kept[0].series["iou"][1])
    assert [row.unit for row in run(job(results, tmp_path / "few"), limit=1).rows] == ["a/0", "a/1"]


def test_results_that_are_missing_are_counted_and_left_out_only_when_that_is_asked(results, tmp_path):
    (results / "b.txt").unlink()
    (results / "d.txt").unlink()
    with pytest.raises(InputError, match=r"theirs: no results for 2 of 5 tasks \(b, d\); wanted TASK.txt, a number a"):
        run(job(results, tmp_path / "out"))
    outcome = run(job(results, tmp_path / "out"), partial=True)
    assert outcome.missing == ("b", "d")
    assert {row.task for row in outcome.rows} == {"a", "nested/c"}


def test_a_folder_of_something_else_has_no_results_at_all(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="none of 5 tasks has results; wanted TASK.txt"):
        run(job(tmp_path / "other", tmp_path / "out"), partial=True)


def test_what_is_done_is_not_done_again(tmp_path):
    kit = Numbers()
    half = Job(lambda: kit, tmp_path / "results", tmp_path, baseline="half")
    first = run(half)
    assert kit.written == list(TASKS)
    (tmp_path / "diagnostics/nested/c.json").unlink()  # killed in the middle of this one
    (tmp_path / "results/nested/c.txt").write_text("0.")
    assert run(half).rows == first.rows
    assert kit.written == [*TASKS, "nested/c"]


class Agreeing(Showing):
    """Says yes to everything; reads again on every third frame."""

    def see(self, t, frame, text):
        k = int(text != "nothing")
        masks, boxes = np.ones((k, 2, 2), bool), np.zeros((k, 4), np.float32)
        ids, scores = np.arange(1, k + 1), np.full(k, 0.25 + t / 8, np.float32)
        reason = "prompt" if t == 0 else "" if t % 3 else "purport"
        return Prediction(boxes, masks, scores, np.ones(k, bool), ids, {}, Cue("yes"), reason)


def test_a_record_says_how_a_unit_was_tracked():
    following = Following(Agreeing())
    frames = np.zeros((5, 2, 2, 3), np.uint8)
    assert len(list(following({"a/0": [Prompt("the dog")], "b/0": [Prompt("the cat")]}, frames))) == 5
    list(following({"a/1": [Prompt("nothing")]}, frames[:1]))
    record = following.records["a/0"].as_json()
    assert (record["text"], record["answer"], record["refused"]) == ("the dog", "yes", False)
    assert record["score"] == [0.25, 0.375, 0.5, 0.625, 0.75]
    assert record["asked"] == [(3, "purport")]
    assert len(record["seconds"]) == 5
    assert following.records["a/1"].refused
    assert math.isnan(following.records["a/1"].score[0])


@pytest.mark.parametrize("prompts", [[], [Prompt("a", 1)], [Prompt("a"), Prompt("b")]])
def test_the_first_prompt_is_about_frame_0_and_every_frame_has_one_at_most(prompts):
    with pytest.raises(InputError, match=r"a/0: prompts at frames .*; wanted 0 first, one per frame"):
        list(Following(Agreeing())({"a/0": prompts}, np.zeros((2, 2, 2, 3), np.uint8)))


def test_behaviour_is_what_a_reader_computes_of_the_records():
    def record(score, asked=(), refused=False, first=1.0):
        seconds = [first, *[0.1] * (len(score) - 1)]
        return {"text": "", "answer": "", "refused": refused, "score": score, "asked": asked, "seconds": seconds}

    rows = [
        Row("a", "a/0", {}, {}, {"iou": [0.2, 0.7]}),
        Row("a", "a/1", {}, {}, {"iou": [0.5]}),
        Row("b", "b/0", {}, {}, {"iou": [1.0]}),
        Row("b", "b/1", {"J": 1.0}),
    ]
    records = {
        "a/0": record([0.1, 0.9], [(1, "purport")]),
        "a/1": record([0.5], refused=True, first=3.0),
        "b/0": record([math.nan], first=2.0),
    }
    found = behaviour(with_diagnostics(rows, records))
    assert found["rethink_rate"] == 25  # 1 of 4 frames
    assert found["refusal_rate"] == pytest.approx(100 / 3)
    assert (found["first_ms"], found["ms_median"], found["ms_95"]) == (2000, 100, 100)
    assert found["spearman"] == pytest.approx(1)
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.0) / 3)  # three bins of one frame; NaN is no score
    assert behaviour(rows) == {}


def test_a_score_that_is_not_the_purport_score_alone_is_judged_beside_it():
    rows = [Row("a", "a/0", {}, {}, {"iou": [0.1, 0.5, 0.9]})]
    record = {"text": "", "answer": "", "refused": False, "asked": [], "seconds": [0.1] * 3, "score": [0.1, 0.5, 0.9]}
    found = behaviour(with_diagnostics(rows, {"a/0": {**record, "purport": [0.9, 0.5, 0.1]}}))
    assert (found["spearman"], found["purport_spearman"]) == (pytest.approx(1), pytest.approx(-1))
    assert found["purport_ece"] == pytest.approx((0.8 + 0 + 0.8) / 3)
    assert "purport_spearman" not in behaviour(with_diagnostics(rows, {"a/0": {**record, "purport": record["score"]}}))


def test_diagnostics_of_other_results_are_refused():
    rows = [Row("a", "a/0", {}, {}, {"iou": [1.0, 1.0], "score": [1.0]})]
    with pytest.raises(InputError, match="a/0: 1 scores for 2 frames"):
        runner.scores_and_ious(rows)


# Ranks


def run_rank(monkeypatch, rank: int, results: Path, out: Path) -> RunResult | None:
    @contextmanager
    def alone():
        yield lambda: None

    monkeypatch.setattr(runner, "_together", alone)
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    try:
        return run(job(results, out), partial=True)
    finally:
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")


def test_ranks_share_the_tasks_and_merge_to_what_one_process_finds(results, tmp_path, monkeypatch):
    (results / "d.txt").unlink()
    alone = run(job(results, tmp_path / "one"), partial=True)
    assert run_rank(monkeypatch, 1, results, tmp_path / "two") is None
    assert list(read_object(tmp_path / "two/rank1.json")) == ["b", "nested/c"]
    merged = run_rank(monkeypatch, 0, results, tmp_path / "two")
    # A task without units is done, one without results is missing, on whichever rank it was.
    assert (merged.tasks, merged.missing) == (alone.tasks, alone.missing) == (5, ("d",))
    rows = [folder / "rows.jsonl" for folder in (tmp_path / "one", tmp_path / "two")]
    assert rows[0].read_bytes() == rows[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["rows.jsonl"]


def test_a_rank_that_wrote_elsewhere_is_said(results, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"rank1.json: missing; all ranks must write to one file system"):
        run_rank(monkeypatch, 0, results, tmp_path / "out")


# The folder of a run


def test_a_folder_of_other_settings_is_refused(tmp_path):
    for _ in range(2):
        with open_run(tmp_path / "out", {"kit": "numbers", "seed": 1}):
            pass
    said = r"out: holds another run \(seed 1, now 2\); choose another --out or delete"
    with pytest.raises(UsageError, match=said), open_run(tmp_path / "out", {"kit": "numbers", "seed": 2}):
        pass


def fail(out: Path, made: str) -> None:
    """A run that makes a folder and then fails."""
    with open_run(out, {"seed": 1}):
        (out / made).mkdir()
        raise InputError("no results")


def test_a_run_that_fails_before_anything_is_tracked_leaves_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "new"):
        with pytest.raises(InputError):
            fail(out, "results")
        with open_run(out, {"seed": 2}):
            pass
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["notes.txt", "run.json"]
    with pytest.raises(InputError):
        fail(tmp_path / "third", "diagnostics")
    assert (tmp_path / "third/run.json").exists()  # what was tracked before is not tracked again


def test_results_that_no_run_has_made_are_not_written_over(tmp_path):
    (tmp_path / "results").mkdir()
    with (
        pytest.raises(OutputError, match="OUT01: .*: holds results but no run.json, so it is no run"),
        open_run(tmp_path, {}),
    ):
        pass
    with open_run(tmp_path, {}, fills=False):
        pass


@pytest.mark.parametrize("line", ["{", '{"task": "a"}', "[]", '{"task": "a", "unit": "a", "figures": {}, "mood": 1}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    write_rows(tmp_path / "rows.jsonl", [Row("a", "a/0", {"J": 1.0})])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl: line 2( is|: no JSON)"):
        read_rows(tmp_path)


def test_a_folder_that_is_no_run_is_said(tmp_path):
    with pytest.raises(InputError, match="wanted the --out folder of a run"):
        read_rows(tmp_path / "nowhere")


# Reports


def rows_of(values: Mapping[str, Sequence[float]]) -> list[Row]:
    return [
        Row(task, f"{task}/{n}", {"J": j, "F": j / 2, "px": 100 * j}, {"first": [str(n == 0)]})
        for task, series in values.items()
        for n, j in enumerate(series)
    ]


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """The report of rows, as text and as summary.json."""
    monkeypatch.setattr("eval.report.draw", lambda *_: [])

    def make(rows: Sequence[Row], missing: tuple[str, ...] = ()) -> tuple[str, dict]:
        report(Numbers(), RunResult(list(rows), 3, missing), {"results": "theirs", "seed": 7}, tmp_path)
        return (tmp_path / "report.md").read_text(), json.loads((tmp_path / "summary.json").read_text())

    return make


def test_a_report_has_figures_intervals_printed_numbers_and_tables(reported):
    rows = rows_of({"a": [0.2, 0.4], "b": [0.6, 0.8]})
    text, summary = reported(rows)
    assert text.startswith("# numbers: results theirs, seed 7\n\n4 units of 3 tasks, commit ")
    assert "Protocol numbers: what the file says." in text
    low, high = (100 * end for end in interval(rows, "J"))
    assert (low, high) == pytest.approx((30, 70))  # a twice, b twice
    assert f"| J | **50.0** | {low:.1f} to {high:.1f} | 61.2 |" in text
    assert "| J&F | **37.5** | 22.5 to 52.5 |  |" in text
    assert "*Reported* columns are printed numbers: their paper, Table 9." in text
    assert "| first | J&F | J | F | n |" in text
    assert "| False | 45.0 | 60.0 | 30.0 | 2 |" in text
    assert summary["figures"]["J"] == pytest.approx(50)
    assert summary["run"]["units"] == 4


def test_an_interval_is_given_only_for_a_mean_over_units(reported):
    _, summary = reported(rows_of({"a": [0.2], "b": [0.6]}))
    assert set(summary["intervals"]) == {"J&F", "J", "F", "px"}  # no sum; px in pixels, not in percent
    assert summary["intervals"]["px"] == pytest.approx([20, 60])
    assert reported(rows_of({"a": [0.2, 0.4]}))[1]["intervals"] == {}  # one video says nothing of the spread


def test_a_partial_run_says_so(reported):
    text, summary = reported(rows_of({"a": [0.5]}), ("b", "c"))
    assert "**Partial: 2 of 3 tasks have no results and are left out.**" in text
    assert summary["run"]["left_out"] == ["b", "c"]


def test_rows_without_figures_give_a_report_without_tables(reported, monkeypatch):
    monkeypatch.setattr(Numbers, "summarise", lambda self, rows: {})
    text, summary = reported([Row("a", "a/0", {}, {"k": ["x"]}), Row("b", "b/0", {}, {"k": ["y"]})])
    assert "|" not in text
    assert summary["figures"] == {}


def test_the_last_line_has_the_headline_in_percent_then_the_rest():
    figures = {"J&F": 12.345, "J": 10.0, "px": 3.0}
    assert last_line(Numbers(), figures, units=3, out="runs/x") == "J&F=12.35 J=10.00 F=nan units=3 out=runs/x"


# Comparisons


def write_run(folder: Path, rows: Sequence[Row], **settings: object) -> Path:
    folder.mkdir()
    write_json(folder / "run.json", {"kit": "numbers", "headline": ["J&F", "J", "F"], "split": "val", **settings})
    write_rows(folder / "rows.jsonl", rows)
    return folder


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["compare", *map(str, arguments)])
    return int(left.value.code or 0)


def test_a_comparison_is_paired_and_above_zero_where_the_run_is_better(tmp_path, capsys):
    rng = np.random.default_rng(0)
    base = rng.random((20, 2))  # units differ far more than the runs do
    runs = []
    for name, gain in (("reference", 0.0), ("better", 0.02), ("worse", -0.02)):
        rows = rows_of({f"v{i:02d}": (pair + gain).tolist() for i, pair in enumerate(base)})
        runs.append(write_run(tmp_path / name, rows))
    assert command(runs[0], runs[1], "--figure", "J", "--out", tmp_path / "table.md") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "figure=J difference=0.0200 low=0.0200 high=0.0200"
    assert "| 0.02 to 0.02 | 40 | yes |" in out
    assert (tmp_path / "table.md").read_text() == "\n".join(out.splitlines()[:-1]) + "\n"
    assert command(runs[0], runs[2]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "figure=J&F difference=-0.0150 low=-0.0150 high=-0.0150"  # F is half of J


def test_seeds_of_one_system_are_averaged_unit_by_unit_and_shown_one_by_one(tmp_path, capsys):
    def run_of(name: str, gain: float) -> Path:
        return write_run(tmp_path / name, rows_of({f"v{i}": [0.1 * i + gain] for i in range(5)}))

    ours = [run_of(f"ours{k}", gain) for k, gain in enumerate((0.05, 0.01))]
    theirs = [run_of(f"theirs{k}", gain) for k, gain in enumerate((0.0, 0.03))]
    sides = [",".join(map(str, side)) for side in (theirs, ours)]
    assert command(*sides, "--figure", "J") == 0
    out = capsys.readouterr().out
    assert "| ours0 and 1 more | 0.23 | 0.215 | 0.015 | 0.015 to 0.015 | 5 | yes | +0.05, -0.02 |" in out
    assert command(theirs[0], sides[1], "--figure", "J") == 0  # three seeds against a published run: no pairs of seeds
    assert "seed by seed" not in capsys.readouterr().out
    assert command(sides[0], ",") == 2
    assert "names no run folder" in capsys.readouterr().err


def test_units_that_only_one_run_has_are_left_out_and_tasks_are_drawn_whole():
    mine = {row.unit: row for row in rows_of({"a": [0.5, 0.7], "b": [0.9]})}
    other = {row.unit: row for row in rows_of({"a": [0.4, math.nan], "b": [0.5], "c": [0.0]})}
    difference, units = paired(mine, other, "J")
    assert units == 2
    assert difference.mean == pytest.approx(0.25)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.4))
    with pytest.raises(InputError, match="no unit of both runs has a figure 'mood'"):
        paired(mine, other, "mood")


def test_runs_of_different_benchmarks_are_not_compared(tmp_path, capsys):
    rows = rows_of({"a": [0.5]})
    one, two = write_run(tmp_path / "one", rows), write_run(tmp_path / "two", rows, split="test", seed=1)
    assert command(one, two) == 3
    assert "two: split, seed differ from" in capsys.readouterr().err
    assert command(one) == 2
    assert "give two or more run folders" in capsys.readouterr().err


# Submissions


def test_a_submission_is_packed_in_one_order_and_comes_back(tmp_path):
    for name in ("b/0/00000.png", "a/1/00005.png", "a/0/00000.png", "a/notes.txt"):
        file = tmp_path / "results" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    one = pack(tmp_path / "results", tmp_path / "one.zip", "Annotations")
    assert zipfile.ZipFile(one).namelist() == [
        f"Annotations/{name}" for name in ("a/0/00000.png", "a/1/00005.png", "b/0/00000.png")
    ]
    assert pack(tmp_path / "results", tmp_path / "two.zip", "Annotations").read_bytes() == one.read_bytes()
    unpack(one, tmp_path / "back")
    inside = beginning(tmp_path / "back")
    assert inside == tmp_path / "back/Annotations"
    assert (inside / "a/1/00005.png").read_bytes() == b"a/1/00005.png"
    assert beginning(inside) == inside
    assert zipfile.ZipFile(pack(tmp_path / "results", tmp_path / "bare.zip")).namelist()[0] == "a/0/00000.png"


def test_a_zip_that_says_less_than_it_holds_is_cut_and_refused(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/0.png", bytes(5000))
    data = path.read_bytes()
    assert data.count((5000).to_bytes(4, "little")) == 2  # of the entry and of the index
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(InputError, match="liar.zip"):
        unpack(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.png")) <= 50


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        entry = zipfile.ZipInfo("a/0.png")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "../../secret")
    with pytest.raises(InputError, match="'a/0.png' leaves the folder or is a link"):
        unpack(tmp_path / "link.zip", tmp_path / "out")


def test_an_empty_zip_is_refused(tmp_path):
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(InputError, match="the zip is empty"):
        unpack(tmp_path / "empty.zip", tmp_path / "out")


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name), b"png")
    return path


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (("a/0/0.png", "b/0/0.png", "__MACOSX/a/0/._0.png", ".DS_Store", "a/Thumbs.db"), ["a/0/0.png", "b/0/0.png"]),
        (("Annotations/a/0/0.png", "__MACOSX/._Annotations", "readme.txt"), ["a/0/0.png"]),
        (("mine/Annotations/a/0/0.png", "mine/.DS_Store"), ["a/0/0.png"]),
        (("Annotations\\a\\0\\0.png", "Annotations\\a\\1\\0.png"), ["a/0/0.png", "a/1/0.png"]),
        (("Annotations/", "Annotations/a/", "Annotations/a/0.png"), ["a/0.png"]),
    ],
)
def test_a_zip_of_another_system_gives_its_results_alone(names, inside, tmp_path):
    unpack(write_zip(tmp_path / "their.zip", *names), tmp_path / "out")
    begun = beginning(tmp_path / "out")
    assert files_of(begun) == inside
    packed = zipfile.ZipFile(pack(begun, tmp_path / "again.zip", "Annotations")).namelist()
    assert packed == [f"Annotations/{name}" for name in inside]


def test_junk_in_a_folder_is_not_packed_and_does_not_hide_where_results_begin(tmp_path):
    for name in ("Annotations/a/0.png", "Annotations/a/._0.png", ".DS_Store", "__MACOSX/Annotations/._a"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).write_bytes(b"png")
    begun = beginning(tmp_path / "masks")
    assert begun == tmp_path / "masks/Annotations"
    assert zipfile.ZipFile(pack(begun, tmp_path / "out.zip")).namelist() == ["a/0.png"]
    (tmp_path / "masks/b").mkdir()
    with pytest.raises(InputError, match=r"masks: results may begin in Annotations or beside it \(b\); move one"):
        beginning(tmp_path / "masks")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("",), "the entry '' leaves the folder"),
        (("..\\outside.png",), "leaves the folder"),
        (("C:\\outside.png",), "leaves the folder"),
        (("\\outside.png",), "leaves the folder"),
        (("a/0.png", "a\\0.png"), "is there twice"),
        (("a", "a/0.png"), "'a/0.png' is there twice"),
        (("__MACOSX/._0.png",), "the zip is empty"),
    ],
)
def test_names_that_no_submission_has_are_refused(names, said, tmp_path):
    with pytest.raises(InputError, match=said):
        unpack(write_zip(tmp_path / "their.zip", *names), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o020644, 0o060644, 0o140777])
def test_what_is_no_file_in_a_zip_is_refused(kind, tmp_path):
    with zipfile.ZipFile(tmp_path / "their.zip", "w") as file:
        entry = zipfile.ZipInfo("a/0.png")
        entry.external_attr = kind << 16
        file.writestr(entry, "x")
    with pytest.raises(InputError, match="'a/0.png' leaves the folder or is a link"):
        unpack(tmp_path / "their.zip", tmp_path / "out")


def test_a_zip_damaged_anywhere_is_an_error_of_the_input(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("a/0.png", b"png" * 50)
        whole, refused = path.read_bytes(), 0
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            try:
                unpack(path, tmp_path / "out")
            except (InputError, OutputError):
                refused += 1
        assert refused > len(whole) / 4


def test_a_zip_that_the_disk_cannot_hold_is_not_begun(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "their.zip", "a/0.png")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2))
    with pytest.raises(OutputError, match="OUT02: .*their.zip needs 0 MiB, 0 are free"):
        unpack(path, tmp_path / "out")
    assert files_of(tmp_path / "out") == []
