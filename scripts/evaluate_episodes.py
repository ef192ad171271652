"""Test a trained model on few-shot episodes of the test split (paper, section 6.1 and Appendix E).

How a task is answered is the learner's own: RFS fits a linear classifier to features of the frozen backbone, of
several augmented copies of each support image. The episodes depend on the seed in the options and on the data
alone, so every model sees the same ones.

The data may be another set than the one that the model was trained on: this is logged, and evaluation.json holds it
under `transfer`. Its images are resized to the size of the model's, which keeps its own normalisation.

Writes episodes.csv (one row per episode and number of shots) and evaluation.json (mean and 95 % interval). An
evaluation that is told to end saves its finished episodes, one that is killed those of half a minute ago; started
again, it goes on there.

Example:
    python scripts/evaluate_episodes.py --data results/glyphs/data --model my_model \\
        --episodes 200 --output my_evaluation
"""

import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd

from metantk.data.store import checksum_of, load_split, read_manifest
from metantk.evaluation import ResizedImages, describe_transfer, evaluate
from metantk.models import DESCRIPTION, Model, load_model
from metantk.options.evaluation import EvaluationOptions
from metantk.runtime import devices, plugins
from metantk.runtime.checkpoints import CheckpointFile
from metantk.runtime.command_line import Ended, make_parser, parse_options, progress, run
from metantk.runtime.files import InputError, atomic_write, check_writable, sha256_of, write_json
from metantk.runtime.provenance import code_hash, provenance
from metantk.statistics import confidence_95

log = logging.getLogger("metantk")
KEEP_SECONDS = 30  # between two checkpoints


def main() -> None:
    parser = make_parser(__doc__, EvaluationOptions)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="output of train_network.py")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="classes to test on [test]")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of episodes.csv and evaluation.json"
    )
    arguments = parser.parse_args()
    options = parse_options(EvaluationOptions, arguments)
    split = load_split(arguments.data, arguments.split)
    device = devices.start()
    model = load_model(arguments.model, device)
    manifest = read_manifest(arguments.data)
    transfer = describe_transfer(model.facts, manifest, split)
    trained, found = model.facts["image_size"], split.images.shape[1]
    if transfer:
        _warn_of_transfer(transfer, arguments.data)
        if transfer["resized_to"]:
            split = split._replace(images=ResizedImages(split.images, trained))
    elif trained != found:
        raise InputError(
            f"{arguments.model}: was trained on images of {trained} pixels, {arguments.data} has {found}"
        )
    check_writable(arguments.output)
    files = [
        __file__,
        plugins.module_file("backbones", model.facts["architecture"]["kind"]),
        *plugins.module_files("learners", model.learner),
    ]
    evaluated = {
        "split": arguments.split,
        "weights_sha256": model.facts["weights_sha256"],
        "parameters": model.facts["parameters"],
        "data_sha256": checksum_of(manifest),
        **({"transfer": transfer} if transfer else {}),
    }
    key = {
        **evaluated,
        "options": options.model_dump(),
        "model": sha256_of(arguments.model / DESCRIPTION),
        "code": code_hash(*files),
    }
    checkpoint = CheckpointFile(arguments.output, "evaluation", key)
    transductive = bool(getattr(model.learner, "transductive", False))
    if transductive:
        log.info(
            "transductive: the queries of an episode are normalised together, so that answers depend on each other"
        )
    where = f"{arguments.data}, {arguments.split} split"
    by_episode = _evaluate(model, split, options, checkpoint, where)
    rows, results = [], {}
    for shots in options.shots:
        values = np.array([episode[shots] for episode in by_episode])
        rows += [{"shots": shots, "episode": index, "accuracy": value} for index, value in enumerate(values)]
        results[str(shots)] = {"accuracy_mean": float(values.mean()), "ci95": confidence_95(values)}
        log.info("%d-shot: %.2f ± %.2f %%", shots, values.mean(), results[str(shots)]["ci95"])
    with atomic_write(arguments.output / "episodes.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    report = {
        "ways": options.ways,
        "episodes": options.episodes,
        **evaluated,
        "transductive": transductive,
        "warnings": model.facts.get("warnings", []),
        "shots": results,
        **provenance(
            *files, options=options.model_dump(), seed=options.seed, device=devices.describe_device(device)
        ),
    }
    write_json(arguments.output / "evaluation.json", report)
    checkpoint.remove()


def _warn_of_transfer(transfer: dict, data: Path) -> None:
    """Say that the data set is another one, and what of it a reader of the accuracies has to know."""
    log.warning(
        "%s (%s) is another data set than the model was trained on (%s)",
        data,
        transfer["tested_on"],
        transfer["trained_on"],
    )
    if transfer["resized_to"]:
        log.warning("warning: images are resized from %(image_size)d to %(resized_to)d pixels", transfer)
    if shared := transfer["shared_classes"]:
        log.warning("warning: these classes are training classes of the model, too: %s", ", ".join(shared))


def _evaluate(
    model: Model, split, options: EvaluationOptions, checkpoint: CheckpointFile, where: str
) -> list[dict[int, float]]:
    """Accuracies of all episodes by number of shots, those that an earlier run has saved included."""
    done: list[dict[int, float]] = checkpoint.state["accuracies"] if checkpoint.state else []
    if done:
        log.info("going on after %d episodes", len(done))
    saved_at = time.monotonic()
    accuracies = evaluate(model, split, options, where=where, done=len(done))
    with progress(None, total=options.episodes, initial=len(done), what="evaluation", unit="episode") as bar:
        try:
            for accuracy in accuracies:
                done.append(accuracy)
                bar.update(1)
                if time.monotonic() - saved_at > KEEP_SECONDS:
                    checkpoint.save({"accuracies": done})
                    saved_at = time.monotonic()
        except Ended:
            checkpoint.save({"accuracies": done})
            raise
    return done


if __name__ == "__main__":
    run(main)
