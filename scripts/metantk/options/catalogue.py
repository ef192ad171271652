"""What a configuration can name: the built-in kinds, and names that stand for a kind with options.

No stage imports this module: it knows the kinds that it was asked for and no others, so that adding one reruns
nothing. A built-in backbone, search or learner is a module in its package, its options in metantk/options, and one
line of `ENTRIES`; a criterion is an entry of `CRITERIA` in a module of metantk/criteria and one line of
`CRITERION_ENTRIES`. A user-defined kind is named in the configuration by the path of its .py file.
"""

import re
from typing import Literal, NamedTuple

from metantk.options.base import Options
from metantk.runtime import plugins


class Entry(NamedTuple):
    """A name that a configuration can give a row's backbone, search or learner.

    Attributes:
        options: the kind, and options that differ from its defaults.
        how: what it is, in a line of the documentation.
        title: its name in the tables; empty for a search that leaves the row's name to the learner, None for the
            title of the backbone's options.
    """

    options: dict[str, object]
    how: str
    title: str | None = None


class CriterionEntry(NamedTuple):
    """A built-in criterion.

    Attributes:
        family: its module in metantk/criteria, and the section of its options, where it has any.
        what: what it measures, in a line of the documentation.
        source: who published it.
        better: which values are.
    """

    family: str
    what: str
    source: str = ""
    better: Literal["higher", "lower"] = "higher"


