"""Names to models: what ships inside the package, what lies in a folder, what a hub holds.

A memory segmenter (`nano-memory`, a SAM 2.1) follows what is pointed at; a TrackGPT reads words. A whole TrackGPT has
one name. A plain VLM and a SAM checkpoint together make one, named `BRAIN+PERCEPTION`, e.g.
`llava-hf/llava-1.5-7b-hf+facebook/sam-vit-huge`, so that everything that takes the name of a model takes a pair too.
A grounder and a memory segmenter together are IMAT, named `imat:GROUNDER+SEGMENTER`, e.g.
`imat:yolox_nano.onnx+nano-memory`. A policy, alone or with a memory segmenter, is QTrack, named `qtrack:POLICY` or
`qtrack:POLICY+SEGMENTER`, e.g. `qtrack:Qwen/Qwen3-VL-4B-Instruct+nano-memory`. A box tracker with a describer is
ReasoningTrack, named `reasoningtrack:TRACKER[+DESCRIBER[+GROUNDER]]`; the describer is a VLM, a TrackGPT, an endpoint
such as `http://localhost:8000/v1#MODEL`, or `template`, which changes no words and is taken where none is named.
`reasoningtrack-nano` and `qtrack-nano` are two whose parts all ship.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.errors import ModelError, OutputError, UsageError
from trackgpt.fetching import is_offline
from trackgpt.files import refuse_existing, refuse_strangers, refuse_to_hold
from trackgpt.presets import PRESETS, here, preset_of, pull

if TYPE_CHECKING:
    import torch

    from trackgpt.config import Execution
    from trackgpt.online import System
    from trackgpt.perception.box_tracker import BoxTracker
    from trackgpt.perception.box_transformer import BoxTransformer
    from trackgpt.perception.memory_segmenter import KeepingNetwork
    from trackgpt.perception.segmenter import Segmenter
    from trackgpt.reasoners.describer import Describer
    from trackgpt.reasoners.grounder import Grounder
    from trackgpt.systems.imat import Imat
    from trackgpt.systems.pointed import Pointed
    from trackgpt.systems.qtrack import QTrack
    from trackgpt.systems.reasoningtrack import ReasoningTrack
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.weights import LoadReport

ASSETS = Path(__file__).parent / "assets"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
IMAT = "imat:"
"""What the name of a grounder and a segmenter begins with."""
QTRACK = "qtrack:"
"""What the name of a policy begins with."""
REASONINGTRACK = "reasoningtrack:"
"""What the name of a box tracker with a describer begins with."""
FORMS = {
    IMAT: f"{IMAT}GROUNDER+SEGMENTER: a detector (ONNX file), an open-vocabulary detector, a VLM or a TrackGPT, and a "
    "memory segmenter such as nano-memory",
    QTRACK: f"{QTRACK}POLICY or {QTRACK}POLICY+SEGMENTER: a VLM that answers with boxes, such as "
    "Qwen/Qwen3-VL-4B-Instruct, and a memory segmenter such as nano-memory",
    REASONINGTRACK: f"{REASONINGTRACK}TRACKER[+DESCRIBER[+GROUNDER]]: box-nano, a folder or a checkpoint of a box "
    "tracker; a VLM, an endpoint's address or a TrackGPT; what an IMAT's grounder may be",
}
"""What the name of a system of several parts consists of."""
TEMPLATE = "template"
"""The describer that changes no words."""
NANO_MEMORY = "nano-memory"
"""The shipped model that follows what is pointed at."""
BOX_NANO = "box-nano"
"""The shipped box tracker, which reads words beside the first box."""
POLICY_NANO = "policy-nano"
"""The shipped policy, which answers with boxes."""
SYSTEMS = {
    "qtrack-nano": f"{QTRACK}{POLICY_NANO}",
    "reasoningtrack-nano": f"{REASONINGTRACK}{BOX_NANO}+nano+nano",
}
"""Names of whole systems whose parts all ship. In ReasoningTrack's, nano describes, and finds words without a box."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shipped:
    """A model inside the package."""

    name: str
    folder: Path
    about: str


