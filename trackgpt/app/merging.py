"""`trackgpt merge ADAPTER OUT`: an adapter and its frozen models become a model folder of its own."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from trackgpt.app.live import say
from trackgpt.errors import OutputError, UsageError
from trackgpt.files import refuse_to_hold
from trackgpt.systems.trackgpt_tuned import BASE_FILE, base_of, is_tuned

DTYPES = ("float32", "bfloat16")


def run(adapter: Path, out: Path, base: str, dtype: str, overwrite: bool) -> int:
    """Merge, saying each step, and print what was written.

    Args:
        adapter: folder that training wrote.
        out: folder of the whole model.
        base: name of the frozen models; empty for those the folder names.
        dtype: "float32" or "bfloat16", how floating weights are stored.
        overwrite: replace a whole TrackGPT that is in `out`; nothing else there is touched.

    Raises:
        UsageError: the dtype is unknown, or `adapter` is none, or is `out` itself.
        ModelError: see `trackgpt.hub.load_tuned`.
        OutputError: OUT01, see `trackgpt.hub.refuse_to_replace`; OUT02 it cannot be written.
    """
    import torch

    from trackgpt.hub import merge, places, refuse_to_replace

    if dtype not in DTYPES:
        raise UsageError(f"--dtype: `{dtype}` is none of {', '.join(DTYPES)}")
    if not is_tuned(adapter):
        raise UsageError(f"{adapter}: no adapter, it has no {BASE_FILE}; give the model/ folder of a run with LoRA")
    if adapter.resolve() == out.resolve():
        raise UsageError(f"{out}: the merged model cannot take the place of its adapter; choose another folder")
    frozen = base or base_of(adapter)
    refuse_to_replace(out, overwrite, [adapter])
    refuse_to_hold(out, places(frozen))
    say(f"1/2 reading {adapter} and the frozen models, {frozen}")
    try:
        merge(adapter, base, out, getattr(torch, dtype), lambda: say(f"2/2 writing {out}"))
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{out}: cannot be written ({error}); choose another folder", "OUT02") from error
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    print(f"size_mib={size / 2**20:.1f} dtype={dtype} out={out}")
    return 0
