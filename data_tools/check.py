"""Checks trees of real data sets: ``python -m data_tools check refer-davis17 ROOT``.

A problem is one line: the path, what is there, what was wanted, and what to do where that is not plain. The forms
checked are those of `shared/reference/datasets.md`; what is looked at in each stands in `data_tools/checks`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data_tools.checks import CHECKS
from data_tools.checks.report import Report, lines
from trackgpt.data.trees import Tree, listing, look_for_tree
from trackgpt.errors import InputError

Benchmark = StrEnum("Benchmark", {name.replace("-", "_"): name for name in CHECKS})


def check_tree(benchmark: Benchmark, root: Path) -> Report:
    """Check a tree.

    Args:
        benchmark: which form it should have.
        root: its top folder, or one that holds it under a name that projects give it.

    Returns:
        What was found; the tree is sound when `problems` is empty.

    Raises:
        InputError: the root is no folder, or holds the data set twice.
    """
    check = CHECKS[benchmark]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; wanted the top folder of a {benchmark} tree")
    top = look_for_tree(check.tree, root)
    report = Report(root if top is None else top)
    if top is None:
        _report_nothing(report, check.tree)
        return report
    if top != root:
        report.note(root, f"holds {benchmark} in {top.relative_to(root)}")
    check.run(report)
    return report


def _report_nothing(report: Report, tree: Tree) -> None:
    """A root that does not show the data set: where its files are instead, or what is there."""
    wanted = f"{' or '.join(tree.marks)} below the root"
    for mark in tree.marks:
        there = report.elsewhere(mark)
        if there is not None:
            found = f"no {tree.name}, but {there} is there: another root, or unpacked one level off"
            report.problem(report.root, found, wanted, "give the folder that holds it")
            return
    advice = f"a folder below the root may also go by the name {', '.join(tree.folders)}"
    report.problem(report.root, f"no {tree.name}; it holds {listing(report.root)}", wanted, advice)


def command(
    name: Annotated[Benchmark, typer.Argument(help="Which form the tree should have")],
    root: Annotated[Path, typer.Argument(help="Its top folder, or the one above it")],
    every: Annotated[bool, typer.Option("--every", help="List all problems, not five of a kind")] = False,
) -> None:
    """Check a data set on disk: one line for each problem, then counts; exit code 3 when something is wrong."""
    report = check_tree(name, root)
    for line in lines(report, CHECKS[name].tree, every):
        print(line)
    print(f"layout={name} problems={len(report.problems)} root={root}")
    if report.problems:
        raise typer.Exit(InputError.exit_code)
