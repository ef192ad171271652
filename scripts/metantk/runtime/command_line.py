"""What the stage programs' command lines have in common: options as flags or JSON, errors, logging, signals."""

import argparse
import contextlib
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_json
from tqdm import tqdm

from metantk.options.base import FORMER, Options, glance, parse, renamed
from metantk.runtime import plugins
from metantk.runtime.files import InputError, parse_json, read_json, shorten
from metantk.runtime.typed_files import FILE_NAME

log = logging.getLogger("metantk")
ENDING = (signal.SIGTERM, signal.SIGINT)
T = TypeVar("T", bound=Options)


class Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage; one about a former flag gives the present one."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)
        self.options: list[type[Options]] = []  # classes whose fields are flags

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help says more")

    def parse_args(self, *arguments: object) -> argparse.Namespace:
        known, unknown = self.parse_known_args(*arguments)
        for word in unknown:
            self._refuse_former(word.partition("=")[0])
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known

    def _refuse_former(self, flag: str) -> None:
        section, _, name = flag.removeprefix("--").replace("-", "_").rpartition(".")
        for options in self.options:
            inner = dict(_sections(options)).get(section)
            if inner is not None and (advice := renamed(inner, name)):
                raise InputError(f"unknown flag {flag}{advice}")
        for present in FORMER.get(name, ()):
            if f"--{present.replace('_', '-')}" in self._option_string_actions:
                raise InputError(f"unknown flag {flag}: it is called --{present.replace('_', '-')} now")


def make_parser(
    description: str, options: type[Options] | None = None, *, kinds: dict[str, tuple[str, str]] | None = None
) -> argparse.ArgumentParser:
    """A parser whose help is `description` as written, with a flag for each field of options.

    Args:
        options: of the stage.
        kinds: by flag, a family of kinds and the default one; `--FLAG` takes a kind or a JSON object with `kind`,
            and the kind that the command line asks for decides which other flags there are.

    Raises:
        InputError: a kind that there is not.
    """
    parser = Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if options is not None:
        parser.options.append(options)
        group = parser.add_argument_group("options of this stage")
        group.add_argument("--options", metavar="JSON", help="JSON object of all options: a .json file, or text")
        _add_flags(group, options, "options")
    for flag, (family, default) in (kinds or {}).items():
        kind = _kind_of(_peek(f"--{flag}") or default, flag)
        group = parser.add_argument_group(f"{flag} {kind}")
        group.add_argument(
            f"--{flag}",
            default=default,
            metavar="KIND",
            help=f"Kind, path of a .py file, or JSON object with `kind` (text or a .json file) [{default}]",
        )
        parser.options.append(plugins.options_class(family, kind))
        _add_flags(group, parser.options[-1], flag)
        parser.set_defaults(**{f"family:{flag}": family})
    return parser


def _peek(flag: str) -> str | None:
    """The value of a flag on the command line, before its parser is made."""
    for index, argument in enumerate(sys.argv[1:], start=1):
        if argument == flag:
            return sys.argv[index + 1] if index + 1 < len(sys.argv) else None
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def _kind_of(text: str, flag: str) -> str:
    if not _is_object(text):
        return text
    kind = _read_object(text, flag).get("kind")
    if not isinstance(kind, str):
        raise InputError(f"--{flag}: 'kind' is missing or no text")
    return kind


def _add_flags(group: argparse._ArgumentGroup, options: type[Options], prefix: str) -> None:
    for name, field in _leaves(options):
        if name != "kind":
            default = "" if field.is_required() else f" [{_as_json(field)}]"
            text = f"{field.description}{default}".replace("%", "%%")
            flag = f"--{name.replace('_', '-')}"
            if (
                flag in group._option_string_actions
            ):  # a search may have cells of its own, apart from the backbone's
                flag = f"--{prefix}-{flag.removeprefix('--')}"
            group.add_argument(flag, dest=f"option:{prefix}:{name}", metavar="VALUE", help=text)


def _as_json(field: FieldInfo) -> str:
    """The default of an option as it is written on the command line."""
    return to_json(field.get_default(call_default_factory=True)).decode()


