"""`trackgpt doctor`: what is here, what works, and a 5-frame self-test."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trackgpt.errors import ModelError, OutOfMemoryError, OutputError, TrackGPTError
from trackgpt.version import __version__, installed

if TYPE_CHECKING:
    import torch

    from trackgpt.session.playback import InstructionTracker

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "opencv-python-headless",
    "av",
    "pillow",
    "pycocotools",
)
FRAMES = 5


@dataclass(frozen=True)
class Visit:
    """What is to be looked at: a model and how it would run, and for how long a conversation about how many targets."""

    model: str
    device: str = "auto"
    dtype: str = "float32"
    tokens: int = 200
    targets: int = 1


def run(visit: Visit) -> int:
    """Print the report; returns 0 when every check passed, else the exit code of the first that failed.

    A model that does not fit is not loaded.
    """
    _line("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    _line("trackgpt", __version__)
    for name in PACKAGES:
        _line(name, installed(name))
    checks: dict[str, Callable[[], str]] = {
        "torchvision": _torchvision,
        "device": _device,
        "h264": _h264,
        "disk": _disk,
        "memory": lambda: _memory(visit),
        "weights": lambda: _weights(visit.model),
        "self-test": lambda: _self_test(visit),
    }
    codes = []
    for name, check in checks.items():
        if OutOfMemoryError.exit_code in codes:
            check = _not_run
        codes.append(_checked(name, check))
    failed = [code for code in codes if code]
    print(f"ok={int(not failed)} checks={len(codes)} failed={len(failed)} model={visit.model}")
    return failed[0] if failed else 0


def _line(name: str, text: str) -> None:
    print(f"{name:22s} {text}", flush=True)


def _checked(name: str, check: Callable[[], str]) -> int:
    try:
        _line(name, check())
    except TrackGPTError as error:
        _line(name, f"FAILED: {error}")
        return error.exit_code
    except Exception as error:  # a doctor reports what it did not foresee, and goes on
        _line(name, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


def _torchvision() -> str:
    found = installed("torchvision")
    if found == "not installed":
        return "not installed (not needed)"
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{found} does not import ({reason}) and breaks transformers: pip uninstall torchvision"
        ) from error
    return f"{found} (not needed)"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}"


def _h264() -> str:
    import av

    for codec, mode, verb in (("h264", "r", "read"), ("libx264", "w", "written")):
        try:
            av.Codec(codec, mode)
        except ValueError as error:
            raise OutputError(f"H.264 cannot be {verb} ({codec} is missing); reinstall av from its wheel") from error
    return f"read and written (PyAV {av.__version__})"


def _disk() -> str:
    return f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free here"


def _memory(visit: Visit) -> str:
    """What the model takes where it would run, from headers or published dimensions, and whether that is free."""
    import torch

    from trackgpt.hub import IMAT, QTRACK, REASONINGTRACK, chosen_device, find_network
    from trackgpt.planning.inference import Answering, plan_inference
    from trackgpt.planning.outline import outline_of
    from trackgpt.precision import inference_dtype
    from trackgpt.session.ahead import AHEAD

    device = torch.device(chosen_device(visit.device))
    if visit.model.startswith((IMAT, QTRACK, REASONINGTRACK)):
        return _memory_of_parts(visit, device)
    if (network := find_network(visit.model)) is not None:
        return f"{_size(network[1])} of weights; {free_memory(device) / 2**30:.2f} GiB are free on {device}"
    dtype = visit.dtype
    if dtype == "auto":
        dtype = str(inference_dtype(dtype, device)).removeprefix("torch.")
    outline = outline_of(visit.model)
    plan = plan_inference(outline, Answering(visit.tokens, visit.targets, AHEAD), [dtype])[dtype]
    for name, size in plan.rows().items():
        _line("memory", f"{size / 2**20:10.1f} MiB  {name}")
    said = f"{plan.total / 2**30:.2f} GiB in {dtype} on {device}, {outline.source}"
    return _fits(said, plan.total, free_memory(device))


def _memory_of_parts(visit: Visit, device: torch.device) -> str:
    """A line for each part, and whether all fit while one of them looks at a frame."""
    from trackgpt.hub import IMAT, REASONINGTRACK
    from trackgpt.planning.grounding import plan_grounded
    from trackgpt.precision import inference_dtype

    dtype = visit.dtype
    if dtype == "auto":
        dtype = str(inference_dtype(dtype, device)).removeprefix("torch.")
    planned = plan_grounded(visit.model, dtype)
    roles = ("grounder" if visit.model.startswith(IMAT) else "policy", "segmenter")[: len(planned)]
    if visit.model.startswith(REASONINGTRACK):
        roles = ("tracker", "describer", "grounder")[: len(planned)]
    for role, part in zip(roles, planned, strict=True):
        _line("memory", f"{part.weights / 2**20:10.1f} MiB  {role} {part.name} ({part.kind}), {part.source}")
    frames = {role: part.frame for role, part in zip(roles, planned, strict=True) if part.frame is not None}
    for role, frame in frames.items():
        _line("memory", f"{frame / 2**20:10.1f} MiB  a frame's activations in the {role}")
    needed = sum(part.weights for part in planned) + max(frames.values(), default=0)
    unknown = "".join(f", activations of the {role} not counted" for role in roles if role not in frames)
    return _fits(f"{needed / 2**30:.2f} GiB in {dtype} on {device}{unknown}", needed, free_memory(device))


def _fits(said: str, needed: float, free: float) -> str:
    said = f"{said}; {free / 2**30:.2f} GiB are free"
    if needed > free:
        raise OutOfMemoryError(f"{said}: it does not fit; choose --dtype bfloat16, a smaller model or a GPU", "MD05")
    return f"{said}: it fits"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or that the machine can give without swapping.

    Raises:
        ModelError: MD04, the device is not there.
    """
    import psutil
    import torch

    try:
        return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {device}: {reason}; --device cpu always works", "MD04") from error


