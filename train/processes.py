"""The processes of a run, as `torchrun`, `deepspeed` or nothing at all started them.

With one process no process group exists and every method returns its argument.
"""

from __future__ import annotations

import os
import socket
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from trackgpt.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """The processes of a run: this one's rank, their number, and the device it computes on.

    Every method but `leave` is collective: all processes must call it, in the same order.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(together)
        return together.tolist()

    def mean(self, value: float) -> float:
        """The mean of a value over the processes."""
        return self.sum(value)[0] / self.size

    def gather(self, thing: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [thing]
        things = [None] * self.size
        torch.distributed.all_gather_object(things, thing)
        return things

    def leave(self) -> None:
        """Destroy the process group; also after an error, when other processes may have ended already."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def join_processes(device: str, zero: int) -> Processes:
    """Join the process group, if there is one.

    The launcher's environment describes it: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Args:
        device: "auto", "cpu" or "cuda"; on CUDA every process takes the GPU of its local rank.
        zero: with any ZeRO stage even one process forms a group, because DeepSpeed wants one.

    Raises:
        UsageError: DeepSpeed is needed and not installed.
    """
    rank, size, local = (int(os.environ.get(name, start)) for name, start in _LAUNCHED)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if size == 1 and zero == 0:
        return Processes(place)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    deepspeed = import_deepspeed(place)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))  # for a single process any port will do
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local))
    backend = "nccl" if place.type == "cuda" else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
    return Processes(place, rank, size)


_LAUNCHED = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def import_deepspeed(device: torch.device) -> Any:
    """The package, quiet, and on a CPU without the operator it would spend minutes compiling.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # its calls, not ours
    try:
        import deepspeed
    except ImportError as error:
        raise UsageError(
            f"several processes, or plan.zero above 0, need DeepSpeed ({error}); pip install 'trackgpt[train]'"
        ) from error
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
