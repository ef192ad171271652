"""Write workflow/schemas/config.schema.json and the key tables of config/README.md from the options classes.

Example:
    python scripts/write_schema.py
"""

import json
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from metantk.options import catalogue
from metantk.options.config import Config
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import SCRIPTS, atomic_write

SCHEMA = SCRIPTS.parent / "workflow" / "schemas" / "config.schema.json"
README = SCRIPTS.parent / "config" / "README.md"
BEGIN, END = "<!-- keys: written by scripts/write_schema.py -->", "<!-- end of keys -->"


def main() -> None:
    make_parser(__doc__).parse_args()
    for path, text in outputs().items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def outputs() -> dict[Path, str]:
    """What each generated file holds."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        SCHEMA: json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n",
        README: f"{before}{BEGIN}\n\n{key_table()}\n{END}{after}",
    }


def key_table() -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join(rows + list(_rows(Config, ""))) + "\n"


def _rows(options: type[BaseModel], prefix: str, *, of_kind: str = ""):
    for name, field in options.model_fields.items():
        if of_kind and name in ("kind", "settings"):  # the workflow fills in the settings, from `criteria`
            continue
        key = f"{prefix}{name}"
        continued, inner = _nested(field.annotation) or ("", None)
        if continued or inner is None:
            yield f"| `{key}`{of_kind} | {_default(field)} | {field.description} |"
        if inner is not None:
            yield from _rows(inner, f"{key}{continued}.", of_kind=of_kind)
        if not prefix and name in catalogue.KINDS:
            yield from _rows_of_kinds(name)


def _rows_of_kinds(family: str):
    """The options of every kind, which entries of the section `family` may have."""
    for kind, options in catalogue.KINDS[family].items():
        yield f"| `{family}.NAME.kind: {kind}` | | {(options.__doc__ or '').splitlines()[0]} |"
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
