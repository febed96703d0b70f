# SPDX-License-Identifier: Apache-2.0
"""Decoding, resizing, normalisation and augmentation, against NumPy and Pillow."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tf_lwdgh import config as gin_config
from tf_lwdgh.data import augmentation, images
from tf_lwdgh.data.images import ImageConfig

RGB = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
GREY = RGB[..., :1]


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.squeeze(pixels)).save(buffer, form)
    return buffer.getvalue()


def decode(pixels, config, form="PNG", stored_size=None):
    return images.decode(tf.constant([encode(pixels, form)]), config, stored_size)[0].numpy()


@pytest.mark.parametrize("stored_size", [12, None])
@pytest.mark.parametrize("resize", images.RESIZES)
def test_an_image_of_the_right_size_is_decoded_exactly(resize, stored_size):
    config = ImageConfig(image_size=12, channels=3, resize=resize)
    np.testing.assert_array_equal(decode(RGB, config, stored_size=stored_size), RGB)


def test_channels_are_converted():
    grey, rgb = (ImageConfig(image_size=12, channels=c) for c in (1, 3))
    np.testing.assert_array_equal(decode(GREY, grey), GREY)
    np.testing.assert_array_equal(decode(GREY, rgb), np.repeat(GREY, 3, axis=-1))
    luma = np.rint(RGB @ np.array([0.299, 0.587, 0.114]))[..., None]
    np.testing.assert_array_equal(decode(RGB, grey), luma)
    every_grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    config = ImageConfig(image_size=16, channels=1)
    np.testing.assert_array_equal(decode(every_grey, config), every_grey)


def test_jpeg_is_close_to_the_original():
    smooth = np.asarray(PIL.Image.fromarray(RGB[:3, :3]).resize((12, 12), PIL.Image.BILINEAR))
    config = ImageConfig(image_size=12, channels=3)
    theirs = np.asarray(PIL.Image.open(io.BytesIO(encode(smooth, "JPEG"))))
    assert np.abs(decode(smooth, config, "JPEG").astype(int) - theirs).max() <= 4
    assert decode(GREY, ImageConfig(image_size=12, channels=1), "JPEG").shape == (12, 12, 1)


def test_area_resize_is_the_mean_of_each_block():
    config = ImageConfig(image_size=4, channels=3, resize="area")
    means = RGB.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(decode(RGB, config) - means).max() <= 0.5 + 1e-4


def test_bilinear_resize_is_antialiased_as_pillow_does():
    wide = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    ours = decode(wide, ImageConfig(image_size=7, channels=3, resize="bilinear"))
    theirs = np.asarray(PIL.Image.fromarray(wide).resize((7, 7), PIL.Image.BILINEAR))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("resize", images.RESIZES)
def test_resizing_keeps_a_flat_image_flat(resize):
    flat = np.full((10, 17, 3), 201, np.uint8)
    config = ImageConfig(image_size=13, channels=3, resize=resize)
    assert (decode(flat, config) == 201).all()


def test_a_stored_size_that_is_not_true_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[12,12,3\].*\[8,8,3\]"):
        decode(RGB, ImageConfig(image_size=8), stored_size=8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_preprocess_by_hand(dtype):
    pixels = RGB if dtype == np.uint8 else (RGB / 255.0).astype(dtype)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    unit = RGB / 255.0
    expected = {
        "unit": unit,
        "signed": 2 * unit - 1,
        "standard": (unit - np.array(mean)) / np.array(std),
    }
    for name, values in expected.items():
        moments = {"mean": mean, "std": std} if name == "standard" else {}
        config = ImageConfig(12, 3, name, **moments)
        ours = images.preprocess(pixels[None], config)
        assert ours.dtype == tf.float32 and ours.shape == (1, 12, 12, 3)
        np.testing.assert_allclose(ours[0], values, atol=2e-6)
    inverted = images.preprocess(pixels, ImageConfig(12, 3, "signed", invert=True))
    np.testing.assert_allclose(inverted, 2 * (1 - unit) - 1, atol=2e-6)


def test_preprocess_keeps_static_shapes_and_works_in_a_saved_model(tmp_path):
    config = ImageConfig(12, 3, "standard", mean=(0.5,) * 3, std=(0.5,) * 3)

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8)])
        def run(self, pixels):
            ready = images.preprocess(pixels, config)
            assert ready.shape.as_list() == [None, 12, 12, 3]
            return ready

    tf.saved_model.save(Module(), tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.run(RGB[None])[0], RGB / 127.5 - 1, atol=2e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"ImageConfig\.image_size \(= 12\)"):
        loaded.run(RGB[None, :8])


def test_a_wrong_image_size_names_the_binding():
    text = r"\[\.\.\., 8, 8, 3\].*ImageConfig\.image_size \(= 8\).*Received: shape \(12, 12, 3\)"
    with pytest.raises(ValueError, match=text):
        images.preprocess(RGB, ImageConfig(8, 3))
    with pytest.raises(ValueError, match=r"ImageConfig\.channels \(= 1\)"):
        images.preprocess(RGB, ImageConfig(12, 1))
    with pytest.raises(ValueError, match=r"Received: shape \(12, 3\)"):
        images.preprocess(RGB[0], ImageConfig(12, 3))
    partly = tf.TensorSpec([None, None, 12, 3], tf.float32)
    with pytest.raises(ValueError, match=r"Received: shape \(None, None, 12, 3\)"):
        function = tf.function(lambda x: images.preprocess(x, ImageConfig(8, 3)))
        function.get_concrete_function(partly)


def test_a_wrong_dtype_is_refused():
    with pytest.raises(ValueError, match=r"uint8 in 0\.\.255 or floating.*Received: dtype int32"):
        images.preprocess(RGB.astype(np.int32), ImageConfig(12, 3))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"image_size": 0}, "image_size must be an integer from 1 to 4096.*= 0"),
        ({"channels": 4}, "channels must be 1 .* or 3.*= 4"),
        (
            {"normalisation": "imagenet"},
            "normalisation must be one of 'unit', 'signed', 'standard'",
        ),
        ({"resize": "cubic"}, "resize must be one of 'area'.*'cubic'"),
        ({"invert": 1}, "invert must be True or False"),
        ({"flip": "yes"}, "flip must be True or False"),
        ({"crop_padding": -1}, "crop_padding must be an integer >= 0"),
        ({"color_jitter": 1.0}, r"color_jitter must be a number in \[0, 1\)"),
        ({"mean": (0.5,) * 3}, "mean belongs to normalisation 'standard' only"),
        ({"normalisation": "standard"}, "mean must hold 3 numbers.*= None"),
        ({"normalisation": "standard", "mean": (0.5,) * 3, "std": (1, 1)}, "std must hold 3"),
        ({"normalisation": "standard", "mean": (0.5,) * 3, "std": (1, 0, 1)}, "std must be pos"),
    ],
)
def test_settings_out_of_range_name_the_binding(settings, text):
    with pytest.raises(ValueError, match=rf"ImageConfig\.{text}"):
        ImageConfig(**settings)


def test_gin_binds_the_settings():
    bindings = [
        "ImageConfig.normalisation = 'standard'",
        "ImageConfig.mean = [0.5, 0.4, 0.3]",
        "ImageConfig.std = (1, 1, 1)",
    ]
    gin_config.parse([], bindings)
    assert ImageConfig().mean == (0.5, 0.4, 0.3) and hash(ImageConfig())


# Augmentation.

BATCH = np.random.default_rng(2).random((64, 12, 12, 3), dtype=np.float32)
KEY = tf.constant([3, 4], tf.int64)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rotation_is_that_of_numpy(dtype):
    pixels = (BATCH[:8] * 255).astype(dtype)
    turns = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    ours = augmentation.rotate(tf.constant(pixels), tf.constant(turns))
    expected = [np.rot90(image, k) for image, k in zip(pixels, turns, strict=True)]
    np.testing.assert_array_equal(ours, expected)


def test_flip_mirrors_the_chosen_images():
    mirrored = np.arange(64) % 3 == 0
    ours = augmentation.flip(tf.constant(BATCH), tf.constant(mirrored))
    expected = np.where(mirrored[:, None, None, None], BATCH[:, :, ::-1], BATCH)
    np.testing.assert_array_equal(ours, expected)


def test_crop_takes_each_place_of_the_padded_image():
    offsets = np.random.default_rng(3).integers(0, 7, (64, 2), dtype=np.int32)
    ours = augmentation.crop(tf.constant(BATCH), 3, tf.constant(offsets))
    padded = np.pad(BATCH, [(0, 0), (3, 3), (3, 3), (0, 0)])
    expected = [padded[i, y : y + 12, x : x + 12] for i, (y, x) in enumerate(offsets)]
    np.testing.assert_array_equal(ours, expected)


def numpy_jitter(pixels, factors):
    weights = np.array([0.299, 0.587, 0.114]) if pixels.shape[-1] == 3 else np.array([1.0])
    out = []
    for image, (brightness, contrast, saturation) in zip(
        pixels.astype(float), factors, strict=True
    ):
        image = np.clip(image * brightness, 0, 1)
        image = np.clip(
            (image @ weights).mean() + contrast * (image - (image @ weights).mean()), 0, 1
        )
        luma = (image @ weights)[..., None]
        out.append(np.clip(luma + saturation * (image - luma), 0, 1))
    return np.array(out)


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_jitter_by_hand(channels):
    pixels = BATCH[..., :channels]
    factors = np.random.default_rng(4).uniform(0.2, 1.8, (64, 3)).astype(np.float32)
    ours = augmentation.jitter_colors(tf.constant(pixels), tf.constant(factors))
    np.testing.assert_allclose(ours, numpy_jitter(pixels, factors), atol=1e-6)
    same = augmentation.jitter_colors(tf.constant(pixels), tf.ones([64, 3]))
    np.testing.assert_allclose(same, pixels, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"flip": True}, {"crop_padding": 2}, {"color_jitter": 0.4}], ids=str
)
def test_augmentation_follows_its_key_and_treats_images_one_by_one(settings):
    config = ImageConfig(12, 3, **settings)
    assert config.augments
    same_image = tf.constant(np.repeat(BATCH[:1], 64, axis=0))
    first, again = (augmentation.augment(same_image, config, KEY).numpy() for _ in range(2))
    other = augmentation.augment(same_image, config, KEY + 1).numpy()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[1:] != first[:1]).any()
    assert first.min() >= 0 and first.max() <= 1 and first.shape == (64, 12, 12, 3)


def test_flips_are_half_and_crops_are_uniform():
    many = tf.reshape(tf.tile(tf.range(9.0), [2000]), [2000, 3, 3, 1]) / 9 + 0.01
    flipped = augmentation.augment(many, ImageConfig(3, 1, flip=True), KEY).numpy()
    share = (flipped[:, 0, 0, 0] > many[0, 0, 0, 0].numpy()).mean()
    assert abs(share - 0.5) < 4.5 * 0.5 / np.sqrt(2000)
    cropped = augmentation.augment(many, ImageConfig(3, 1, crop_padding=1), KEY).numpy()
    centres = np.bincount(np.rint((cropped[:, 1, 1, 0] - 0.01) * 9).astype(int), minlength=9)
    assert len(centres) == 9
    assert ((centres - 2000 / 9) ** 2 / (2000 / 9)).sum() < 8 + 4.5 * 4


def test_nothing_is_changed_where_nothing_is_switched_on():
    config = ImageConfig(12, 3)
    assert not config.augments
    np.testing.assert_array_equal(augmentation.augment(tf.constant(BATCH), config, KEY), BATCH)
