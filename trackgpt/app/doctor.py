"""`trackgpt doctor`: what is here, what works, and a 5-frame self-test."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from trackgpt.errors import TrackGPTError

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


def run(model: str) -> int:
    """Print the report; returns 0 when every check passed, else the exit code of the first that failed."""
    print(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        print(f"{name:13s} {_version(name)}")
    code = 0
    checks: dict[str, Callable[[], str]] = {
        "torchvision": _torchvision,
        "device": _device,
        "h264": _h264,
        "weights": lambda: _weights(model),
        "disk": _disk,
        "self-test": lambda: _self_test(model),
    }
    for name, check in checks.items():
        try:
            print(f"{name:13s} {check()}")
        except TrackGPTError as error:
            print(f"{name:13s} FAILED: {error}")
            code = code or error.exit_code
    print(f"ok={int(code == 0)} model={model}")
    return code


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _torchvision() -> str:
    found = _version("torchvision")
    if found == "not installed":
        return "not installed (not needed)"
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return f"{found} does not import ({reason}) and breaks transformers: pip uninstall torchvision"
    return f"{found} (not needed)"


def _device() -> str:
    import os

    import torch

    if torch.cuda.is_available():
        return (
            f"cuda: {torch.cuda.get_device_name(0)}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {load:.1f}"


def _h264() -> str:
    import av

    kinds = [
        kind
        for kind, mode in (("decode", "r"), ("encode", "w"))
        if _has_codec("h264" if mode == "r" else "libx264", mode)
    ]
    return f"{' and '.join(kinds) or 'missing'} (PyAV {av.__version__})"


def _has_codec(name: str, mode: str) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _weights(model: str) -> str:
    import hashlib

    from trackgpt.hub import find

    file = find(model) / "model.safetensors"
    if not file.exists():
        from trackgpt.errors import ModelError

        raise ModelError(f"{file}: missing; reinstall the package, or pass a folder of save_pretrained", "MD01")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{model}: {file.stat().st_size / 2**20:.1f} MiB, sha256 {digest[:16]}"


def _disk() -> str:
    return f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free here"


def _self_test(model: str) -> str:
    from trackgpt.app.session import InstructionTracker
    from trackgpt.data.synthtrack.clips import make_case

    tracker = InstructionTracker.from_pretrained(model)
    frames = make_case(1, frames=5).clip.frames
    begun = time.perf_counter()
    with tracker.open(list(frames)) as session:
        session.say("the biggest thing")
        results = list(session)
        session.close()
    seconds = time.perf_counter() - begun
    if len(results) != len(frames) or any(not np.isfinite(o.purport or 0.0) for r in results for o in r.objects):
        from trackgpt.errors import ModelError

        raise ModelError(
            f"{model}: the self-test gave {len(results)} of {len(frames)} frames or scores that are no numbers"
        )
    return f"tracked {len(results)} frames in {seconds:.2f} s"