def shipped() -> tuple[Shipped, ...]:
    """The models that need no download."""
    return (
        Shipped("nano", ASSETS / "nano", "a whole TrackGPT of under 9 M parameters, trained on SynthTrack alone"),
        Shipped(NANO_MEMORY, ASSETS / NANO_MEMORY, "follows real objects that it is shown by a box, a mask or points"),
        Shipped(POLICY_NANO, ASSETS / POLICY_NANO, "answers words with boxes, frame by frame, as qtrack-nano"),
        Shipped(BOX_NANO, ASSETS / BOX_NANO, "follows a box and reads words about it, as part of reasoningtrack-nano"),
    )


def pair(model: str | Path, perception: str | Path | None) -> str:
    """The one name of a brain and its perception; without a perception the model's own, a preset's in full."""
    return model_of(model) if perception is None else f"{model}+{perception}"


def grounded(grounder: str | Path, segmenter: str | Path) -> str:
    """The one name of IMAT: a grounder and a memory segmenter, which is nano-memory where none is named, or nano is.

    Raises:
        UsageError: the segmenter has a grounder already.
    """
    named = NANO_MEMORY if str(segmenter) in ("", "nano") else model_of(segmenter)
    if named.startswith((IMAT, QTRACK, REASONINGTRACK)):
        reader = {IMAT: "grounder", QTRACK: "policy"}.get(f"{named.partition(':')[0]}:", "describer")
        raise UsageError(f"{segmenter} has a {reader} already; leave {grounder} out, or name a memory segmenter")
    return f"{IMAT}{grounder}+{named}"


def parts_of(name: str | Path) -> list[str]:
    """The names of the parts of a model, each of which `find` knows: no endpoints, and no describer of templates."""
    model = model_of(name)
    named = model.removeprefix(IMAT).removeprefix(QTRACK).removeprefix(REASONINGTRACK)
    parts = [named] if Path(named).exists() else named.split("+")
    return [part for part in parts if not (model.startswith(REASONINGTRACK) and _is_nowhere(part))]


def _is_nowhere(describer: str) -> bool:
    """Whether a describer has no files here."""
    return describer == TEMPLATE or "://" in describer


def model_of(name: str | Path) -> str:
    """A model's name in full: of a preset or a shipped system the names of its parts; any other is left as it is."""
    if str(name) in SYSTEMS:
        return SYSTEMS[str(name)]
    preset = preset_of(name)
    return str(name) if preset is None else grounded(preset.grounder.repo, preset.segmenter.repo)


def find(name: str | Path, download: bool = True) -> Path:
    """Where a model lies: the folder of a shipped name, a folder or file itself, or the cache of a hub's id.

    Args:
        name: of a model.
        download: what is not in the cache is fetched, unless HF_HUB_OFFLINE is set.

    Raises:
        ModelError: MD01, there is no such thing, and what to do about it.
    """
    for model in shipped():
        if str(name) == model.name:
            if not model.folder.is_dir():
                raise ModelError(f"{name}: {model.folder} is missing; reinstall the package", "MD01")
            return model.folder
    place = Path(name)
    if place.exists():
        return place
    if place.suffix.lower() == ".onnx":
        raise ModelError(f"{name}: no such file", "MD01")
    if HUB_ID.fullmatch(str(name)):
        return _of_hub(str(name), download)
    if str(name) in SYSTEMS:
        raise ModelError(
            f"{name} is a whole system, and no part of one; its own parts are {SYSTEMS[str(name)]}", "MD01"
        )
    names = ", ".join([*(model.name for model in shipped()), *SYSTEMS])
    public = ", ".join(preset.name for preset in PRESETS)
    raise ModelError(
        f"{name}: not a model on this machine; shipped: {names}; by `trackgpt models pull`: {public}; or pass a folder "
        "of save_pretrained",
        "MD01",
    )


