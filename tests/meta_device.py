"""PyTorch's `meta` device as a GPU that nobody has at hand: it names what a GPU would have to be waited for.

Tensors on it have shapes and no numbers. Whatever mixes it with the CPU raises. Reading a number back would raise
too; within `Waits` it gives ones, and the function of the library that asked is noted, so that a test says by name
where a stage waits.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metantk.runtime import devices

META = torch.device("meta")
LIBRARY = f"{Path(devices.__file__).parents[1]}/"
ATEN = torch.ops.aten
# Their result's size depends on numbers: a GPU is waited for before anything can follow.
SIZED_BY_NUMBERS = {ATEN.nonzero.default, ATEN.masked_select.default, ATEN._unique2.default}
# Upload from pinned memory: `upload`, and what reads batches ahead.
PINNED = {"runtime.devices.upload", "data.images.ImageData.batches"}


class Waits(TorchDispatchMode):
    """Notes waits for a device that is not there, as `module.function` of the library.

    Args:
        answers: by such a name, the numbers that its function reads, instead of ones, one read after the other.

    Attributes:
        names: of what reads numbers back, or brings numbers up from memory that is not pinned.
    """

    def __init__(self, answers: dict[str, Iterator] | None = None) -> None:
        super().__init__()
        self.answers = answers or {}
        self.names: set[str] = set()
        self.literals = Literals(self.names)
        self.inner = Inner(self)

    def __enter__(self):
        self.literals.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.literals.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Tensors of the inference mode come here before these are taken apart.
        if func._schema.name in ("aten::item", "aten::is_nonzero", "aten::to"):
            with self.inner:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = {tensor.device.type for tensor in tensors}
        if func in SIZED_BY_NUMBERS and kinds == {"meta"}:
            raise AssertionError(f"{asking()}: the size of {func} depends on numbers")
        if func is ATEN._local_scalar_dense.default and kinds == {"meta"}:
            return self._read(tensors[0]).item()
        if func is ATEN._to_copy.default and "device" in kwargs:
            goal = torch.device(kwargs["device"])
            return func(self._moved(args[0], goal), **kwargs)
        if func is ATEN.copy_.default:
            return func(args[0], self._moved(args[1], args[0].device), *args[2:], **kwargs)
        # PyTorch takes a number on the CPU with any device.
        if kinds == {"cpu", "meta"} and any(t.dim() for t in tensors if t.device.type == "cpu"):
            raise AssertionError(f"{asking()}: {func} mixes the device with the CPU")
        return func(*args, **kwargs)

    def _moved(self, source: Tensor, goal: torch.device) -> Tensor:
        """What is to be copied: numbers, where they come from the device."""
        if source.device.type == "meta" and goal.type == "cpu":
            return self._read(source)
        if source.device.type != goal.type and asking() not in PINNED:
            self.names.add(asking())
        return source

    def _read(self, tensor: Tensor) -> Tensor:
        self.names.add(asking())
        value = next(self.answers[asking()]) if asking() in self.answers else 1
        return torch.as_tensor(value).to(tensor.dtype).expand(tensor.shape).clone()


class Inner(TorchDispatchMode):
    """The same while an operation is taken apart."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.waits.__torch_dispatch__(func, types, args, kwargs)


class Literals(TorchFunctionMode):
    """Notes tensors of numbers that the program holds: their upload waits, and no other mode sees it."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        is_new = func in (torch.tensor, torch.as_tensor) and not (args and isinstance(args[0], Tensor))
        if is_new and made.device.type == "meta":
            self.names.add(asking())
        return made


def asking() -> str:
    """The innermost function of the library that is running, as `module.function`; "a test" if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(LIBRARY):
            module = path.removeprefix(LIBRARY).removesuffix(".py").replace("/", ".")
            return f"{module}.{re.sub(r'[.]<[a-z]+>', '', frame.f_code.co_qualname)}"
        frame = frame.f_back
    return "a test"