PUBLISHED_CELLS = [(dataset, cells) for dataset in ("mini", "tiered") for cells in (5, 8)]
BY_OPTIMISATION = {"kind": "bayesian-optimisation"}
ENTRIES: dict[str, dict[str, Entry]] = {
    "backbones": {
        "conv4": Entry({"kind": "conv4"}, "Conv4 of MAML: 32 filters, four poolings, all pixels of the last map"),
        "conv4-rfs": Entry(
            {
                "kind": "conv4",
                "channels": 64,
                "poolings": 3,
                "pool": "average",
                "initialisation": "kaiming_normal",
            },
            "Conv4 of RFS: 64 filters, three poolings, a global average pool",
        ),
        "resnet12": Entry({"kind": "resnet12"}, "ResNet-12 of RFS, with a global average pool"),
        "mixed": Entry({"kind": "mixed"}, "network of MetaNAS, in which every edge mixes all operations"),
        "resnet12-flat": Entry(
            {"kind": "resnet12", "pool": "none"}, "ResNet-12 of MetaOptNet: all pixels of the last map"
        ),
        "pixels": Entry({"kind": "pixels"}, "pixels of the images, as a baseline without a network"),
    },
    "searches": {
        "metantk": Entry(
            {"kind": "prune", "criteria": ["meta_ntk_condition", "linear_regions"]},
            "Algorithm 1 of the paper with `meta_ntk_condition` and `linear_regions`",
            "MetaNTK-NAS",
        ),
        "te-nas": Entry(
            {"kind": "prune", "criteria": ["ntk_condition", "linear_regions"]},
            "Algorithm 1 of the paper with `ntk_condition` and `linear_regions`",
            "TE-NAS",
        ),
        "linear-regions": Entry(
            {"kind": "prune", "criteria": ["linear_regions"]},
            "Algorithm 1 of the paper with `linear_regions` alone",
            "Linear Region",
        ),
        "metantk-bo": Entry(
            BY_OPTIMISATION | {"criteria": ["meta_ntk_condition"]},
            "Bayesian optimisation of `meta_ntk_condition` over whole architectures",
            "MetaNTK (Bayesian optimisation)",
        ),
        "ntk-bo": Entry(
            BY_OPTIMISATION | {"criteria": ["ntk_condition"]},
            "Bayesian optimisation of `ntk_condition` over whole architectures",
            "NTK (Bayesian optimisation)",
        ),
        # Not without training: a measurement costs a short one, so there are few.
        "short-training-bo": Entry(
            BY_OPTIMISATION
            | {
                "criteria": ["short_training"],
                "initial_samples": 24,
                "samples_per_round": 8,
                "max_evaluations": 48,
                "random_comparisons": 12,
            },
            "Bayesian optimisation of `short_training`: 48 architectures are trained for two epochs each",
            "Short training (Bayesian optimisation)",
        ),
        "random": Entry(
            {"kind": "sample"},
            "uniform sample; `distinct: 48` lets later seeds take the first 48 again",
            "Random Cell",
        ),
        "best-of": Entry(
            {"kind": "best-of", "criteria": ["meta_ntk_condition", "linear_regions"]},
            "best of 100 random architectures by the criteria of `metantk`",
            "Best of random",
        ),
        "fixed": Entry({"kind": "fixed"}, "no search, for backbones in which there is nothing to find", ""),
        "metanas-cells": Entry(
            {"kind": "given", "genotypes": ["metanas_in_v2"]},
            "published cells of MetaNAS, in `genotypes/`",
            "MetaNAS (published cells, retrained)",
        ),
        **{
            f"metantk-cells-{dataset}-{cells}": Entry(
                {
                    "kind": "given",
                    "genotypes": [f"metantk_{dataset}_{cells}cell_{seed}" for seed in (1, 2, 3)],
                },
                f"published cells of MetaNTK-NAS for {dataset}ImageNet, {cells} cells, one genotype per seed",
                "MetaNTK-NAS (published cells)",
            )
            for dataset, cells in PUBLISHED_CELLS
        },
        "metanas": Entry(
            {"kind": "metanas"}, "Reptile and DARTS with soft pruning, and its decoded cells", "MetaNAS (retrained)"
        ),
        "t-nas": Entry(
            {"kind": "t-nas"},
            "first-order MAML on weights and architecture, and the decoded shared architecture",
            "T-NAS",
        ),
        "auto-maml": Entry(
            {"kind": "t-nas", "variant": "auto-maml"},
            "first-order MAML with one architecture for all tasks, learned beside the weights",
            "Auto-MAML",
        ),
        "autometa": Entry(
            {"kind": "autometa"}, "growth by blocks, a predictor, Reptile training of candidates", "AutoMeta"
        ),
    },
    "learners": {
        "rfs": Entry(
            {"kind": "rfs"}, "classification of all training classes, and logistic regression per task", "RFS"
        ),
        # The paper trains its cells with a smaller learning rate.
        "rfs-resnet12": Entry(
            {"kind": "rfs", "lr": 0.05, "drop_rate": 0.1}, "RFS with its published recipe for ResNet-12", "RFS"
        ),
        "maml": Entry({"kind": "maml"}, "initial weights that gradient steps adapt to a task", "MAML"),
        "maml-first-order": Entry(
            {"kind": "maml", "first_order": True}, "MAML without second derivatives", "MAML (first order)"
        ),
        "maml-plus-plus": Entry(
            {
                "kind": "maml",
                "test_steps": 5,
                "multi_step_loss_epochs": 15,
                "learn_inner_lr": True,
                "per_step_batch_norm": True,
                "lr_schedule": "cosine",
            },
            "MAML with learned inner learning rates, batch norm per step and losses of all steps",
            "MAML++",
        ),
        "anil": Entry({"kind": "maml", "adapt": "head"}, "MAML whose inner loop adapts the head alone", "ANIL"),
        "nil": Entry(  # the paper's row ANIL
            {"kind": "maml", "adapt": "head", "test_classifier": "nil"},
            "trained as `anil`, tested without a head",
            "ANIL (NIL test)",
        ),
        "reptile": Entry({"kind": "reptile"}, "moves towards where training on tasks leads", "Reptile"),
        "metaoptnet": Entry({"kind": "metaoptnet"}, "features for a support vector machine per task", "MetaOptNet"),
        "metaoptnet-ridge": Entry(
            {"kind": "metaoptnet", "head": "ridge"}, "features for ridge regression per task", "MetaOptNet (ridge)"
        ),
        "metanas": Entry(
            {"kind": "metanas"},
            "weights and architecture adapted to each task, on a backbone of kind `mixed`",
            "MetaNAS",
        ),
        "none": Entry({"kind": "none"}, "no training", "Not trained"),
    },
}
CRITERION_ENTRIES: dict[str, CriterionEntry] = {
    "meta_ntk_condition": CriterionEntry(
        "meta_ntk", "condition number of the MetaNTK", "the paper, Eqs. 10, 11, 14", "lower"
    ),
    "meta_ntk_trace": CriterionEntry("meta_ntk", "trace of the MetaNTK", "NASI (of the NTK)"),
    "meta_ntk_frobenius": CriterionEntry("meta_ntk", "Frobenius norm of the MetaNTK"),
    "meta_ntk_mean": CriterionEntry("meta_ntk", "mean entry of the MetaNTK", "KNAS (of losses)"),
    "meta_ntk_spectral_entropy": CriterionEntry(
        "meta_ntk", "entropy of the MetaNTK's normalised eigenvalues, in nats", "VKDNW, AZ-NAS (of other matrices)"
    ),
    "ntk_condition": CriterionEntry("ntk", "condition number of the supervised NTK", "TE-NAS", "lower"),
    "ntk_trace": CriterionEntry("ntk", "trace of the supervised NTK", "NASI"),
    "ntk_frobenius": CriterionEntry("ntk", "Frobenius norm of the supervised NTK"),
    "ntk_mean": CriterionEntry("ntk", "mean entry of the supervised NTK", "KNAS (of losses)"),
    "ntk_spectral_entropy": CriterionEntry(
        "ntk",
        "entropy of the supervised NTK's normalised eigenvalues, in nats",
        "VKDNW, AZ-NAS (of other matrices)",
    ),
    "linear_regions": CriterionEntry(
        "linear_regions", "number of linear regions of a thin network", "TE-NAS; the paper, Eq. 15"
    ),
    "short_training": CriterionEntry(
        "short_training", "accuracy on validation episodes after a short training; not training-free"
    ),
    "naswot": CriterionEntry(
        "patterns",
        "logarithm of the determinant of the numbers of ReLUs in which two images agree",
        "nas-without-training",
    ),
    "swap": CriterionEntry("patterns", "number of different patterns of single ReLUs", "SWAP"),
    "jacob_cov": CriterionEntry(
        "gradients", "how little the images' gradients correlate", "nas-without-training, first version"
    ),
    "epe_nas": CriterionEntry("gradients", "how little the gradients of images of a class correlate", "EPE-NAS"),
    "grad_norm": CriterionEntry("gradients", "sum of the norms of the tensors' gradients", "zero-cost-nas"),
    "snip": CriterionEntry("gradients", "Σ |w g| over weights w and their gradients g", "SNIP, zero-cost-nas"),
    "grasp": CriterionEntry("gradients", "−Σ w (H g), H the Hessian of the loss", "GraSP, zero-cost-nas"),
    "fisher": CriterionEntry("gradients", "squared products of outputs and their gradients", "zero-cost-nas"),
    "zico": CriterionEntry(
        "gradients", "logarithm of mean over standard deviation of two batches' gradients", "ZiCo"
    ),
    "gradsign": CriterionEntry("gradients", "how far single images' gradients agree in sign", "GradSign"),
    "knas": CriterionEntry("gradients", "mean of the Gram matrix of single images' gradients, as meant", "KNAS"),
    "synflow": CriterionEntry(
        "synaptic", "Σ |w g| of a network of absolute weights, without images", "SynFlow, zero-cost-nas"
    ),
    "logsynflow": CriterionEntry(
        "synaptic", "Σ |w ln(1 + g)| of a network of absolute weights, without images", "FreeREA"
    ),
    "zen": CriterionEntry("zen", "how far features move with noise", "Zen-NAS"),
    "parameters": CriterionEntry("counts", "number of weights: a baseline"),
    "multiply_accumulates": CriterionEntry("counts", "multiply-accumulates for one image: a baseline"),
    "layers": CriterionEntry("counts", "number of weight tensors: a baseline", "VKDNW"),
}

