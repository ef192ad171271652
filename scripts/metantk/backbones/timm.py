"""Any network of timm with weights that were trained elsewhere: what a network of one's own has to beat.

Images of the prepared size, whole and square, are resized to the network's own input size (timm's way of
interpolation, with antialiasing; no margin is cut off, so timm's `crop_pct` has no part in it) and normalised by
the network's own mean and deviation. Features are what the network hands to its classifier.

Weights are tensors from a file that cannot run code: safetensors, or PyTorch's format read with `weights_only`.
"""

import pickle
from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones.drop import Drop
from metantk.options.backbones.timm import Architecture as Architecture
from metantk.options.backbones.timm import Options as Options
from metantk.runtime.files import InputError, sha256_of

CACHED = ("model.safetensors", "pytorch_model.bin")  # names on Hugging Face
WRAPPED = ("state_dict_ema", "model_ema", "state_dict", "model")  # where training programs keep the weights


class Network(nn.Module):
    """A network of timm without its classifier, and a linear head of our own.

    Attributes:
        statistics: mean and deviation per channel of the images that it was trained on, in 0..1.
        initial_weights: file and checksum, once they are read.
    """

    def __init__(self, *, name: str, weights: str | None, input_size: int | None, outputs: int) -> None:
        super().__init__()
        self.name, self.weights = name, weights
        self.body = _create(name, num_classes=0)
        about = self.body.pretrained_cfg
        own_size = about["input_size"][-1]
        if input_size not in (None, own_size) and about.get("fixed_input_size"):
            raise InputError(f"backbone timm: {name} takes images of {own_size} pixels only; leave out input_size")
        self.input_size = input_size or own_size
        self.interpolation = "bicubic" if about["interpolation"] == "bicubic" else "bilinear"
        self.statistics = {"mean": list(about["mean"]), "std": list(about["std"])}
        self.feature_dim = getattr(self.body, "head_hidden_size", self.body.num_features)
        self.head = nn.Linear(self.feature_dim, outputs)
        self.initial_weights: dict | None = None

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """Normalised `(images, 3, height, width)` to `(images, feature_dim)`."""
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = functional.interpolate(images, size, mode=self.interpolation, antialias=True)
        return self.body(images)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, outputs)`."""
        return self.head(self.features(images, drop))

    def initialise_(self, generator: torch.Generator) -> None:
        """Take the weights from their file; only the head, which nothing asks, is drawn.

        Raises:
            InputError: they are not there, cannot be read, or are another network's.
        """
        path = Path(self.weights) if self.weights else find_cached(self.name)
        self.body.load_state_dict(load_body(self.name, path).state_dict())
        self.initial_weights = {"file": str(path), "sha256": sha256_of(path)}
        nn.init.kaiming_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)


def build(architecture: dict, outputs: int) -> Network:
    """The network with `outputs` outputs, its weights not read yet; `architecture` as in `Architecture`."""
    return Network(
        name=architecture["name"],
        weights=architecture["weights"],
        input_size=architecture["input_size"],
        outputs=outputs,
    )


def _create(name: str, **options: object) -> nn.Module:
    if not timm.is_model(name):
        close = [known for known in timm.list_models() if known.startswith(name[:6])][:5]
        hint = f"; do you mean {', '.join(close)}?" if close else ""
        raise InputError(f"backbone timm: timm {timm.__version__} has no network {name!r}{hint}")
    try:
        return timm.create_model(name, **options)
    except RuntimeError as error:  # such as a tag that there is not
        raise InputError(f"backbone timm: {name}: {str(error).splitlines()[0]}") from None


def find_cached(name: str) -> Path:
    """The weights of a name in the user's own caches.

    Raises:
        InputError: they are in none.
    """
    about = _create(name, num_classes=0).pretrained_cfg
    repository, url = about.get("hf_hub_id"), about.get("url")
    if repository:
        for file in (*CACHED, about.get("hf_hub_filename")):
            path = try_to_load_from_cache(repository, file) if file else None
            if isinstance(path, str):
                return Path(path)
    if url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        if path.is_file():
            return path
    if not (repository or url):
        raise InputError(f"backbone timm: timm has no weights for {name}; name a file with `weights`")
    fetch = f"hf download {repository} {CACHED[0]}" if repository else url
    raise InputError(
        f"backbone timm: the weights of {name} are not in your cache; where there is a network: {fetch}; or name a "
        "file with `weights`"
    )


def load_body(name: str, path: Path) -> nn.Module:
    """The network without its classifier, with the weights of a file, all of which have to fit.

    Raises:
        InputError: the file is missing, no file of tensors, or another network's.
    """
    state = read_weights(path)
    classifiers = timm.get_pretrained_cfg(name).classifier or ()
    classifiers = [classifiers] if isinstance(classifiers, str) else list(classifiers)
    named = [state[f"{place}.weight"].shape[0] for place in classifiers if f"{place}.weight" in state]
    usual = timm.get_pretrained_cfg(name).num_classes
    problem = ""
    for classes in named[:1] or (0, usual):
        # timm knows the older names of each network's tensors. With the number of classes as it is in the file it
        # is strict: nothing may be missing.
        overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0}
        try:
            body = _create(name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
        except (InputError, KeyError, ValueError) as error:
            problem = problem or str(error).splitlines()[0][:200]
            continue
        if classes:
            body.reset_classifier(0)
        return body
    raise InputError(f"{path}: holds no weights of {name} ({problem})")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        InputError: the file is missing or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"backbone timm: {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        RuntimeError,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:150]
        raise InputError(
            f"{path}: is no file of weights that can be read without running code ({reason})"
        ) from None
    for key in WRAPPED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: holds no tensors by name")
    return clean_state_dict(state)