def _of_hub(name: str, download: bool) -> Path:
    """The folder of a hub's id, which is fetched where that is wanted and possible."""
    folder = here(name)
    if folder is not None:
        return folder
    if download and not is_offline():
        return pull(name)
    whole = next((preset.name for preset in PRESETS if name in {part.repo for part in preset.parts}), "")
    among = f", or trackgpt models pull {whole}, which it is a part of" if whole else ""
    raise ModelError(
        f"{name}: not a model on this machine, neither a folder nor in the hub's cache; with a network, run: "
        f"trackgpt models pull {name}{among}; or copy its folder here and pass that",
        "MD01",
    )


def load_model(name: str | Path = "nano", device: str = "auto", **execution: Any) -> System:
    """A model ready for inference: folded, in evaluation mode, on the device.

    What became of every weight is logged at INFO.

    Args:
        name: a shipped name, a preset (`trackgpt.presets`), a folder, the hub's id of a SAM 2.1, or BRAIN+PERCEPTION,
            each of them a folder, a file or a hub's id; "imat:", "qtrack:" and "reasoningtrack:" in front of others
            (see the module).
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        execution: fields of `trackgpt.config.Execution`; float32 in plain PyTorch by default.

    Raises:
        UsageError: a brain without a perception, or a perception beside a whole TrackGPT; an execution that is not
            known, that does not go together, or whose packages are missing.
        ModelError: MD01 something is missing, MD02 it is damaged, MD06 it is of a kind that is not supported (see
            `TrackGPT.from_pretrained`, `load_brain`, `load_segmenter`); MD04 the device is not there.
    """
    from trackgpt.config import Execution
    from trackgpt.reasoners.brain_quantised import BITS, require_quantised
    from trackgpt.settings import from_dict

    name, how = model_of(name), from_dict(Execution, execution, "execution")
    chosen = chosen_device(device)
    _check_backend(how, chosen)
    if how.dtype in BITS:
        require_quantised(how.dtype, chosen)
    place = _device(chosen)
    loaders: dict[str, Callable[[str, Execution, torch.device], System]]
    loaders = {IMAT: _load_imat, QTRACK: _load_qtrack, REASONINGTRACK: _load_reasoningtrack}
    if (system := next((each for each in loaders if str(name).startswith(each)), None)) is not None:
        with _naming(str(name), FORMS[system]):
            return loaders[system](str(name), how, place)
    if (network := find_network(name)) is not None:
        return _load_pointed(name, *network, how, place)
    _refuse_box_tracker(name)
    return _load_trackgpt(name, how, place)


def _refuse_box_tracker(name: str | Path) -> None:
    """Refuse a box tracker by itself.

    Raises:
        UsageError: it is one.
    """
    from trackgpt.perception.box_transformer import is_box_transformer

    if ("+" not in str(name) or Path(name).exists()) and is_box_transformer(find(name)):
        raise UsageError(
            f"{name} is a box tracker, which is a part of ReasoningTrack: -m {REASONINGTRACK}{name}, or, with nano's "
            f"brain to describe and to find words, -m {REASONINGTRACK}{name}+nano+nano"
        )


@contextmanager
def _naming(name: str, form: str) -> Iterator[None]:
    """Say of a part that is not there whose part it is, and what may be there."""
    try:
        yield
    except ModelError as error:
        if error.code not in ("MD01", "MD06"):
            raise
        found = error.message.partition("; shipped: ")[0]  # most of which fit no part of this system
        raise ModelError(f"{name}: {found}; such a name is {form}", error.code) from error


