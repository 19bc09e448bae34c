"""Checkpoints: folders that are either complete or absent.

    out/checkpoints/000120/trained.safetensors    parameters that learn, and buffers (statistics of normalisations)
                           optimizer_0.pt         AdamW's state; one file per process where ZeRO shards it
                           state.json             step, samples seen, figures not yet logged, sizes of the files
    out/checkpoints/latest                        the name of the newest

A folder is written under another name, forced to the disk and then renamed, so that a crash at any moment leaves the
one before. Frozen weights are not stored: they come from where the configuration says. Random numbers need no state:
they are functions of the seed and of the sample.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trackgpt.data.trees import read_object
from trackgpt.errors import InputError, OutputError, UsageError
from train.engine import Engine, trained
from train.processes import Processes

FOLDER = "checkpoints"
LATEST = "latest"
STATE = "state.json"
TRAINED = "trained.safetensors"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        samples: samples seen, over all processes.
        skipped: samples that were broken and replaced.
        window: sum and count of every figure since the last line of the log.
    """

    step: int = 0
    samples: int = 0
    skipped: int = 0
    window: dict[str, list[float]] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, engine: Engine, progress: Progress, layout: dict[str, int], keep: int, processes: Processes
):
    """Write a checkpoint of a run and delete the oldest ones.

    Args:
        folder: of the run.
        engine: whose weights and optimiser are kept.
        progress: stored with them.
        layout: how the state is spread (processes, ZeRO stage); `load_checkpoint` wants the same again.
        keep: number of checkpoints kept.
        processes: all of them must call this.

    Raises:
        OutputError: a process could not write; the checkpoints before are as they were.
    """
    root = folder / FOLDER
    place = root / f"{progress.step:06d}"
    unfinished = place.with_suffix(".tmp")
    weights = {}
    with engine.whole(trained(engine.module).values()):
        if processes.rank == 0:
            for name, value in _stored(engine.module).items():
                weights[name] = value.detach().to("cpu", copy=True).contiguous()
    optimizer = engine.optimizer_state()

    def write() -> None:
        unfinished.mkdir(parents=True, exist_ok=True)
        if processes.rank == 0:
            save_file(weights, unfinished / TRAINED)
        if processes.rank == 0 or engine.sharded:
            torch.save(optimizer, unfinished / _optimizer_file(processes.rank))

    def publish() -> None:
        files = {path.name: path.stat().st_size for path in unfinished.iterdir()}
        state = {"progress": asdict(progress), "layout": layout, "files": files}
        (unfinished / STATE).write_text(json.dumps(state))
        replace_folder(unfinished, place)
        _point(root / LATEST, place.name)

    where = f"{folder}: the checkpoint of step {progress.step}"
    if processes.rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
    processes.sum(0)  # wait until rank 0 has removed what a killed run left
    together(processes, where, write)
    together(processes, where, publish if processes.rank == 0 else _nothing)
    if processes.rank == 0:
        for old in [*whole_checkpoints(folder)[: -max(1, keep)], *root.glob("*.tmp")]:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, engine: Engine, layout: dict[str, int], processes: Processes) -> Progress:
    """Restore the newest complete checkpoint of a run into its engine; without one the run starts at step 0.

    Raises:
        UsageError: the checkpoint is spread over another number of processes or by another ZeRO stage.
        InputError: its weights are not those of this stage.
    """
    whole = whole_checkpoints(folder)
    if not whole:
        return Progress()
    place = whole[-1]
    state = read_object(place / STATE)
    if state["layout"] != layout:
        was, now = (" ".join(f"{key}={value}" for key, value in x.items()) for x in (state["layout"], layout))
        raise UsageError(f"{place}: written with {was}, this run has {now}; go on as it was, or choose another `out`")
    weights = load_file(place / TRAINED)
    with engine.whole(trained(engine.module).values()):
        _fill(engine.module, weights, place, sharded=layout["zero"] == 3)
    mine = place / _optimizer_file(processes.rank if engine.sharded else 0)
    # Trusted as the run's own: DeepSpeed's states hold objects that the safe reader refuses.
    engine.restore(torch.load(mine, map_location="cpu", weights_only=layout["zero"] == 0))
    return Progress(**state["progress"])


def whole_checkpoints(folder: Path) -> list[Path]:
    """A run's complete checkpoints, the oldest first."""
    places = (folder / FOLDER).iterdir() if (folder / FOLDER).is_dir() else ()
    whole = (place for place in places if place.name.isdigit() and _is_whole(place))
    return sorted(whole, key=lambda place: int(place.name))


def replace_folder(unfinished: Path, place: Path) -> None:
    """Flush a finished folder to the disk, then rename it to `place`, replacing what is there."""
    for path in [*unfinished.rglob("*"), unfinished]:
        _to_disk(path)
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    unfinished.rename(place)
    _to_disk(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def together(processes: Processes, what: str, write: Callable[[], object]) -> None:
    """Call `write` on every process; if it fails on one, all raise, so that none waits for it.

    Raises:
        OutputError: with the reasons.
    """
    reason = ""
    try:
        write()
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save says RuntimeError when the disk is full
        reason = " ".join(str(error).split())
    reasons = sorted({r for r in processes.gather(reason) if r})
    if reasons:
        raise OutputError(
            f"{what} cannot be written: {'; '.join(reasons)[:300]}; the last one is intact: "
            "make room (or lower plan.keep) and run the same command again"
        )


def _stored(module: nn.Module) -> dict[str, Tensor]:
    """What is kept of a module: trained parameters and persistent buffers, a shared tensor once."""
    kept, seen = {}, set()
    learned = {id(p) for p in trained(module).values()}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen and (id(value) in learned or not isinstance(value, nn.Parameter)):
            kept[name] = value
            seen.add(id(value))
    return kept


@torch.no_grad()
def _fill(module: nn.Module, weights: dict[str, Tensor], place: Path, sharded: bool) -> None:
    """Copy stored tensors in place; sharded parameters are restored from the optimiser's shards instead."""
    targets = _stored(module)
    if set(targets) != set(weights):
        odd = sorted(set(targets) ^ set(weights))
        raise InputError(
            f"{place}: not of this stage and model: {len(odd)} names differ, e.g. {odd[0]}; wanted the "
            "run's own; choose another `out`"
        )
    for name, value in targets.items():
        if not (sharded and isinstance(value, nn.Parameter)):
            value.copy_(weights[name])


def _is_whole(place: Path) -> bool:
    try:
        files = read_object(place / STATE)["files"]
        return all((place / name).stat().st_size == size for name, size in files.items())
    except (InputError, OSError, AttributeError, KeyError):
        return False


def _optimizer_file(rank: int) -> str:
    return f"optimizer_{rank}.pt"


def _point(path: Path, name: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(name + "\n")
    _to_disk(unfinished)
    os.replace(unfinished, path)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _nothing() -> None:
    pass
