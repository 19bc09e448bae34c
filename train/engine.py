"""One optimiser step from batches: plain PyTorch in one process, DeepSpeed in several, behind one interface.

The stage is one module whose forward takes samples and returns losses, so that ZeRO-3's hooks, which gather and release
weights in forward and backward, see every use. Trainable weights, gradients and the optimiser are float32; bfloat16 is
autocast inside that module, and hence the same in both engines.

Under ZeRO every process must call the same submodules in the same order: otherwise the processes wait for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trackgpt.errors import UsageError
from trackgpt.precision import round_frozen
from train.assemble import carries_lora
from train.feed import Batch
from train.plan import Plan
from train.processes import Processes, import_deepspeed
from train.stages import Losses, Stage


@dataclass(frozen=True)
class Learned:
    """Result of a forward pass: the weighted sum of the losses (a scalar with a graph), its parts, figures to log."""

    total: Tensor
    losses: Losses
    figures: dict[str, float]


class StageModule(nn.Module):
    """A stage as one module.

    Args:
        stage: its `modules()` become this module's and go into training mode.
        weights: of loss parts, winning over the stage's.
        bf16: autocast to bfloat16; frozen matrices are stored in it where the model carries LoRA.
        device: where it computes.
        touch: give every trainable parameter a gradient, if of zero, even where a batch did not use it. ZeRO-1 and 2
            wait for each of them on every process.
    """

    def __init__(self, stage: Stage, weights: dict[str, float], bf16: bool, device: torch.device, touch: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(stage.modules()).train()
        if bf16 and carries_lora(stage.model):
            round_frozen(stage.model)  # what the stage itself has frozen by now, e.g. SAM's encoder
        self.stage, self.weights, self.bf16, self.device, self.touch = stage, weights, bf16, device, touch

    def forward(self, batch: Batch) -> tuple[Tensor, Losses, dict[str, float]]:
        """The fields of `Learned`, for a batch; a tuple, because DeepSpeed looks for tensors in what comes out."""
        torch.manual_seed(batch.seed)
        with self.autocast():
            losses, figures = self.stage.losses(batch.samples)
        weights = {**self.stage.weights, **self.weights}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        if self.touch:
            total = total + 0 * torch.stack([p.flatten()[0] for p in trained(self).values()]).sum()
        return total, losses, figures

    def autocast(self) -> Any:
        """Mixed precision of this run, for other callers of its modules."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name; a shared one once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay; biases, normalisations and scales do not.

    Raises:
        UsageError: nothing learns.
    """
    parameters = trained(module).values()
    if not parameters:
        raise UsageError("nothing learns: every module of this stage is frozen; take a part out of `frozen`")
    groups = [
        {"name": "matrices", "params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"name": "biases and scales", "params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Engine(Protocol):
    """What the loop needs of an engine.

    Attributes:
        module: the stage's.
        sharded: whether every process has a part of the optimiser's state of its own.
    """

    module: StageModule
    sharded: bool

    def forward(self, batch: Batch) -> Learned:
        """Losses of a batch."""
        ...

    def backward(self, total: Tensor) -> None:
        """Add the gradient of `total` / plan.accumulate to what is there."""
        ...

    def step(self, rate: float) -> float:
        """Clip, update with this learning rate, clear the gradients; returns the norm before clipping.

        The plain engine changes nothing when the norm is not finite.
        """
        ...

    def whole(self, parameters: Iterable[nn.Parameter]) -> Any:
        """A context in which these parameters are gathered on every process, to be read."""
        ...

    def inference(self) -> Any:
        """A context in which the model's parts may be called as at inference, by any process alone."""
        ...

    def optimizer_state(self) -> dict[str, Any]:
        """This process's part of the optimiser's state, and of the weights it holds alone."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `optimizer_state` returned, after the trainable parameters are loaded."""
        ...


def start_engine(stage: Stage, plan: Plan, processes: Processes, bf16: bool) -> Engine:
    """The engine of a run: plain PyTorch for one process without ZeRO, else DeepSpeed.

    Raises:
        UsageError: the plan contradicts itself, or nothing learns.
    """
    if plan.zero not in (0, 1, 2, 3):
        raise UsageError(f"plan.zero: {plan.zero} is none of 0, 1, 2, 3")
    if plan.offload != "none" and plan.zero == 0:
        raise UsageError(f"plan.offload: {plan.offload} needs plan.zero of 1 or more")
    if plan.offload == "parameters" and plan.zero != 3:
        raise UsageError(f"plan.offload: parameters needs plan.zero=3, found {plan.zero}")
    # Under ZeRO-3 touching a parameter would gather it, and the hooks need equal calls on every process anyway.
    module = StageModule(stage, plan.loss_weights, bf16, processes.device, touch=processes.size > 1 and plan.zero < 3)
    if processes.size == 1 and plan.zero == 0:
        return PlainEngine(module, plan)
    return DeepSpeedEngine(module, plan, processes)


