"""What the stage programs' command lines have in common: options as flags or JSON, errors, logging, signals."""

import argparse
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from tqdm import tqdm

from metantk.config import Options, RunOptions, parse
from metantk.storage import InputError, read_json

log = logging.getLogger("metantk")
ENDING = (signal.SIGTERM, signal.SIGINT)
T = TypeVar("T", bound=Options)


def make_parser(description: str, options: type[Options] | None = None) -> argparse.ArgumentParser:
    """A parser whose help is `description` as written, with a flag for each field of an options class."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if options is not None:
        group = parser.add_argument_group("options of this stage")
        group.add_argument("--options", metavar="JSON", help="all of them at once: a .json file or JSON text")
        for name, field in _leaves(options):
            flag = f"--{name.replace('_', '-')}"
            default = "" if field.is_required() else f" [{field.get_default(call_default_factory=True)}]"
            text = f"{field.description}{default}".replace("%", "%%")
            group.add_argument(flag, dest=f"option:{name}", metavar="VALUE", help=text)
    return parser


def _leaves(options: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in options.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def parse_options(options: type[T], arguments: argparse.Namespace) -> T:
    """The options from `--options` with single flags laid over them.

    Raises:
        InputError: unreadable JSON, an unknown key, a wrong type or range.
    """
    values = _read_options(arguments.options)
    for key, text in vars(arguments).items():
        if key.startswith("option:") and text is not None:
            _set_nested(values, key.removeprefix("option:").split("."), _parse_value(text))
    return parse(options, values, where="options")


def _read_options(text: str | None) -> dict:
    if text is None:
        return {}
    if not text.lstrip().startswith("{"):
        values = read_json(text)
    else:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"--options: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"--options: expected a JSON object, found {type(values).__name__}")
    return values


def add_run(parser: argparse.ArgumentParser) -> None:
    """The depth, width and seed of a search or a training."""
    parser.add_argument("--cells", required=True, type=int, help="cells in the stack")
    parser.add_argument("--channels", required=True, type=int, help="channels after the stem")
    parser.add_argument("--seed", type=int, default=0, help="of all random draws [0]")


def parse_run(arguments: argparse.Namespace) -> RunOptions:
    """Check the depth, the width and the seed.

    Raises:
        InputError: one is out of range.
    """
    if not 0 <= arguments.seed < 2**31:
        raise InputError(f"options: --seed {arguments.seed} is not in 0 .. 2147483647")
    return parse(RunOptions, {"cells": arguments.cells, "channels": arguments.channels}, where="options")


def _parse_value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a bare word is a string


def _set_nested(values: dict, path: list[str], value: object) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def run(main: Callable[[], None]) -> None:
    """Run a stage: log to stderr; bad input becomes one line and exit code 2.

    SIGTERM and Ctrl-C end it with 143 and 130, as shells have it, on the way that errors take: no temporary file
    is left, and the last checkpoint stays.
    """
    # force: Opacus sets up logging when it is imported, and would win.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for number in ENDING:
        signal.signal(number, _end)
    try:
        main()
    except InputError as error:
        sys.exit(_complain(error))
    except Ended as ended:
        log.info("ended by %s; the same command goes on after the last checkpoint", ended.signal.name)
        sys.exit(128 + ended.signal)


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

    handlers = {number: signal.signal(number, lambda received, _: waiting.append(received)) for number in ENDING}
    try:
        yield let_through
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # it has not ended already
                signal.signal(number, handler)
    let_through()


def _complain(error: InputError) -> int:
    print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
    return 2


def progress(items: Iterable, *, total: int | None = None, what: str, unit: str = "it", initial: int = 0) -> tqdm:
    """A progress bar with the remaining time on a terminal; elsewhere a plain line every 30 seconds."""
    on_terminal = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        file=sys.stderr,
        mininterval=0.2 if on_terminal else 30,
        ascii=None if on_terminal else True,
        bar_format=None if on_terminal else "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}]\n",
    )
