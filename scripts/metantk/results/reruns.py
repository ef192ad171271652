"""Why jobs would run again: Snakemake's reasons in the words of options, inputs and modules. Imports no torch.

Snakemake remembers the parameters of each finished job, and prints those that differ: options as JSON, code as a
hash. Whenever the workflow is planned, `CODE` gets a file for each such hash, with the hashes of its modules.
"""

import ast
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from metantk.runtime.files import parse_json, read_json
from metantk.runtime.provenance import CODE

# A job of a dry run by its rule's message, and why it would run; targets have no message.
JOB = re.compile(r"^Job \d+: (.+)\nReason: (.*)$", re.M)
PARAMS = re.compile(
    r"Params have changed since last execution: Union of exclusive params before and now across all output: "
    r"before: (.*) now: (.*?) (?:; |$)"
)
HASH = re.compile("[0-9a-f]{64}")
LONGEST = 60  # characters of a value
MISSING = "(none)"


class Rerun(NamedTuple):
    """A job that would run, by its rule's message, and what changed since it ran last."""

    job: str
    causes: list[str]


def read_reruns(report: str) -> list[Rerun]:
    """The jobs of a dry run.

    Args:
        report: what `snakemake --dry-run` prints.
    """
    return [Rerun(job, list(_causes(reason))) for job, reason in JOB.findall(report)]


def _causes(reason: str) -> Iterator[str]:
    for part in PARAMS.sub("", reason).strip("; ").split("; "):
        head, _, files = part.strip().partition(": ")
        if head == "Missing output files":
            yield f"not there: {_first(files)}"
        elif head == "Updated input files":
            yield f"input changed: {_first(files)}"
        elif head == "Input files updated by another job":
            yield f"follows the jobs that write {_first(files)}"
        elif head == "Set of input files has changed since last execution":
            yield "other input files than before"
        elif head == "Code has changed since last execution":
            yield "its rule's command changed"
        elif part.strip():
            yield part.strip()
    if match := PARAMS.search(reason):
        yield from _changed_params(*map(_read_params, match.groups()))


def _first(files: str, most: int = 2) -> str:
    names = sorted(files.split(", "))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_params(text: str) -> list[object]:
    """Parameters as Snakemake prints them: their representations in Python, with commas between."""
    if text == "<nothing exclusive>":
        return []
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (SyntaxError, ValueError):
        return [text]


def _changed_params(before: list[object], now: list[object]) -> Iterator[str]:
    """What differs, of the kinds of parameters that rules have: code, listings of files, options, and all else."""
    code, other_hashes = _split(now, _is_code)
    if code:
        was = next(filter(_is_code, before), None)
        yield from _changed_modules(was, code[0]) if was else ["code changed; its former modules are not recorded"]
    listings, others = _split(other_hashes, _is_hash)
    if listings:
        yield "names or sizes of the data set's files changed"
    objects, others = _split(others, _as_object)
    were, former = _split([value for value in before if not _is_hash(value)], _as_object)
    yield from _changed_options([_as_object(value) for value in were], [_as_object(value) for value in objects])
    yield from (f"parameter: {_show(value)} is new" for value in others)
    yield from (f"parameter: {_show(value)} is gone" for value in former)


def _split(values: list[object], belongs: Callable[[object], object]) -> tuple[list[object], list[object]]:
    return [value for value in values if belongs(value)], [value for value in values if not belongs(value)]


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def _is_code(value: object) -> bool:
    return _is_hash(value) and (CODE / f"{value}.json").is_file()


def _changed_modules(before: str, now: str) -> Iterator[str]:
    old, new = (read_json(CODE / f"{code}.json") for code in (before, now))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            state = "is new" if name not in old else "is gone" if name not in new else "changed"
            yield f"module {name} {state}"


def _as_object(value: object) -> dict | None:
    """Options, which a rule hands on as JSON."""
    try:
        found = parse_json(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _changed_options(before: list[dict], now: list[dict]) -> Iterator[str]:
    """Each object of now beside the one of before that has most in common with it."""
    for new in now:
        flat = _flatten(new)
        old = max(before, key=lambda other: len(_flatten(other).items() & flat.items()), default={})
        before = [other for other in before if other is not old]
        was = _flatten(old)
        for key in sorted(was.keys() | flat.keys()):
            if was.get(key) != flat.get(key):
                yield f"option {key}: {was.get(key, MISSING)} -> {flat.get(key, MISSING)}"


def _flatten(value: object, prefix: str = "") -> dict[str, str]:
    """Leaves of nested objects, by their dotted names."""
    if not isinstance(value, dict) or (not value and prefix):
        return {prefix: _show(value)}
    flat = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _show(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
