"""trackgpt: tell a video tracker what you mean, or point at it, and it follows the right object, online.

    import trackgpt

    tracker = trackgpt.load("nano")
    with tracker.open("race.mp4") as playback:
        print(playback.say("who will win the race?").text)
        for result in playback:
            print(result.index, [(o.id, o.box, o.score, o.state) for o in result.objects])
    playback.export("out", formats=["mp4", "davis", "coco", "mot"])

Importing the package loads neither torch nor transformers; `load` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackgpt.errors import TrackGPTError
from trackgpt.types import Clip, Cue, Prediction, Prompt, VisualPrompt
from trackgpt.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackgpt.session.playback import InstructionTracker

__all__ = ["Clip", "Cue", "Prediction", "Prompt", "TrackGPTError", "VisualPrompt", "load", "__version__"]


def load(
    model: str | Path = "nano",
    device: str = "auto",
    perception: str | Path | None = None,
    grounder: str | Path | None = None,
    settings: Sequence[str] = (),
    **execution: Any,
) -> InstructionTracker:
    """A tracker that follows instructions or what it is shown, from a shipped name, a folder, or a brain and a SAM.

    Args:
        model: "nano" (words), "nano-memory" (boxes, masks, points), a folder written by `save_pretrained`, a SAM 2.1
            ("facebook/sam2.1-hiera-tiny", or its folder), or a brain: the folder or hub id of a LLaVA, Qwen-VL, ...
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        perception: for a brain, a SAM: a `.pth` file, a folder or a hub's id.
        grounder: for a memory segmenter, what finds words on real video: the ONNX file of a detector, or the folder or
            hub's id of an open-vocabulary detector or a VLM.
        settings: rules of the system, each "key=value", as `--set` of the command line has them; see the README.
        execution: how it runs: `dtype` "float32" (default), "bfloat16" or "auto"; `backend` "torch" (default) or
            "onnxruntime"; `compile` False (default) or True; see `trackgpt.config.Execution`.

    Raises:
        UsageError: a brain without a perception, or a perception without a brain; an execution that cannot be. A
            setting that does not exist is refused where a session begins.
        ModelError: there is no such model, its weights are damaged, or the device is not there.
    """
    from trackgpt.hub import grounded, pair
    from trackgpt.session.playback import InstructionTracker

    name = pair(model, perception)
    named = grounded(grounder, name) if grounder else name
    return InstructionTracker.from_pretrained(named, device, settings, **execution)
