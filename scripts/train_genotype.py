"""Train the network of a genotype on all training classes of a data set (RFS; paper, section 6.1).

Writes the weights (backbone.safetensors), what is needed to use them (backbone.json) and the training curve
(training.csv). A training that is asked to end keeps the last finished step, one that is killed the last
finished epoch; started again, it goes on there, and on a CPU ends with the same bytes.

Example:
    python scripts/train_genotype.py --data results/glyphs/data --genotype my_search/genotype.json \\
        --cells 3 --channels 8 --epochs 10 --milestones '[6, 8]' --output my_backbone
"""

import io
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from metantk import devices
from metantk.backbones.cells import Network
from metantk.backbones.counting import count_macs, count_parameters
from metantk.command_line import (
    Ended,
    add_run,
    make_parser,
    parse_options,
    parse_run,
    progress,
    run,
    signals_held,
)
from metantk.config import TrainingOptions
from metantk.datasets.store import load_split, read_manifest
from metantk.space.genotype import read_genotype
from metantk.storage import (
    InputError,
    atomic_write,
    check_writable,
    checkpoint_path,
    code_hash,
    provenance,
    remove_checkpoint,
    sha256_of,
    write_json,
)
from metantk.training import Pictures, Trainer, initialise, place

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, TrainingOptions)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument("--genotype", required=True, type=Path, metavar="FILE", help="JSON or Genotype(...) text")
    add_run(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of backbone.safetensors, backbone.json, training.csv",
    )
    arguments = parser.parse_args()
    options = parse_options(TrainingOptions, arguments)
    run_options = parse_run(arguments)
    genotype = read_genotype(arguments.genotype)
    manifest, train = read_manifest(arguments.data), load_split(arguments.data, "train")
    check_writable(arguments.output)
    device = devices.start()
    network = Network(
        genotype, cells=run_options.cells, channels=run_options.channels, classes=len(train.class_names)
    )
    initialise(network, arguments.seed)
    trainer = Trainer(network.to(device), options, seed=arguments.seed)
    checkpoint = checkpoint_path(
        arguments.output,
        "training",
        {
            "options": options.model_dump(),
            "run": run_options.name,
            "seed": arguments.seed,
            "genotype": genotype,
            "code": code_hash(__file__),
            "data": sha256_of(arguments.data / "manifest.json"),
        },
    )
    seconds = _train(trainer, place(train, manifest, device), checkpoint)
    facts = {
        "genotype": genotype,
        "cells": run_options.cells,
        "channels": run_options.channels,
        "classes": train.class_names,
        "image_size": train.images.shape[1],
        "mean": manifest["mean"],
        "std": manifest["std"],
        "feature_dim": network.feature_dim,
        "parameters": count_parameters(network),
        "backbone_parameters": count_parameters(network) - count_parameters(network.head),
        "macs": count_macs(network, train.images.shape[1]),
        "seconds": round(seconds, 3),
        "peak_memory_mb": devices.peak_memory_mb(device),
        **provenance(__file__, options.model_dump(), seed=arguments.seed, device=devices.describe_device(device)),
    }
    _write(arguments.output, trainer, facts)
    remove_checkpoint(checkpoint)


def _train(trainer: Trainer, pictures: Pictures, checkpoint: Path) -> float:
    """Train what is left; the seconds spent on all of it, earlier attempts included."""
    began = time.perf_counter()
    if checkpoint.exists():
        began -= _thaw(trainer, checkpoint.read_bytes())
        log.info("going on after epoch %d and %d steps", trainer.epoch, trainer.step)
    steps = trainer.steps_per_epoch(len(pictures.labels))
    epochs = trainer.options.epochs
    kept = _freeze(trainer, time.perf_counter() - began)
    done = trainer.steps_done(steps)
    with progress(None, total=epochs * steps, initial=done, what="training", unit="step") as bar:
        while trainer.epoch < epochs:
            try:
                _train_epoch(trainer, pictures, bar.update)
            except torch.OutOfMemoryError:
                _save_memory(trainer)
                _thaw(trainer, kept)
                bar.update(trainer.steps_done(steps) - bar.n)
                continue
            except Ended:
                _write_checkpoint(checkpoint, trainer, began)
                raise
            kept = _write_checkpoint(checkpoint, trainer, began)
            last = trainer.curve[-1]
            bar.set_postfix(epoch=last["epoch"], loss=f"{last['loss']:.3f}", accuracy=f"{last['accuracy']:.1f} %")
    log.info("loss %.4f, training accuracy %.1f %%", trainer.curve[-1]["loss"], trainer.curve[-1]["accuracy"])
    return time.perf_counter() - began


def _train_epoch(trainer: Trainer, pictures: Pictures, update: Callable[[int], None]) -> None:
    """Train to the end of the epoch; a signal to end takes effect between two steps."""
    with signals_held() as let_through:

        def advance(count: int) -> None:
            update(count)
            let_through()

        trainer.train_epoch(pictures, advance)


def _save_memory(trainer: Trainer) -> None:
    """Go on with less memory, once. A batch is not cut: batch normalisation would compute something else.

    Raises:
        InputError: that was done already.
    """
    if trainer.network.recompute:
        raise InputError(
            f"training: out of GPU memory with batch_size {trainer.options.batch_size}:"
            " use a smaller one, fewer channels or a larger GPU"
        )
    trainer.network.recompute = True
    log.warning("out of GPU memory: from here on activations are computed twice instead of kept; results stay")


def _write_checkpoint(checkpoint: Path, trainer: Trainer, began: float) -> bytes:
    contents = _freeze(trainer, time.perf_counter() - began)
    with atomic_write(checkpoint) as temporary:
        temporary.write_bytes(contents)
    return contents


def _freeze(trainer: Trainer, seconds: float) -> bytes:
    """The contents of a checkpoint. Not written by PyTorch, which does not say so where a disk is full."""
    buffer = io.BytesIO()
    torch.save({"trainer": trainer.state(), "seconds": seconds}, buffer)
    return buffer.getvalue()


def _thaw(trainer: Trainer, contents: bytes) -> float:
    """Take up the state of a checkpoint; the seconds spent until then."""
    kept = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    trainer.load_state(kept["trainer"])
    return kept["seconds"]


def _write(output: Path, trainer: Trainer, facts: dict) -> None:
    """Write all three outputs; the description, which says that the weights are whole, last."""
    with atomic_write(output / "training.csv") as temporary:
        pd.DataFrame(trainer.curve).to_csv(temporary, index=False)
    weights = output / "backbone.safetensors"
    with atomic_write(weights) as temporary:
        tensors = {name: tensor.contiguous().cpu() for name, tensor in trainer.network.state_dict().items()}
        temporary.write_bytes(save(tensors))
    write_json(output / "backbone.json", facts | {"weights_sha256": sha256_of(weights)})


if __name__ == "__main__":
    run(main)
