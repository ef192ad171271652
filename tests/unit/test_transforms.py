"""Batched augmentation against torchvision's functions on single images."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from metantk.data import transforms
from metantk.options.augmentation import AugmentationOptions


@pytest.fixture
def images():
    return torch.rand(12, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (12, 9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", [9, 8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_changes_agree_with_torchvision(images, name, side):
    images = images[..., :side, :side]
    factors = torch.linspace(0.5, 1.5, len(images)).view(-1, 1, 1, 1)
    adjust = {
        "brightness": transforms.adjust_brightness_,
        "contrast": transforms.adjust_contrast_,
        "saturation": transforms.adjust_saturation,
    }[name]
    got = adjust(images.contiguous(memory_format=torch.channels_last).clone(), factors)
    for index, factor in enumerate(factors.flatten().tolist()):
        expected = getattr(reference, f"adjust_{name}")(images[index], factor)
        torch.testing.assert_close(got[index], expected, rtol=1e-4, atol=2e-4)


def test_resize_agrees_with_torchvision(images):
    expected = reference.resize(images, [5, 5], antialias=True)
    torch.testing.assert_close(transforms.resize(images, 5), expected)
    assert transforms.resize(images, 9) is images


@pytest.mark.parametrize("padding", [0, 3])
def test_each_crop_is_a_part_of_its_own_padded_image(images, padding):
    size = 5
    crops = transforms.random_crop(images, size, padding, torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(images, [padding] * 4)
    places = set()
    for image, crop in zip(padded, crops, strict=True):
        parts = image.unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 0, 3, 4)
        matches = (parts == crop).flatten(2).all(2).nonzero().tolist()
        assert matches
        places.add(tuple(matches[0]))
    assert len(places) > 3  # images have draws of their own


def test_flip_mirrors_some_images_and_leaves_the_others(pixels):
    images, options = transforms.to_float(pixels), AugmentationOptions(padding=0, jitter=0.0, flip=True)
    flipped = transforms.augment(pixels, options, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 0 < sum(mirrored) < len(images)


def test_augmentation_is_reproducible_and_stays_in_range(pixels):
    options = AugmentationOptions(padding=2, jitter=0.4)
    first = transforms.augment(pixels, options, torch.Generator().manual_seed(5))
    again = transforms.augment(pixels, options, torch.Generator().manual_seed(5))
    other = transforms.augment(pixels, options, torch.Generator().manual_seed(6))
    assert first.shape == (12, 3, 9, 9)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_no_augmentation_changes_nothing(pixels):
    options = AugmentationOptions(padding=0, jitter=0.0, flip=False)
    assert torch.equal(transforms.augment(pixels, options, torch.Generator()), transforms.to_float(pixels))


def test_normalised_images_have_mean_zero_and_deviation_one():
    pixels = torch.randint(0, 256, (50, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = transforms.to_float(pixels)
    assert scaled.shape == (50, 3, 6, 6)
    mean, std = scaled.mean((0, 2, 3)).tolist(), scaled.std((0, 2, 3), correction=0).tolist()
    normal = transforms.normalise(scaled, mean, std)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("flip", [False, True])
def test_drawn_changes_agree_with_torchvision(pixels, flip):
    options = AugmentationOptions(padding=2, jitter=0.4, flip=flip)
    parameters = transforms.sample_parameters(12, options, torch.Generator().manual_seed(5))
    got = transforms.augment(pixels, options, parameters)
    adjust = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    for index, image in enumerate(pixels.permute(0, 3, 1, 2)):
        image = reference.pad(image, [2] * 4)
        if parameters.mirrored[index]:
            image = reference.horizontal_flip(image)
        image = reference.crop(image, int(parameters.top[index]), int(parameters.left[index]), 9, 9).float() / 255
        for change in transforms.ORDERS[parameters.order[index]]:
            image = adjust[change](image, float(parameters.factors[change, index]))
        torch.testing.assert_close(got[index], image, rtol=1e-4, atol=2e-4)


def test_drawn_changes_are_the_same_alone_and_together(pixels):
    options = AugmentationOptions(padding=2, jitter=0.4)
    parameters = transforms.sample_parameters(12, options, torch.Generator().manual_seed(5))
    together = transforms.augment(pixels, options, parameters)
    for index in range(12):
        alone = transforms.augment(pixels[index][None], options, parameters.of(torch.tensor([index])))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-6)


def test_draws_take_all_values_and_no_others():
    parameters = transforms.sample_parameters(
        3000, AugmentationOptions(padding=2, jitter=0.4), torch.Generator().manual_seed(0)
    )
    assert parameters.mirrored.unique().tolist() == [0, 1]
    assert parameters.top.unique().tolist() == parameters.left.unique().tolist() == [0, 1, 2, 3, 4]
    assert parameters.order.unique().tolist() == list(range(6))
    assert 0.6 <= parameters.factors.min() < 0.61
    assert 1.39 < parameters.factors.max() <= 1.4
    still = transforms.sample_parameters(
        9, AugmentationOptions(padding=0, jitter=0.0, flip=False), torch.Generator()
    )
    assert not still.mirrored.any()
    assert not still.top.any()
    assert torch.equal(still.factors, torch.ones(3, 9))