def load_trackgpt(name: str | Path = "nano", device: str = "auto", **execution: Any) -> TrackGPT:
    """`load_model` where nothing but a TrackGPT will do.

    Raises:
        UsageError: the name is that of another system; see also `load_model`.
        ModelError: see `load_model`.
    """
    from trackgpt.systems.trackgpt import TrackGPT

    model = load_model(name, device, **execution)
    if not isinstance(model, TrackGPT):
        raise UsageError(f"{name} is no TrackGPT, such as nano; a memory segmenter reads no words and is given as -m")
    return model


def find_network(name: str | Path) -> tuple[Any, Path] | None:
    """The class and the folder of a memory network; None for a name of something else.

    Raises:
        ModelError: MD01, there is no such model.
    """
    if "+" in str(name) and not Path(name).exists():
        return None
    from trackgpt.perception.mask_propagation import is_nano_memory
    from trackgpt.perception.nano_memory import NanoMemory

    folder = find(name)
    if is_nano_memory(folder):
        return NanoMemory, folder
    if not is_brain(folder):  # nor anything else in transformers' layout
        return None
    from trackgpt.perception.sam2_memory import Sam2Memory, is_sam2_video

    return (Sam2Memory, folder) if is_sam2_video(folder) else None


def _load_pointed(name: str | Path, kind: Any, folder: Path, how: Execution, place: torch.device) -> Pointed:
    """A memory network of a folder as a system.

    Raises:
        UsageError: an execution that only a TrackGPT has.
    """
    from trackgpt.precision import inference_dtype
    from trackgpt.reasoners.brain_quantised import BITS
    from trackgpt.systems.pointed import Pointed

    if how.backend != "torch" or how.compile or how.dtype in BITS:
        raise UsageError(f"{name}: a memory segmenter runs in torch, not compiled, in float32 or bfloat16")
    dtype, one_dtype = inference_dtype(how.dtype, place), "dtype" not in signature(kind.from_pretrained).parameters
    if one_dtype and how.dtype not in ("float32", "auto"):
        raise UsageError(f"{name} computes in float32; leave the dtype {how.dtype} out")
    if "device" in signature(kind.from_pretrained).parameters:  # what is packed for a CPU cannot be moved later
        return Pointed(kind.from_pretrained(folder, device=place), str(name))
    network = kind.from_pretrained(folder) if one_dtype else kind.from_pretrained(folder, dtype=dtype)
    return Pointed(network if place.type == "cpu" else network.to(place), str(name))


def _load_imat(name: str, how: Execution, place: torch.device) -> Imat:
    """A grounder and a memory network of a name.

    Raises:
        UsageError: it names no memory segmenter.
    """
    from trackgpt.systems.imat import Imat

    grounder, plus, segmenter = name.removeprefix(IMAT).rpartition("+")
    network = _load_keeping(segmenter, how, place) if plus and grounder else None
    if network is None:
        raise UsageError(f"{name}: wanted {FORMS[IMAT]}")
    return Imat(load_grounder(grounder, place, how.dtype), network, name)


def _load_qtrack(name: str, how: Execution, place: torch.device) -> QTrack:
    """A policy of a name, and the memory network behind it, if one is named.

    Raises:
        UsageError: it names no policy, or something else than a memory segmenter behind it.
        ModelError: see `VlmPolicy.from_pretrained`.
    """
    from trackgpt.precision import inference_dtype
    from trackgpt.reasoners.brain_quantised import BITS
    from trackgpt.reasoners.vlm_policy import VlmPolicy
    from trackgpt.systems.qtrack import QTrack

    policy, *followed = parts_of(name)
    network = _load_keeping(followed[0], how, place) if len(followed) == 1 else None
    if not policy or len(followed) > 1 or (followed and network is None):
        raise UsageError(f"{name}: wanted {FORMS[QTRACK]}")
    if how.backend != "torch" or how.compile or how.dtype in BITS:
        raise UsageError(f"{name}: a policy runs in torch, not compiled, in float32 or bfloat16")
    return QTrack(VlmPolicy.from_pretrained(find(policy), place, inference_dtype(how.dtype, place)), network, name)


