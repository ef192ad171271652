"""The image's definitions, its version, and which wheels go into it."""

import pytest

import build_container
from metantk.runtime import container
from metantk.runtime.files import InputError

DEFINITIONS = ("metantk.def", "metantk-registry.def")


def test_the_definitions_differ_in_their_header_only(repository):
    texts = [(repository / "containers" / name).read_text() for name in DEFINITIONS]
    headers, bodies = zip(*(text.split("%files", 1) for text in texts), strict=True)
    assert "Bootstrap: debootstrap" in headers[0]
    assert "Bootstrap: docker" in headers[1]
    assert bodies[0] == bodies[1]


def test_the_version_changes_with_each_ingredient(monkeypatch, tmp_path):
    copies = [tmp_path / path.name for path in container.INGREDIENTS]
    for path, copy in zip(container.INGREDIENTS, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    original = container.version()
    monkeypatch.setattr(container, "INGREDIENTS", copies)
    assert container.version() == original
    for path in copies:
        before = container.version()
        path.write_bytes(path.read_bytes() + b"# another\n")
        assert container.version() != before


def test_the_wheels_are_the_pins_for_the_images_python(monkeypatch, tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text(
        "# comment\n"
        "numpy==2.4.6 ; python_full_version < '3.12'\n"
        "    # via torch\n"
        "numpy==2.5.5 ; python_full_version >= '3.12'\n"
        "colorama==0.4.6 ; sys_platform == 'win32'\n"
        "torch==2.14.1\n"
    )
    monkeypatch.setattr(build_container, "REQUIREMENTS", pins)
    assert build_container.pins_for_image() == ["numpy==2.4.6", "torch==2.14.1"]


def test_a_missing_definition_is_bad_input_and_leaves_nothing(tmp_path):
    image = tmp_path / "image.sif"
    with pytest.raises(InputError, match=r"none\.def: cannot be read"):
        build_container.build(tmp_path / "none.def", image, None)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_apptainer_is_told_so(monkeypatch, tmp_path, repository):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apptainer is not on the PATH: install"):
        build_container.build(repository / "containers/metantk-registry.def", tmp_path / "image.sif", None)
    with pytest.raises(InputError, match="name one with --mirror"):
        build_container.debian_mirror()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="is missing; build it with `make container`"):
        container.check_image(tmp_path / "image.sif")
