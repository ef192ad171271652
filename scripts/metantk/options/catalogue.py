"""What a configuration can name: kinds with their options, and the rows of the paper's Tables 1 and 2.

Only the workflow imports this module: a stage knows the kinds that it was asked for and no others, so that adding
one here reruns nothing. A kind is added by its module in metantk/backbones, criteria, searches or learners, and its
line here; a kind of one's own is named in the configuration by the path of its .py file.
"""

import re

from metantk.options.backbones.cells import CellsOptions
from metantk.options.backbones.conv4 import Conv4Options
from metantk.options.backbones.mixed import MixedOptions
from metantk.options.backbones.onnx import OnnxOptions
from metantk.options.backbones.pixels import PixelsOptions
from metantk.options.backbones.resnet12 import ResNet12Options
from metantk.options.backbones.timm import TimmOptions
from metantk.options.base import Options
from metantk.options.criteria.gradients import GradientsOptions
from metantk.options.criteria.linear_regions import LinearRegionsOptions
from metantk.options.criteria.meta_ntk import MetaNtkOptions
from metantk.options.criteria.ntk import NtkOptions
from metantk.options.criteria.patterns import PatternsOptions
from metantk.options.criteria.short_training import ShortTrainingOptions
from metantk.options.criteria.zen import ZenOptions
from metantk.options.learners.maml import MamlOptions
from metantk.options.learners.metanas import MetaNasLearnerOptions
from metantk.options.learners.metaoptnet import MetaOptNetOptions
from metantk.options.learners.none import NoneOptions
from metantk.options.learners.reptile import ReptileOptions
from metantk.options.learners.rfs import RfsOptions
from metantk.options.searches.autometa import AutoMetaOptions
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.options.searches.fixed import FixedOptions
from metantk.options.searches.given import GivenOptions
from metantk.options.searches.metanas import MetaNasOptions
from metantk.options.searches.prune import PruneOptions
from metantk.options.searches.sample import SampleOptions
from metantk.options.searches.t_nas import TNasOptions

KINDS: dict[str, dict[str, type[Options]]] = {
    "backbones": {
        "cells": CellsOptions,
        "conv4": Conv4Options,
        "resnet12": ResNet12Options,
        "mixed": MixedOptions,
        "timm": TimmOptions,
        "onnx": OnnxOptions,
        "pixels": PixelsOptions,
    },
    "searches": {
        "prune": PruneOptions,
        "bayesian-optimisation": BayesianOptimisationOptions,
        "sample": SampleOptions,
        "given": GivenOptions,
        "fixed": FixedOptions,
        "metanas": MetaNasOptions,
        "t-nas": TNasOptions,
        "autometa": AutoMetaOptions,
    },
    "learners": {
        "rfs": RfsOptions,
        "maml": MamlOptions,
        "reptile": ReptileOptions,
        "metaoptnet": MetaOptNetOptions,
        "metanas": MetaNasLearnerOptions,
        "none": NoneOptions,
    },
}

# The section of the configuration that holds a criterion's options; none where it has no options.
CRITERIA: dict[str, str | None] = {
    "meta_ntk_condition": "meta_ntk",
    "meta_ntk_trace": "meta_ntk",
    "meta_ntk_frobenius": "meta_ntk",
    "meta_ntk_mean": "meta_ntk",
    "meta_ntk_spectral_entropy": "meta_ntk",
    "ntk_condition": "ntk",
    "ntk_trace": "ntk",
    "ntk_frobenius": "ntk",
    "ntk_mean": "ntk",
    "ntk_spectral_entropy": "ntk",
    "linear_regions": "linear_regions",
    "short_training": "short_training",
    "naswot": "patterns",
    "swap": "patterns",
    "jacob_cov": "gradients",
    "epe_nas": "gradients",
    "grad_norm": "gradients",
    "snip": "gradients",
    "grasp": "gradients",
    "fisher": "gradients",
    "zico": "gradients",
    "gradsign": "gradients",
    "knas": "gradients",
    "synflow": None,
    "logsynflow": None,
    "zen": "zen",
    "parameters": None,
    "multiply_accumulates": None,
    "layers": None,
}
SECTIONS: dict[str, type[Options]] = {
    "meta_ntk": MetaNtkOptions,
    "ntk": NtkOptions,
    "linear_regions": LinearRegionsOptions,
    "short_training": ShortTrainingOptions,
    "patterns": PatternsOptions,
    "gradients": GradientsOptions,
    "zen": ZenOptions,
}

