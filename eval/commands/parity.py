"""`python -m eval parity FOLDER`: our figures against stored outputs of the official toolkits, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from eval.parity.checks import Comparison
from eval.run_folder import progress
from trackgpt.errors import InputError, TrackGPTError

FOLDERS = ("vos_jf", "mot", "sot", "interacttrack", "rmot26")
"""Each with a module of the same name in `eval.parity`."""


class ParityError(TrackGPTError):
    """Some figure is not the official one."""


def command(
    folder: Annotated[Path, typer.Argument(help=f"Golden vectors: a folder with any of {', '.join(FOLDERS)}")],
    only: Annotated[list[str] | None, typer.Option(help="One of these folders, may be repeated")] = None,
    every: Annotated[bool, typer.Option("--every", help="List every comparison, not one line per toolkit")] = False,
) -> None:
    """Compare every stored value of official toolkits with ours; exits with 1 on any difference."""
    wanted = [name for name in only or FOLDERS if (folder / name).is_dir()]
    if not wanted or len(wanted) < len(only or ()):
        raise InputError(f"{folder}: holds none of {', '.join(only or FOLDERS)}; wanted folders of golden vectors")
    found: list[tuple[str, Comparison]] = []
    for name in progress(wanted, "parity", len(wanted)):
        found += [(name, check) for check in import_module(f"eval.parity.{name}").checks(folder / name)]
    _show(found, every)
    differing = sum(check.differing for _, check in found)
    typer.echo(f"values={sum(check.values for _, check in found)} checks={len(found)} differing={differing}")
    if differing or not found:
        raise ParityError(f"{differing} of the stored values differ; --every names them")


def _show(found: Iterable[tuple[str, Comparison]], every: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    lines: dict[tuple[str, ...], list[Comparison]] = {}
    for folder, check in found:
        key = (folder, check.source, check.name) if every else (folder, check.source)
        lines.setdefault(key, []).append(check)
    headings = ("folder", "toolkit", *(("what",) if every else ()), "checks", "values", "differing", "first difference")
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("checks", "values", "differing") else "left")
    for key, checks in lines.items():
        first = next((f"{check.name} {check.example}" for check in checks if check.differing), "")
        counts = (len(checks), sum(check.values for check in checks), sum(check.differing for check in checks))
        table.add_row(*key, *map(str, counts), first)
    Console(width=140).print(table)
