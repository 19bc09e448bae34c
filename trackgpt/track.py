"""A track between two frames: everything it knows, frozen, in one file of safetensors and JSON.

The loop never looks inside memory and record; the system that wrote them names their classes when they are read back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.files import replacing
from trackgpt.types import Cue, Prompt, Target, VisualPrompt

VERSION = 2
OWN = (Prompt, VisualPrompt, Cue, Target)
"""Classes that every state may hold."""


@dataclass(frozen=True)
class TrackState:
    """A track between two frames. Equal states and frames give equal bits, whatever happened in between.

    Attributes:
        memory: what the perception handed on, a frozen dataclass of the system (see `trackgpt.online.Memory`).
        record: what the arbiter keeps, a frozen dataclass of the system.
        frame: the number of steps so far; no index of the source, whose frames may be unreadable or told twice of.
        targets: all identities, active ones in the order of the perception's rows.
        cue: what is in force; its text is what the person was told.
        prompts: everything said on the way here, in order.
        next_id: the next identity to give out.
    """

    memory: Any
    record: Any
    frame: int = 0
    targets: tuple[Target, ...] = ()
    cue: Cue = Cue()
    prompts: tuple[Prompt, ...] = ()
    next_id: int = 1

    @property
    def active(self) -> tuple[Target, ...]:
        """The targets that are looked for on every frame."""
        return tuple(target for target in self.targets if target.active)

    @property
    def prompt(self) -> Prompt:
        """What is in force: the prompt that named what is tracked, or the last one that named anything."""
        named = (prompt for prompt in reversed(self.prompts) if prompt.kind not in ("drop", "absence"))
        return self.active[0].prompt if self.active else next(named, Prompt())

    @property
    def text(self) -> str:
        """The words in force."""
        return self.prompt.text

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held: constant over a video for a given number of targets and prompts."""
        return int(self.memory.nbytes) + sum(array.nbytes for array in _arrays((self.cue, self.record, self.prompts)))

    def save(self, path: str | Path, note: str = "") -> None:
        """Write to one file of exactly this name, whole or not at all; `note` can be read back by `note_of`.

        Arrays and tensors of any dtype are stored as safetensors, everything else as JSON in the file's metadata:
        dataclasses, tuples, lists, dictionaries with plain keys, text, numbers and None. No pickles.

        Raises:
            TypeError: memory or record holds something else.
            OutputError: OUT02, the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors: dict[str, Any] = {}
        written = json.dumps({"version": VERSION, "state": _plain(self, tensors)})
        with replacing(Path(path)) as part:
            try:
                save_file(tensors, part, {"trackgpt": written} | ({"note": note} if note else {}))
            except SafetensorError as error:  # what the system refused, in its words
                raise OSError(str(error)) from error

    @classmethod
    def load(cls, path: str | Path, kinds: Iterable[type] = ()) -> TrackState:
        """Read what `save` wrote, tensors on the CPU.

        Args:
            path: the file.
            kinds: every dataclass that memory and record may consist of (`trackgpt.online.Tracker.kinds`); the file
                can make no others.

        Raises:
            InputError: the file is not a saved track, or one of another system.
        """
        from safetensors import SafetensorError, safe_open

        known = {kind.__name__: kind for kind in (cls, *OWN, *kinds)}
        try:
            with safe_open(path, "pt") as file:
                written = json.loads((file.metadata() or {})["trackgpt"])
                if written["version"] != VERSION:
                    raise ValueError(f"version {written['version']}, this trackgpt reads {VERSION}")
                state = _restored(written["state"], file.get_tensor, known)
            if not isinstance(state, cls) or not all(isinstance(each, Target) for each in state.targets):
                raise TypeError(f"it holds a {type(state).__name__}")
            if not all(isinstance(each, Prompt) for each in state.prompts) or not isinstance(state.cue, Cue):
                raise TypeError("its prompts or its cue are none")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a saved track of this system ({error}); wanted a file of TrackState.save"
            ) from error
        return state


def note_of(path: str | Path) -> str:
    """The note that was saved with a state, "" where there was none.

    Raises:
        InputError: the file is not a saved track.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("note", ""))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a saved track ({error}); wanted a file of TrackState.save") from error


def _arrays(value: Any) -> Iterator[Any]:
    """All arrays and tensors in a value of `TrackState.save`."""
    if is_dataclass(value):
        value = [getattr(value, each.name) for each in fields(value)]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)
    elif hasattr(value, "nbytes"):
        yield value


def _plain(value: Any, tensors: dict[str, Any]) -> Any:
    """The value in JSON's types; arrays are put into `tensors` under a number."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_plain(each, tensors) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(each, tensors) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, tensors), _plain(each, tensors)] for key, each in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        held = {each.name: _plain(getattr(value, each.name), tensors) for each in fields(value)}
        return {"class": type(value).__name__, "fields": held}
    return _stored(value, tensors)


def _stored(value: Any, tensors: dict[str, Any]) -> dict[str, str]:
    import torch

    name = str(len(tensors))
    if isinstance(value, np.ndarray | np.generic):
        tensors[name] = torch.from_numpy(np.array(value, order="C"))
        return {"scalar" if isinstance(value, np.generic) else "array": name}
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # a view would drag its whole storage along
        return {"tensor": name}
    raise TypeError(
        f"a {type(value).__name__} cannot be saved with a track; wanted dataclasses, arrays or plain values"
    )


def _restored(value: Any, tensor: Any, known: dict[str, type]) -> Any:
    if isinstance(value, list):
        return [_restored(each, tensor, known) for each in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        if value["class"] not in known:
            raise TypeError(f"it holds a {value['class']}, which is none of {', '.join(sorted(known))}")
        return known[value["class"]](**{k: _restored(v, tensor, known) for k, v in value["fields"].items()})
    ((kind, held),) = value.items()
    if kind == "float":
        return float(held)
    if kind == "tuple":
        return tuple(_restored(each, tensor, known) for each in held)
    if kind == "dict":
        return {_restored(key, tensor, known): _restored(each, tensor, known) for key, each in held}
    found = tensor(held)
    return found if kind == "tensor" else found.numpy() if kind == "array" else found.numpy()[()]
