"""Train the network of an architecture on a data set by a learner.

`rfs` is plain classification of all training classes (RFS; paper, section 6.1). `--learner KIND --help` lists a
learner's options.

Writes the weights (model.safetensors), all that is needed to use them (model.json) and the training curve
(training.csv). A training that is told to end saves the last finished step, one that is killed the last finished
epoch; started again, it goes on there, and on a CPU ends with the same bytes.

Example:
    python scripts/train_network.py --data results/glyphs/data --architecture my_search/architecture.json \\
        --learner rfs --epochs 10 --output my_model
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import pandas as pd
import torch
from torch import nn

from metantk import backbones
from metantk.backbones.counting import count_macs, count_parameters
from metantk.backbones.graph import UnknownOperation
from metantk.backbones.latency import latency_ms
from metantk.data.images import load_images
from metantk.data.store import checksum_of, load_split, read_manifest
from metantk.learners.base import check_learner
from metantk.models import save_model
from metantk.runtime import devices, plugins
from metantk.runtime.checkpoints import CheckpointFile, freeze, thaw
from metantk.runtime.command_line import (
    Ended,
    add_seed,
    file_name,
    make_parser,
    parse_kind,
    progress,
    run,
    signals_held,
)
from metantk.runtime.devices import generator
from metantk.runtime.files import DivergedError, InputError, atomic_write, check_writable, sha256_of
from metantk.runtime.provenance import code_hash, provenance
from metantk.runtime.typed_files import BuiltArchitecture, read_record
from metantk.training import CURVE, Trainer

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, kinds={"learner": ("learners", "rfs")})
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument(
        "--architecture", required=True, type=Path, metavar="FILE", help="output of search_architecture.py"
    )
    add_seed(parser)
    parser.add_argument(
        "--learner-name", type=file_name, metavar="NAME", help="Name of the learner in the tables [its kind]"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of model.safetensors, model.json, training.csv",
    )
    arguments = parser.parse_args()
    options = parse_kind(arguments, "learner")
    record = read_record(arguments.architecture, BuiltArchitecture, stage="search_architecture")
    architecture = record.model_dump(exclude_unset=True)
    backbone = plugins.options_class("backbones", record.kind)
    if backbone.frozen and options.kind != "none":
        raise InputError(f"{arguments.architecture}: backbone {record.kind} is frozen: its learner is none")
    if options.only_backbones and record.kind not in options.only_backbones:
        raise InputError(
            f"--learner {options.kind}: takes a backbone of kind {' or '.join(options.only_backbones)}"
        )
    if backbone.only_learners and options.kind not in backbone.only_learners:
        raise InputError(
            f"{arguments.architecture}: backbone {record.kind} takes a learner of kind"
            f" {' or '.join(backbone.only_learners)}"
        )
    manifest, train = read_manifest(arguments.data), load_split(arguments.data, "train")
    module = plugins.load("learners", options.kind)
    outputs = module.outputs(options, len(train.class_names))
    is_count = isinstance(outputs, int) and outputs > 0
    plugins.expect(is_count, options.kind, "outputs", outputs, "a whole number above 0")
    network = backbones.build(architecture, outputs, where=str(arguments.architecture))
    if (side := architecture.get("image_size", train.images.shape[1])) != train.images.shape[1]:
        raise InputError(
            f"{arguments.architecture}: is of images of {side} pixels, {arguments.data} has"
            f" {train.images.shape[1]}; run search_architecture again"
        )
    if record.origin is not None and record.origin.dataset != manifest["name"]:
        raise InputError(
            f"{arguments.architecture}: was found on {record.origin.dataset}, {arguments.data} is"
            f" {manifest['name']}; take its 'origin' out to train it elsewhere"
        )
    check_writable(arguments.output)
    device = devices.start(uses_device=options.uses_device)
    network.initialise_(generator("initial weights", arguments.seed))
    # A network that comes with its weights also says what its images are normalised by.
    statistics = getattr(network, "statistics", manifest)
    data = load_images(train, statistics, device)
    if record.kind.endswith(".py"):
        backbones.try_out(network, train.images.shape[1], where=record.kind)
    learner = module.Learner(options, network.to(device), data, arguments.seed)
    check_learner(learner, options.kind)
    files = [
        __file__,
        plugins.module_file("backbones", architecture["kind"]),
        *plugins.module_files("learners", options),
    ]
    checkpoint = CheckpointFile(
        arguments.output,
        "training",
        {
            "learner": options.model_dump(),
            "seed": arguments.seed,
            "architecture": architecture,
            "code": code_hash(*files),
            "data": sha256_of(arguments.data / "manifest.json"),
        },
    )
    validation = None
    if getattr(learner, "validate", None) is not None:
        validation = load_images(load_split(arguments.data, "val"), manifest, device)
        if hasattr(learner, "validation_tasks"):
            learner.validation_tasks(validation)
    trainer = Trainer(learner, data, seed=arguments.seed, validation=validation)
    try:
        seconds = _train(trainer, checkpoint)
    except DivergedError:
        checkpoint.remove()
        raise
    warnings = trainer.warnings()
    best_epoch = trainer.take_best()
    facts = {
        "architecture": architecture,
        "learner": options.model_dump(),
        "learner_name": arguments.learner_name or options.kind,
        "outputs": network.head.out_features,
        "classes": train.class_names,
        "training_images": len(train.images),
        "image_size": train.images.shape[1],
        "mean": statistics["mean"],
        "std": statistics["std"],
        "data": str(arguments.data),
        "data_sha256": checksum_of(manifest),
        "licence": manifest.get("licence", "unknown"),
        "initial_weights": getattr(network, "initial_weights", None),
        "feature_dim": network.feature_dim,
        "backbone_parameters": (backbone_parameters := count_parameters(network) - count_parameters(network.head)),
        "parameters_in_tests": count_parameters(network) if options.uses_head else backbone_parameters,
        "macs": count_macs(network, train.images.shape[1]),
        "latency_ms": _latency_ms(network, train.images.shape[1]),
        "epoch": best_epoch,
        "transductive": bool(getattr(options, "transductive", False)),
        "warnings": warnings,
        "seconds": round(seconds, 3),
        "peak_memory_mb": devices.peak_memory_mb(device),
        **provenance(
            *files, options=options.model_dump(), seed=arguments.seed, device=devices.describe_device(device)
        ),
    }
    columns = CURVE if validation is None else [*CURVE, "validation_accuracy"]
    with atomic_write(arguments.output / "training.csv") as temporary:
        pd.DataFrame(trainer.curve, columns=columns).to_csv(temporary, index=False)
    save_model(arguments.output, network, learner.extra, facts)
    checkpoint.remove()
    for warning in warnings:
        log.warning("warning: %s", warning)


def _latency_ms(network: nn.Module, image_size: int) -> float | None:
    """Of one image, see `metantk.backbones.latency`; None where it cannot be measured."""
    try:
        return round(latency_ms(network.cpu(), image_size), 4)
    except UnknownOperation as error:
        log.info("the latency is not measured: %s", error)
        return None


def _train(trainer: Trainer, checkpoint: CheckpointFile) -> float:
    """Train what is left; the seconds spent on all of it, earlier attempts included."""
    began = time.perf_counter()
    if checkpoint.state:
        began -= _resume(trainer, checkpoint.state)
        log.info("going on after epoch %d and %d steps", trainer.epoch, trainer.step)
    epochs, steps = trainer.learner.epochs, trainer.learner.steps
    state = _freeze(trainer, began)
    with progress(None, total=epochs * steps, initial=trainer.steps_done, what="training", unit="step") as bar:
        while trainer.epoch < epochs:
            try:
                _train_epoch(trainer, bar.update)
            except torch.OutOfMemoryError:
                _save_memory(trainer)
                _resume(trainer, thaw(state))
                bar.update(trainer.steps_done - bar.n)
                continue
            except Ended:
                checkpoint.write(_freeze(trainer, began))
                raise
            state = _freeze(trainer, began)
            checkpoint.write(state)
            last = trainer.curve[-1]
            bar.set_postfix(epoch=last["epoch"], loss=f"{last['loss']:.3f}", accuracy=f"{last['accuracy']:.1f} %")
    for last in trainer.curve[-1:]:
        log.info("loss %.4f, training accuracy %.1f %%", last["loss"], last["accuracy"])
    return time.perf_counter() - began


def _train_epoch(trainer: Trainer, update: Callable[[int], None]) -> None:
    """Train to the end of the epoch; a signal to end takes effect between two steps."""
    with signals_held() as let_through:

        def advance(count: int) -> None:
            update(count)
            let_through()

        trainer.train_epoch(advance)


def _save_memory(trainer: Trainer) -> None:
    """Go on with less memory, once. A batch is not cut: batch normalisation would compute something else.

    Raises:
        InputError: that was done already.
    """
    networks = trainer.networks
    if any(getattr(network, "recompute", True) for network in networks):  # already, or one that cannot
        raise InputError("training: out of GPU memory: use a smaller batch, fewer channels or a larger GPU")
    for network in networks:
        network.recompute = True
    log.warning("out of GPU memory: from here on activations are computed twice instead of stored; results stay")


def _freeze(trainer: Trainer, began: float) -> bytes:
    return freeze({"trainer": trainer.state(), "seconds": time.perf_counter() - began})


def _resume(trainer: Trainer, state: dict) -> float:
    """Go back to a saved state; the seconds spent until then."""
    trainer.load_state(state["trainer"])
    return state["seconds"]


if __name__ == "__main__":
    run(main)
