"""A process in which the libraries are loaded already: each command is run in a fork of it, seconds sooner.

Most of the time of a short command goes into imports, of torch above all. A fork has the arguments, folder,
environment and streams of its command, and nothing of this project is loaded before it; that it is a fork it can
tell by its memory. Workflows find a `python` that hands their jobs on, too. Commands that a test kills or talks to
are started as users start them.
"""

import json
import os
import socket
import sys
from pathlib import Path

MODULES = (
    "matplotlib.figure",
    "opacus.grad_sample",
    "pandas",
    "pydantic",
    "scipy.stats",
    "sklearn.svm",
    "snakemake.api",
    "snakemake.cli",
    "snakemake.report",
    "snakemake_executor_plugin_slurm",
    "torchvision.transforms.functional",
    "tqdm",
)
PYTHON = """#!{python} -SI
import sys
sys.path.insert(0, {tests!r})
import warm
warm.hand_on({address!r})
"""


class Warm:
    """The tests' side: starts the process, or finds the one that another has started, and ends what it started.

    Attributes:
        folder: of its socket and of the workflows' `python`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder, self.process = folder, None

    def run(self, words: list[str], folder: Path, environment: dict[str, str]):
        """Run `python *words`, a script or `-m` and a module; a `subprocess.CompletedProcess` with its output."""
        import subprocess
        import tempfile

        self.start()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as none:
            streams = [file.fileno() for file in (none, out, err)]
            path = f"{self.folder}{os.pathsep}{environment['PATH']}"
            code = ask(f"{self.folder}/socket", words, str(folder), {**environment, "PATH": path}, streams)
            texts = [os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in streams[1:]]
            return subprocess.CompletedProcess(["python", *words], code, *texts)

    def start(self) -> None:
        """Have it load the libraries, unless it does already; commands wait until it has."""
        import subprocess
        import tempfile

        if self.folder is not None:
            return
        self.folder = tempfile.mkdtemp(prefix="warm-")
        address, python = f"{self.folder}/socket", Path(self.folder, "python")
        tests = str(Path(__file__).parent)
        python.write_text(PYTHON.format(python=sys.executable, tests=tests, address=address))
        python.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            command = [sys.executable, __file__, str(listener.fileno())]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()])

    def stop(self) -> None:
        import shutil

        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            shutil.rmtree(self.folder)


def ask(address: str, words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> int:
    """Have `python *words` run; its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"."], streams)
        connection.sendall(json.dumps([words, folder, environment]).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(read(connection))


def read(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.read()


def hand_on(address: str) -> None:
    """What `python` does for a workflow."""
    words = sys.argv[1:]
    if not words[0].endswith(".py"):
        os.execv(sys.executable, [sys.executable, *words])
    sys.exit(ask(address, words, str(Path.cwd()), dict(os.environ), [0, 1, 2]))


def serve(listening: int) -> tuple[list[str], str, dict[str, str], list[int]]:
    """Run each command that comes to a socket in a fork of its own: there, and only there, it returns."""
    import contextlib
    import gc
    import importlib
    import logging
    from multiprocessing.connection import wait

    for module in MODULES:
        importlib.import_module(module)
    logging.basicConfig(level=logging.WARNING, handlers=[], force=True)  # Opacus sets up its own
    gc.freeze()  # a collection would copy all that forks share
    running = {}  # what says by its end that a fork has ended: the fork, and who asked for it
    with socket.socket(fileno=listening) as listener:
        while True:
            for ready in wait([listener, *running]):
                if ready is not listener:
                    process, connection = running.pop(ready)
                    os.close(ready)
                    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    with (
                        connection,
                        contextlib.suppress(BrokenPipeError, ConnectionResetError),
                    ):  # who asked is gone
                        connection.sendall(str(code).encode())
                        connection.shutdown(socket.SHUT_WR)  # forks of others hold it open
                    continue
                connection, _ = listener.accept()
                _, streams, _, _ = socket.recv_fds(connection, 1, 3)
                command = json.loads(read(connection))
                end, held = os.pipe()
                process = os.fork()
                if not process:
                    connection.close()
                    os.close(end)
                    return *command, streams
                os.close(held)
                for stream in streams:
                    os.close(stream)
                running[end] = process, connection


def become(words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Run a command in this process as Python would have, up to its exit."""
    import runpy

    for index, stream in enumerate(streams):
        os.dup2(stream, index)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[0] = folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def exit_code(ending: SystemExit) -> int:
    if ending.code is None or isinstance(ending.code, int):
        return ending.code or 0
    print(ending.code, file=sys.stderr)
    return 1


def end(code: int) -> None:
    """Exit as Python does, but leave the libraries' memory alone: to clear it up takes as long as to load them."""
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    import traceback

    command = serve(int(sys.argv[1]))
    code = 1
    try:
        become(*command)
        code = 0
    except SystemExit as ending:
        code = exit_code(ending)
    except BaseException:
        traceback.print_exc()
    end(code)


if __name__ == "__main__":
    main()
