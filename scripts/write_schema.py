"""Write workflow/schemas/ and the tables of config/README.md from the options classes and the catalogue.

The schema is written as JSON, and as YAML without references, from which the Snakemake workflow catalogue renders
the parameters.

Example:
    python scripts/write_schema.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from metantk.options import catalogue
from metantk.options.config import Config
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import SCRIPTS, atomic_write

SCHEMAS = SCRIPTS.parent / "workflow" / "schemas"
README = SCRIPTS.parent / "config" / "README.md"
BLOCK = re.compile(r"(<!-- (\w+): written by scripts/write_schema.py -->\n).*?(<!-- end of \2 -->)", re.S)


def main() -> None:
    make_parser(__doc__).parse_args()
    for path, text in outputs().items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def outputs() -> dict[Path, str]:
    """The content of each generated file."""
    schema = Config.model_json_schema()
    inlined = inline(schema, schema["$defs"])
    return {
        SCHEMAS / "config.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        SCHEMAS / "config.schema.yaml": yaml.safe_dump(inlined, sort_keys=False, allow_unicode=True, width=110),
        README: BLOCK.sub(_filled, README.read_text(encoding="utf-8")),
    }


def inline(node: object, definitions: dict[str, object]) -> object:
    """A JSON schema with each `$ref` replaced by what it refers to; keys beside a `$ref` win."""
    if isinstance(node, list):
        return [inline(inner, definitions) for inner in node]
    if not isinstance(node, dict):
        return node
    definition = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    merged = {key: value for key, value in {**definition, **node}.items() if key not in ("$ref", "$defs")}
    return {key: inline(value, definitions) for key, value in merged.items()}


def _filled(block: re.Match) -> str:
    table = {"keys": key_table, "criteria": criterion_table}.get(block[2], lambda: name_table(block[2]))
    return f"{block[1]}\n{table()}\n{block[3]}"


def _table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in [header, ["---"] * len(header), *rows]]
    return "".join(f"| {line} |\n" for line in lines)


def name_table(family: str) -> str:
    """The built-in names of backbones, searches or learners."""
    return _table(
        ["name", "kind", "description", "in the tables"],
        (
            [f"`{name}`", f"`{entry.options['kind']}`", _capital(entry.how), entry.title or ""]
            for name, entry in catalogue.ENTRIES[family].items()
        ),
    )


def criterion_table() -> str:
    """The built-in criteria."""
    return _table(
        ["criterion", "better", "description", "source", "options"],
        (
            [
                f"`{name}`",
                entry.better,
                _capital(entry.what),
                entry.source,
                f"`criteria.{entry.family}`" if entry.family in catalogue.SECTIONS else "",
            ]
            for name, entry in catalogue.CRITERION_ENTRIES.items()
        ),
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def key_table() -> str:
    """Every key of the configuration, with its default."""
    return _table(["key", "default", "meaning"], _rows(Config, ""))


def _rows(options: type[BaseModel], prefix: str, *, of_kind: str = "") -> Iterator[list[str]]:
    for name, field in options.model_fields.items():
        if name == "criteria_options" or (of_kind and name == "kind"):  # the workflow fills in the former
            continue
        key = f"{prefix}{name}"
        continued, inner = _nested(field.annotation) or ("", None)
        if continued or inner is None:
            yield [f"`{key}`{of_kind}", _default(field), field.description]
        if inner is not None:
            yield from _rows(inner, f"{key}{continued}.", of_kind=of_kind)
        if not prefix and name in catalogue.KINDS:
            yield from _rows_of_kinds(name)


def _rows_of_kinds(family: str) -> Iterator[list[str]]:
    """The options of every kind, which entries of the section `family` may have."""
    for kind, options in catalogue.KINDS[family].items():
        yield [f"`{family}.NAME.kind: {kind}`", "", options.__doc__.splitlines()[0]]
        yield from _rows(options, f"{family}.NAME.", of_kind=f" ({kind})")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, list) and field.default and isinstance(field.default[0], BaseModel):
        return f"{len(field.default)} of them"
    return f"`{json.dumps(field.default)}`"


def _nested(annotation: object) -> tuple[str, type[BaseModel]] | None:
    """The options class behind a key, and how its keys continue: directly, by name or as a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", annotation
    arguments = getattr(annotation, "__args__", ())
    if arguments and isinstance(arguments[-1], type) and issubclass(arguments[-1], BaseModel):
        return (".NAME" if annotation.__origin__ is dict else "[]"), arguments[-1]
    return None


if __name__ == "__main__":
    run(main)
