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
