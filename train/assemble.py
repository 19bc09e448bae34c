"""Put a model together from a brain and a perception trained separately, and record where each came from."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from trackgpt.config import MaskPropagationConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find, load_box_network, load_reported, load_tuned
from trackgpt.perception.box_transformer import SIZES, BoxTransformer
from trackgpt.perception.encoders import ConvEncoder
from trackgpt.perception.mask_propagation import MaskPropagation, is_nano_memory
from trackgpt.reasoners.brain_weights import load_tokenizer
from trackgpt.reasoners.conv_tower import ConvTower
from trackgpt.reasoners.lora import add_lora
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.systems.trackgpt_tuned import TUNED_FILE, base_of, is_tuned, save_tuned, tuned_names
from trackgpt.weights import checked, read_lazily
from train.codes import Codes
from train.config import TrainConfig
from train.mimetic import seed_alike_layers
from train.nano import new_nano


def assemble(brain: str, perception: str, encoder_from_tower: bool, seed: int) -> TrackGPT:
    """A TrackGPT whose brain and perception come from the named models, or from a new nano.

    Where the model's configuration asks for LoRA (`brain.lora.rank` above 0) the brain carries adapters and the rest of
    its LLaVA is frozen; a folder of adapters brings its own.

    Args:
        brain: name of a model (see `trackgpt.hub.load_model`) for brain, tokenizer and perception; empty for a new nano
            with random weights.
        perception: name of the model to take the perception from; empty keeps that of `brain`.
        encoder_from_tower: copy the brain's convolutional tower into the perception's encoder.
        seed: of the random weights.

    Raises:
        ModelError: a model is missing or damaged.
        UsageError: tower and encoder are of different kinds.
    """
    if brain:
        model = _unmerged(brain)
    else:
        model = new_nano(seed)
        Codes().align(model.segmenter.shared_image_embedding.positional_embedding)
    if perception:
        model.segmenter.load_state_dict(load_reported(perception)[0].segmenter.state_dict())
    if encoder_from_tower:
        _copy_tower(model)
    return model


def memory_model(config: TrainConfig) -> nn.Module:
    """The memory segmenter that a configuration starts from: a SAM 2 where `brain` is one, else a nano-memory.

    Raises:
        ModelError, UsageError: see `new_propagation` and `train.sam2_tracking.sam2_to_train`.
    """
    from trackgpt.perception.sam2_memory import is_sam2_video
    from train.sam2_tracking import sam2_to_train

    folder = find(config.brain) if config.brain else None
    if folder and is_sam2_video(folder):
        return sam2_to_train(folder, config.memory.learn, config.shape.side)
    return new_propagation(config)


def new_propagation(config: TrainConfig) -> MaskPropagation:
    """The memory segmenter that a configuration starts from, for windows of `shape.side`.

    Raises:
        ModelError: the model to start from is missing or damaged.
        UsageError: it has no convolutional encoder of the same shape; the side is no multiple of 16.
    """
    if config.shape.side % 16:
        raise UsageError(f"shape.side {config.shape.side}: wanted a multiple of 16")
    folder = find(config.brain) if config.brain else None
    if folder and is_nano_memory(folder):
        model = MaskPropagation.from_pretrained(folder)
    else:
        model = MaskPropagation(MaskPropagationConfig())
        if folder:
            encoder = load_reported(config.brain)[0].segmenter.image_encoder
            try:
                model.encoder.load_state_dict(encoder.state_dict())
            except RuntimeError as error:
                raise UsageError(f"brain: {config.brain} has no encoder of nano's shape; leave it empty") from error
    model.config.side = config.shape.side
    # The layout that convolutions compute in: half the time of a step in bfloat16 on a CPU.
    return model.to(memory_format=torch.channels_last)


def box_model(config: TrainConfig) -> BoxTransformer:
    """The box tracker that a configuration starts from, with its tokenizer.

    Raises:
        ModelError: the model to start from, or one that `box.words` or `box.stem` names, is missing or damaged.
        UsageError: `box.words` or `box.stem` beside a tracker that has both already, or a stem of another shape.
    """
    if config.brain:
        for name in ("words", "stem"):
            if getattr(config.box, name):
                raise UsageError(f"box.{name}: {config.brain} has its own already; leave one of them out")
        return load_box_network(config.brain)
    size = SIZES[config.box.size]
    if not config.box.words:
        tokenizer, table = load_tokenizer(find("nano"), own=True), None
        size = replace(size, vocabulary=len(tokenizer), word_width=size.width)
    else:
        folder = find(config.box.words)
        tokenizer, table = load_tokenizer(folder, answers=False), word_table(folder)
        size = replace(size, vocabulary=table.shape[0], word_width=table.shape[1])
    model = BoxTransformer(size)
    model.tokenizer = tokenizer
    if table is not None and model.words is not None:
        model.words.adopt(table)
    seed_alike_layers(model)
    if config.box.stem:
        _adopt_stem(model, config.box.stem)
    return model


def _adopt_stem(model: BoxTransformer, name: str) -> None:
    """Begin with the convolutions of another model.

    Raises:
        ModelError: it is missing or damaged.
        UsageError: one of the two has none, or they are of other shapes.
    """
    folder = find(name)
    if is_nano_memory(folder):
        encoder: nn.Module = MaskPropagation.from_pretrained(folder).encoder
    else:
        tower = load_reported(name)[0].brain.vision
        encoder = tower.encoder if isinstance(tower, ConvTower) else tower
    wanted = {name: value.shape for name, value in model.stem.state_dict().items() if name.startswith("stages.")}
    given = {name: value for name, value in encoder.state_dict().items() if name in wanted}
    if not wanted or {name: value.shape for name, value in given.items()} != wanted:
        raise UsageError(f"box.stem: {name} has no convolutions of the shape of a box tracker of this size")
    model.stem.load_state_dict(given, strict=False)


WORD_TABLES = ("word_embeddings.weight", "embed_tokens.weight", "wte.weight", "token_embedding.weight", "shared.weight")
"""How the names of word tables end in transformers' language models."""