def _load_reasoningtrack(name: str, how: Execution, place: torch.device) -> ReasoningTrack:
    """A box tracker of a name, its describer, and a grounder if one is named.

    Raises:
        UsageError: it names more or fewer parts, or an execution that box trackers do not have.
        ModelError: see `load_box_tracker`, `VlmDescriber.from_pretrained` and `load_grounder`.
    """
    from trackgpt.reasoners.brain_quantised import BITS
    from trackgpt.systems.reasoningtrack import ReasoningTrack

    named = name.removeprefix(REASONINGTRACK)
    tracker, *others = [named] if Path(named).exists() else named.split("+")
    if not tracker or len(others) > 2 or not all(others):
        raise UsageError(f"{name}: wanted {FORMS[REASONINGTRACK]}")
    if how.backend != "torch" or how.compile or how.dtype in BITS:
        raise UsageError(f"{name}: a box tracker runs in torch, not compiled, its describer in float32 or bfloat16")
    grounder = load_grounder(others[1], place, how.dtype) if len(others) > 1 else None
    describer = load_describer(others[0] if others else TEMPLATE, place, how.dtype)
    return ReasoningTrack(load_box_tracker(tracker, place), describer, grounder, name)


def load_box_tracker(name: str | Path, device: torch.device) -> BoxTracker:
    """A box tracker, in float32, folded for inference.

    Args:
        name: see `load_box_network`.
        device: where it computes.

    Raises:
        ModelError: see `load_box_network`.
    """
    from trackgpt.perception.box_tracker import BoxTracker

    network = load_box_network(name)
    network.fold()
    return BoxTracker(network.to(device))


def load_box_network(name: str | Path) -> BoxTransformer:
    """The network of a box tracker with its tokenizer, in float32, on the CPU, in evaluation mode.

    Args:
        name: a folder that training writes, or a checkpoint of OSTrack, ODTrack or DUTrack, with the files of the
            tokenizer beside it where it reads words.

    Raises:
        ModelError: MD01 it is not there, or its tokenizer is missing; MD02 it is damaged, or the tokenizer has more
            word pieces than the model; MD06 it is of another kind.
    """
    from trackgpt.perception.box_checkpoints import CHECKPOINTS, load_box_checkpoint
    from trackgpt.perception.box_transformer import BoxTransformer, is_box_transformer
    from trackgpt.reasoners.brain_weights import load_tokenizer

    place = find(name)
    if place.is_file() and place.suffix in CHECKPOINTS:
        network, folder = load_box_checkpoint(place)[0], place.parent
    elif is_box_transformer(place):
        network, folder = BoxTransformer.from_pretrained(place), place
    else:
        wanted = "a folder that training writes, or a checkpoint of OSTrack, ODTrack or DUTrack"
        raise ModelError(f"{name}: no box tracker; wanted {wanted}", "MD06")
    if network.config.words:
        network.tokenizer = load_tokenizer(folder, own=folder == place, answers=False)
        if len(network.tokenizer) > network.config.vocabulary:
            found = f"{len(network.tokenizer):,} word pieces, and the model knows {network.config.vocabulary:,}"
            raise ModelError(f"{folder}: the tokenizer has {found}; use the one that it was trained with", "MD02")
    return network


def load_describer(name: str, device: torch.device, dtype: str = "float32") -> Describer:
    """What keeps a description true: "template", an endpoint's address, a VLM by folder or hub's id, or a TrackGPT.

    Raises:
        UsageError: the address is none.
        ModelError: see `VlmModel.from_pretrained`.
    """
    from trackgpt.precision import inference_dtype
    from trackgpt.reasoners.describer import EndpointDescriber, TemplateDescriber, VlmDescriber
    from trackgpt.systems.reasoningtrack import BrainDescriber

    if name == TEMPLATE:
        return TemplateDescriber()
    if _is_nowhere(name):
        return EndpointDescriber(name)
    if is_brain(folder := find(name)):
        return VlmDescriber.from_pretrained(folder, device, inference_dtype(dtype, device))
    return BrainDescriber(load_trackgpt(name, str(device), dtype=dtype), name)