def _not_run() -> str:
    return "not run: the model does not fit"


def _weights(model: str) -> str:
    import hashlib

    from trackgpt.hub import QTRACK, REASONINGTRACK, find, parts_of

    if len(parts := parts_of(model)) > 1 or model.startswith((QTRACK, REASONINGTRACK)):
        return ", ".join(_size(find(part)) for part in parts)
    file = find(model) / "model.safetensors"
    if not file.is_file():
        raise ModelError(f"{file}: missing; reinstall the package, or pass a folder of save_pretrained", "MD01")
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return f"{model}: {file.stat().st_size / 2**20:.1f} MiB, sha256 {digest[:16]}"


def _size(place: Path) -> str:
    """A file of weights, or those of a folder, in MiB."""
    files = [place] if place.is_file() else [*place.glob("*.safetensors"), *place.glob("*.bin")]
    return f"{place}: {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


class _Loading(logging.Handler):
    """Prints what the hub says about the weights while it loads them."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line a record."""
        _line("loading", record.getMessage())


def _load(visit: Visit) -> InstructionTracker:
    from trackgpt.hub import log
    from trackgpt.session.playback import InstructionTracker

    handler, level = _Loading(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        return InstructionTracker.from_pretrained(visit.model, device=visit.device, dtype=visit.dtype)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _self_test(visit: Visit) -> str:
    from trackgpt.geometry.masks import box_of
    from trackgpt.synthtrack.clips import make_case
    from trackgpt.systems.imat import Imat
    from trackgpt.systems.pointed import Pointed
    from trackgpt.systems.qtrack import QTrack
    from trackgpt.systems.reasoningtrack import ReasoningTrack

    tracker, clip = _load(visit), make_case(1, frames=FRAMES).clip
    frames, thing = list(clip.frames), clip.ids[0] == clip.ids[0].max()
    shown = isinstance(tracker.model, Pointed | ReasoningTrack)
    begun = time.perf_counter()
    session = tracker.open(frames)
    try:
        session.say(**({"box": box_of(thing)} if shown else {"text": "the biggest thing"}))
        results = list(session)
    finally:
        session.close()
    seconds = time.perf_counter() - begun
    scores = [item.score for result in results for item in result.objects]
    # A score that is no number is written as none.
    if len(results) != len(frames) or None in scores:
        raise ModelError(
            f"{visit.model}: {len(results)} of {len(frames)} frames, scores {scores}; the weights are damaged"
        )
    said = f"{len(results)} frames in {seconds:.2f} s, {len(results) / seconds:.0f} fps"
    if isinstance(tracker.model, Imat):
        said += _licence(tracker.model.config.grounder, tracker.model.config.grounder_licence)
    if isinstance(tracker.model, QTrack):
        said += _licence(tracker.model.config.policy, tracker.model.config.policy_licence)
    return said


def _licence(reader: str, licence: str) -> str:
    return f"; licence of {reader}: {licence or 'not known; read its card'}"
