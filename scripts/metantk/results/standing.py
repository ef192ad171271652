"""The rows of a configuration as they stand: those that are finished, and what is wrong with others."""

import json
from pathlib import Path
from typing import NamedTuple

from metantk.data.manifest import Manifest
from metantk.data.store import checksum_of
from metantk.options.config import Config
from metantk.results import status, tables
from metantk.results.transfer import read_transfer
from metantk.runtime.files import InputError, canonical_json
from metantk.runtime.typed_files import read_record


class Standing(NamedTuple):
    """What the finished jobs left.

    Attributes:
        chains: rows and seeds that are as the configuration says.
        problems: a line for each of the others: a file is broken, or stale, of other options than the present ones.
    """

    chains: list[tables.Chain]
    problems: list[str]


def read_rows(config: Config) -> Standing:
    """Read every finished row; none stops the others."""
    chains, problems = [], []
    images = {dataset: _images_of(config, dataset) for dataset in config.datasets}
    for job in status.jobs_of(config):
        if job.stage != "evaluate_episodes" or not job.is_done:
            continue
        name, is_transfer = " ".join(job.place), len(job.place) > len(tables.KEY) + 1
        try:
            chain = read_transfer(job.output.parent) if is_transfer else tables.read_chain(job.output.parent)
        except InputError as error:
            problems.append(f"broken: {name}: {error}")
            continue
        if is_transfer:
            continue
        if changed := _find_change(config, chain, job.place, images[job.place[0]]):
            problems.append(f"stale: {name}: {changed}; the next run makes it anew")
        else:
            chains.append(chain)
    return Standing(chains, problems)


def titles_of(config: Config) -> tables.Titles:
    """What tables call the searches and learners of the rows."""
    return tables.Titles(
        searches={chain.search: config.title("searches", chain.search) for chain in config.chains},
        learners={chain.learner: config.title("learners", chain.learner) for chain in config.chains},
    )


def _images_of(config: Config, dataset: str) -> str | None:
    """Checksum of the present ones; None where there are none, or a broken manifest, which the next run tells."""
    try:
        manifest = read_record(
            Path(config.results, dataset, "data", "manifest.json"), Manifest, stage="prepare_dataset"
        )
    except InputError:
        return None
    return checksum_of(manifest.model_dump())


def _find_change(config: Config, chain: tables.Chain, place: tuple[str, ...], images: str | None) -> str | None:
    """The first option that is another one now, as `evaluation: episodes is 600, the configuration says 1000`.

    Args:
        place: data set, backbone, search, seed and learner, as the configuration names them.
        images: checksum of the present ones.
    """
    dataset, backbone, search, _, learner = place
    if images not in (None, chain.evaluation.data_sha256):
        return f"datasets.{dataset}: its images are others now"
    architecture = chain.model.architecture.model_dump()
    try:  # what is built by the options: some are left to the size of the images
        built = config.backbone(backbone).architecture(chain.model.image_size, architecture.get("genotype"))
    except Exception as error:  # of a user-defined backbone, anything
        return f"backbones.{backbone}: cannot be built now ({type(error).__name__}: {error})"
    compared = {
        f"backbones.{backbone}": (architecture, built),
        f"searches.{search}": (
            chain.search.options.model_dump(exclude_unset=True),
            config.search(search).model_dump(),
        ),
        f"learners.{learner}": (chain.model.learner, config.learner(learner).model_dump()),
        "evaluation": (chain.evaluation.options.model_dump(exclude_unset=True), config.evaluation.model_dump()),
    }
    for section, (found, options) in compared.items():
        wanted = json.loads(canonical_json(options))
        for key, value in json.loads(canonical_json(found)).items():
            if key in wanted and wanted[key] != value:
                return f"{section}: {key} is {value}, the configuration says {wanted[key]}"
    return None
