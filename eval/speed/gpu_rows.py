"""`python -m eval gpu-rows`: every figure that needs a GPU, in one run of under 25 minutes, from random weights.

Each part leaves OUT/PART.json as soon as it is done, with what it was measured on; the same command again goes on with
the parts that are missing or failed. Speed does not depend on what weights say, so no checkpoint is needed. `--size
tiny` runs every part on a CPU in a minute: it shows that they run, and its figures say nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.run_folder import write_json
from eval.speed.bench import Figures, Setting, Size, Workload, conditions
from trackgpt.data.trees import read_object
from trackgpt.errors import OutputError, TrackGPTError, UsageError

Measure = Callable[[Setting], Figures]


SIZES = {
    "full": Size(),
    "tiny": Size(("tiny",), ("tiny",), 6, 48, 64, 3, (2,), (1,), 64, 1, 3, 2),
}


def parts_of(size: Size) -> dict[str, Measure]:
    """All parts by name, what a whole table needs first in front."""
    from eval.speed import gpu_models, gpu_training

    parts: dict[str, Measure] = {f"encoder-{vit}": partial(gpu_models.encoder, vit=vit) for vit in size.vits}
    parts |= {f"brain-{brain}": partial(gpu_models.brain, brain=brain) for brain in size.brains}
    for brain in size.brains:
        parts |= {f"track-{brain}-{vit}": partial(gpu_models.track, brain=brain, vit=vit) for vit in size.vits}
    parts |= {f"attention-{vit}": partial(gpu_models.attention, vit=vit) for vit in size.vits}
    parts["decoder"] = partial(gpu_models.decoder, vit=size.vits[0])
    small, large = size.brains[0], size.vits[-1]
    parts[f"train-{small}-{large}"] = partial(gpu_training.train, brain=small, vit=large, cached=False)
    parts[f"train-{small}-{large}-cached"] = partial(gpu_training.train, brain=small, vit=large, cached=True)
    return parts


def command(
    out: Annotated[Path, typer.Option(help="Folder of the parts' JSON files; what is there already is kept")],
    size: Annotated[str, typer.Option(help="full, or tiny to try it out on a CPU")] = "full",
    device: Annotated[str, typer.Option(help="cuda, cuda:1, cpu or auto")] = "auto",
    only: Annotated[list[str] | None, typer.Option(help="A part by its beginning, may be repeated")] = None,
    minutes: Annotated[float, typer.Option(help="No part begins after this time")] = 25.0,
) -> None:
    """Absolute speeds and memory on a GPU, part by part, with random weights of full size."""
    from trackgpt.hub import chosen_device

    if size not in SIZES:
        raise UsageError(f"--size {size}: choose from {', '.join(SIZES)}")
    at = Setting(out, chosen_device(device), SIZES[size])
    if size == "full" and not at.device.startswith("cuda"):
        raise UsageError(f"--size full on {at.device}: needs a GPU; --size tiny shows that the parts run")
    parts = {name: part for name, part in parts_of(at.size).items() if not only or name.startswith(tuple(only))}
    if not parts:
        raise UsageError(f"--only {' '.join(only or [])}: no such part; choose from {', '.join(parts_of(at.size))}")
    for name in parts:
        _kept(at.out / f"{name}.json")
    began = time.monotonic()
    left = [name for name, part in parts.items() if not _done_in_time(at, name, part, began + 60 * minutes)]
    typer.echo(f"parts={len(parts)} done={len(parts) - len(left)} left={','.join(left) or 'none'} out={out}")


def _done_in_time(at: Setting, name: str, part: Measure, end: float) -> bool:
    """Measure a part unless that has been done, or the time is over; tells in one line. False when it is not done."""
    path = at.out / f"{name}.json"
    if _kept(path):
        typer.echo(f"{name}: kept")
        return True
    if time.monotonic() > end:
        typer.echo(f"{name}: left out, the time is over")
        return False
    found = measured(at, part)
    at.out.mkdir(parents=True, exist_ok=True)
    write_json(path, {"part": name, **found})
    shown = found.get("figures", {"not measured": found.get("not_measured")})
    typer.echo(f"{name}: " + " ".join(f"{key}={_short(value)}" for key, value in shown.items() if key != "table"))
    return "figures" in found


def _kept(path: Path) -> bool:
    """Whether a part has been measured; one that failed has not.

    Raises:
        InputError: what is there is no JSON object.
        OutputError: OUT01, it is no part of this table.
    """
    if not path.exists():
        return False
    found = read_object(path)
    if found.get("part") != path.stem or not {"figures", "not_measured"} & found.keys():
        raise OutputError(f"{path}: no `gpu-rows` wrote it; choose another --out", "OUT01")
    return "figures" in found


def measured(at: Setting, part: Measure) -> dict[str, Any]:
    """A part's figures, or why there are none, with conditions and seconds."""
    import torch

    where = conditions(Workload(device=at.device), 0) | {"gpu": _gpu(at.device), "size": vars(at.size)}
    del where["workload"]
    began = time.monotonic()
    try:
        found: dict[str, Any] = {"figures": part(at)}
    except (TrackGPTError, RuntimeError) as error:  # too small a GPU is one, and no reason to lose the other parts
        found = {"not_measured": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found | {"seconds": round(time.monotonic() - began, 1), "conditions": where}


def _gpu(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else ""


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
