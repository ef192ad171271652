"""Sources that are fetched: once for all processes, whole or not at all, and what is said without a network."""

import hashlib
import io
import multiprocessing
import os
import re
import signal
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from torchvision.datasets import CIFAR100, Omniglot, utils

import download_dataset
from metantk.data import cifar
from metantk.data.sources import fetch_source
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError, WriteError, read_json

FORK = multiprocessing.get_context("fork")  # children find what a test has patched
HALF_SECONDS = 0.3  # of a fake download, between its two halves
PARTS = {"images_background": 3, "images_evaluation": 2}


class Server:
    """What stands for the network: it serves archives slowly and notes each request in a file."""

    def __init__(self, folder) -> None:
        self.archives: dict[str, bytes] = {}
        self.log = folder / "requests.txt"
        self.log.touch()

    def retrieve(self, url: str, target: str, *_arguments) -> None:
        with self.log.open("a") as log:
            log.write(url + "\n")
        data = self.archives[url]
        with open(target, "wb") as file:  # noqa: PTH123 -- as torchvision does
            file.write(data[: len(data) // 2])
            file.flush()
            time.sleep(HALF_SECONDS)
            file.write(data[len(data) // 2 :])

    @property
    def requests(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Server:
    """CIFAR-100 and Omniglot in small, with checksums to match, and a network that has nothing else."""
    server = Server(tmp_path)
    files = {name: np.random.default_rng(0).bytes(5000) for name in ("train", "test", "meta")}
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{CIFAR100.base_folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    server.archives[CIFAR100.url] = packed.getvalue()
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5["meta"]})
    sums = {}
    for name, characters in PARTS.items():
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for index in range(characters):
                archive.writestr(f"{name}/Greek/character{index:02}/0.png", b"a drawing")
        server.archives[f"{Omniglot.download_url_prefix}/{name}.zip"] = packed.getvalue()
        sums[name] = hashlib.md5(packed.getvalue()).hexdigest()
    monkeypatch.setattr(Omniglot, "zips_md5", sums)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", server.retrieve)
    return server


@pytest.fixture
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def fetch(source: str, folder) -> None:
    fetch_source(DatasetOptions(source=source, download_folder=str(folder)))


@pytest.mark.parametrize(("sources", "requests"), [(("cifar-fs", "fc100"), 1), (("omniglot", "omniglot"), 2)])
def test_processes_side_by_side_fetch_each_archive_once(tmp_path, server, sources, requests):
    processes = [FORK.Process(target=fetch, args=(source, tmp_path / "data")) for source in sources]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.requests) == requests
    assert_whole(sources[0], tmp_path / "data")
    fetch(sources[0], tmp_path / "data")
    assert len(server.requests) == requests


def assert_whole(source: str, folder) -> None:
    """All is there, in torchvision's places, and nothing half-done."""
    if source == "omniglot":
        for name, characters in PARTS.items():
            assert len(list((folder / "omniglot-py" / name).glob("Greek/character??/0.png"))) == characters
        folder = folder / "omniglot-py"
        # torchvision's own reader agrees.
        assert len(Omniglot(folder.parent, background=True)) == PARTS["images_background"]
    else:
        assert all(path.is_file() for path in cifar.fetch(folder))
    assert not list(folder.glob(".*.unpacked"))


@pytest.mark.parametrize("source", ["fc100", "omniglot"])
@pytest.mark.parametrize("when", ["download", "unpacking"])
def test_a_killed_process_frees_the_lock_and_leaves_nothing_that_looks_whole(
    tmp_path, server, source, when, monkeypatch
):
    def pause(*_arguments):
        (tmp_path / "data" / "reached").touch()
        time.sleep(60)

    with monkeypatch.context() as patched:
        if when == "download":
            patched.setattr(time, "sleep", lambda _: signal.pause())
        else:
            extract = utils.extract_archive
            patched.setattr(utils, "extract_archive", lambda *paths: [extract(*paths), pause()])
        process = FORK.Process(target=fetch, args=(source, tmp_path / "data"))
        process.start()
        while not (server.requests if when == "download" else (tmp_path / "data" / "reached").exists()):
            assert process.is_alive()
            os.sched_yield()
        process.kill()
        process.join()
    fetch(source, tmp_path / "data")
    assert_whole(source, tmp_path / "data")


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("source", "archive", "place"),
    [
        ("cifar-fs", "cifar-100-python.tar.gz", "data"),
        ("fc100", "cifar-100-python.tar.gz", "data"),
        ("omniglot", "images_background.zip", "data/omniglot-py"),
    ],
)
def test_without_a_network_one_line_says_what_to_place_where(tmp_path, source, archive, place):
    with pytest.raises(InputError) as caught:
        fetch(source, tmp_path / "data")
    message = str(caught.value)
    assert "\n" not in message
    told = re.search(r"place (\S+) \(md5 [0-9a-f]{32}\) in (\S+); the next start unpacks it", message)
    assert told.groups() == (archive, str(tmp_path / place))


@pytest.mark.parametrize("source", ["fc100", "omniglot"])
def test_what_was_placed_as_told_is_unpacked_without_a_network(tmp_path, server, source, monkeypatch):
    monkeypatch.setattr(utils, "_urlretrieve", lambda *_: pytest.fail("downloads"))
    folder = tmp_path / "data" / ("omniglot-py" if source == "omniglot" else "")
    folder.mkdir(parents=True)
    for url, data in server.archives.items():
        (folder / url.rpartition("/")[2]).write_bytes(data)
    fetch(source, tmp_path / "data")
    assert_whole(source, tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(WriteError, match="data/omniglot-py: cannot be written"):
        fetch("omniglot", tmp_path / "data")


def test_the_program_says_where_the_source_lies(tmp_path, server, monkeypatch):
    def arguments(source: str) -> list[str]:
        return [
            "x",
            "--source",
            source,
            "--download-folder",
            str(tmp_path / "data"),
            "--output",
            str(tmp_path / "out"),
        ]

    monkeypatch.setattr(sys, "argv", arguments("cifar-fs"))
    download_dataset.main()
    written = read_json(tmp_path / "out" / "files.json")
    assert written["files"] == [
        str(tmp_path / "data/cifar-100-python" / name) for name in ("train", "test", "meta")
    ]
    assert written["provenance"]["options"]["source"] == "cifar-fs"
    monkeypatch.setattr(sys, "argv", arguments("glyphs"))
    with pytest.raises(InputError, match="glyphs: is not fetched"):
        download_dataset.main()