def _load_keeping(segmenter: str, how: Execution, place: torch.device) -> KeepingNetwork | None:
    """The memory network of a name, which can be told what to remember; None for a name of something else.

    Raises:
        UsageError: it cannot be told.
    """
    from trackgpt.perception.memory_segmenter import KeepingNetwork

    if (network := find_network(segmenter)) is None:
        return None
    one_dtype = "dtype" not in signature(network[0].from_pretrained).parameters
    followed = _load_pointed(segmenter, *network, replace(how, dtype="float32") if one_dtype else how, place).network
    if not isinstance(followed, KeepingNetwork):
        raise UsageError(f"{segmenter}: cannot be told what to remember, so nothing that reads words goes with it")
    return followed


def load_grounder(name: str | Path, device: torch.device, dtype: str = "float32") -> Grounder:
    """What finds words on an image.

    Args:
        name: an ONNX file of a detector; a folder or the hub's id of an open-vocabulary detector or a VLM; a TrackGPT.
        device: where it computes; detectors in ONNX files compute on the CPU.
        dtype: see `Execution`.

    Raises:
        ModelError: MD01 there is none; MD02 it is damaged; MD06 it is of a kind that finds nothing by words.
    """
    from trackgpt.precision import inference_dtype
    from trackgpt.reasoners.detector import OnnxDetector, is_onnx
    from trackgpt.reasoners.detector_grounder import DetectorGrounder
    from trackgpt.reasoners.expression import shorter
    from trackgpt.reasoners.open_vocabulary import OpenVocabularyGrounder, is_open_vocabulary
    from trackgpt.reasoners.vlm import VlmGrounder, is_vlm_grounder
    from trackgpt.systems.imat import TrackerGrounder

    if str(name) in SYSTEMS:
        find(name)  # says what the name is for
    if len(parts_of(name)) > 1:  # a brain and its perception
        return TrackerGrounder(load_trackgpt(name, str(device), dtype=dtype), str(name))
    place = find(name)
    if is_onnx(place):
        return DetectorGrounder(OnnxDetector.from_file(place))
    if is_open_vocabulary(place):
        return OpenVocabularyGrounder.from_pretrained(place, device, inference_dtype(dtype, device), shorter=shorter)
    if is_vlm_grounder(place):
        return VlmGrounder.from_pretrained(place, device, inference_dtype(dtype, device))
    return TrackerGrounder(load_trackgpt(name, str(device), dtype=dtype), str(name))


def _load_trackgpt(name: str | Path, how: Execution, place: torch.device) -> TrackGPT:
    from trackgpt.precision import inference_dtype
    from trackgpt.reasoners.brain_quantised import BITS, quantise
    from trackgpt.weights import some

    model, report = load_reported(name, inference_dtype(how.dtype, place))
    for line in report.lines():
        log.info(line)
    if report.changed:
        log.warning(f"{name}: weights are in the model otherwise than in its files: {some(report.changed)}")
    model.fold()
    if how.dtype in BITS:
        quantise(model.brain, how.dtype, place)
    return _run_as(model.to(place), how, place)


