"""The configuration of the workflow: rows of backbone × search × learner, and what their names stand for.

`Config` is what config/config.yaml holds; workflow/schemas/ is generated from it (`make schema`). Imports no torch,
except for the files of one's own kinds.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, create_model, model_validator

from metantk.options import catalogue
from metantk.options.base import (
    NAME,
    NAME_RULE,
    Name,
    Need,
    Options,
    Seed,
    glance,
    parse,
    parse_part,
    refuse_former_name,
    unknown_key,
)
from metantk.options.budget import BudgetOptions
from metantk.options.dataset import NAMED_SOURCES, DatasetOptions, check_outside, unknown_word
from metantk.options.evaluation import EvaluationSection
from metantk.options.searches.measuring import check_layout
from metantk.options.study import LEAST_ARCHITECTURES, StudyOptions
from metantk.options.theory import TheoryOptions
from metantk.runtime import plugins
from metantk.runtime.files import SCRIPTS, InputError, parse_json, read_text
from metantk.space.budget import Budget
from metantk.space.genotype import SPACES, check_space, read_named
from metantk.space.layouts import make_layout
from metantk.space.sizes import stack_sizes

NameList = Annotated[list[Name], Field(min_length=1)]
Names = Annotated[
    NameList,
    BeforeValidator(
        lambda given: [given] if isinstance(given, str) else given, json_schema_input_type=Name | NameList
    ),
]
Entry = dict[str, object]
AXES = {
    "backbones": "backbone",
    "searches": "search",
    "learners": "learner",
}  # of a row, by the section of its names
# What lies in the folder of results beside the data sets.
FOLDERS = {"benchmarks", "criteria", "figures", "logs", "tables", "tables_partial", "theory"}


# Folders of the repository that no results may mix with.
REPOSITORY = SCRIPTS.parent
_HIDDEN = (".ci", ".git", ".github", ".snakemake", ".venv")
_OWN = (*_HIDDEN, "config", "containers", "docs", "envs", "scripts", "tests", "workflow")
OF_THE_WORKFLOW = {REPOSITORY / name for name in _OWN}


def _folder(name: str) -> str:
    """A folder's name as it can stand in a rule and in a shell, without a `./` before or a `/` behind it."""
    if not name.isprintable() or set(name) & set("{}\\"):
        raise ValueError("braces, backslashes and what cannot be printed are not possible in its name")
    if name.startswith(("-", "~")):
        raise ValueError(f"{name[0]} cannot stand before its name")
    folder = os.path.normpath(name)
    if Path(folder).name in ("", ".", ".."):
        raise ValueError("it has to be a folder of its own")
    whole = Path(folder).resolve()
    # Git and Snakemake keep theirs in the working folder, which may be another.
    is_own = OF_THE_WORKFLOW & {whole, *whole.parents} or whole in (REPOSITORY, Path.cwd())
    if is_own or {".git", ".snakemake", ".venv"} & set(Path(folder).parts):
        raise ValueError("it would mix with the workflow's own files")
    there = next(place for place in (Path(folder), *Path(folder).parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ValueError(f"it would be at or below {there}, which is no folder")
    return folder


class RowOptions(Options):
    """Rows of the tables: each backbone with each search and each learner of the lists."""

    backbone: Names = Field(
        description="Backbone of the row: a stack of cells such as `5cells-48ch`, another built-in name, or an "
        "entry of `backbones`"
    )
    search: Names = Field(
        ["fixed"],
        description="Search that finds the cells: a built-in name, or an entry of `searches`; `fixed` for "
        "backbones without cells",
    )
    learner: Names = Field(
        ["rfs"], description="Learner that trains the network: a built-in name, or an entry of `learners`"
    )


CriteriaOptions = create_model(
    "CriteriaOptions",
    __base__=Options,
    __cls_kwargs__={"extra": "allow"},
    __doc__="Options of criteria, for all searches; those of a user-defined one stand under its file's name.",
    **{section: (options, options()) for section, options in catalogue.SECTIONS.items()},
)


class Chain(NamedTuple):
    """Names of the backbone, the search and the learner of one row."""

    backbone: str
    search: str
    learner: str


class Config(Options):
    """The configuration of the workflow."""

    results: Annotated[str, AfterValidator(_folder)] = Field(
        "results", min_length=1, max_length=200, description="Folder of all outputs"
    )
    datasets: dict[Name, DatasetOptions] = Field(min_length=1, description="Data sets: options by name")
    rows: list[RowOptions] = Field(
        min_length=1,
        description="Rows of the tables, each `{backbone, search, learner}`; lists stand for all combinations",
    )
    seeds: list[Seed] = Field(
        [0, 1, 2],
        min_length=1,
        max_length=1000,
        description="Random seeds; each row is searched and trained once for each",
    )
    backbones: dict[Name, Entry] = Field({}, description="Backbones of your own: `kind` and options by name")
    searches: dict[Name, Entry] = Field(
        {},
        description="Searches of your own: `kind` and options by name. Under a built-in name: options of that "
        "search. Under a kind such as `prune`: options of all its searches",
    )
    learners: dict[Name, Entry] = Field(
        {},
        description="Learners of your own: `kind` and options by name. Under a built-in name: options of that "
        "learner. Under a kind such as `maml`: options of all its learners",
    )
    criteria: CriteriaOptions = CriteriaOptions()
    evaluation: EvaluationSection = EvaluationSection()
    theory: TheoryOptions = TheoryOptions()
    study: StudyOptions = StudyOptions()
    _resolved: dict[tuple[str, str], Options] = PrivateAttr(default_factory=dict)

    @property
    def chains(self) -> list[Chain]:
        """Every combination of the rows, in their order."""
        return [
            Chain(backbone, search, learner)
            for row in self.rows
            for backbone in row.backbone
            for search in row.search
            for learner in row.learner
        ]

    @property
    def transfers(self) -> list[tuple[str, str]]:
        """Data sets that models are trained on, each with another one that they are evaluated on, too."""
        pairs = product(self.datasets, self.evaluation.test_on)
        return [(trained, tested) for trained, tested in pairs if trained != tested]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Config":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is listed twice")
        if taken := sorted(self.datasets.keys() & FOLDERS):
            raise ValueError(f"datasets: {taken[0]} is the name of another folder of the results")
        if twice := [chain for chain in self.chains if self.chains.count(chain) > 1]:
            raise ValueError(f"rows: {' × '.join(twice[0])} is listed twice")
        try:
            for family in catalogue.KINDS:
                self._check_entries(family)
            for chain in self.chains:
                self._check_chain(chain)
            for name in dict.fromkeys(chain.search for chain in self.chains):
                self.given_genotypes(name)
            self._check_criteria()
            self._check_sizes()
            self._check_budgets()
            self._check_transfers()
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_entries(self, family: str) -> None:
        kinds = catalogue.KINDS[family]
        for name, entry in getattr(self, family).items():
            built_in = catalogue.named(family, name)
            kind = entry.get("kind", name if built_in is None else built_in["kind"])
            if built_in is not None and kind != built_in["kind"]:
                raise InputError(
                    f"{family}.{name}: is built in with kind {built_in['kind']!r}; choose another name"
                )
            if family == "backbones" and built_in is not None:
                raise InputError(f"{family}.{name}: is built in; choose another name")
            if built_in is None and name in kinds and kind != name:
                raise InputError(f"{family}.{name}: is the name of a kind; choose another name")
            if "kind" not in entry and built_in is None and name not in kinds:
                refuse_former_name(f"{family}.{name}", name)
                raise InputError(
                    f"{family}.{name}: 'kind' is missing; choose from {', '.join(kinds)}, or a .py file"
                )
            options = self._options_class(family, kind)
            for key in entry:
                if key in ("settings", "criteria_options"):
                    raise InputError(f"{family}.{name}: options of criteria stand in the section `criteria`")
                if key not in options.model_fields:
                    raise InputError(f"{family}.{name}: {unknown_key(options, key)}")
            if name in kinds:
                parse_part(options, merge(built_in or {}, entry, {"kind": kind}), where=f"{family}.{name}")
            else:
                self._resolve(family, name)

    def _check_chain(self, chain: Chain) -> None:
        backbone, search = self.backbone(chain.backbone), self.search(chain.search)
        learner = self.learner(chain.learner)
        if learner.only_own_ways and learner.ways != self.evaluation.ways:
            raise InputError(
                f"rows: learner {chain.learner} is trained on {learner.ways}-way tasks and cannot answer the"
                f" {self.evaluation.ways}-way ones of the evaluation: set its ways"
            )
        where = f"rows: backbone {chain.backbone}"
        if missing := [path for path in backbone.files if not Path(path).is_file()]:
            raise InputError(f"{where}: {missing[0]}: no such file")
        if learner.only_backbones and backbone.kind not in learner.only_backbones:
            raise InputError(
                f"{where}: learner {chain.learner} takes a backbone of kind {' or '.join(learner.only_backbones)}"
            )
        if backbone.only_learners and learner.kind not in backbone.only_learners:
            raise InputError(f"{where}: takes a learner of kind {' or '.join(backbone.only_learners)}")
        if backbone.frozen and learner.kind in catalogue.KINDS["learners"] and learner.kind != "none":
            raise InputError(f"{where} is frozen: its learner is `none` ({chain.learner} would train it)")
        if backbone.searchable and search.kind == "fixed":
            known = ", ".join(name for name in catalogue.NAMED["searches"] if name != "fixed")
            raise InputError(f"{where} takes a search; choose from {known}")
        if self._kinds(search):
            check_layout(backbone, where=f"{where}, search {chain.search}")
        if not backbone.searchable and search.kind != "fixed":
            raise InputError(f"{where} has nothing to find: leave out its search ({chain.search})")

    def given_genotypes(self, search: str) -> dict[str, dict]:
        """The given genotypes of a search, by their names; none of one that finds its own."""
        options = self.search(search)
        try:
            return {name: read_named(name) for name in (options.genotypes if options.kind == "given" else [])}
        except InputError as error:
            raise InputError(f"searches.{search}: {error}") from None

    def _check_sizes(self) -> None:
        """Images that are brought to a size have one that every row can take."""
        of, side = max(((of, need.side) for of, need in self.needs()), key=lambda each: each[1])
        for name, options in self.datasets.items():
            if options.image_size is not None and options.image_size < side:
                raise InputError(
                    f"datasets.{name}: image_size {options.image_size} is too small: {of} needs {side} pixels"
                )

    def _check_budgets(self) -> None:
        """Within each budget there is an architecture, as far as the sizes of images are known."""
        for names in dict.fromkeys((chain.backbone, chain.search) for chain in self.chains):
            backbone, search = self.backbone(names[0]), self.search(names[1])
            limits = getattr(search, "budget", None)
            if not isinstance(limits, BudgetOptions) or not limits.is_set:
                continue
            where = f"rows: backbone {names[0]}, search {names[1]}"
            if backbone.kind != "cells":
                raise InputError(f"{where}: the sizes of this backbone are not known: the search takes no budget")
            layout = make_layout(backbone.layout, cells=backbone.cells, channels=backbone.channels)
            space = SPACES[search.space]
            for dataset in self.datasets.values():
                # Without a size of its own, that of its images is known when the search begins.
                if dataset.image_size is None and limits.multiply_accumulates is not None:
                    continue
                try:
                    Budget(space, stack_sizes(space, layout, dataset.image_size or 1), limits)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None

    def _check_transfers(self) -> None:
        for name in self.evaluation.test_on:
            if name not in self.datasets:
                known = ", ".join(self.datasets)
                raise InputError(f"evaluation.test_on: unknown data set {name!r}: choose from {known}")
        if self.evaluation.test_on and not self.transfers:
            (only,) = self.datasets
            raise InputError(f"evaluation.test_on: {only} is the only data set: no model is trained on another")

    def _check_criteria(self) -> None:
        """Each section of `criteria` belongs to a criterion: a built-in one, or one that a search names."""
        if self.study.criteria_options:
            raise InputError("study: options of criteria stand in the section `criteria`")
        defaults = catalogue.KINDS["searches"].keys()  # entries of these names need be no whole searches
        names = self.searches.keys() - defaults | {chain.search for chain in self.chains}
        sections = {
            section for name in sorted(names) for section in getattr(self.search(name), "criteria_options", {})
        }
        sections |= self.whole_study.criteria_options.keys()
        if unknown := sorted((self.criteria.model_extra or {}).keys() - sections):
            known = ", ".join([*catalogue.SECTIONS, *sorted(sections - catalogue.SECTIONS.keys())])
            raise InputError(
                f"criteria: unknown key '{unknown[0]}'; no criterion in use has such options (there are {known})"
            )

    def backbone(self, name: str) -> Options:
        return self._resolve("backbones", name)

    def learner(self, name: str) -> Options:
        return self._resolve("learners", name)

    def search(self, name: str) -> Options:
        """The options of a search.

        Options of criteria that it does not use are left out: changing them leaves its searches valid.
        """
        options = self._resolve("searches", name)
        if "criteria_options" not in type(options).model_fields:
            return options
        return options.model_copy(update={"criteria_options": self._settings(self._kinds(options))})

    @property
    def whole_study(self) -> StudyOptions:
        """The options of the study, those of its criteria among them."""
        free = [name for name in catalogue.CRITERIA if name != "short_training"]
        study = self.study.model_copy(update={"criteria": self.study.criteria or free})
        with_training = [*study.kinds.values(), "short_training"]
        return study.model_copy(update={"criteria_options": self._settings(with_training)})

    @staticmethod
    def _kinds(options: Options) -> Iterable[str]:
        """The criteria of a search; none of one that measures none."""
        return options.kinds.values() if "criteria_options" in type(options).model_fields else []

    def _settings(self, kinds: Iterable[str]) -> dict[str, dict]:
        """The sections of `criteria` that these criteria use, in full."""
        return {section: of_criterion.model_dump() for section, of_criterion in self._sections(kinds)}

    def _sections(self, kinds: Iterable[str]) -> Iterator[tuple[str, Options]]:
        """Each section of `criteria` that these criteria use."""
        for name in kinds:
            section, kind = self._section(name)
            if section is not None:
                given = getattr(self.criteria, section, {})
                is_parsed = isinstance(given, Options)
                yield section, given if is_parsed else parse(kind, given, where=f"criteria.{section}")

    @staticmethod
    def _section(criterion: str) -> tuple[str | None, type[Options] | None]:
        if criterion.endswith(".py"):
            own, name = plugins.load_whole("criteria", criterion).CRITERION, Path(criterion).stem
            if name in catalogue.CRITERIA:
                raise InputError(f"criteria: {criterion}: {name} is built in; choose another name for the file")
            section = own.section or (own.options and name)
            if catalogue.SECTIONS.get(section, own.options) is not own.options:
                raise InputError(f"criteria: {criterion}: its section {section!r} is built in; choose another")
            return section, own.options
        if criterion not in catalogue.CRITERIA:
            raise InputError(
                f"unknown criterion {criterion!r}: choose from {', '.join(catalogue.CRITERIA)}, or a .py file"
            )
        section = catalogue.CRITERIA[criterion]
        return section, catalogue.SECTIONS.get(section)

    def _resolve(self, family: str, name: str) -> Options:
        """The options that a name stands for: of its kind, then of the built-in name, then of its own entry."""
        if (family, name) not in self._resolved:
            entries = getattr(self, family)
            own, built_in = entries.get(name), catalogue.named(family, name)
            if own is None and built_in is None:
                refuse_former_name(f"unknown {family} name {name!r}", name)
                stacks = ["5cells-48ch (any cells × channels)"] if family == "backbones" else []
                known = ", ".join([*stacks, *catalogue.NAMED[family], *entries])
                raise InputError(f"unknown {family} name {name!r}: choose from {known}")
            kind = (built_in or {}).get("kind") or own.get("kind", name)
            of_kind = entries.get(kind, {}) if kind != name else {}
            values = merge(of_kind, built_in or {}, own or {}, {"kind": kind})
            self._resolved[family, name] = parse(
                self._options_class(family, kind), values, where=f"{family}.{name}"
            )
        return self._resolved[family, name]

    @staticmethod
    def _options_class(family: str, kind: object) -> type[Options]:
        if isinstance(kind, str) and kind.endswith(".py"):
            return plugins.options_class(family, kind)
        if not isinstance(kind, str) or kind not in catalogue.KINDS[family]:
            refuse_former_name(f"{family}: unknown kind {glance(kind)}", kind)
            kinds = ", ".join(catalogue.KINDS[family])
            raise InputError(
                f"{family}: unknown kind {glance(kind)}: choose from {kinds}, or the path of a .py file"
            )
        return catalogue.KINDS[family][kind]

    def needs(self) -> list[tuple[str, Need]]:
        """What all rows and the evaluation take from a data set, each with the name of who takes it."""
        found = [("evaluation", need) for need in self.evaluation.needs]
        for family, axis in AXES.items():
            names = dict.fromkeys(getattr(chain, axis) for chain in self.chains)
            for name in names:
                options = self._resolve(family, name)
                found += [(f"{family}.{name}", need) for need in _needs_of(options, f"{family}.{name}")]
                found += [
                    (f"criteria.{section} of {family}.{name}", need)
                    for section, of_criterion in self._sections(self._kinds(options))
                    for need in _needs_of(of_criterion, f"criteria.{section}")
                ]
        return found

    def title(self, family: str, name: str) -> str:
        """What the tables call it: by its name, or else as the built-in one that its kind is named after."""
        titles = catalogue.TITLES.get(family, {})
        kind = getattr(self, family).get(name, {}).get("kind")
        return titles.get(name, titles.get(kind, name))


def _needs_of(options: Options, where: str) -> list[Need]:
    try:
        needs = options.needs
    except Exception as error:  # those of a user-defined kind may raise anything
        raise InputError(f"{where}: its needs fail ({type(error).__name__}: {error})") from error
    fits = isinstance(needs, list | tuple) and all(
        isinstance(need, Need) and need.split in ("train", "val", "test") for need in needs
    )
    plugins.expect(fits, where, "needs", needs, "a list of metantk.options.base.Need")
    return list(needs)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own loader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]!r} stands there twice, from line {node.start_mark.line + 1} on")
        return super().construct_mapping(node, deep)