FAMILIES = {name: entry.family for name, entry in CRITERION_ENTRIES.items()}


def _options_by_kind(family: str) -> dict[str, type[Options]]:
    """The kinds of a family, in the order of the names that stand for them, then those without a name."""
    options = {name.replace("_", "-"): found for name, found in plugins.options_by_module(family).items()}
    with_names = [entry.options["kind"] for entry in ENTRIES[family].values()]
    return {kind: options[kind] for kind in [*with_names, *options]}


KINDS = {family: _options_by_kind(family) for family in ENTRIES}
NAMED = {family: {name: entry.options for name, entry in entries.items()} for family, entries in ENTRIES.items()}
TITLES = {
    family: {name: entry.title for name, entry in entries.items() if entry.title is not None}
    for family, entries in ENTRIES.items()
}
# Options of criteria by their section of the configuration, and each criterion's section, if it has any.
_OPTIONS = plugins.options_by_module("criteria")
SECTIONS = {family: _OPTIONS[family] for family in FAMILIES.values() if family in _OPTIONS}
CRITERIA = {name: family if family in SECTIONS else None for name, family in FAMILIES.items()}
CELLS = re.compile(r"([1-9]\d{0,2})cells-([1-9]\d{0,3})ch")


def named(family: str, name: str) -> dict | None:
    """The options that a built-in name stands for; `5cells-48ch` is a stack of 5 cells with 48 channels."""
    if family == "backbones" and (match := CELLS.fullmatch(name)):
        return {"kind": "cells", "cells": int(match[1]), "channels": int(match[2])}
    return NAMED[family].get(name)