def chosen_device(name: str) -> str:
    """What "auto" means here."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _device(name: str) -> torch.device:
    """The device of a name, which is there.

    Raises:
        ModelError: MD04, it is not.
    """
    import torch

    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name}: {reason}; --device cpu always works", "MD04") from error
    return place


def _check_backend(how: Execution, device: str) -> None:
    """Refuse, before anything is loaded, what ONNX Runtime is not used for."""
    if how.backend == "torch":
        return
    from trackgpt.perception.onnx_segmenter import PACKAGES
    from trackgpt.version import require

    require("onnx", *PACKAGES)
    if device != "cpu" or how.dtype not in ("float32", "bfloat16", "auto") or how.compile:
        raise UsageError(f"backend {how.backend}: runs on a CPU, not quantised, not compiled; leave those options out")


def _run_as(model: TrackGPT, how: Execution, device: torch.device) -> TrackGPT:
    """Make a folded model on its device run as asked."""
    if how.backend == "onnxruntime":
        from trackgpt.perception.onnx_segmenter import onnx_segmenter

        model.segmenter = onnx_segmenter(model.segmenter)
    elif how.compile:
        compile_segmenter(model.segmenter, device.type)
    if how.packed and not how.compile and device.type == "cpu":
        model.pack()
    return model


def compile_segmenter(segmenter: Segmenter, device: str) -> None:
    """Have encoder and decoder compiled at their first frame, for each number of frames or targets anew.

    On a GPU the decoder, a hundred small kernels, becomes one CUDA graph for each number of targets, which is started
    at once: what it returns is overwritten by the next frame, so it must be read before (`QueryPerception` does).

    Args:
        segmenter: on its device.
        device: its type, e.g. "cuda".
    """
    segmenter.image_encoder.compile(dynamic=False)
    segmenter.mask_decoder.compile(dynamic=False, mode="reduce-overhead" if device == "cuda" else "default")


def load_reported(name: str | Path, dtype: torch.dtype | None = None) -> tuple[TrackGPT, LoadReport]:
    """A model as it is stored, on the CPU, not folded, so that it can be trained and saved; and what was loaded.

    Args:
        name: see `load_model`. The adapter of a tuned model is put on its frozen models and merged.
        dtype: of the weights in memory; float32 by default, whatever they are stored as.

    Raises:
        UsageError, ModelError: see `load_model`.
    """
    import torch

    from trackgpt.reasoners.lora import merge_lora
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.systems.trackgpt_tuned import is_tuned
    from trackgpt.weights import LoadReport

    brain, plus, perception = str(name).partition("+")
    whole = Path(name).exists() or not plus
    folder = find(name if whole else brain)
    if whole and is_tuned(folder):
        model = load_tuned(folder, dtype=dtype)
        merge_lora(model.brain)
        return model, LoadReport(tuple(sorted(model.state_dict())))
    if not is_brain(folder):
        if not whole:
            raise UsageError(f"{brain} is a whole model, and needs no perception beside it; leave {perception} out")
        model = TrackGPT.from_pretrained(folder, dtype or torch.float32)
        return model, LoadReport(tuple(sorted(model.state_dict())))
    if whole:
        from trackgpt.reasoners.vlm import TEMPLATE_FILE, find_dialect

        if (folder / TEMPLATE_FILE).is_file():
            policy = bool(find_dialect(folder).query)
            what, use = ("policy", f"-m qtrack:{name}") if policy else ("grounder", f"--grounder {name}")
            raise UsageError(f"{name} is a {what}, which answers with boxes: use it as {use}")
        raise UsageError(f"{name} is a brain alone; give it a SAM: --perception facebook/sam-vit-huge, or a .pth file")
    return compose(folder, find(perception), str(name), dtype)


def load_tuned(folder: str | Path, base: str | Path = "", dtype: torch.dtype | None = None) -> TrackGPT:
    """The adapter of a tuned model on its frozen models, LoRA not merged, so that training can go on.

    Args:
        folder: see `trackgpt.systems.trackgpt_tuned`.
        base: name of the frozen models (see `load_model`), if they are not where the folder says.
        dtype: see `load_reported`.

    Raises:
        ModelError: MD01 the frozen models are not there; MD02 the folder is damaged, or was tuned on others.
    """
    from trackgpt.systems.trackgpt_tuned import apply_tuned, base_of

    model, _ = load_reported(base or base_of(folder), dtype)
    return apply_tuned(model, folder)


def places(name: str | Path) -> list[Path]:
    """Where a model of `load_model` is read from: its folder, or those of a brain and its perception.

    Raises:
        ModelError: MD01, see `find`.
    """
    return [find(part) for part in ([name] if Path(name).exists() else str(name).split("+"))]


def refuse_to_replace(out: Path, overwrite: bool, reads: Iterable[Path] = ()) -> None:
    """Refuse a folder that a whole model may not be written to, before anything slow is done for it.

    Args:
        out: the folder.
        overwrite: a whole TrackGPT that is there may be replaced; other files stay.
        reads: what the model is made from.

    Raises:
        OutputError: OUT01, the folder holds something and `overwrite` is off, or a model of another kind, or what is
            read.
    """
    from trackgpt.reasoners.brain_weights import TOKENIZER_FILES
    from trackgpt.systems.trackgpt import CONFIG_FILE, WEIGHTS_FILE, read_config
    from trackgpt.systems.trackgpt_tuned import is_tuned

    refuse_existing(out, overwrite)
    refuse_to_hold(out, reads)
    refuse_strangers(out, (WEIGHTS_FILE, *TOKENIZER_FILES), (CONFIG_FILE,), "it is no whole TrackGPT")
    if not (out / CONFIG_FILE).exists():
        return
    try:
        read_config(out / CONFIG_FILE)
        ours = not is_tuned(out)
    except ModelError:
        ours = False
    if not ours:
        raise OutputError(f"{out}: holds a model that is no whole TrackGPT; choose another folder", "OUT01")


def merge(
    adapter: str | Path,
    base: str | Path,
    out: str | Path,
    dtype: torch.dtype | None = None,
    merged: Callable[[], None] = lambda: None,
) -> None:
    """Make a whole model folder of an adapter: LoRA merged into the weights, everything in one file.

    Args:
        adapter: folder of the tuned model, as training writes it.
        base: name of the frozen models; empty for those the folder names.
        out: the whole model, as `TrackGPT.save_pretrained` writes it.
        dtype: store floating weights smaller.
        merged: called when all has been read and merged, before anything is written.

    Raises:
        ModelError: see `load_tuned`.
    """
    from trackgpt.reasoners.lora import merge_lora

    model = load_tuned(adapter, base)
    merge_lora(model.brain)
    merged()
    model.save_pretrained(out, dtype)


def is_brain(folder: Path) -> bool:
    """Whether a folder holds a plain VLM checkpoint (transformers layout) instead of a TrackGPT.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    from trackgpt.settings import read_json

    config = folder / "config.json"
    return config.is_file() and "model_type" in read_json(config)


def compose(
    brain_folder: Path, perception_path: Path, name: str = "trackgpt", dtype: torch.dtype | None = None
) -> tuple[TrackGPT, LoadReport]:
    """A TrackGPT of a brain and a SAM. What neither has starts at random, the same way each time.

    Args:
        brain_folder: see `load_brain`.
        perception_path: see `load_segmenter`.
        name: what the model is called in its configuration.
        dtype: see `load_reported`.

    Raises:
        ModelError: see `load_brain` and `load_segmenter`.
    """
    import torch

    from trackgpt.config import TrackGPTConfig
    from trackgpt.perception.checkpoints import load_segmenter
    from trackgpt.reasoners.brain_weights import load_brain
    from trackgpt.systems.trackgpt import TrackGPT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segmenter, seen = load_segmenter(perception_path, dtype or torch.float32)
        brain, read = load_brain(brain_folder, segmenter.config.decoder.hidden_size, dtype or torch.float32)
    config = TrackGPTConfig(name=name, brain=brain.config, perception=segmenter.config)
    return TrackGPT(config, brain, segmenter).eval(), read + seen.under("segmenter.")