NAMED: dict[str, dict[str, dict]] = {
    "backbones": {
        "conv4": {"kind": "conv4"},
        "conv4-rfs": {  # as RFS has it
            "kind": "conv4",
            "channels": 64,
            "poolings": 3,
            "pool": "average",
            "initialisation": "kaiming_normal",
        },
        "resnet12": {"kind": "resnet12"},
        "mixed": {"kind": "mixed"},  # the network of MetaNAS
        "resnet12-flat": {"kind": "resnet12", "pool": "none"},  # as MetaOptNet has it
        "pixels": {"kind": "pixels"},
    },
    "searches": {
        "metantk": {"kind": "prune", "criteria": ["meta_ntk_condition", "linear_regions"]},
        "te-nas": {"kind": "prune", "criteria": ["ntk_condition", "linear_regions"]},
        "linear-regions": {"kind": "prune", "criteria": ["linear_regions"]},
        # The same questions, asked of whole architectures.
        "metantk-bo": {"kind": "bayesian-optimisation", "criteria": ["meta_ntk_condition"]},
        "ntk-bo": {"kind": "bayesian-optimisation", "criteria": ["ntk_condition"]},
        # Not without training: a measurement costs a short one, so there are few.
        "short-training-bo": {
            "kind": "bayesian-optimisation",
            "criteria": ["short_training"],
            "initial_samples": 24,
            "samples_per_round": 8,
            "max_evaluations": 48,
            "random_comparisons": 12,
        },
        "random": {"kind": "sample"},
        "fixed": {"kind": "fixed"},
        "metanas-cells": {"kind": "given", "genotypes": ["metanas_in_v2"]},
        **{
            f"metantk-cells-{dataset}-{cells}": {
                "kind": "given",
                "genotypes": [f"metantk_{dataset}_{cells}cell_{seed}" for seed in (1, 2, 3)],
            }
            for dataset in ("mini", "tiered")
            for cells in (5, 8)
        },
        "metanas": {"kind": "metanas"},
        "t-nas": {"kind": "t-nas"},
        "auto-maml": {"kind": "t-nas", "variant": "auto-maml"},
        "autometa": {"kind": "autometa"},
    },
    "learners": {
        "rfs": {"kind": "rfs"},
        # RFS's own recipe for ResNet-12; the paper trains its cells with smaller rates.
        "rfs-resnet12": {"kind": "rfs", "lr": 0.05, "drop_rate": 0.1},
        "maml": {"kind": "maml"},
        "maml-first-order": {"kind": "maml", "first_order": True},
        "maml-plus-plus": {
            "kind": "maml",
            "test_steps": 5,
            "multi_step_loss_epochs": 15,
            "learn_inner_lr": True,
            "per_step_batch_norm": True,
            "lr_schedule": "cosine",
        },
        "anil": {"kind": "maml", "adapt": "head"},
        # Trained as ANIL, tested without a head: the paper's row ANIL.
        "nil": {"kind": "maml", "adapt": "head", "test_classifier": "nil"},
        "reptile": {"kind": "reptile"},
        "metaoptnet": {"kind": "metaoptnet"},
        "metaoptnet-ridge": {"kind": "metaoptnet", "head": "ridge"},
        "metanas": {"kind": "metanas"},
        "none": {"kind": "none"},
    },
}
# What the tables call them; a search without a title leaves the row's name to the learner.
TITLES: dict[str, dict[str, str]] = {
    "searches": {
        "metantk": "MetaNTK-NAS",
        "te-nas": "TE-NAS",
        "linear-regions": "Linear Region",
        "metantk-bo": "MetaNTK (Bayesian optimisation)",
        "ntk-bo": "NTK (Bayesian optimisation)",
        "short-training-bo": "Short training (Bayesian optimisation)",
        "random": "Random Cell",
        **dict.fromkeys(
            [f"metantk-cells-{dataset}-{cells}" for dataset in ("mini", "tiered") for cells in (5, 8)],
            "MetaNTK-NAS (published cells)",
        ),
        "metanas-cells": "MetaNAS (published cells, retrained)",
        "metanas": "MetaNAS (retrained)",
        "t-nas": "T-NAS",
        "auto-maml": "Auto-MAML",
        "autometa": "AutoMeta",
        "fixed": "",
    },
    "learners": {
        "rfs": "RFS",
        "rfs-resnet12": "RFS",
        "maml": "MAML",
        "maml-first-order": "MAML (first order)",
        "maml-plus-plus": "MAML++",
        "anil": "ANIL",
        "nil": "ANIL (NIL test)",
        "reptile": "Reptile",
        "metaoptnet": "MetaOptNet",
        "metaoptnet-ridge": "MetaOptNet (ridge)",
        "metanas": "MetaNAS",
        "none": "Not trained",
    },
}
CELLS = re.compile(r"([1-9]\d{0,2})cells-([1-9]\d{0,3})ch")


def named(family: str, name: str) -> dict | None:
    """The options that a built-in name stands for; `5cells-48ch` is a stack of 5 cells with 48 channels."""
    if family == "backbones" and (match := CELLS.fullmatch(name)):
        return {"kind": "cells", "cells": int(match[1]), "channels": int(match[2])}
    return NAMED[family].get(name)
