"""Checkpoints in the layouts of OSTrack, ODTrack and DUTrack, tiny and random, as their training runs write them.

Names and shapes are those of botaoye/OSTrack@33b5e12, GXNU-ZhongLab/ODTrack@88c0a8e and GXNU-ZhongLab/DUTrack@490d998,
with a width of 64, two attending blocks of one head, templates of 32 and search windows of 64 pixels.
"""

from pathlib import Path

import torch

WIDTH, HIDDEN, CHANNELS, TEMPLATE, SEARCH, VOCABULARY = 64, 48, 16, 32, 64, 50
KINDS = ("ostrack", "odtrack", "dutrack")


class TrainingSettings:
    """An object of a class that only the training run knows."""

    batch = 8


def _linear(name: str, inputs: int, outputs: int, *kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _vit() -> dict[str, tuple[int, ...]]:
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 5, WIDTH), **_linear("patch_embed.proj", 3, WIDTH, 16, 16)}
    for k in range(2):
        shapes |= _norm(f"blocks.{k}.norm1", WIDTH) | _norm(f"blocks.{k}.norm2", WIDTH)
        shapes |= _linear(f"blocks.{k}.attn.qkv", WIDTH, 3 * WIDTH) | _linear(f"blocks.{k}.attn.proj", WIDTH, WIDTH)
        shapes |= _linear(f"blocks.{k}.mlp.fc1", WIDTH, HIDDEN) | _linear(f"blocks.{k}.mlp.fc2", HIDDEN, WIDTH)
    return shapes


def _itpn() -> dict[str, tuple[int, ...]]:
    shapes = {"pos_embed": (1, 4, WIDTH), **_linear("patch_embed.proj", 3, WIDTH // 4, 4, 4)}
    for k, width in ((0, WIDTH // 4), (2, WIDTH // 2)):
        shapes |= _norm(f"blocks.{k}.norm2", width) | _norm(f"blocks.{k}.mlp.ffn_ln", 3 * width)
        shapes |= _linear(f"blocks.{k}.mlp.fc1", width, 3 * width, 1, 1)
        shapes |= _linear(f"blocks.{k}.mlp.fc2", 3 * width, width, 1, 1)
        shapes |= _norm(f"blocks.{k + 1}.norm", width) | _linear(f"blocks.{k + 1}.reduction", width, 2 * width, 2, 2)
    for k in (4, 5):
        shapes |= _norm(f"blocks.{k}.norm1", WIDTH) | _norm(f"blocks.{k}.norm2", WIDTH)
        shapes |= {f"blocks.{k}.attn.{n}_proj.weight": (WIDTH, WIDTH) for n in "qkv"}
        shapes |= {f"blocks.{k}.{name}": (WIDTH,) for name in ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2")}
        shapes |= _linear(f"blocks.{k}.attn.proj", WIDTH, WIDTH) | _norm(f"blocks.{k}.mlp.ffn_ln", HIDDEN)
        shapes |= _linear(f"blocks.{k}.mlp.w1", WIDTH, HIDDEN) | _linear(f"blocks.{k}.mlp.w2", WIDTH, HIDDEN)
        shapes |= _linear(f"blocks.{k}.mlp.w3", HIDDEN, WIDTH)
    bert = {"word_embeddings": VOCABULARY, "position_embeddings": 40, "token_type_embeddings": 2}
    shapes |= {f"descript_embedding.{name}.weight": (count, WIDTH) for name, count in bert.items()}
    shapes |= _norm("descript_embedding.LayerNorm", WIDTH)
    shapes |= {"description_patch_pos_embed.embed.weight": (WIDTH, WIDTH)}
    return shapes | {"temporal_token": (1, 1, WIDTH), "temporal_pos_embed": (1, 1, WIDTH)}


def _head() -> dict[str, tuple[int, ...]]:
    shapes, widths = {}, (WIDTH, *(CHANNELS // 2**k for k in range(4)))
    for name, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):
        for k in range(4):
            shapes |= _linear(f"conv{k + 1}_{name}.0", widths[k], widths[k + 1], 3, 3)
            shapes |= _norm(f"conv{k + 1}_{name}.1", widths[k + 1])
            shapes |= {f"conv{k + 1}_{name}.1.running_{each}": (widths[k + 1],) for each in ("mean", "var")}
        shapes |= _linear(f"conv5_{name}", widths[4], outputs, 1, 1)
    return shapes


def weights(kind: str) -> dict[str, torch.Tensor]:
    """The weights under "net", the same each time: normal around 0, variances and scales around 1."""
    backbone = _itpn() if kind == "dutrack" else _vit()
    backbone |= {"pos_embed_z": (1, (TEMPLATE // 16) ** 2, WIDTH), "pos_embed_x": (1, (SEARCH // 16) ** 2, WIDTH)}
    backbone |= _norm("norm", WIDTH) | ({"cls_pos_embed": (1, 1, WIDTH)} if kind == "odtrack" else {})
    shapes = {f"backbone.{name}": shape for name, shape in backbone.items()}
    shapes |= {f"box_head.{name}": shape for name, shape in _head().items()}
    made, generator = {}, torch.Generator().manual_seed(7)
    for name in sorted(shapes):
        value = (0.5 if "conv" in name else 0.2) * torch.randn(shapes[name], generator=generator)
        about_one = name.endswith("running_var") or ("norm" in name or "ln" in name.lower()) and name.endswith("weight")
        made[name] = (1 + value).abs() if about_one and len(shapes[name]) == 1 else value
    counts = [name.replace("running_var", "num_batches_tracked") for name in shapes if name.endswith("running_var")]
    return made | {name: torch.tensor(3) for name in counts}


def written(path: Path, net: dict[str, torch.Tensor]) -> Path:
    """A checkpoint with all that a training run puts beside the weights."""
    beside = {"epoch": 300, "actor_type": "Actor", "settings": TrainingSettings(), "stats": {"loss": [0.5]}}
    torch.save({"net": net, **beside}, path)
    return path


def seen(frames: int = 2) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Templates (1, 2, 3, 32, 32), search windows (1, 3, 64, 64) of `frames`, and 6 word pieces (1, 6)."""
    generator = torch.Generator().manual_seed(11)
    templates = torch.randn(1, 2, 3, TEMPLATE, TEMPLATE, generator=generator)
    windows = [torch.randn(1, 3, SEARCH, SEARCH, generator=generator) for _ in range(frames)]
    return templates, windows, torch.tensor([[3, 9, 27, 31, 2, 0]])
