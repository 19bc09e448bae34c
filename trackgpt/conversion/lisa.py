"""LISA's checkpoints (Lai et al., 2023) as a TrackGPT, and back: `[SEG]` is `<TK>`, `text_hidden_fcs` is phi.

What comes in: a folder of dvlab-research/LISA, 7B or 13B, v0 or v1, merged or with separate LoRA weights (the output of
`zero_to_fp32.py`), in LLaVA's original key layout, usually without the vision tower, which is then OpenAI's CLIP.

What comes out is LISA* of the paper's tables: one [SEG] on the first frame segments all frames, with LISA's own decoder
(no Q_p, no Q_t, no rethinking). With `stage_2` these are on, and training can go on from there. Two traps of going on
from LISA's own code (its issues 85, 159 and 169) do not exist here: the loss weights belong to the training's
configuration and never to a model's, and the tuned mask decoder is a weight like any other, so nothing reloads SAM's.

The folder `lisa` inside the result keeps what LISA has and TrackGPT has not, and every name, for the way back.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trackgpt.config import BrainConfig, DecoderConfig, PerceptionConfig, RethinkConfig, TrackGPTConfig
from trackgpt.conversion.sam import new_folder
from trackgpt.conversion.tensors import write_safetensors
from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.mask_decoder import PurportMaskDecoder
from trackgpt.perception.sam_weights import ADDED_BY_TRACKGPT, sam_config, segmenter_names
from trackgpt.reasoners.brain_weights import load_tokenizer
from trackgpt.reasoners.templates import IMAGE_TOKEN, PURPORT_TOKEN, TRACK_TOKEN
from trackgpt.settings import read_json, write_json
from trackgpt.systems.trackgpt import CONFIG_FILE, WEIGHTS_FILE, TrackGPT
from trackgpt.weights import (
    Lazy,
    LoadReport,
    checked_lazily,
    describing,
    read_lazily,
    refuse_oversized,
    refuse_two_values,
)

SEG_TOKEN = "[SEG]"
LISAS_TOKENS = (SEG_TOKEN, "<im_start>", "<im_end>")
LISAS_CONVERSATIONS = ("lisa", "lisa-llama-2")
ASIDE = "lisa"
LAYOUT_FILE = "layout.json"
LORA_ALPHA = 16
LLAVA = "brain.llava."
EMBEDDING = f"{LLAVA}model.language_model.embed_tokens.weight"
OUTPUT = f"{LLAVA}lm_head.weight"
PROJECTOR = f"{LLAVA}model.multi_modal_projector."
TOWER = f"{LLAVA}model.vision_tower."
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

_WRAPPED = re.compile(r"^base_model\.model\.")
_SAM = re.compile(r"^(model\.)?visual_model\.")
_TO_OURS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^lm_head\.", f"{LLAVA}lm_head."),
        (r"^model\.(embed_tokens|layers|norm)\.", rf"{LLAVA}model.language_model.\1."),
        (r"^model\.mm_projector\.(?:0\.)?(weight|bias)$", rf"{PROJECTOR}linear_1.\1"),
        (r"^model\.mm_projector\.2\.", f"{PROJECTOR}linear_2."),
        (r"^model\.vision_tower\.(?:vision_tower\.)?vision_model\.", TOWER),
        (r"^(?:model\.)?text_hidden_fcs\.0\.", "brain.projection."),
    )
)
_WITHOUT_PLACE = re.compile(r"rotary_emb\.inv_freq$|position_ids$")


def convert_lisa(
    folder: Path,
    out: Path,
    vision_tower: Path | None = None,
    conversation: str = "lisa",
    stage_2: bool = False,
) -> LoadReport:
    """Write a folder for `TrackGPT.from_pretrained`, reading and writing one tensor at a time.

    Tensors keep their types. Adapters are fused into their layers. The rows of <PO> and of the image placeholder, which
    LISA has not, start as the mean of all rows, and the online query and its adapter at random.

    Args:
        folder: LISA's, with config.json and the tokenizer.
        out: the result, new or empty.
        vision_tower: the Hugging Face folder of the CLIP that LISA was trained with; its weights are used where LISA's
            folder has none.
        conversation: "lisa" (LISA's default) or "lisa-llama-2".
        stage_2: for going on with training: Q_p, Q_t and rethinking on.

    Returns:
        The report; names of `loaded`, `new` and `reshaped` are TrackGPT's, those of `skipped` and `unexpected` LISA's.

    Raises:
        UsageError: there is no such conversation.
        ModelError: MD01 something is not there; MD02 it is damaged, or not whole.
        OutputError: OUT01, the result's folder holds something already.
    """
    if conversation not in LISAS_CONVERSATIONS:
        raise UsageError(f"no conversation `{conversation}`; LISA's are {' and '.join(LISAS_CONVERSATIONS)}")
    described = read_json(folder / CONFIG_FILE)
    tokenizer = _lisas_tokenizer(folder)
    source = _fused(read_lazily(folder), _alpha(folder))
    names, skipped, unexpected = our_names(source, folder)
    tensors = _renamed(source, names, folder)
    rows = tensors[EMBEDDING].shape[0] if EMBEDDING in tensors else 0
    with describing(folder / CONFIG_FILE):
        config = _config(described, source, names, _tower_config(vision_tower, described), conversation, stage_2)
        tokenizer.add_tokens([IMAGE_TOKEN, PURPORT_TOKEN], special_tokens=True)
        _describe_words(config, tokenizer, rows)
    new = _add_what_lisa_has_not(tensors, config, vision_tower, rows)
    reshaped = _extend_rows(tensors, config.brain.llava["text_config"]["vocab_size"], rows)
    words = renamed_token(tokenizer, SEG_TOKEN, TRACK_TOKEN)
    with describing(folder / CONFIG_FILE), torch.device("meta"):
        refuse_oversized(config.brain.llava, tensors, lambda: TrackGPT.from_config(config, words), folder / CONFIG_FILE)
        model = TrackGPT.from_config(config, words)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    unexpected += [theirs for theirs, ours in names.items() if ours not in wanted]
    names = {theirs: ours for theirs, ours in names.items() if ours in wanted}
    _check(tensors, wanted, folder)
    tensors = {name: tensors[name] for name in wanted}
    new_folder(out)
    write_safetensors(out / WEIGHTS_FILE, tensors)  # first: what is wrong with a weight shows when it is made
    write_json(config, out / CONFIG_FILE)
    words.save_pretrained(out)
    _set_aside(folder, out / ASIDE, {name: source[name] for name in (*skipped, *unexpected)}, names, rows)
    loaded = tuple(sorted(set(tensors) - set(new)))
    return LoadReport(loaded, tuple(sorted(new)), tuple(sorted(skipped)), reshaped, tuple(sorted(unexpected)))


def _lisas_tokenizer(folder: Path) -> Any:
    tokenizer = load_tokenizer(folder)
    absent = [token for token in LISAS_TOKENS if token not in tokenizer.get_vocab()]
    if absent:
        raise ModelError(f"{folder}: its tokenizer has no {', '.join(absent)}, so this is no LISA", "MD02")
    return tokenizer


def _renamed(source: dict[str, Lazy], names: dict[str, str], folder: Path) -> dict[str, Lazy]:
    """LISA's weights under our names.

    Raises:
        ModelError: MD02, two names stand for one weight and differ in it; when a weight is made, see `checked`.
    """
    tensors: dict[str, Lazy] = {}
    for theirs, ours in names.items():
        if ours in tensors:
            refuse_two_values(folder, theirs, tensors[ours].make(), source[theirs].make())
        tensors[ours] = checked_lazily(folder, theirs, source[theirs])
    return tensors


def our_names(theirs: dict[str, Lazy], where: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """TrackGPT's name of each of LISA's weights; the names that have no place; and keys that match no known layout.

    Raises:
        ModelError: MD02, the weights under `visual_model` are no SAM's.
    """
    sam = {name: _SAM.sub("", name) for name in theirs if _SAM.match(name)}
    if not sam:
        raise ModelError(f"{where}: no weights named model.visual_model.*; wanted a LISA, not a LLaVA alone", "MD02")
    try:
        segmenter, _ = segmenter_names(sam.values())
    except ModelError as error:
        raise error.at(f"{where}: visual_model") from error
    names: dict[str, str] = {}
    skipped: list[str] = []
    unexpected: list[str] = []
    for name in theirs:
        if name in sam:
            if sam[name] in segmenter:
                names[name] = f"segmenter.{segmenter[sam[name]]}"
            else:
                skipped.append(name)
            continue
        rule = next(((pattern, ours) for pattern, ours in _TO_OURS if pattern.match(name)), None)
        if rule is not None and not _WITHOUT_PLACE.search(name):
            names[name] = rule[0].sub(rule[1], name)
        else:
            (skipped if _WITHOUT_PLACE.search(name) else unexpected).append(name)
    return names, skipped, unexpected


def _alpha(folder: Path) -> float:
    """The alpha of LoRA where the folder says so, else LISA's own."""
    file = folder / "adapter_config.json"
    with describing(file):
        return float(read_json(file).get("lora_alpha", LORA_ALPHA)) if file.is_file() else LORA_ALPHA


def _fused(source: dict[str, Lazy], alpha: float) -> dict[str, Lazy]:
    """Weights without peft's names, each adapter fused into its layer: W + (alpha / r) B A, computed in float32.

    An adapter without a layer, or half of one, stays as it is.
    """
    fused = {_WRAPPED.sub("", name).replace(".base_layer.", "."): lazy for name, lazy in source.items()}
    for name in [name for name in fused if ".lora_A." in name]:
        layer, second = re.sub(r"\.lora_A\..*", ".weight", name), name.replace(".lora_A.", ".lora_B.")
        if layer in fused and second in fused:
            whole, a, b = fused[layer], fused.pop(name), fused.pop(second)
            fused[layer] = Lazy(whole.dtype, whole.shape, _fusing(whole, a, b, alpha))
    return fused


def _fusing(layer: Lazy, a: Lazy, b: Lazy, alpha: float) -> Callable[[], Tensor]:
    def fuse() -> Tensor:
        return torch.addmm(layer.make().float(), b.make().float(), a.make().float(), alpha=alpha / a.shape[0]).to(
            layer.dtype
        )

    return fuse


def _tower_config(vision_tower: Path | None, described: dict[str, Any]) -> dict[str, Any]:
    if vision_tower is None:
        asked = described.get("mm_vision_tower") or described.get("vision_tower") or "openai/clip-vit-large-patch14"
        raise ModelError(
            f"LISA's folders lack the vision tower; give the folder of {asked}: --vision-tower DIR", "MD01"
        )
    values = read_json(vision_tower / CONFIG_FILE)
    values = values.get("vision_config", values)
    if "hidden_size" not in values or "image_size" not in values:
        raise ModelError(f"{vision_tower / CONFIG_FILE}: not the configuration of a CLIP", "MD02")
    return {**values, "model_type": "clip_vision_model"}


def _config(
    described: dict[str, Any],
    source: dict[str, Lazy],
    names: dict[str, str],
    tower: dict[str, Any],
    conversation: str,
    stage_2: bool,
) -> TrackGPTConfig:
    """What TrackGPT needs to know, from LISA's configuration and from shapes."""
    from transformers import LlamaConfig

    known = LlamaConfig().to_dict().keys() | {"rope_theta", "rope_scaling"}
    known -= {"architectures", "transformers_version", "model_type", "dtype", "_name_or_path"}
    text = {key: value for key, value in described.items() if key in known and value is not None}
    llava = {
        "model_type": "llava",
        "vision_config": tower,
        "text_config": {"model_type": "llama", **text},
        "tie_word_embeddings": False,
        "vision_feature_layer": described.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default"
        if described.get("mm_vision_select_feature") != "cls_patch"
        else "full",
        "projector_hidden_act": "gelu" if f"{PROJECTOR}linear_2.weight" in names.values() else "linear",
    }
    brain = BrainConfig(
        llava=llava,
        image_side=int(tower["image_size"]),
        conversation=conversation,
        fit="centre-crop",
        forced_answer=f"Sure, {TRACK_TOKEN}, {PURPORT_TOKEN}" if stage_2 else f"Sure, {TRACK_TOKEN}.",
    )
    sam = {_SAM.sub("", n): torch.empty(source[n].shape, device="meta") for n in names if _SAM.match(n)}
    perception: PerceptionConfig = sam_config(sam)
    decoder: DecoderConfig = dataclasses.replace(perception.decoder, propagate=stage_2, purport=stage_2)
    return TrackGPTConfig(
        name="lisa",
        brain=brain,
        perception=dataclasses.replace(perception, decoder=decoder),
        rethink=RethinkConfig(enabled=stage_2),
    )


def _describe_words(config: TrackGPTConfig, tokenizer: Any, rows: int) -> None:
    """The ids and the number of rows that the tokenizer, now with all tokens, asks for."""
    llava = config.brain.llava
    llava["image_token_id"] = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    llava["text_config"]["vocab_size"] = max(rows, len(tokenizer))
    for name in ("bos", "eos", "pad"):
        llava["text_config"][f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")


def _add_what_lisa_has_not(
    tensors: dict[str, Lazy], config: TrackGPTConfig, vision_tower: Path | None, rows: int
) -> list[str]:
    """Put in the online query and its adapter, a second projector layer that does nothing, and the tower."""
    new = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = PurportMaskDecoder(config.perception.decoder, norm_eps=1e-5).state_dict()
    for name, value in fresh.items():
        if f"mask_decoder.{name}".startswith(ADDED_BY_TRACKGPT):
            new.append(f"segmenter.mask_decoder.{name}")
            tensors[new[-1]] = _given(value)
    first = tensors.get(f"{PROJECTOR}linear_1.weight")
    if first is not None and f"{PROJECTOR}linear_2.weight" not in tensors:
        # LLaVA 1.0 has one layer, transformers' class two: the identity after no activation changes no bit.
        width, dtype = first.shape[0], first.dtype
        new += [f"{PROJECTOR}linear_2.weight", f"{PROJECTOR}linear_2.bias"]
        tensors[new[-2]] = Lazy(dtype, (width, width), lambda: torch.eye(width, dtype=dtype))
        tensors[new[-1]] = Lazy(dtype, (width,), lambda: torch.zeros(width, dtype=dtype))
    if vision_tower is not None and not any(name.startswith(TOWER) for name in tensors):
        for name, lazy in read_lazily(vision_tower).items():
            if not _WITHOUT_PLACE.search(name) and not re.match(r"text_model\.|text_proj|visual_proj|logit", name):
                tensors[TOWER + name.removeprefix("vision_model.")] = checked_lazily(vision_tower, name, lazy)
    return new


def _given(value: Tensor) -> Lazy:
    return Lazy(value.dtype, tuple(value.shape), lambda: value)


def _extend_rows(tensors: dict[str, Lazy], vocabulary: int, rows: int) -> tuple[str, ...]:
    """Append the mean row until the vocabulary is full; returns what was changed."""
    changed = [name for name in (EMBEDDING, OUTPUT) if name in tensors and tensors[name].shape[0] < vocabulary]
    for name in changed:
        lazy = tensors[name]
        tensors[name] = Lazy(lazy.dtype, (vocabulary, *lazy.shape[1:]), _extending(lazy, vocabulary))
    return tuple(sorted(changed))


def _extending(lazy: Lazy, vocabulary: int) -> Callable[[], Tensor]:
    def extend() -> Tensor:
        table = lazy.make()
        mean = table.mean(0, dtype=torch.float32).to(lazy.dtype)
        return torch.cat([table, mean.expand(vocabulary - len(table), -1)])

    return extend


def _check(tensors: dict[str, Lazy], wanted: dict[str, tuple[int, ...]], folder: Path) -> None:
    missing = sorted(set(wanted) - set(tensors))
    shapes = sorted(name for name in set(wanted) & set(tensors) if wanted[name] != tensors[name].shape)
    for problem, found in (("lacks", missing), ("has another shape of", shapes)):
        if found:
            raise ModelError(f"{folder}: LISA {problem} {len(found)} weights: {', '.join(found[:3])}", "MD02")


def _set_aside(folder: Path, aside: Path, kept: dict[str, Lazy], names: dict[str, str], rows: int) -> None:
    aside.mkdir()
    for name in (CONFIG_FILE, *TOKENIZER_FILES):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, aside / name)
    layout = {"rows": rows, "names": {ours: theirs for theirs, ours in sorted(names.items())}}
    (aside / LAYOUT_FILE).write_text(json.dumps(layout, indent=1) + "\n")
    write_safetensors(aside / WEIGHTS_FILE, kept)


def renamed_token(tokenizer: Any, old: str, new: str) -> Any:
    """A tokenizer like another one but for the name of one token; its id, and so its row, stays."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return new if value == old else value

    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        for file in Path(place).glob("*.json"):
            text = json.dumps(renamed(json.loads(file.read_text(encoding="utf-8"))), ensure_ascii=False)
            file.write_text(text, encoding="utf-8")
        return load_tokenizer(Path(place), own=True)


def convert_back(folder: Path, out: Path) -> LoadReport:
    """Write a folder made by `convert_lisa`, trained since or not, in LISA's layout again (merged, safetensors).

    Nothing trained since means equal bits. What only TrackGPT has is left out.

    Args:
        folder: with the folder `lisa` inside; copy that beside the weights of a model trained from it.
        out: the result, new or empty.

    Returns:
        The report; names of `loaded` are LISA's, those of `skipped` TrackGPT's.

    Raises:
        ModelError: MD01 something is not there; MD02 it is damaged, or was trained where LISA has no weights.
        OutputError: OUT01, the result's folder holds something already.
    """
    aside = folder / ASIDE
    layout = read_json(aside / LAYOUT_FILE)
    with describing(aside / LAYOUT_FILE):
        names, rows = dict(layout["names"]), int(layout["rows"])
    source = read_lazily(folder / WEIGHTS_FILE)
    missing = sorted(set(names) - set(source))
    if missing:
        raise ModelError(f"{folder}: {len(missing)} weights of LISA are missing: {', '.join(missing[:3])}", "MD02")
    _refuse_a_second_layer(source, names, folder)
    tensors = {theirs: _first_rows(ours, source[ours], rows) for ours, theirs in names.items()}
    new_folder(out)
    for file in aside.iterdir():
        if file.name not in (LAYOUT_FILE, WEIGHTS_FILE):
            shutil.copyfile(file, out / file.name)
    write_safetensors(out / WEIGHTS_FILE, tensors | read_lazily(aside / WEIGHTS_FILE))
    return LoadReport(loaded=tuple(sorted(tensors)), skipped=tuple(sorted(set(source) - set(names))))


def _refuse_a_second_layer(source: dict[str, Lazy], names: dict[str, str], folder: Path) -> None:
    name = f"{PROJECTOR}linear_2.weight"
    if name not in names and name in source:
        weight = source[name].make()
        if not torch.equal(weight, torch.eye(len(weight), dtype=weight.dtype)):
            raise ModelError(f"{folder}: the projector's second layer was trained, and this LISA has one layer", "MD02")


def _first_rows(name: str, lazy: Lazy, rows: int) -> Lazy:
    if name not in (EMBEDDING, OUTPUT):
        return lazy
    return Lazy(lazy.dtype, (rows, *lazy.shape[1:]), lambda: lazy.make()[:rows])
