"""How ONNX files are run here: on the CPU, with a given number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def onnx_session(path: Path, threads: int) -> Any:
    """An ONNX file, ready to run; raises what ONNX Runtime does, whose errors have no class in common."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, and then said once
    # Threads that spin between frames take the cores that decode the video and read its masks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
