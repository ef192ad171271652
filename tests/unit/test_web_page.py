"""The web page of a classifier: in a browser without network it answers as Python does."""

import re

import chromium
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from test_classifier import SIZE, make_model

from metantk.data.arrays import resize_image
from metantk.data.image_files import read_image
from metantk.data.store import Split
from metantk.deployment import web_page
from metantk.deployment.classifier import ClassifierFile, write_classifier
from metantk.deployment.out_of_distribution import Calibration
from metantk.runtime.files import InputError

# Names that would end a script, be markup, or be filled in.
NAMES = ["</script><b>temple</b>", "@@MODEL@@ & flower"]
ANSWER = """({
    verdict: document.getElementById("verdict").textContent,
    names: Array.from(document.querySelectorAll("td:first-child"), (cell) => cell.textContent),
    probabilities: Array.from(document.querySelectorAll("progress"), (bar) => bar.value),
})"""


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.tgz: cannot be read .*`make web` fetches it"):
        web_page.read_runtime(tmp_path / "none.tgz")


def test_another_package_is_refused(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(InputError, match=r"other\.tgz: is damaged, or another file"):
        web_page.read_runtime(tmp_path / "other.tgz")


def test_make_fetches_the_package_that_is_read(repository):
    assert f"web: web/$(WEB_PACKAGE)-{web_page.VERSION}.tgz" in (repository / "Makefile").read_text()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Told apart are pieces of two photographs."""
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    pieces = [resize_image(Image.fromarray(photo[40:340, left : left + 300]), SIZE) for photo in photographs
              for left in (0, 150, 300)]  # fmt: skip
    supports = Split(np.stack(pieces), np.repeat([0, 1], 3), NAMES)
    path = tmp_path_factory.mktemp("classifier") / "two.onnx"
    calibration = Calibration(
        ways=2, shots=3, temperature=20.0, threshold=0.99, accuracy=90.0, false_positive_rate=5.0,
        true_positive_rate=50.0, auroc=80.0
    )  # fmt: skip
    write_classifier(make_model("rfs"), supports, calibration, path, {"image_size": SIZE})
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A PNG of odd sides; a JPEG that lies on its side, as cameras write them; noise, which is like neither."""
    folder = tmp_path_factory.mktemp("photographs")
    Image.fromarray(load_sample_image("flower.jpg")[7:300, 100:501]).save(folder / "flower.png")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(load_sample_image("china.jpg")[20:321, 60:460]).save(folder / "turned.jpg", exif=turned)
    noise = np.random.default_rng(0).integers(0, 2, (90, 100, 3), dtype=np.uint8) * 255
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def in_python(classifier, file):
    """Probabilities and closeness; the whole JPEG is decoded, as browsers do."""
    pixels = read_image(file, SIZE)
    if file.suffix == ".jpg":
        pixels = resize_image(ImageOps.exif_transpose(Image.open(file)), SIZE)
    chances, close = ClassifierFile(classifier).run(torch.tensor(pixels)[None])
    return chances[0].tolist(), close.item()


@pytest.mark.slow
@pytest.mark.skipif(chromium.PROGRAM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not web_page.PACKAGE.exists(), reason="onnxruntime-web is missing: make web")
def test_a_page_answers_as_python_does(tmp_path, classifier, photographs):
    page = tmp_path / "two.html"
    web_page.write_page(page, classifier, web_page.read_runtime(), title='A "page" <of> @@WASM@@')
    with chromium.Page(page.as_uri(), tmp_path / "profile") as opened:
        found = {file.name: classify(opened, file) for file in sorted(photographs.iterdir())}
        title = opened.evaluate("document.title")
        refused = classify(opened, classifier)
    assert opened.messages == []
    assert {address.split(":")[0] for address in opened.requested} <= {"file", "blob"}
    assert [address for address in opened.requested if address.startswith("file:")] == [page.as_uri()]
    assert title == 'A "page" <of> @@WASM@@'
    assert "cannot be classified" in refused["verdict"]
    outside = []
    for name, answer in found.items():
        chances, close = in_python(classifier, photographs / name)
        assert dict(zip(answer["names"], answer["probabilities"], strict=True)) == pytest.approx(
            dict(zip(NAMES, chances, strict=True)), abs=1e-3
        )
        assert answer["names"][0] == NAMES[int(np.argmax(chances))]
        assert answer["verdict"] == ("Unlike any of these" if close < 0.99 else answer["names"][0])
        outside.append(close < 0.99)
    assert set(outside) == {True, False}


def classify(opened, file):
    """What the page shows of a file that its user chooses."""
    opened.evaluate("done = new Promise((end) => addEventListener('classified', end, { once: true })); 0")
    opened.choose_file("#file", file)
    opened.evaluate("done.then(() => 0)")
    return opened.evaluate(ANSWER)


def test_the_page_may_connect_to_nothing():
    policy = re.search(r'content="(default-src [^"]*)"', web_page.TEMPLATE.read_text())[1]
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert "http" not in policy
