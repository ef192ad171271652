"""What a computation needs of a GPU: bytes at once, launches, operations and bytes moved, call by call of PyTorch.

On PyTorch's `meta` device, where tensors have shapes and no numbers, a step of the paper's size is counted without
its memory or its time. Not counted: workspaces of cuDNN, the allocator's rounding and gaps, and CUDA's own memory.
"""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metantk import flops

# Allocate or rename, and launch nothing.
FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "lift_fresh",
    "_unsafe_view",
}


class Call(NamedTuple):
    """A call that launches at least one kernel.

    Attributes:
        name: of PyTorch's operation.
        operations: floating-point operations of convolutions and products, two for a multiply-accumulate.
        moved: bytes of its inputs and outputs, each once.
        dtype: of its first output.
    """

    name: str
    operations: int
    moved: int
    dtype: torch.dtype


class Gpu(NamedTuple):
    """A GPU by its data sheet: bytes, bytes per second, operations per second without tensor cores."""

    name: str
    memory: float
    bandwidth: float
    float32: float
    float64: float

    def peak(self, dtype: torch.dtype) -> float:
        return self.float64 if dtype == torch.float64 else self.float32


class Footprint(TorchDispatchMode):
    """Counts what is called within, of tensors on one device.

    Attributes:
        live, peak: bytes of the tensors that were made within and still are, and the most so far.
        calls: so far.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.live = self.peak = 0
        self.calls: list[Call] = []
        self._known: set[int] = set()
        self._counter = flops.counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = self._of_device(result)
        for tensor in made:
            self._keep(tensor)
        if made and not (func.is_view or func._schema.name.split("::")[1] in FREE):
            self._count(func, args, kwargs, result, made)
        return result

    def reset(self) -> None:
        """Forget calls and the peak; what is alive still is."""
        self.calls, self.peak = [], self.live

    def _of_device(self, tree: object) -> list[Tensor]:
        leaves = tree_leaves(tree)
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == self.device.type]

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def _count(self, func, args: tuple, kwargs: dict, result: object, made: list[Tensor]) -> None:
        formula = self._counter.flop_registry.get(func._overloadpacket)
        operations = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        tensors = {id(tensor): tensor for tensor in [*self._of_device((args, kwargs)), *made]}.values()
        moved = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)
        self.calls.append(Call(func._schema.name, operations, moved, made[0].dtype))


def seconds_on(gpu: Gpu, calls: list[Call], *, share: float, launch: float) -> float:
    """Time of calls one after the other: each the longest of its launch, its arithmetic and its traffic.

    Args:
        share: of the data sheet's operations and bytes per second that is reached.
        launch: seconds between two launches.
    """
    return sum(
        max(launch, call.operations / gpu.peak(call.dtype) / share, call.moved / gpu.bandwidth / share)
        for call in calls
    )
