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
    network = module.build(checked, outputs)
    if kind.endswith(".py"):
        _check_members(network, kind, outputs)
    return network


def _check_members(network: object, kind: str, outputs: int) -> None:
    """Refuse a network of a user's own that lacks what stages ask of it."""
    plugins.expect(isinstance(network, nn.Module), kind, "build", network, "a torch.nn.Module")
    for name in ("features", "initialise_"):
        method = getattr(network, name, None)
        plugins.expect(callable(method), kind, f"build(...).{name}", method, "a method")
    plugins.expect(any(True for _ in network.parameters()), kind, "build", "no parameters", "some")
    width, found = (
        getattr(network, "feature_dim", None),
        getattr(getattr(network, "head", None), "out_features", None),
    )
    plugins.expect(
        isinstance(width, int) and width > 0, kind, "build(...).feature_dim", width, "a whole number above 0"
    )
    plugins.expect(found == outputs, kind, "build(...).head.out_features", found, f"{outputs}")


@torch.no_grad()
def try_out(network: nn.Module, image_size: int, *, where: str) -> None:
    """Pass two images through an initialised network, which stays as it is.

    Raises:
        InputError: its features or the outputs of its head have another shape or type, or are not finite.
    """
    device = next(network.parameters()).device
    images = torch.linspace(-1, 1, 6 * image_size**2, device=device).view(2, 3, image_size, image_size)
    mode = network.training
    network.eval()
    for name, function, width in (
        ("features", network.features, network.feature_dim),
        ("forward", network, network.head.out_features),
    ):
        found = function(images)
        fits = isinstance(found, torch.Tensor) and found.is_floating_point() and found.shape == (2, width)
        plugins.expect(fits, where, name, found, f"floats (images, {width}), here of 2 images")
        is_finite = bool(found.isfinite().all())
        plugins.expect(is_finite, where, name, "numbers that are not finite", "finite ones before the training")
    network.train(mode)


def _check_size(module: ModuleType, architecture: dict, outputs: int, where: str) -> None:
    """Refuse a network of free width that no memory holds, before any is taken."""
    with torch.device("meta"):
        network = module.build(architecture, outputs)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MOST_PARAMETERS:
        raise InputError(
            f"{where}: the network has {parameters:.2g} parameters; {MOST_PARAMETERS:.0e} are the most"
        )
