"""Peak memory of a computation, counted without allocating it: PyTorch's fake tensors stand for the real ones.

The module that computes is the real one, so the count holds for any family of models. What an allocator adds (rounding,
fragmentation, workspaces of kernels) is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it: those alive (`now`), and the most alive at a time (`peak`).

    Views count once, with the tensor they view. Tensors made before, such as weights, do not count; nor do kernels that
    loading packs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made; `types` is not needed."""
        before = {_storage(leaf)._cdata for leaf in tree_leaves((args, kwargs)) if _is_stored(leaf)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            # A fake tensor is on the device it stands for; what is on `meta` stands for nothing.
            if _is_stored(leaf) and not leaf.is_meta and _storage(leaf)._cdata not in before:
                self._count(_storage(leaf))
        return out

    def restart(self) -> None:
        """Reset the peak to what is alive now."""
        self.peak = self.now

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class _RealIndices(TorchDispatchMode):
    """Indices, masks and what is computed of them alone are real: the shapes of some models depend on their values.

    A Python number read off a fake tensor, such as a figure for the log, is 0.
    """

    DTYPES = (torch.int64, torch.int32, torch.bool)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation for real where no input is fake and the result is no large tensor."""
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fake = any(isinstance(leaf, FakeTensor) for leaf in given) if given else not self._makes_indices(args, kwargs)
        if not fake:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
            args = (args[0], self._counted(args[1]), *args[2:])
        return func(*args, **kwargs)

    def _makes_indices(self, args: Any, kwargs: Any) -> bool:
        """Whether a tensor made from no other holds whole numbers: by its dtype, else by what it is filled with."""
        numbers = [arg for arg in args if isinstance(arg, (int, float))]
        return kwargs.get("dtype", torch.int64 if numbers and type(numbers[-1]) is int else None) in self.DTYPES

    def _counted(self, places: Any) -> list[Any]:
        """Places to read, with real masks as indices: their number decides a shape."""
        found: list[Any] = []
        for place in places:
            mask = place is not None and place.dtype == torch.bool and not isinstance(place, FakeTensor)
            with unset_fake_temporarily():
                found += place.nonzero(as_tuple=True) if mask else [place]
        return found


def _is_stored(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.is_mkldnn


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


@contextmanager
def without_memory(module: nn.Module) -> Iterator[LiveBytes]:
    """Everything inside but indices is computed on fake tensors; yields the count of their bytes.

    A real tensor from outside stays real until it meets a fake one.

    Args:
        module: its parameters become fake in place, on the CPU, and stay so: it cannot be used afterwards.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        _embody(module)
        with _RealIndices(), LiveBytes() as live:
            yield live


def _embody(module: nn.Module) -> None:
    """A fake tensor for every parameter and buffer; one that is shared stays shared."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                part._parameters[name] = made[id(parameter)]  # type: ignore[assignment]
            elif parameter is not None:
                part._parameters[name] = made[id(parameter)]  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