def _sections(options: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The class itself under "", and those of its fields under their dotted names."""
    yield prefix, options
    for name, field in options.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _sections(field.annotation, f"{prefix}.{name}".removeprefix("."))


def _leaves(options: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Fields that are no sections, under their dotted names."""
    sections = dict(_sections(options))
    for prefix, section in sections.items():
        for name, field in section.model_fields.items():
            if (key := f"{prefix}.{name}".removeprefix(".")) not in sections:
                yield key, field


def parse_options(options: type[T], arguments: argparse.Namespace) -> T:
    """The options from `--options` with single flags laid over them.

    Raises:
        InputError: unreadable JSON, an unknown key, a wrong type or range.
    """
    values = {} if arguments.options is None else _read_object(arguments.options, "options")
    return parse(options, _with_flags(values, arguments, "options"), where="options")


def parse_kind(arguments: argparse.Namespace, flag: str) -> Options:
    """The options of the kind that `--FLAG` names, with single flags laid over them.

    Raises:
        InputError: as for `parse_options`.
    """
    text = getattr(arguments, flag)
    values = _read_object(text, flag) if _is_object(text) else {"kind": text}
    options = plugins.options_class(getattr(arguments, f"family:{flag}"), values["kind"])
    return parse(options, _with_flags(values, arguments, flag), where=f"options of {flag} {values['kind']}")


def _with_flags(values: dict, arguments: argparse.Namespace, prefix: str) -> dict:
    for key, text in vars(arguments).items():
        if key.startswith(f"option:{prefix}:") and text is not None:
            _set_nested(values, key.removeprefix(f"option:{prefix}:").split("."), _parse_value(text))
    return values


def _is_object(text: str) -> bool:
    return text.lstrip().startswith("{") or text.endswith(".json")


def _read_object(text: str, flag: str) -> dict:
    if not text.lstrip().startswith("{"):
        values = read_json(text)
    else:
        try:
            values = parse_json(text)
        except ValueError as error:
            raise InputError(f"--{flag}: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"--{flag}: expected a JSON object, found {type(values).__name__}")
    return values


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, help="Random seed [0]")


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 .. 2147483647")
    return int(text)


def file_name(text: str) -> str:
    """A name for tables and for files."""
    if not re.fullmatch(FILE_NAME, text):
        raise argparse.ArgumentTypeError(
            f"{glance(text)} is no name of 1 to 200 characters that begins with a letter or digit, without / and "
            "line breaks"
        )
    return text


def _parse_value(text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return text  # a bare word is a string


def _set_nested(values: dict, path: list[str], value: object) -> None:
    for section in path[:-1]:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"options: '{section}' is not an object, so '{'.'.join(path)}' cannot be set")
        values = inner
    values[path[-1]] = value


def run(main: Callable[[], None]) -> None:
    """Run a stage: log to stderr; bad input, and failures of a user's own file, become one line and exit code 2.

    SIGTERM and Ctrl-C end it with 143 and 130, as shells have it, on the way that errors take: no temporary file
    is left, and the last checkpoint stays.
    """
    # force: Opacus sets up logging when it is imported, and would win.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for ending in ENDING:
        signal.signal(ending, _end)
    try:
        main()
    except InputError as error:
        sys.exit(_complain(str(error)))
    except Ended as ended:
        how = "the same command goes on after the last checkpoint, if there is one"
        log.info("ended by %s; %s", ended.signal.name, how)
        sys.exit(128 + ended.signal)
    except (Exception, SystemExit) as error:
        if (message := _explain(error)) is None:
            raise
        sys.exit(_complain(message))


def _explain(error: BaseException) -> str | None:
    """What there is to say of an error that nobody was prepared for; None where only its traceback says it."""
    if isinstance(error, MemoryError | RuntimeError) and _is_out_of_memory(error):
        return "out of memory: use smaller images, a smaller network or a larger machine"
    if message := plugins.explain_failure(error):
        return message
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return None


class Ended(BaseException):
    """A signal asked this process to end. No Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def _end(number: int, _frame: object = None) -> None:
    for ending in ENDING:  # a second one would interrupt the cleaning up
        signal.signal(ending, signal.SIG_IGN)
    raise Ended(number)


@contextlib.contextmanager
def signals_held() -> Iterator[Callable[[], None]]:
    """Within, a signal to end waits for the next call of the function given, or for the end; then `Ended`."""
    waiting: list[int] = []

    def let_through() -> None:
        if waiting:
            _end(waiting[0])

    handlers = {ending: signal.signal(ending, lambda received, _: waiting.append(received)) for ending in ENDING}
    try:
        yield let_through
    finally:
        for ending, handler in handlers.items():
            if signal.getsignal(ending) != signal.SIG_IGN:  # it has not ended already
                signal.signal(ending, handler)
    let_through()


def _complain(message: str) -> int:
    print(f"{Path(sys.argv[0]).name}: error: {shorten(message)}", file=sys.stderr)
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    """NumPy raises an error of its own kind, PyTorch on a CPU one of any kind."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def progress(items: Iterable, *, total: int | None = None, what: str, unit: str = "it", initial: int = 0) -> tqdm:
    """A progress bar with the remaining time on a terminal; elsewhere a plain line every 30 seconds.

    METANTK_PROGRESS_SECONDS is another interval, for a program that reads the lines.

    Raises:
        InputError: that is no number of seconds.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        file=sys.stderr,
        mininterval=0.2 if on_terminal else _seconds_between_lines(),
        ascii=None if on_terminal else True,
        bar_format=None if on_terminal else "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}]\n",
    )


def _seconds_between_lines() -> float:
    given = os.environ.get("METANTK_PROGRESS_SECONDS") or "30"
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"METANTK_PROGRESS_SECONDS={given}: expected a number of seconds, such as 30")
    return seconds
