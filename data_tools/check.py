"""Checks trees of real data sets: ``python -m data_tools check refer-davis17 ROOT``.

A problem is one line: the path, what is there, what was wanted, and advice where it is not obvious. The checks of each
data set are in `data_tools/checks`. The name of a stage ("stage1") checks all its sets under one root and prints one
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data_tools.checks import CHECKS
from data_tools.checks.report import Report, columns, lines
from data_tools.checks.stages import STAGES
from trackgpt.data.trees import Tree, listing, look_for_tree, named_folders
from trackgpt.errors import InputError, UsageError

OPENED = 200  # pictures of a part of an image set, unless asked otherwise
Benchmark = StrEnum("Benchmark", {name.replace("-", "_"): name for name in CHECKS})
Name = StrEnum("Name", {name.replace("-", "_"): name for name in (*STAGES, *CHECKS)})


def check_tree(
    benchmark: Benchmark | str, root: Path, opened: int = 0, tick: Callable[[], None] = lambda: None
) -> Report:
    """Check a tree.

    Args:
        benchmark: which form it should have.
        root: its top folder, or one that holds it under a name that projects give it.
        opened: how many pictures of a part of an image set are opened; 0 for all.
        tick: called after every picture.

    Returns:
        What was found; the tree is sound when `problems` is empty.

    Raises:
        InputError: the root is no folder, or holds the data set twice.
    """
    check = CHECKS[str(benchmark)]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; wanted the top folder of a {benchmark} tree")
    top = look_for_tree(check.tree, root)
    if top is None and check.other is not None:
        top = look_for_tree(check.other, root)
    report = Report(root if top is None else top, root, opened, tick)
    if top is None:
        _report_nothing(report, check.tree)
        check.traps(report)
        return report
    if top != root:
        report.note(root, f"holds {benchmark} in {top.relative_to(root)}")
    check.run(report)
    return report


def _report_nothing(report: Report, tree: Tree) -> None:
    """A root that does not show the data set: a folder of its name, where its files are instead, or what is there."""
    named = named_folders(tree, report.root)
    if named:
        report.root = named[-1]  # the innermost: archives may repeat their name
        wanted = f"{' or '.join(tree.marks)} in it"
        report.problem(report.root, f"has the name of {tree.name}, but holds {listing(report.root)}", wanted)
        return
    wanted = f"{' or '.join(tree.marks)} below the root"
    above = report.root.resolve().parent
    sibling = next((folder for folder in named_folders(tree, above) if tree.holds(folder)), None)
    if sibling is not None and sibling != report.root.resolve():
        report.problem(report.root, f"no {tree.name}, but {sibling} is there", wanted, f"give {above}")
        return
    for mark in tree.marks:
        there = report.elsewhere(mark)
        if there is not None and not _is_anothers(there, tree):
            found = f"no {tree.name}, but {there} is there: another root, or unpacked one level off"
            report.problem(report.root, found, wanted, "give the folder that holds it")
            return
    advice = f"a folder below the root may also go by the name {', '.join(tree.folders)}"
    report.problem(report.root, f"no {tree.name}; it holds {listing(report.root)}", wanted, advice)


def _is_anothers(path: Path, tree: Tree) -> bool:
    """Whether a file that would show a data set lies in a folder that goes by the name of another one."""
    others = [check.tree for check in CHECKS.values() if check.tree.folders != tree.folders]
    return any(
        folder in named_folders(other, above)
        for folder in list(path.parents)[:3]
        for above in list(folder.parents)[:2]
        for other in others
    )


def command(
    name: Annotated[Name, typer.Argument(help="Which form the tree should have, or a stage of the recipe")],
    root: Annotated[Path, typer.Argument(help="Its top folder, or the one above it")],
    every: Annotated[bool, typer.Option("--every", help="List all problems, not five of a kind")] = False,
    opened: Annotated[int, typer.Option("--open", help="Pictures opened of a part of an image set; 0: all")] = OPENED,
) -> None:
    """Check a data set on disk: one line for each problem, then counts; exit code 3 when something is wrong."""
    if opened < 0:
        raise UsageError(f"--open is {opened}; wanted 0 or more")
    if name in STAGES:
        _check_stage(name, root, every, opened)
        return
    with _counting(name) as tick:
        report = check_tree(name, root, opened, tick)
    for line in lines(report, CHECKS[name].tree, every):
        print(line)
    print(f"layout={name} problems={len(report.problems)} root={root}")
    if report.problems:
        raise typer.Exit(InputError.exit_code)


def _check_stage(name: str, root: Path, every: bool, opened: int) -> None:
    """All sets of a stage below one root: their problems, one after another, then one table."""
    stage, reports = STAGES[name], {}
    for one in stage.names:
        if one in stage.optional and not _is_there(one, root):
            continue
        with _counting(one) as tick:
            reports[one] = check_tree(one, root, opened, tick)
        told = replace(reports[one], notes=[], counts={}, missing={}, wrong={})
        for line in lines(told, replace(CHECKS[one].tree, published={}), every):
            print(f"{one}: {line}")
    table = [("set", "state", "part", "", "found", "missing", "wrong", "published")]
    table += [row for one in stage.names for row in _rows(one, reports.get(one))]
    for line in columns(table, left=4):
        print(line)
    bad = [one for one, report in reports.items() if report.problems]
    print(f"layout={name} sets={len(reports)} problems={sum(len(reports[one].problems) for one in bad)} root={root}")
    if bad:
        raise typer.Exit(InputError.exit_code)


def _is_there(name: str, root: Path) -> bool:
    """Whether a root holds a set, or a folder of its name in which it is laid wrongly."""
    check = CHECKS[name]
    if look_for_tree(check.tree, root) is not None:
        return True
    named = [Report(folder, root) for folder in named_folders(check.tree, root)]
    for report in named:
        check.traps(report)
    return any(report.problems for report in named)


def _rows(name: str, report: Report | None) -> Iterator[tuple[str, ...]]:
    """A set in the table of a stage: a row for each of its parts, of what its authors count first."""
    if report is None:
        yield name, "optional, not there", "", "", "", "", "", ""
        return
    tree = CHECKS[name].tree
    unit = tree.units[0]
    state = "ready" if not report.problems else f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
    tables = (report.counts, report.missing, report.wrong)
    parts = [part for part in dict.fromkeys((*tree.published, *report.counts)) if any(part in one for one in tables)]
    for part in parts or [""]:
        published = tree.published.get(part, (None, None))[0]
        numbers = [str(table.get(part, {}).get(unit, 0)) if part else "" for table in tables]
        yield name, state, part, unit if part else "", *numbers, "" if published is None else str(published)
        name, state = "", ""


@contextmanager
def _counting(name: str) -> Iterator[Callable[[], None]]:
    """A line on a terminal that counts the pictures looked at."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = (SpinnerColumn(), TextColumn("{task.description}: {task.completed} pictures"), TimeElapsedColumn())
    with Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda: progress.advance(task)
