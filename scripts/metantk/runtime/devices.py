"""The device, the C library's memory settings, threads, and seeded generators."""

import contextlib
import ctypes
import logging
import os
import platform
import re
import sys

import numpy as np
import torch

from metantk.runtime import leases
from metantk.runtime.files import InputError
from metantk.runtime.memory import peak_resident_mb

log = logging.getLogger("metantk")

# Kernels and fits need float64, which Apple's mps has not.
DEVICES = ("cpu", "cuda")
# glibc's mallopt parameters and values: keep freed memory instead of giving it back page by page. Without
# this, page faults take most of the time of a kernel on a CPU (measured: up to ten times slower).
_MALLOPT = {
    "M_MMAP_THRESHOLD": (-3, 1 << 30),
    "M_TRIM_THRESHOLD": (-1, (1 << 31) - 1),
    "M_TOP_PAD": (-2, 64 << 20),
}


def start(*, uses_device: bool = True) -> torch.device:
    """Set up this process, once, before the first large allocation, and pick its device.

    Threads are as many as `count_threads` says. The device is METANTK_DEVICE if set, else a CUDA device that no
    other stage has leased, else the CPU; and the CPU for a stage that computes nothing on a GPU, which leases none.
    Deterministic algorithms are used wherever PyTorch has them.
    """
    keep_freed_memory()
    leave_compiler_out()
    torch.set_num_threads(count_threads())
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    set_precision("float32")
    device = pick_device() if uses_device else torch.device("cpu")
    log.info("device %s, %d threads, %s", describe_device(device), torch.get_num_threads(), _describe_place())
    return device


def _describe_place() -> str:
    """The machine and, where they were given, the SLURM job and the GPU: for the log, no result depends on them."""
    given = [name for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES") if name in os.environ]
    return " ".join([f"on {platform.node()}", *(f"{name}={os.environ[name]}" for name in given)])


def set_precision(precision: str) -> None:
    """Let convolutions and matrix products of float32 on NVIDIA GPUs round to TF32 if so named, else not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def lowered(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Within, convolutions and products compute in bfloat16 if `precision` says so (autocast).

    Weights, their gradients and the optimiser stay in float32.
    """
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def count_threads() -> int:
    """OMP_NUM_THREADS, which Snakemake sets to the rule's threads; else what SLURM gave; else what is there.

    That is the processors that this process may run on, and no more than its control group's share of time.
    """
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        given = os.environ.get(name, "").split(",")[0]  # OpenMP takes a number for each level
        if given.isdecimal() and int(given) > 0:
            return int(given)
    # Imported here: it takes time, and the workflow always says how many.
    import joblib

    return joblib.cpu_count()


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed (other C libraries have no mallopt; there nothing is done)."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _MALLOPT.values():
            mallopt(parameter, value)


def leave_compiler_out() -> None:
    """Let optimisers step without PyTorch's compiler, which nothing here uses.

    They load it, 3 s of each training, only to tell it what not to compile. The methods beneath are the same.
    """
    for method in vars(torch.optim.Optimizer).values():
        if function := getattr(method, "__wrapped__", None):
            function.__dynamo_disable = function
    for optimiser in (torch.optim.Adam, torch.optim.SGD):
        if function := getattr(optimiser.step, "__wrapped__", None):
            optimiser.step = torch.no_grad()(function)


def pick_device() -> torch.device:
    """The device of this process (see `start`).

    Raises:
        InputError: METANTK_DEVICE is none of `DEVICES`, or not there.
    """
    wish = os.environ.get("METANTK_DEVICE")
    if wish:
        try:
            device = torch.device(wish)
            if device.type not in DEVICES:
                raise InputError(f"METANTK_DEVICE={wish}: only {' and '.join(DEVICES)} are supported")
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"METANTK_DEVICE={wish}: no such device here ({str(error).splitlines()[0]})") from None
        if device.type == "cuda":
            check_kernels(device)
        return device
    uuids = visible_devices()
    if not uuids:
        return torch.device("cpu")
    index = leases.take(uuids) if leases.is_needed(len(uuids)) else 0
    torch.cuda.set_device(index)
    device = torch.device("cuda", index)
    check_kernels(device)
    return device


def check_kernels(device: torch.device) -> None:
    """Complain of a GPU that this build of PyTorch has no kernels for, before the first of them fails.

    A binary (`sm_75`) runs on GPUs of its major version and the same or a later minor one; an intermediate form
    (`compute_120`) is compiled for any later GPU.

    Raises:
        InputError: none of the build's architectures fits the GPU.
    """
    found = torch.cuda.get_device_capability(device)
    architectures = [
        (kind, (int(digits[:-1]), int(digits[-1])))
        for kind, digits in re.findall(r"(sm|compute)_(\d+)", " ".join(torch.cuda.get_arch_list()))
    ]
    fits = [built <= found and (kind == "compute" or built[0] == found[0]) for kind, built in architectures]
    if architectures and not any(fits):
        name = torch.cuda.get_device_name(device)
        raise InputError(
            f"{name} is sm_{found[0]}{found[1]}, for which PyTorch {torch.__version__} "
            f"has no kernels ({', '.join(torch.cuda.get_arch_list())}); docs/cluster.md, Older GPUs, says "
            "which has, and METANTK_DEVICE=cpu does without"
        )


def visible_devices() -> list[str]:
    """UUIDs of the CUDA devices that this process sees (CUDA_VISIBLE_DEVICES), in PyTorch's order."""
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a small tensor from the CPU to the device without waiting for what the device is doing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; none where its memory is the processor's own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(images: int, *, side: int, device: torch.device, options: str) -> None:
    """Refuse steps whose images alone do not fit into memory, before the first of them is put together.

    Args:
        images: of a step, held at once as float32 beside their bytes.
        side: height and width, in pixels.
        options: names of the options that make a step smaller.

    Raises:
        InputError: they do not fit.
    """
    require_bytes(
        images * side * side * 3 * 5, device=device, options=options, what=f"a step takes {images} images"
    )


def require_bytes(needed: int, *, device: torch.device, options: str, what: str) -> None:
    """Refuse what does not fit into the memory of the device.

    Args:
        options: names of the options that make it smaller.
        what: takes so much, in words.

    Raises:
        InputError: it does not fit.
    """
    there = free_memory(device) if device.type == "cuda" else physical_memory()
    if needed > there:
        raise InputError(
            f"{options}: {what}, {needed / 1e9:.4g} GB, but the memory here is {there / 1e9:.4g} GB: use fewer"
        )


def describe_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Largest resident size of this process and, on CUDA, largest allocation on the device, in MiB."""
    peak = {"cpu": peak_resident_mb()}
    if device.type == "cuda":
        peak["cuda"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, for example `generator("weights", seed, round, repeat)`.

    PyTorch's `meta` device, which has no numbers, takes one of the CPU.
    """
    kind = "cpu" if torch.device(device).type == "meta" else device
    return torch.Generator(kind).manual_seed(int(_sequence(key).generate_state(1, np.uint64)[0] >> 1))


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A numpy generator for one purpose; equal keys give equal draws, different keys independent ones."""
    return np.random.default_rng(_sequence(key))


def _sequence(key: tuple[int | str, ...]) -> np.random.SeedSequence:
    words = []
    for part in key:
        data = part.encode() if isinstance(part, str) else int(part).to_bytes(8, "little", signed=True)
        words += [len(data), *data]  # the lengths keep ("ab", "c") and ("a", "bc") apart
    return np.random.SeedSequence(words)
