"""`python -m eval interaction`: the tables of interactive tracking, of one model and its ablations."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.corrections import User, Watched, watch_sequence
from eval.following import Following
from eval.interaction import Compared, benchmark_table, compared_systems, corrections_table
from eval.kit import Row
from eval.kits.interacttrack import InteractTrack
from eval.run_folder import RESULTS, commit, digest, open_run, progress, write_text
from eval.runner import Job, Worker, diagnostics_path
from eval.trackers import Choice
from trackgpt.data.box_video import InteractiveBoxSequence
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError, UsageError
from trackgpt.online import System, Tracker


def command(
    data: Annotated[list[Path], typer.Argument(help="Folders of sequences of InteractTrack, one per seed")],
    model: Annotated[str, typer.Option(help="imat:GROUNDER+SEGMENTER")] = "imat:nano+nano-memory",
    alone: Annotated[str, typer.Option(help="A TrackGPT for a row of its own; empty for none")] = "nano",
    system: Annotated[list[str] | None, typer.Option(help="Only these rows, by their variants")] = None,
    patience: Annotated[int, typer.Option(min=1, help="Wrong frames in a row before the user corrects")] = 3,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many sequences of a folder; 0 means all")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Arithmetic threads; 0 leaves torch's choice")] = 1,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the runs and of tables.md")] = Path(
        "runs/interaction"
    ),
) -> None:
    """The paper's Table 3 and parts of its Table 2, then corrections needed per video; goes on where it was cut.

    Example: python -m data_tools make --layout interacttrack --videos 8 --frames 72 --seed 1 -o interact-1;
    python -m eval interaction interact-1
    """
    systems, kits = (
        _chosen(compared_systems(model, alone), system or []),
        [InteractTrack(each, "test") for each in data],
    )
    opened = functools.cache(lambda name: Choice(name, device=device, threads=threads).open())
    rows: dict[str, list[list[Row]]] = {one.name: [] for one in systems}
    watched: dict[str, list[Watched]] = {one.name: [] for one in systems if one.hears}
    for kit, one in progress([(kit, one) for kit in kits for one in systems], "interaction", len(kits) * len(systems)):
        run = _Run(kit, out / one.key / kit.root.name, limit, functools.partial(_tracker, opened, one))
        with open_run(run.folder, _settings(one, kit, patience)):
            rows[one.name].append(run.scored())
            if one.hears:
                watched[one.name] += run.watched(User(patience))
    text = "\n\n".join([benchmark_table(rows), *([corrections_table(watched)] if watched else [])])
    write_text(out / "tables.md", text + "\n")
    typer.echo(text)
    typer.echo(f"systems={len(systems)} sequences={sum(map(len, rows[systems[0].name]))} commit={commit()} out={out}")


def _chosen(systems: Sequence[Compared], keys: Sequence[str]) -> list[Compared]:
    """The systems of these keys, or all.

    Raises:
        UsageError: there is none of a key.
    """
    unknown = set(keys) - {one.key for one in systems}
    if unknown:
        raise UsageError(f"--system {sorted(unknown)[0]}: not one of {', '.join(one.key for one in systems)}")
    return [one for one in systems if not keys or one.key in keys]


def _settings(one: Compared, kit: InteractTrack, patience: int) -> dict[str, Any]:
    """What a run was begun with."""
    from trackgpt.hub import find, parts_of

    made = {"model": one.model, "variant": one.variant, "model_sha256": digest(*map(find, parts_of(one.model)))}
    return {"kit": kit.name, "data": str(kit.root), "split": kit.split, **made, "patience": patience}


def _tracker(opened: Callable[[str], System], one: Compared) -> Tracker:
    return opened(one.model).tracker(one.variant)


class _Run:
    """One system on one tree of sequences; what is in its folder is not computed again."""

    def __init__(self, kit: InteractTrack, folder: Path, limit: int, tracker: Callable[[], Tracker]) -> None:
        self.kit, self.folder, self._tracker = kit, folder, functools.cache(tracker)
        self.tasks = list(kit.tasks())[: limit or None]

    def scored(self) -> list[Row]:
        """The rows of all sequences, tracked where they are not yet."""
        worker = Worker(Job(lambda: self.kit, self.folder / RESULTS, self.folder))
        rows: list[Row] = []
        for task in self.tasks:
            if not diagnostics_path(self.folder, task).exists():
                follow = Following(self._tracker())
                self.kit.run(task, follow, self.folder / RESULTS)
                records = {unit: record.as_json() for unit, record in follow.records.items()}
                write_text(diagnostics_path(self.folder, task), json.dumps(records) + "\n")
            rows += worker(task) or []
        return rows

    def watched(self, user: User) -> list[Watched]:
        """All sequences with a user who corrects."""
        found = []
        for task in self.tasks:
            path = self.folder / "watched" / f"{task}.json"
            if not path.exists():
                sequence = self.kit.by_name[task]
                assert isinstance(sequence, InteractiveBoxSequence)
                write_text(path, json.dumps(watch_sequence(self._tracker(), sequence, user).as_json()) + "\n")
            try:
                found.append(Watched.from_json(read_object(path)))
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        return found
