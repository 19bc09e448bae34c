"""Checkpoints of OSTrack, ODTrack and DUTrack as a `BoxTransformer`: which of their weights goes where.

Layouts are told apart by their names: `cls_pos_embed` is ODTrack's, `temporal_token` DUTrack's. Sizes are read from
shapes; heads have 64 channels in all three. Every weight of the model must come from the file and every weight of the
file must have its place, but for `UNUSED`, so that a relative with further parts is refused and never half loaded.
Sources: botaoye/OSTrack@33b5e12 and GXNU-ZhongLab/ODTrack@88c0a8e (MIT) for names and arithmetic; of DUTrack, which has
no licence, only the names of its weights.
"""

from __future__ import annotations

import math
import pickle
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trackgpt.config import BoxTransformerConfig
from trackgpt.errors import ModelError
from trackgpt.perception.box_transformer import STRIDE, BoxTransformer
from trackgpt.weights import LoadReport, describing, give, refuse_pointer, some, unfilled

CHECKPOINTS = (".pth", ".tar", ".bin", ".pt")
"""How the names of such files end; OSTrack's are called `OSTrack_ep0300.pth.tar`."""
HEAD_WIDTH = 64
UNUSED = re.compile(
    r"backbone\.(cls_token|pos_embed|cls_pos_embed|fc_norm\..*|descript_embedding\.(position_ids|token_type_ids))"
    r"|.*\.num_batches_tracked"
)
"""Weights that the trackers hold and do not compute with; those of them that a layout does use are taken before."""
TYPES = "backbone.descript_embedding.token_type_embeddings.weight"
_TOWERS = {"ctr": "score", "offset": "offset", "size": "size"}
_SAFE = frozenset(
    [("collections", "OrderedDict"), ("torch", "Size"), ("torch", "device")]
    + [("torch._utils", f"_rebuild_{name}") for name in ("tensor", "tensor_v2", "parameter")]
    + [("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")]
)
"""All that a file may name that is really taken: what plain tensors are made with."""


def load_box_checkpoint(path: str | Path) -> tuple[BoxTransformer, LoadReport]:
    """A tracker of the size of a checkpoint, filled with its weights, on the CPU, in float32, in evaluation mode.

    Args:
        path: a file as the trackers' repositories give them, with the weights under "net".

    Raises:
        ModelError: MD01 it is not there; MD02 it is damaged, or lacks weights; MD06 it has weights that no layout here
            has.
    """
    path = Path(path)
    weights = read_net(path)
    with describing(path):
        config = box_config(weights)
        made = dict(_renamed(weights, config))
        with unfilled():
            model = BoxTransformer(config)
    used = {name for name, _ in made.values()} | {TYPES}
    unknown = sorted(name for name in weights if name not in used and not UNUSED.fullmatch(name))
    if unknown:
        raise ModelError(
            f"{path}: {len(unknown)} weights have no place in an OSTrack, an ODTrack or a DUTrack: {some(unknown)}; "
            "use a checkpoint of one of them",
            "MD06",
        )
    wanted = model.state_dict()
    given = {name: value for name, (_, value) in made.items()} | {
        name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")
    }
    missing = sorted(set(wanted) - set(given))
    if missing:
        raise ModelError(f"{path}: lacks the weights of {len(missing)} parts: {some(missing)}; fetch it again", "MD02")
    odd = sorted(name for name in wanted if wanted[name].shape != given[name].shape)
    if odd:
        shapes = f"{tuple(given[odd[0]].shape)} instead of {tuple(wanted[odd[0]].shape)}"
        raise ModelError(f"{path}: weights of other shapes: {some(odd)} ({shapes}); fetch it again", "MD02")
    give(
        model,
        ((n, torch.zeros((), dtype=torch.int64) if v.is_meta else v) for n, v in given.items()),
        torch.float32,
        path,
    )
    skipped = tuple(sorted(name for name in weights if name not in used))
    return model.eval(), LoadReport(tuple(sorted(given)), skipped=skipped)


