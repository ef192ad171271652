"""Networks that turn images into features, each kind in a module of its own.

Each is an `nn.Module` with `features(images, drop=None)`, a linear `head`, `forward` = the head's outputs on the
features, `feature_dim`, and `initialise_(generator)`. One that can save memory has `recompute`: whether a backward
pass computes activations again, which then are not kept. A kind's module has `build(architecture, outputs)` and,
free of torch, the classes `Options` (what a configuration says) and `Architecture` (all that builds the network).
"""

from types import ModuleType

import torch
from torch import nn

from metantk.options.base import parse
from metantk.runtime import plugins
from metantk.runtime.files import InputError

PARTS = ("build", "Architecture", "Options")
MOST_PARAMETERS = 10**9  # 4 GB; the paper's largest network has 12.6 million


def build(architecture: dict, outputs: int, *, where: str = "architecture") -> nn.Module:
    """The network that the content of an architecture.json describes, with `outputs` outputs of its head.

    Args:
        architecture: `kind` and what that kind's `Architecture` asks for; `origin` says where it comes from and
            is ignored.
        where: names the architecture in errors.

    Raises:
        InputError: the kind is unknown, or a value is missing, unknown or out of range.
    """
    if not isinstance(architecture, dict) or not isinstance(architecture.get("kind"), str):
        raise InputError(f"{where}: expected an object with 'kind', the kind of the network")
    kind = architecture["kind"]
    module = plugins.load("backbones", kind)
    for part in PARTS:
        if not hasattr(module, part):
            raise InputError(f"{where}: {kind!r} is no backbone: its module has no '{part}'")
    values = {key: value for key, value in architecture.items() if key != "origin"}
    checked = parse(module.Architecture, values, where=where).model_dump()
    if "channels" in checked and not kind.endswith(".py"):
        _check_size(module, checked, outputs, where)
    return module.build(checked, outputs)


def _check_size(module: ModuleType, architecture: dict, outputs: int, where: str) -> None:
    """Refuse a network of free width that no memory holds, before any is taken."""
    with torch.device("meta"):
        network = module.build(architecture, outputs)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MOST_PARAMETERS:
        raise InputError(
            f"{where}: the network has {parameters:.2g} parameters; {MOST_PARAMETERS:.0e} are the most"
        )