def adamw(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW over `parameter_groups`."""
    groups = parameter_groups(module, plan.weight_decay)
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, plan.beta2))


class PlainEngine:
    """One process, PyTorch alone."""

    sharded = False

    def __init__(self, module: StageModule, plan: Plan) -> None:
        self.module, self.plan = module, plan
        self.optimizer = adamw(module, plan)

    def forward(self, batch: Batch) -> Learned:
        return Learned(*self.module(batch))

    def backward(self, total: Tensor) -> None:
        (total / self.plan.accumulate).backward()

    def step(self, rate: float) -> float:
        norm = _clip(self.module, self.plan.clip)
        if math.isfinite(norm):
            _set_rate(self.optimizer, rate)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def whole(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        yield

    @contextmanager
    def inference(self) -> Iterator[None]:
        with evaluating(self.module), torch.no_grad(), self.module.autocast():
            yield

    def optimizer_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


class DeepSpeedEngine:
    """`deepspeed.initialize` around the same module and optimiser; any number of processes, any ZeRO stage."""

    def __init__(self, module: StageModule, plan: Plan, processes: Processes) -> None:
        deepspeed = import_deepspeed(processes.device)
        self.module, self.plan, self.processes = module, plan, processes
        self.sharded = plan.zero > 0
        for parameter in module.parameters():
            if parameter.dim() == 0:  # DeepSpeed 0.19 cannot broadcast a scalar; one element multiplies alike
                parameter.data = parameter.data.reshape(1)
        self.gathered = deepspeed.zero.GatheredParameters
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=adamw(module, plan), config=deepspeed_settings(plan, processes)
        )
        # ZeRO-3 gathers a weight when the module that owns it is called. Tables that others read (the decoder's tokens,
        # its first online query) are small: they stay whole from the first call of the stage to its last gradient.
        for parameter in module.parameters() if plan.zero == 3 else ():
            if parameter.ds_persist:
                deepspeed.zero.register_external_parameter(module, parameter)

    def forward(self, batch: Batch) -> Learned:
        return Learned(*self.engine(batch))

    def backward(self, total: Tensor) -> None:
        self.engine.backward(total)  # divides by accumulate itself

    def step(self, rate: float) -> float:
        _set_rate(self.optimizer, rate)
        if not self.engine.is_gradient_accumulation_boundary():
            raise RuntimeError("a step in the middle of an accumulation")
        norm = _clip(self.module, self.plan.clip) if self.plan.zero == 0 else None
        self.engine.step()
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    @contextmanager
    def whole(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        with self.gathered(list(parameters) if self.plan.zero == 3 else [], modifier_rank=None):
            yield

    @contextmanager
    def inference(self) -> Iterator[None]:
        whole = self.whole(self.module.parameters())
        with whole, self._without_hooks(), evaluating(self.module), torch.no_grad(), self.module.autocast():
            yield

    @contextmanager
    def _without_hooks(self) -> Iterator[None]:
        """ZeRO-3's hooks would release gathered weights after their first use, and wait for the other processes."""
        if self.plan.zero < 3:
            yield
            return
        offload = self.optimizer.parameter_offload
        for hook in [*offload.forward_hooks, *offload.backward_hooks]:
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)

    def optimizer_state(self) -> dict[str, Any]:
        if self.plan.zero == 3:
            self.optimizer.checkpoint_event_prologue()
        state = self.optimizer.state_dict()
        if self.plan.zero == 3:
            self.optimizer.checkpoint_event_epilogue()
        return dict(state)

    def restore(self, state: dict[str, Any]) -> None:
        if self.plan.zero == 0:
            self.optimizer.load_state_dict(state)
            return
        # DeepSpeed wants the states of all ranks and reads its own.
        self.optimizer.load_state_dict({self.processes.rank: state}, load_from_fp32_weights=True)
        if self.plan.zero == 3:
            self.optimizer.checkpoint_event_epilogue()


def deepspeed_settings(plan: Plan, processes: Processes) -> dict[str, Any]:
    """DeepSpeed's configuration for a plan; `plan.deepspeed` overrides it, section by section."""
    cuda = processes.device.type == "cuda"
    zero: dict[str, Any] = {"stage": plan.zero, "contiguous_gradients": True, "overlap_comm": cuda}
    if plan.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    if plan.offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    settings = {
        "train_micro_batch_size_per_gpu": plan.batch,
        "gradient_accumulation_steps": plan.accumulate,
        "gradient_clipping": plan.clip if plan.zero else 0.0,  # without ZeRO the engine clips, to know the norm
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    for name, value in plan.deepspeed.items():
        both = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = {**settings[name], **value} if both else value
    return settings


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _clip(module: nn.Module, largest: float) -> float:
    return nn.utils.clip_grad_norm_(trained(module).values(), largest or math.inf).item()


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