def _parse_text(text: str) -> object:
    """JSON first, as Snakemake does: YAML knows no tabs."""
    try:
        return parse_json(text)
    except ValueError:
        return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict:
    """A configuration's file, whatever it holds.

    Raises:
        InputError: it cannot be read, holds something else, or has a key twice.
    """
    try:
        values = _parse_text(read_text(path))
        json.dumps(values, default=str)  # a value that holds itself raises
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{path}: is no YAML ({where}{error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is no configuration")
    if code := [key for key in values if str(key).startswith("__")]:
        raise InputError(f"{path}: {code[0]!r} would have Snakemake run code; a configuration holds values only")
    return values


def check_sources(config: Config) -> None:
    """Refuse a data set whose source is a word that means nothing here or holds the results, before any job.

    A path of more parts may be there when the job runs, on another machine.

    Raises:
        InputError: naming the first.
    """
    for name, options in config.datasets.items():
        if problem := unknown_word(options.source):
            raise InputError(f"configuration: datasets.{name}: {problem}")
        check_outside(Path(config.results), options.source)


def check_study(config: Config) -> None:
    """Refuse a study before its networks are trained: of too few architectures, or of another space than its own.

    Raises:
        InputError: saying which.
    """
    rows = [chain for chain in config.chains if config.backbone(chain.backbone).kind == "cells"]
    if not rows:
        raise InputError("study: no row has a backbone of kind cells, whose architectures criteria could score")
    for name in dict.fromkeys(chain.backbone for chain in rows):
        check_layout(config.backbone(name), where=f"study: backbone {name}")
    found = {name: _architectures(config, name) for name in dict.fromkeys(chain.search for chain in rows)}
    for backbone, learner in dict.fromkeys((chain.backbone, chain.learner) for chain in rows):
        most = sum(found[chain.search] for chain in rows if (chain.backbone, chain.learner) == (backbone, learner))
        if most < LEAST_ARCHITECTURES:
            raise InputError(
                f"study: the rows of {backbone} with {learner} have {most} different architectures at most,"
                f" {LEAST_ARCHITECTURES} are needed; add seeds"
            )


def _architectures(config: Config, search: str) -> int:
    """How many different ones a search of the study finds at most for one backbone.

    Raises:
        InputError: they are of another space than the study's.
    """
    options, given = config.search(search), config.given_genotypes(search)
    if options.kind == "autometa":
        raise InputError(
            f"study: searches.{search}: cells of autometa may have an operation twice on an edge, which criteria do"
            " not score; leave its rows out"
        )
    for genotype, cells in given.items():
        check_space(cells, config.study.space, where=f"study: searches.{search}: {genotype}")
    is_built_in = options.kind in catalogue.KINDS["searches"]
    space = getattr(options, "space", None) if is_built_in else None
    if space not in (None, config.study.space):
        raise InputError(
            f"study: searches.{search} finds cells of space {space}, not {config.study.space}: set study.space"
        )
    seeds = len(config.seeds)
    return min(seeds, len(given) or seeds, options.distinct or seeds if options.kind == "sample" else seeds)


def merge(*layers: dict) -> dict:
    """Later layers over earlier ones; where both have an object, key by key."""
    merged: dict = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def retype(values: dict, overrides: dict) -> dict:
    """Values of a configuration, with what `--config` gave in the types that YAML would have read.

    Snakemake 9 reads nested values of its command line as text: `seeds=[0,1]` comes as `["0", "1"]`.

    Args:
        values: of the whole configuration, overrides included.
        overrides: by key, as Snakemake has read them from the command line.
    """
    typed = dict(values)
    for key, given in overrides.items():
        if key in TEXTS:
            typed[key] = str(given)
        elif isinstance(given, dict) and isinstance(values.get(key), dict):
            typed[key] = retype(values[key], given)
        else:
            typed[key] = _typed(given)
    return typed


TEXTS = {"results", "source"}  # names of folders, such as 2024


def _typed(value: object) -> object:
    if isinstance(value, dict):
        return {key: inner if key in TEXTS else _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        scalar = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return value if isinstance(scalar, dict | list | date) else scalar


def with_own(values: dict) -> dict:
    """A configuration's values with what `make ... IMAGES= NAME=` says: the source of the data set `images`, and
    a name that the folder of results ends in.

    Both come by the environment, so that neither a shell nor YAML reads what they hold.

    Raises:
        InputError: the name is none.
    """
    if name := os.environ.get("METANTK_NAME"):
        if not re.fullmatch(NAME, name):
            raise InputError(f"NAME={name}: {NAME_RULE}")
        values = values | {"results": f"{values.get('results', 'results')}-{name}"}
    if folder := os.environ.get("METANTK_IMAGES"):
        folder = os.path.expanduser(folder)  # noqa: PTH111 - a path would drop the dot below
        source = f"./{folder}" if folder in NAMED_SOURCES else folder
        values = merge(values, {"datasets": {"images": {"source": source}}})
    return values


def parse_config(values: dict) -> Config:
    """Check a configuration.

    Raises:
        InputError: one line that names each key and what is wrong with it.
    """
    return parse(Config, with_own(values), where="configuration")