def box_config(weights: Mapping[str, Tensor]) -> BoxTransformerConfig:
    """The configuration of a checkpoint, from names and shapes.

    Raises:
        ModelError: MD06, it is none of the three.
    """
    signs = (
        "backbone.pos_embed_z",
        "backbone.pos_embed_x",
        "backbone.patch_embed.proj.weight",
        "box_head.conv1_ctr.0.weight",
    )
    if any(name not in weights for name in signs):
        raise ModelError("no OSTrack, ODTrack or DUTrack with a centre head; wanted one of them", "MD06")
    sides = [STRIDE * math.isqrt(weights[f"backbone.pos_embed_{kind}"].shape[1]) for kind in "zx"]
    width = weights["backbone.pos_embed_x"].shape[2]
    pyramid = "backbone.temporal_token" in weights
    numbers = sorted({int(m[1]) for name in weights if (m := re.match(r"backbone\.blocks\.(\d+)\.", name))})
    attending = [k for k in numbers if f"backbone.blocks.{k}.norm1.weight" in weights]
    merging = [k for k in numbers if f"backbone.blocks.{k}.reduction.weight" in weights]
    mlp = f"backbone.blocks.{numbers[-1]}.mlp."
    table = weights.get("backbone.descript_embedding.word_embeddings.weight")
    said = weights.get("backbone.descript_embedding.position_embeddings.weight")
    return BoxTransformerConfig(
        name="dutrack" if pyramid else "odtrack" if "backbone.cls_pos_embed" in weights else "ostrack",
        stem="pyramid" if pyramid else "patch",
        stem_blocks=[merging[0], merging[1] - merging[0] - 1] if len(merging) == 2 else [0, 0],
        width=width,
        depth=len(attending),
        heads=max(1, width // HEAD_WIDTH),
        hidden=weights[f"{mlp}w1.weight" if pyramid else f"{mlp}fc1.weight"].shape[0],
        gated=pyramid,
        temporal="handed" if pyramid else "added" if "backbone.cls_pos_embed" in weights else "none",
        temporal_tokens=3 if pyramid else 1,
        words=0 if said is None else said.shape[0],
        vocabulary=1 if table is None else table.shape[0],
        word_width=width if table is None else table.shape[1],
        templates=4 if pyramid else 3 if "backbone.cls_pos_embed" in weights else 1,
        template_side=sides[0],
        search_side=sides[1],
        search_factor=5.0 if sides[1] == 384 else 4.0,
        segments="backbone.search_segment_pos_embed" in weights,
        head=weights["box_head.conv1_ctr.0.weight"].shape[0],
    )


def _renamed(weights: Mapping[str, Tensor], config: BoxTransformerConfig) -> Iterator[tuple[str, tuple[str, Tensor]]]:
    """Our name of each weight, with its name in the file and its value."""
    first = sum(config.stem_blocks) + 2 if config.stem == "pyramid" else 0
    for name, value in weights.items():
        for ours, made in _places(name, value, weights, config, first):
            yield ours, (name, made)


def _places(
    name: str, value: Tensor, weights: Mapping[str, Tensor], config: BoxTransformerConfig, first: int
) -> Iterator[tuple[str, Tensor]]:
    """Where a weight of the file goes: to no place, to one, or to several; `first` is the first attending block."""
    part, _, rest = name.partition(".")
    if part == "box_head":
        if found := re.fullmatch(r"conv([1-5])_(ctr|offset|size)\.(.+)", rest):
            yield f"head.towers.{_TOWERS[found[2]]}.{int(found[1]) - 1}.{found[3]}", value
    elif part != "backbone":
        return
    elif found := re.fullmatch(r"blocks\.(\d+)\.(.+)", rest):
        number = int(found[1])
        if number >= first:
            yield from _layer(f"layers.{number - first}.", found[2], value, config)
        else:
            yield from _stage(number, found[2], value, config.stem_blocks)
    elif rest == "descript_embedding.position_embeddings.weight":
        yield "words.inner_places", (value + weights[TYPES][:1])[None]  # all pieces are of the first type
    elif rest == "description_patch_pos_embed.embed.weight":
        yield "words.outer_places", value[None, : config.words]
    elif (ours := _whole(rest, config)) is not None:
        yield ours, value


def _whole(rest: str, config: BoxTransformerConfig) -> str | None:
    """Our name of a weight that goes over as it is."""
    stem = "stem.patch." if config.stem == "pyramid" else "stem."
    known = {
        "pos_embed_z": "places.template",
        "pos_embed_x": "places.search",
        "template_segment_pos_embed": "segments.template",
        "search_segment_pos_embed": "segments.search",
        "patch_embed.proj.weight": f"{stem}weight",
        "patch_embed.proj.bias": f"{stem}bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
        "temporal_token": "token",
        "temporal_pos_embed": "token_place",
        "descript_embedding.word_embeddings.weight": "words.table.weight",
        "descript_embedding.LayerNorm.weight": "words.norm.weight",
        "descript_embedding.LayerNorm.bias": "words.norm.bias",
    }
    if config.temporal == "added":
        known |= {"cls_token": "token", "cls_pos_embed": "token_place"}
    return known.get(rest)


def _layer(ours: str, rest: str, value: Tensor, config: BoxTransformerConfig) -> Iterator[tuple[str, Tensor]]:
    """A weight of an attending block."""
    part, _, kind = rest.rpartition(".")
    plain = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    plain |= {"mlp.w1": "mlp.gate", "mlp.w2": "mlp.up", "mlp.w3": "mlp.down", "mlp.ffn_ln": "mlp.norm"}
    plain |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    plain |= {f"attn.{n}_proj": f"attention.{n}_proj" for n in "qkv"}
    if part in plain:
        yield f"{ours}{plain[part]}.{kind}", value
        if part == "attn.k_proj":  # keys have no bias there
            yield f"{ours}attention.k_proj.bias", value.new_zeros(value.shape[0])
    elif part == "attn.qkv":
        for n, third in zip("qkv", value.chunk(3)):
            yield f"{ours}attention.{n}_proj.{kind}", third
    elif rest in ("attn.q_bias", "attn.v_bias"):
        yield f"{ours}attention.{kind[0]}_proj.bias", value
    elif rest in ("gamma_1", "gamma_2") and config.gated:
        yield f"{ours}{'attention' if rest == 'gamma_1' else 'mlp'}_scale", value


def _stage(number: int, rest: str, value: Tensor, blocks: list[int]) -> Iterator[tuple[str, Tensor]]:
    """A weight of Fast-iTPN's convolutional stages, each of which ends with a merging block."""
    stage = 0 if number <= blocks[0] else 1
    place = number - (blocks[0] + 1) * stage
    part, _, kind = rest.rpartition(".")
    if place == blocks[stage]:
        merging = {"norm": f"stem.norms.{stage}", "reduction": f"stem.merges.{stage}"}
        if part in merging:
            yield f"{merging[part]}.{kind}", value
        return
    names = {"norm2": "norm", "mlp.fc1": "one", "mlp.ffn_ln": "inner_norm", "mlp.fc2": "two"}
    if part in names:
        yield f"stem.{('four', 'eight')[stage]}.{place}.{names[part]}.{kind}", value


# --- files ---


class _Inert:
    """In the place of an object of a training run (settings, statistics): it is made, and does and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...
    def __setitem__(self, _: Any, __: Any) -> None: ...
    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return self

    def append(self, _: Any) -> None: ...
    def extend(self, _: Any) -> None: ...


class _TensorsAlone(pickle.Unpickler):
    """Makes tensors and plain values; whatever else a file names becomes an `_Inert`, and nothing of it is run."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _SAFE else _Inert


def read_net(path: Path) -> dict[str, Tensor]:
    """The weights under "net" of a checkpoint of a training run, on the CPU; nothing in the file is ever executed.

    Such files also hold optimiser, settings and statistics as objects of the repository's own classes, which
    `torch.load(weights_only=True)` refuses to read.

    Raises:
        ModelError: MD01 it is not there; MD02 it is damaged, or there are no such weights.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; wanted a checkpoint of OSTrack, ODTrack or DUTrack", "MD01")
    refuse_pointer(path)
    reader = types.SimpleNamespace(__name__=__name__, Unpickler=_TensorsAlone, load=_load)
    try:
        held = torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception as error:  # a damaged or hostile pickle may raise anything at all
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise ModelError(f"{path}: not a whole checkpoint ({reason}); fetch it again", "MD02") from error
    net = held.get("net") if isinstance(held, dict) else None
    if not isinstance(net, dict) or not net or not all(isinstance(value, Tensor) for value in net.values()):
        raise ModelError(
            f"{path}: holds no weights under `net`; wanted a checkpoint of OSTrack, ODTrack or DUTrack", "MD02"
        )
    return {str(name): value.detach() for name, value in net.items()}


def _load(file: Any, **how: Any) -> Any:
    return _TensorsAlone(file, **how).load()
