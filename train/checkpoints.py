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
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trackgpt.ending import say
from trackgpt.errors import InputError, OutputError, TrackGPTError, UsageError
from trackgpt.settings import from_dict, read_json
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
    """Restore the newest whole checkpoint of a run into its engine; without any the run starts at step 0.

    Newer ones that are damaged are said and renamed to `*.damaged`. Nothing in a checkpoint is ever executed.

    Raises:
        UsageError: the checkpoint is spread over another number of processes or by another ZeRO stage.
        InputError: its weights are not those of this stage, every checkpoint is damaged, or one names code.
    """
    damaged: list[tuple[Path, str]] = []
    for place in reversed(_numbered(folder)):
        contents, fault = None, ("", "")
        try:
            contents = _read(place, layout, processes.rank if engine.sharded else 0)
        except _DamagedError as error:
            fault = str(error), ""
        except InputError as error:
            fault = "", error.message
        reasons, refusals = zip(*processes.gather(fault), strict=True)
        if any(refusals):
            raise InputError(max(refusals))  # on every process, so that none waits for another
        if any(reasons) or contents is None:
            damaged.append((place, max(reasons)))
            continue
        _set_aside(damaged, place, processes)
        _restore(engine, contents, place, layout)
        return contents.progress
    if damaged:
        place, reason = damaged[0]
        raise InputError(
            f"{place}: damaged ({reason}), and no older checkpoint is whole; "
            f"bring one back, or delete {folder / FOLDER} to begin again"
        )
    return Progress()


class _DamagedError(Exception):
    """A checkpoint is not whole; the message says how."""


@dataclass
class _Contents:
    """What one process reads of a checkpoint."""

    progress: Progress
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


def _read(place: Path, layout: dict[str, int], rank: int) -> _Contents:
    state = _state(place)
    if state["layout"] != layout:
        was, now = (" ".join(f"{key}={value}" for key, value in x.items()) for x in (state["layout"], layout))
        raise UsageError(f"{place}: written with {was}, this run has {now}; go on as it was, or choose another `out`")
    try:
        weights = load_file(place / TRAINED)
    except (SafetensorError, OSError) as error:
        raise _DamagedError(f"{TRAINED}: {_one_line(error)}") from error
    optimizer = _plain_load(place / _optimizer_file(rank), layout["zero"])
    # Padding of ZeRO's shards holds whatever was there; all else that a run writes is finite, or it would have stopped.
    numbers = weights if layout["zero"] else {**weights, "the optimiser": optimizer}
    for name, value in numbers.items():
        if not _is_finite(value):
            raise _DamagedError(f"{name} holds NaN or infinity")
    return _Contents(from_dict(Progress, state["progress"]), weights, optimizer)


def _plain_load(path: Path, zero: int) -> dict[str, Any]:
    """A file that `torch.save` wrote: tensors and plain values, and under ZeRO three classes of DeepSpeed's.

    Raises:
        InputError: it names any other class or function.
        _DamagedError: it is not whole.
    """
    classes: list[Any] = []
    if zero:
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        classes = [LossScaler, ZeroStageEnum, fragment_address]
    if not zipfile.is_zipfile(path):
        raise _DamagedError(f"{path.name}: not a file that torch.save wrote")
    try:
        with torch.serialization.safe_globals(classes):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path}: refused: it asks for {named[1] if named else 'more than tensors'}, which could run code; "
            "no checkpoint of this trainer does; delete its folder to go on from the one before"
        ) from error
    except Exception as error:  # a damaged archive may raise anything at all
        raise _DamagedError(f"{path.name}: {_one_line(error)}") from error
    if not isinstance(state, dict):
        raise _DamagedError(f"{path.name}: holds a {type(state).__name__}, wanted the state of an optimiser")
    return state


def _set_aside(damaged: list[tuple[Path, str]], chosen: Path, processes: Processes) -> None:
    """Say which checkpoints are passed over, and rename them: by number they would be taken for the newest."""

    def rename() -> None:
        for place, reason in damaged:
            say("train", f"{place}: damaged ({reason}); going on from {chosen.name}")
            aside = place.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)

    together(processes, f"{chosen.parent}: a damaged checkpoint", rename if processes.rank == 0 else _nothing)


def _restore(engine: Engine, contents: _Contents, place: Path, layout: dict[str, int]) -> None:
    with engine.whole(trained(engine.module).values()):
        _fill(engine.module, contents.weights, place, sharded=layout["zero"] == 3)
    try:
        engine.restore(contents.optimizer)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{place}: its optimiser is not this stage's ({_one_line(error)}); choose another `out`"
        ) from error


def whole_checkpoints(folder: Path) -> list[Path]:
    """A run's complete checkpoints, the oldest first."""
    return [place for place in _numbered(folder) if _is_whole(place)]


def _numbered(folder: Path) -> list[Path]:
    """Folders of a run that are named as checkpoints are, the oldest first."""
    places = (folder / FOLDER).iterdir() if (folder / FOLDER).is_dir() else ()
    return sorted((place for place in places if place.name.isdecimal()), key=lambda place: int(place.name))


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
            "make room (or lower plan.keep) and run the same command again",
            "OUT02",
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
        if value.shape != weights[name].shape:
            was, here = tuple(weights[name].shape), tuple(value.shape)
            raise InputError(f"{place}: {name} is {was}, this model's {here}; choose another `out`")
        if not (sharded and isinstance(value, nn.Parameter)):
            value.copy_(weights[name])


def _is_whole(place: Path) -> bool:
    try:
        _state(place)
    except _DamagedError:
        return False
    return True


def _state(place: Path) -> dict[str, Any]:
    """What `state.json` says, where every file that it names is there and has its size.

    Raises:
        _DamagedError: one is not, or the file is damaged itself.
    """
    try:
        state = read_json(place / STATE)
        progress = from_dict(Progress, state["progress"])
        sizes = {name: (place / name).stat().st_size for name in state["files"]}
        wrong = [name for name, size in state["files"].items() if sizes[name] != size]
        counted = all(len(pair) == 2 and math.isfinite(sum(pair)) for pair in progress.window.values())
    except OSError as error:
        raise _DamagedError(f"{Path(error.filename).name}: {error.strerror}") from error
    except (TrackGPTError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{STATE}: {_one_line(error)}") from error
    if wrong:
        name = wrong[0]
        raise _DamagedError(f"{name}: {sizes[name]} bytes, wanted {state['files'][name]}")
    if progress.step != int(place.name) or not counted or TRAINED not in sizes or "layout" not in state:
        raise _DamagedError(f"{STATE}: not that of step {int(place.name)}")
    return state


def _is_finite(value: Any) -> bool:
    """Whether every tensor in nested dictionaries and lists is finite; what holds no tensor is."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    return all(map(_is_finite, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