def word_table(folder: Path) -> Tensor:
    """The word table of a language model's folder, float32 (vocabulary, width).

    Raises:
        ModelError: MD01 its weights are missing; MD06 none or several of them are named like a word table.
    """
    weights = read_lazily(folder, standard=True)
    named = [name for name in weights if name.endswith(WORD_TABLES) and len(weights[name].shape) == 2]
    if len(named) != 1:
        found = ", ".join(named) or "none"
        raise ModelError(f"{folder}: word tables: {found}; wanted one, named {' or '.join(WORD_TABLES)}", "MD06")
    return checked(folder, named[0], weights[named[0]].make()).float()


def _copy_tower(model: TrackGPT) -> None:
    tower, encoder = model.brain.vision, model.segmenter.image_encoder
    if not (isinstance(tower, ConvTower) and isinstance(encoder, ConvEncoder)):
        kinds = f"{type(tower).__name__} and {type(encoder).__name__}"
        raise UsageError(f"encoder_from_tower: tower and encoder are {kinds}; wanted convolutions on both sides")
    encoder.stages.load_state_dict(tower.encoder.stages.state_dict())


def freeze(model: TrackGPT, names: list[str]) -> None:
    """Turn the gradients of parts off: "brain", "perception", or "language", the brain without phi.

    Raises:
        UsageError: another name.
    """
    parts = {"brain": model.brain, "perception": model.segmenter, "language": model.brain.llava}
    for name in names:
        if name not in parts:
            raise UsageError(f"frozen: `{name}` is none of {', '.join(parts)}")
        parts[name].requires_grad_(False)


def randomise_encoder(model: TrackGPT, seed: int) -> None:
    """Give the image encoder the random weights that a new model of its kind is born with (Table 4, row 1)."""
    from trackgpt.perception.encoders import build_encoder

    torch.manual_seed(seed)
    config = model.config.perception
    fresh = build_encoder(config.encoder, config.decoder.hidden_size)
    model.segmenter.image_encoder.load_state_dict(fresh.state_dict())


def renew_referring(model: TrackGPT, seed: int) -> None:
    """Give random weights to all that TrackGPT adds to LLaVA and SAM, so that referring is learned from nothing.

    These are the rows of <TK> and <PO>, phi, the first Q_t and its adapter. New rows have the spread of the others.
    """
    torch.manual_seed(seed)
    decoder, embeddings = model.segmenter.mask_decoder, model.brain.llava.get_input_embeddings().weight
    for part in (*model.brain.projection.modules(), *decoder.adapter.modules()):
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    with torch.no_grad():
        for token in (model.brain.template.track_id, model.brain.template.purport_id):
            embeddings[token] = torch.randn_like(embeddings[token]) * embeddings.std()
        decoder.first_online.weight.normal_(std=decoder.first_online.weight.std().item())


def carries_lora(model: nn.Module) -> bool:
    """Whether a model has adapters that are exported without the frozen models; those of a SAM 2 are merged instead."""
    return not getattr(model, "merged_on_export", False) and any("lora_" in n for n, _ in model.named_parameters())


def recompute(model: TrackGPT, keep_random_state: bool = True) -> None:
    """Recompute the language model's activations in the backward pass; its dropout needs the random state kept."""
    language = model.brain.language
    with warnings.catch_warnings():
        # transformers renames this within version 5; the old name is there in all of it.
        warnings.simplefilter("ignore", FutureWarning)
        # The re-entrant way gives ZeRO-3 a gradient twice where a stage reads its batch twice.
        language.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": keep_random_state})
    language.config.use_cache = False


@dataclass(frozen=True)
class Origin:
    """What a folder of adapters records: the name of its frozen models, and which other weights differ from them."""

    base: str
    names: frozenset[str] = frozenset()

    def save(self, model: TrackGPT, folder: Path) -> None:
        """Write the adapters and all other weights that differ from the base."""
        save_tuned(model, folder, self.base, self.names)

    def parameters(self, model: TrackGPT) -> list[nn.Parameter]:
        """What `save` reads."""
        names = tuned_names(model) | self.names
        return [parameter for name, parameter in model.named_parameters() if name in names]


def origin(model: TrackGPT, brain: str, perception: str, encoder_from_tower: bool) -> Origin:
    """Where a model of `assemble` comes from; one that started from adapters has their base."""
    names: set[str] = set()
    if perception or encoder_from_tower:  # the frozen encoder is not the base's
        names |= {name for name in model.state_dict() if name.startswith("segmenter.")}
    if _has_adapters(brain):
        folder = find(brain)
        with safe_open(folder / TUNED_FILE, "pt") as file:
            return Origin(base_of(folder), frozenset(names | set(file.keys())))
    return Origin(os.path.abspath(brain) if brain and Path(brain).exists() else brain, frozenset(names))


def _unmerged(name: str) -> TrackGPT:
    if _has_adapters(name):
        return load_tuned(find(name))
    model, _ = load_reported(name)
    add_lora(model.brain, model.config.brain.lora)
    return model


def _has_adapters(name: str) -> bool:
    return bool(name) and Path(name).exists() and is_tuned(name)
