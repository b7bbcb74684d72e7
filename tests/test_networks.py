"""Shapes, sizes and the bottleneck of the networks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import UsageError
from jokr_rt.training.critics import DomainClassifier, PatchDiscriminator
from jokr_rt.training.networks import (
    GAUSSIAN_STD,
    Model,
    SilhouetteDrawer,
    SpatialTransformer,
    affine_grid_sample,
    render_heatmaps,
    soft_argmax,
)

TINY = ModelConfig(keypoints=5, size=128, width=1 / 16, extractor_size=64)


@pytest.mark.parametrize(
    ("preset", "gflop", "millions"), [("full", 6.4, 40), ("realtime", 1.67, 10), ("small", 0.5, 5.6)]
)
def test_a_preset_costs_what_it_says(preset, gflop, millions):
    config = PRESETS[preset]
    size, half = config.size, config.heatmap_size
    with torch.device("meta"):
        model = Model(config).eval()
        with FlopCounterMode(display=False) as counter:
            logits, appearance = model.extractor(torch.empty(1, 3, size, size))
            keypoints, _, _ = soft_argmax(logits)
            _, warped = model.stn_a2b(keypoints)
            image, _ = model.generator(warped, appearance)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.02)
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert logits.shape == (1, 14, 64, 64)
    assert appearance.shape == (1, 3, half, half)
    assert image.shape == (1, 3, size, size)


def test_the_full_extractor_has_the_published_channels():
    with torch.device("meta"):
        extractor = Model(PRESETS["full"]).extractor
    widths = [
        layer.out_channels for layer in [*extractor.encoder, *extractor.decoder] if hasattr(layer, "out_channels")
    ]
    assert widths == [64, 128, 256, 512, 1024, 512, 256, 128, 64]


def test_every_level_of_the_decoder_adds_the_encoders_of_its_size():
    extractor = Model(TINY).eval().extractor
    frames = torch.rand(1, 3, 128, 128) * 2 - 1
    encoded, added, normalised = {}, {}, None
    features = F.avg_pool2d(frames, 2)
    for layer in extractor.encoder:
        features = layer(features)
        if isinstance(layer, nn.LeakyReLU):
            encoded[features.shape[-1]] = features

    def remember(layer, inputs, output):
        nonlocal normalised
        normalised = output

    def compare(layer, inputs, output):
        added[output.shape[-1]] = inputs[0] - normalised

    for layer in extractor.decoder:
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(remember)
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(compare)
    extractor(frames)
    assert sorted(added) == [4, 8, 16, 32]
    for side, found in added.items():
        torch.testing.assert_close(found, encoded[side], atol=1e-5, rtol=0)


def test_a_detail_reaches_the_extractors_maps_where_it_stands_past_the_bottleneck():
    extractor = Model(TINY).eval().extractor
    for layer in extractor.decoder:  # what comes up from the bottleneck is nothing
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.zeros_(layer.weight)
    plain = torch.zeros(1, 3, 128, 128)
    dotted = plain.clone()
    dotted[..., 40:44, 80:84] = 1  # cells of the maps are 4 x 4 pixels of the frame
    changed = (extractor(dotted)[0] - extractor(plain)[0]).abs().amax((0, 1))
    # The first layer sees four pixels of the halved frame: two a cell, and one on either side.
    rows, columns = torch.nonzero(changed > 1e-6, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 11, 19, 21)


def test_an_untrained_generator_draws_no_lattice():
    for module in Model(TINY).generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            flat = module(torch.ones(1, module.in_channels, 6, 6))[:, :, 2:-2, 2:-2]
            torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat))


def test_shapes_follow_from_the_config():
    model = Model(TINY).eval()
    frames = torch.rand(2, 3, 128, 128) * 2 - 1
    logits, appearance = model.extractor(frames)
    keypoints, confidence, mass = soft_argmax(logits)
    theta, warped = model.stn_b2a(keypoints)
    image, mask = model.generator(warped, appearance)
    assert (logits.shape, appearance.shape) == ((2, 5, 32, 32), (2, 3, 64, 64))
    assert (keypoints.shape, confidence.shape) == ((2, 5, 2), (2, 5))
    torch.testing.assert_close(mass.sum((2, 3)), torch.ones(2, 5))
    assert (theta.shape, warped.shape, image.shape, mask.shape) == (
        (2, 2, 3),
        (2, 5, 64, 64),
        (2, 3, 128, 128),
        (2, 1, 128, 128),
    )
    assert image.abs().max() <= 1
    assert DomainClassifier(TINY)(keypoints).shape == (2,)
    assert SilhouetteDrawer(TINY)(warped).shape == (2, 2, 128, 128)


def test_the_critic_scores_patches_by_the_map_of_their_video_and_shows_what_it_sees():
    critic, images = PatchDiscriminator(TINY).eval(), torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        scores, *features = critic(images, torch.tensor([0, 1]))
        first, _ = critic(images, torch.tensor([0, 0]))[0]
        _, second = critic(images, torch.tensor([1, 1]))[0]
    assert [tuple(level.shape) for level in features] == [(2, 4, 64, 64), (2, 8, 32, 32), (2, 16, 16, 16)]
    torch.testing.assert_close(scores, torch.stack([first, second]))
    assert scores.shape == (2, 15, 15)


def test_looks_are_three_numbers_for_the_whole_frame_whatever_its_size():
    extractor = Model(TINY).eval().extractor
    frames = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        logits, appearance = extractor(frames)
        found = extractor.looks(extractor.reduced(frames))
        torch.testing.assert_close(extractor.find(frames), logits)
    assert found.abs().max() < 1
    assert torch.equal(appearance, found[:, :, None, None].expand(2, 3, 64, 64))
    assert not torch.equal(found[0], found[1])


def test_a_frame_does_not_depend_on_its_neighbours_in_the_batch():
    model = Model(TINY).eval()
    frames = torch.rand(3, 3, 128, 128) * 2 - 1
    together = soft_argmax(model.extractor(frames)[0])[0]
    alone = soft_argmax(model.extractor(frames[1:2])[0])[0]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_a_resized_model_finds_the_same_keypoints_in_frames_of_its_size():
    model = Model(TINY).eval()
    small = model.resized(64)
    frames = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        logits, appearance = model.extractor(frames)
        small_logits, small_appearance = small.extractor(F.avg_pool2d(frames, 2))
        theta, warped = small.stn_a2b(soft_argmax(logits)[0])
        image, _ = small.generator(warped, small_appearance)
    torch.testing.assert_close(small_logits, logits)
    assert (appearance.shape, small_appearance.shape) == ((2, 3, 64, 64), (2, 3, 32, 32))
    torch.testing.assert_close(theta, model.stn_a2b.locate(soft_argmax(logits)[0]))
    assert image.shape == (2, 3, 64, 64)
    assert not small.training


def test_where_the_mask_is_empty_the_image_is_black():
    model = Model(TINY).eval()
    with torch.no_grad():
        model.generator.head.bias[3] = -1e4
        image, mask = model.generator(torch.rand(1, 5, 64, 64), torch.rand(1, 3, 64, 64))
    assert mask.max() == 0
    assert (image == -1).all()


def test_a_new_spatial_transformer_is_the_identity():
    keypoints = torch.rand(4, 5, 2) - 0.5
    theta, warped = SpatialTransformer(TINY)(keypoints)
    torch.testing.assert_close(theta, torch.eye(2, 3).expand(4, 2, 3))
    torch.testing.assert_close(warped, render_heatmaps(keypoints, 64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mirrors", [False, True])
def test_a_spatial_transformer_has_one_map_for_all_poses_and_learns_it(mirrors):
    transformer, theta = SpatialTransformer(TINY), torch.tensor([[0.7, -0.3, 0.2], [0.3, 0.7, -0.1]])
    theta[0] *= -1 if mirrors else 1
    with torch.no_grad():
        transformer.theta.copy_(theta)
    keypoints = torch.rand(4, 5, 2) - 0.5
    found, warped = transformer(keypoints)
    assert torch.equal(found, theta.expand(4, 2, 3))
    expected = affine_grid_sample(render_heatmaps(keypoints, 64), theta.expand(4, 2, 3).contiguous())
    torch.testing.assert_close(warped, expected)
    warped.square().sum().backward()
    assert transformer.theta.grad.abs().min() > 0


def test_the_sampler_is_grid_sample_with_gradients():
    heatmaps = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    theta = (torch.eye(2, 3, dtype=torch.float64) + 0.3 * torch.rand(2, 2, 3)).requires_grad_()
    grid = F.affine_grid(theta, [2, 3, 6, 7], align_corners=False)
    torch.testing.assert_close(affine_grid_sample(heatmaps, theta), F.grid_sample(heatmaps, grid, align_corners=False))
    assert torch.autograd.gradcheck(affine_grid_sample, (heatmaps, theta))
    torch.library.opcheck(affine_grid_sample, (heatmaps.detach(), theta.detach()))


@given(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
def test_rendering_and_expectation_are_inverse(x, y):
    keypoint = torch.tensor([[[x, y]]])
    heatmap = render_heatmaps(keypoint, 256)
    # softmax(log gaussian) is the Gaussian itself; soft_argmax divides by its temperature of 0.1.
    found, confidence, _ = soft_argmax(heatmap.clamp(min=1e-30).log() * 0.1)
    torch.testing.assert_close(found, keypoint, atol=2e-3, rtol=0)
    # The mean of exp(-r^2 / 2) over a 2-D Gaussian is 1/2.
    assert confidence.item() == pytest.approx(0.5, abs=0.01)


def test_a_heatmap_is_a_gaussian_of_height_one():
    heatmap = render_heatmaps(torch.tensor([[[1 / 64, 1 / 64]]]), 64)[0, 0]
    assert heatmap[32, 32] == 1
    assert heatmap[32, 35] == pytest.approx(
        torch.exp(torch.tensor(-((6 / 64) ** 2) / (2 * GAUSSIAN_STD**2))).item(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"keypoints": 1}, "keypoints"),
        ({"size": 100}, "size"),
        ({"size": 2048}, "size"),
        ({"extractor_size": 96}, "extractor_size"),
        ({"extractor_size": 32}, "extractor_size"),
        ({"width": 0.0}, "width"),
    ],
)
def test_a_config_that_no_network_fits_is_refused(values, word):
    with pytest.raises(UsageError, match=word):
        ModelConfig(**values)


@pytest.mark.parametrize(
    "values",
    [None, {}, {"keypoints": 10}, ModelConfig().to_json() | {"size": "256"}, ModelConfig().to_json() | {"width": True}],
)
def test_a_config_from_json_is_complete_and_typed(values):
    with pytest.raises(UsageError):
        ModelConfig.from_json(values)


def test_a_config_survives_json():
    assert ModelConfig.from_json(TINY.to_json()) == TINY
