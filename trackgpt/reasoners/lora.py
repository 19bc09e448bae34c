"""LoRA on the brain's language model, by peft (paper section 3.5: LoRA for the LVLM, the vision encoder stays fixed).

What trains after `add_lora`: the low-rank matrices beside every q_proj and v_proj of the language model, the two rows
of the embedding (and of an untied output layer) that belong to <TK> and <PO>, and phi. The brain stays the same object
of the same class, so that everything that calls it goes on unchanged; `merge_lora` takes the adapters out again.
"""

from __future__ import annotations

import torch
from torch import nn

from trackgpt.config import LoraConfig
from trackgpt.errors import ModelError
from trackgpt.reasoners.brain import Brain

# A plain list of names would also hit q_proj and v_proj of a CLIP tower.
TARGETS = r".*(language_model|text_model).*\.(q_proj|v_proj)"

_PARTS = (
    ("lora_", "LoRA"),
    ("trainable_tokens_delta", "rows of new tokens"),
    *((name, "vision tower") for name in ("vision_tower", "model.visual.", "vision_model")),
    *((name, "projector") for name in ("multi_modal_projector", "model.connector.")),
    *((name, "language model") for name in ("language_model", "text_model")),
    ("lm_head", "output layer"),
    ("image_encoder", "image encoder"),
    ("mask_decoder", "mask decoder"),
    ("projection", "projection phi"),
)


def add_lora(brain: Brain, config: LoraConfig) -> list[str]:
    """Freeze the LLaVA and put adapters beside it, in place; phi keeps training.

    Fresh adapters change nothing: the second low-rank matrix starts at zero and the rows start at their own values.

    Args:
        brain: with whole weights, not yet adapted.
        config: rank 0 leaves the brain as it is, all of it trainable.

    Returns:
        Names of the adapted linear layers, relative to `brain.llava`.

    Raises:
        ModelError: the language model has no q_proj and v_proj, or carries adapters already.
    """
    if config.rank == 0:
        return []
    if _adapters(brain.llava):
        raise ModelError("the brain carries LoRA already; call merge_lora(brain) before adding more")
    import peft

    rows = [brain.template.track_id, brain.template.purport_id]
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=TARGETS,
        trainable_token_indices=dict.fromkeys(["embed_tokens"] if _tied(brain) else ["embed_tokens", "lm_head"], rows),
    )
    try:
        peft.inject_adapter_in_model(settings, brain.llava)
    except ValueError as error:
        raise ModelError(f"the language model takes no LoRA: no layer matches {TARGETS}; choose lora.rank=0") from error
    # New modules are born in training mode; dropout must follow the brain.
    brain.train(brain.training)
    return [name for name, module in brain.llava.named_modules() if hasattr(module, "lora_A")]


@torch.no_grad()
def merge_lora(brain: Brain) -> None:
    """Write the adapters into the weights and take them out, in place: same outputs, the names of a plain LLaVA.

    Every parameter of the LLaVA stays frozen, as `add_lora` left it. A brain without adapters stays as it is.
    """
    for name, module in _adapters(brain.llava):
        parent, _, last = name.rpartition(".")
        if hasattr(module, "unload_and_optionally_merge_module"):
            plain = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        else:
            module.merge(safe_merge=True)
            plain = module.get_base_layer()
        setattr(brain.llava.get_submodule(parent), last, plain)
    if hasattr(brain.llava, "peft_config"):
        del brain.llava.peft_config


def trainable_report(model: nn.Module) -> str:
    """What trains, as a table for people: one line a part with trainable and all parameters, and their sum.

    Parameters that are shared (a tied output layer) count once.
    """
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(_part(name), [0, 0])
        row[0] += parameter.numel() * parameter.requires_grad
        row[1] += parameter.numel()
    counts["all"] = [sum(row[i] for row in counts.values()) for i in (0, 1)]
    lines = [f"{'part':<20}{'trainable':>16}{'parameters':>16}"]
    lines += [f"{part:<20}{trainable:>16,}{total:>16,}" for part, (trainable, total) in counts.items()]
    return "\n".join(lines)


def _part(name: str) -> str:
    return next((part for key, part in _PARTS if key in name), name.split(".")[0])


def _tied(brain: Brain) -> bool:
    """Whether the output layer is the embedding."""
    return bool(brain.llava.lm_head.weight is brain.llava.get_input_embeddings().weight)


def _adapters(llava: nn.Module) -> list[tuple[str, nn.Module]]:
    """Outermost modules that peft put in place of plain ones."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: list[tuple[str, nn.Module]] = []
    for name, module in llava.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if not inside and isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            found.append((name, module))
    return found
