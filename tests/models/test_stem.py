"""Backbones without a stem: shapes, numbers and checkpoints against the stock networks they come from."""
import copy
import logging
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from mmengine.analysis import get_model_complexity_info
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from mmpretrain.registry import HOOKS, MODELS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.checkpoint import checkpoint as keep_nothing

import mmfreq.models.cls  # noqa: F401  (registers the backbones)

FIRST_CONVS = ('layer1.0.conv1.weight', 'layer1.0.downsample.0.weight')
STEM = ('conv1.', 'bn1.', 'gn1.', 'stem.')
StateDict = dict[str, torch.Tensor]

# The stock class's options, each with the number of channels that its own stem gives to the first stage.
STOCK_OPTIONS = {
    'r18': dict(type='ResNet', depth=18),
    'r34': dict(type='ResNet', depth=34),
    'r50': dict(type='ResNet', depth=50),
    'caffe': dict(type='ResNet', depth=50, style='caffe', strides=(2, 2, 2, 2)),
    'three stages': dict(type='ResNet', depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                         out_indices=(2, )),
    'group norm': dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=32)),
    'stride 1': dict(type='ResNet', depth=50, strides=(1, 1, 2, 2)),
    'dilated': dict(type='ResNet', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'deep stem': dict(type='ResNet', depth=50, deep_stem=True, avg_down=True),
    'narrow': dict(type='ResNet', depth=18, base_channels=32),
    'drop path': dict(type='ResNet', depth=18, drop_path_rate=0.2),
    'all stages': dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    'v1c': dict(type='ResNetV1c', depth=50),
    'v1d': dict(type='ResNetV1d', depth=50),
}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages that mmengine's current logger gets."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope='module')
def stock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a stock ResNet-50 classifier, as mmpretrain publishes them."""
    path = tmp_path_factory.mktemp('checkpoints') / 'resnet50.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.save(dict(state_dict=randomized(classifier('ResNet')).state_dict(), meta={}), path)
    return path


def freq(stock: dict[str, Any], channels: int, **kwargs: Any) -> nn.Module:
    """The stemless version of a stock backbone's config, built from the registry."""
    return MODELS.build({**stock, **kwargs, 'type': 'Freq' + stock['type'], 'in_channels': channels})


def resnet(depth: int, channels: int, **kwargs: Any) -> nn.Module:
    return freq(dict(type='ResNet', depth=depth), channels, **kwargs)


def classifier(kind: str, **kwargs: Any) -> nn.Module:
    return MODELS.build(dict(
        type='ImageClassifier', backbone=dict(type=kind, depth=50, **kwargs), neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=2048)))


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight and buffer random, norms included; running variances positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if 'num_batches' not in name:
            noise = torch.randn(value.shape, generator=generator)
            scale = value.numel()**-0.5 * value.shape[0]**0.5 if value.ndim > 1 else 0.1
            value.copy_(noise * scale + (value.ndim == 1 and not name.endswith('mean')))
            value.copy_(value.abs() if 'running_var' in name else value)
    return model


def evaluating(model: nn.Module) -> nn.Module:
    """The model in evaluation mode: the stock ``ResNet.train`` returns nothing."""
    model.eval()
    return model


def said(log: list[str]) -> list[str]:
    """What the backbone itself logged."""
    return [line for line in log if line.startswith('FreqResNet')]


def clone(state: StateDict) -> StateDict:
    return {key: value.clone() for key, value in state.items()}


def without_stem(state: StateDict) -> StateDict:
    return {key: value for key, value in state.items() if not key.startswith(STEM)}


def shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def stock_stages(stock: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the stock stages alone make of ``x``."""
    outputs = []
    for index, name in enumerate(stock.res_layers):
        x = getattr(stock, name)(x)
        if index in stock.out_indices:
            outputs.append(x)
    return outputs


def expected_weights(stock: StateDict, fresh: StateDict) -> StateDict:
    """The documented result of loading ``stock`` into a model whose weights are ``fresh``."""
    expected = clone(fresh)
    for key, value in without_stem(stock).items():
        if key in FIRST_CONVS:
            channels = min(value.shape[1], fresh[key].shape[1])
            expected[key][:, :channels] = value[:, :channels]
        else:
            expected[key] = value
    return expected


def assert_equal(actual: StateDict, expected: StateDict) -> None:
    assert list(actual) == list(expected)
    for key in expected:
        assert_allclose(actual[key].numpy(), expected[key].numpy(), rtol=0, atol=0, err_msg=key)


@pytest.mark.parametrize(('depth', 'channels'), [(18, 4), (34, 24), (50, 64), (101, 192), (152, 24)])
def test_every_depth_gives_the_stock_shapes(depth: int, channels: int) -> None:
    model = evaluating(resnet(depth, channels, out_indices=(0, 1, 2, 3)))
    with torch.no_grad():
        outputs = model(torch.rand(1, channels, 16, 24))
    widths = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    expected = [(1, width, 16 // stride, 24 // stride) for width, stride in zip(widths, (1, 2, 4, 8))]
    assert [tuple(output.shape) for output in outputs] == expected


@pytest.mark.parametrize('channels', [1, 24, 64, 192])
@pytest.mark.parametrize('name', STOCK_OPTIONS)
def test_names_and_shapes_are_the_stock_ones_but_for_the_first_block(name: str, channels: int) -> None:
    stock = without_stem(MODELS.build(STOCK_OPTIONS[name]).state_dict())
    expected = shapes(stock)
    for key in set(FIRST_CONVS) & set(stock):
        expected[key] = (expected[key][0], channels, *expected[key][2:])
    actual = shapes(freq(STOCK_OPTIONS[name], channels).state_dict())
    new = [key for key in actual if key not in expected]
    assert {key: shape for key, shape in actual.items() if key in expected} == expected
    if FIRST_CONVS[1] in stock or channels == 64:
        assert new == []
    else:
        assert all(key.startswith('layer1.0.downsample.') for key in new)
        assert actual[FIRST_CONVS[1]] == (64, channels, 1, 1)


@pytest.mark.parametrize('name', STOCK_OPTIONS)
def test_with_64_channels_it_is_the_stock_network_behind_its_stem(name: str) -> None:
    stock = evaluating(randomized(MODELS.build(STOCK_OPTIONS[name])))
    model = evaluating(freq(STOCK_OPTIONS[name], 64))
    model.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 64, 12, 10)
    with torch.no_grad():
        outputs, expected = model(x), stock_stages(stock, x)
    assert len(outputs) == len(expected)
    for actual, reference in zip(outputs, expected):
        assert_allclose(actual.numpy(), reference.numpy(), rtol=1e-6, atol=0)
        assert reference.abs().max() > 1e-3


@pytest.mark.parametrize('channels', [4, 24, 192])
def test_other_channel_counts_equal_the_stock_network_on_padded_channels(channels: int) -> None:
    stock = evaluating(randomized(MODELS.build(STOCK_OPTIONS['r50'])))
    model = evaluating(resnet(50, channels))
    model.load_state_dict(stock.state_dict())
    x = torch.zeros(2, max(channels, 64), 8, 8)  # zero wherever only one of the two networks has a channel
    x[:, :min(channels, 64)] = torch.randn(2, min(channels, 64), 8, 8)
    with torch.no_grad():
        actual, reference = model(x[:, :channels])[0], stock_stages(stock, x[:, :64])[0]
    assert_allclose(actual.numpy(), reference.numpy(), rtol=1e-4, atol=1e-5 * float(reference.abs().max()))


def test_stem_channels_of_an_inherited_config_mean_nothing() -> None:
    assert shapes(resnet(18, 24, stem_channels=32).state_dict()) == shapes(resnet(18, 24).state_dict())


@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1d'])
@pytest.mark.parametrize('frozen', [-1, 0, 1, 4])
def test_frozen_stages(kind: str, frozen: int) -> None:
    model = freq(dict(type=kind, depth=18), 24, frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (int(name[5]) > frozen), name
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (int(name[5]) > frozen), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(norm_eval: bool) -> None:
    model = resnet(18, 24, norm_eval=norm_eval)
    before = clone(model.state_dict())
    model.train()
    model(torch.randn(2, 24, 8, 8))
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    statistics = [key for key in before if 'running' in key or 'num_batches' in key]
    assert changed == ([] if norm_eval else statistics)


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, StateDict]:
    x = x.clone().requires_grad_()
    model.train()
    output = model(x)[0]
    output.square().sum().backward()
    return output.detach(), {'input': x.grad, **{name: p.grad for name, p in model.named_parameters()}}


@pytest.mark.parametrize(('depth', 'blocks'), [(18, 8), (50, 16)])
def test_with_cp_changes_nothing_but_memory(depth: int, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', lambda function, *args: calls.append(1) or keep_nothing(
        function, *args, use_reentrant=False))
    plain, checkpointed = randomized(resnet(depth, 24)), resnet(depth, 24, with_cp=True)
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 24, 8, 8)
    (output, grads), (expected, expected_grads) = gradients(checkpointed, x), gradients(plain, x)
    assert len(calls) == blocks
    assert_allclose(output.numpy(), expected.numpy(), rtol=1e-6)
    for name, grad in expected_grads.items():
        assert_allclose(grads[name].numpy(), grad.numpy(), rtol=1e-4, atol=1e-6 * float(grad.abs().max()), err_msg=name)


def load_by_runner(path: Path, channels: int) -> tuple[StateDict, StateDict]:
    """Weights before and after loading the file into a classifier, as ``load_from`` does."""
    model = classifier('FreqResNet', in_channels=channels)
    fresh = clone(model.backbone.state_dict())
    load_checkpoint(model, str(path), map_location='cpu', logger=MMLogger.get_current_instance())
    head = torch.load(path)['state_dict']
    assert_allclose(model.head.fc.weight.detach().numpy(), head['head.fc.weight'].numpy(), rtol=0)
    return fresh, model.backbone.state_dict()


def load_by_init_cfg(path: Path, channels: int) -> tuple[StateDict, StateDict]:
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = resnet(50, channels, init_cfg=init)
    fresh = clone(model.state_dict())
    model.init_weights()
    return fresh, model.state_dict()


def load_by_torch(path: Path, channels: int) -> tuple[StateDict, StateDict]:
    model = resnet(50, channels)
    fresh = clone(model.state_dict())
    model.load_state_dict(backbone_of(path), strict=True)
    return fresh, model.state_dict()


def backbone_of(path: Path) -> StateDict:
    state = torch.load(path)['state_dict']
    return {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}


@pytest.mark.parametrize('load', [load_by_runner, load_by_init_cfg, load_by_torch])
@pytest.mark.parametrize('channels', [4, 24, 64, 192])
def test_stock_checkpoint_loads(stock_file: Path, log: list[str], load: Any, channels: int) -> None:
    fresh, loaded = load(stock_file, channels)
    assert_equal(loaded, expected_weights(backbone_of(stock_file), fresh))
    assert not [line for line in log if 'unexpected key' in line or 'do not match' in line]
    line, = said(log)
    assert 'stem dropped' in line
    assert all((name in line) == (channels != 64) for name in FIRST_CONVS)


@pytest.mark.parametrize(('channels', 'text'), [
    (24, r'first 24 of 64 channels taken in layer1\.0\.conv1\.weight'),
    (192, r'first 64 of 64 channels taken in layer1\.0\.conv1\.weight [^,]*, 128 newly made'),
])
def test_the_log_says_how_many_channels_come_from_where(stock_file: Path, log: list[str], channels: int,
                                                        text: str) -> None:
    load_by_torch(stock_file, channels)
    assert re.search(text, said(log)[0])


def test_torchvision_weights_load(log: list[str]) -> None:
    stock = randomized(torchvision.models.resnet50()).state_dict()
    model = resnet(50, 24)
    expected = expected_weights({key: value for key, value in stock.items() if key[:2] != 'fc'}, model.state_dict())
    result = model.load_state_dict(stock, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == ([], ['fc.weight', 'fc.bias'])
    assert_equal(model.state_dict(), expected)
    assert len(said(log)) == 1


@pytest.mark.parametrize('name', ['group norm', 'deep stem', 'v1c', 'v1d', 'caffe', 'narrow'])
def test_checkpoints_of_other_stock_networks_load(name: str, log: list[str]) -> None:
    stock = randomized(MODELS.build(STOCK_OPTIONS[name])).state_dict()
    model = freq(STOCK_OPTIONS[name], 24)
    expected = expected_weights(stock, clone(model.state_dict()))
    model.load_state_dict(stock, strict=True)
    assert_equal(model.state_dict(), expected)
    assert len(said(log)) == 1


@pytest.mark.parametrize('channels', [24, 192])
def test_resnet18_keeps_its_new_shortcut(channels: int, log: list[str]) -> None:
    stock = randomized(MODELS.build(STOCK_OPTIONS['r18'])).state_dict()
    model = resnet(18, channels)
    expected = expected_weights(stock, clone(model.state_dict()))
    assert any(key.startswith('layer1.0.downsample.') for key in expected)
    model.load_state_dict(stock, strict=True)
    assert_equal(model.state_dict(), expected)
    assert 'layer1.0.downsample.0.weight newly made' in said(log)[0]


def test_half_precision_checkpoint_loads() -> None:
    stock = {key: value.half() if value.is_floating_point() else value
             for key, value in randomized(MODELS.build(STOCK_OPTIONS['r50'])).state_dict().items()}
    model = resnet(50, 24)
    expected = expected_weights({key: value.to(torch.float32) if value.is_floating_point() else value
                                 for key, value in stock.items()}, clone(model.state_dict()))
    model.load_state_dict(stock)
    assert_equal(model.state_dict(), expected)


def test_the_callers_state_dict_stays_as_it_is(stock_file: Path) -> None:
    state = backbone_of(stock_file)
    before = clone(state)
    resnet(50, 24).load_state_dict(state)
    assert_equal(state, before)


def test_own_checkpoint_reloads_without_a_word(log: list[str], tmp_path: Path) -> None:
    saved = randomized(classifier('FreqResNet', in_channels=24))
    torch.save(dict(state_dict=saved.state_dict()), tmp_path / 'own.pth')
    model = classifier('FreqResNet', in_channels=24)
    load_checkpoint(model, str(tmp_path / 'own.pth'), logger=MMLogger.get_current_instance())
    assert_equal(model.state_dict(), saved.state_dict())
    assert said(log) == []
    assert not [line for line in log if 'do not match' in line]


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1d'])
@pytest.mark.parametrize(('depth', 'kernel'), [(18, 3), (50, 1)])
def test_checkpoint_for_other_channels_is_refused(depth: int, kernel: int, kind: str, strict: bool) -> None:
    given, model = (freq(dict(type=kind, depth=depth), channels) for channels in (24, 48))
    with pytest.raises(ValueError, match=rf'Freq{kind}: .*in_channels=48.* layer1\.0\.conv1\.weight has shape '
                       rf'\(64, 24, {kernel}, {kernel}\), 24 input channels'):
        model.load_state_dict(given.state_dict(), strict=strict)


@pytest.mark.parametrize('load', [load_by_runner, load_by_init_cfg])
def test_checkpoint_for_other_channels_is_refused_by_the_hosts_too(load: Any, tmp_path: Path) -> None:
    """Their own loading is not strict, and would go on with the first block at random."""
    torch.save(dict(state_dict=classifier('FreqResNet', in_channels=24).state_dict()), tmp_path / 'dct24.pth')
    with pytest.raises(ValueError, match=r'in_channels=48.*layer1\.0\.conv1\.weight .* 24 input channels'):
        load(tmp_path / 'dct24.pth', 48)


def test_stock_weights_that_lost_their_stem_are_refused(stock_file: Path) -> None:
    with pytest.raises(ValueError, match='in_channels=24, or a stock one with its stem.* 64 input channels'):
        resnet(50, 24).load_state_dict(without_stem(backbone_of(stock_file)))


@pytest.mark.parametrize(('frozen', 'told'), [(-1, False), (0, False), (1, True), (4, True)])
def test_stock_weights_in_frozen_stages_are_a_warning(stock_file: Path, log: list[str], frozen: int,
                                                      told: bool) -> None:
    resnet(50, 24, frozen_stages=frozen).load_state_dict(backbone_of(stock_file))
    line, = said(log)
    assert (f'frozen_stages={frozen} keeps layer1.0.conv1.weight from being trained' in line) == told


def test_checkpoint_of_another_depth_is_refused(stock_file: Path) -> None:
    with pytest.raises(RuntimeError, match='size mismatch'):
        resnet(18, 24).load_state_dict(backbone_of(stock_file), strict=True)


def test_in_channels_is_needed() -> None:
    with pytest.raises(TypeError, match='in_channels'):
        MODELS.build(dict(type='FreqResNet', depth=18))


@pytest.mark.parametrize('channels', [0, -1, 2.5, True, '24', None])
def test_bad_in_channels(channels: Any) -> None:
    with pytest.raises(ValueError, match=f'FreqResNet: in_channels: expected an integer >= 1, got {channels!r}'):
        resnet(18, channels)


@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1c', 'ResNetV1d'])
def test_input_with_the_wrong_number_of_channels(kind: str) -> None:
    with pytest.raises(ValueError, match=rf'Freq{kind}: .*in_channels=24 .*\(1, 48, 8, 8\)'):
        freq(dict(type=kind, depth=18), 24)(torch.rand(1, 48, 8, 8))


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1d'])
def test_copies(kind: str, duplicate: Any) -> None:
    model = evaluating(randomized(freq(dict(type=kind, depth=18), 24)))
    x = torch.randn(1, 24, 8, 8)
    with torch.no_grad():
        assert_allclose(duplicate(model)(x)[0].numpy(), model(x)[0].numpy(), rtol=0)


def test_trace() -> None:
    model = evaluating(randomized(resnet(18, 24)))
    traced = torch.jit.trace(model, torch.randn(1, 24, 8, 8))
    x = torch.randn(2, 24, 16, 16)
    with torch.no_grad():
        assert_allclose(traced(x)[0].numpy(), model(x)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_complexity_counts_the_convolutions() -> None:
    model = evaluating(resnet(18, 24))
    result = get_model_complexity_info(model, (24, 8, 8), show_table=False, show_arch=False)
    sizes: list[tuple[nn.Conv2d, int]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, _, out: sizes.append((m, out.shape[-1] * out.shape[-2])))
    model(torch.rand(1, 24, 8, 8))
    assert result['params'] == sum(p.numel() for p in model.parameters())
    convolutions = sum(m.weight.numel() * size for m, size in sizes)
    assert_allclose(result['flops'], convolutions, rtol=0.05)  # norms and additions are the rest
    assert result['flops'] >= convolutions


def striped(level: int, horizontal: bool) -> np.ndarray:
    """BGR 160 x 240 with wide stripes in one colour, different in each channel."""
    stripes = np.zeros((160, 240, 3), dtype=np.uint8)
    index = np.indices((160, 240))[0 if horizontal else 1] // 40 % 2
    stripes[index == 1] = (level, level // 2, 20)
    return stripes


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, np.ndarray]:
    """Two images with the same name, in folders with the same name, by path."""
    found = {}
    for folder, photo in (('a/cat', striped(240, True)), ('b/cat', striped(120, False))):
        path = tmp_path / 'val' / folder / '000.png'
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), photo)
        found[str(path)] = photo
    return found


def run_hook(paths: list[str], out_dir: Path, **kwargs: Any) -> None:
    """What a test loop calls after one batch of DCT inputs."""
    UniversalVisualizer.get_instance('test_stem')
    hook = HOOKS.build(dict(type='FreqVisualizationHook', out_dir=str(out_dir), interval=1, **kwargs))
    samples = []
    for label, path in enumerate(paths):
        sample = DataSample(metainfo=dict(img_path=path)).set_gt_label(label)
        samples.append(sample.set_pred_label(label).set_pred_score(torch.full((3, ), 1 / 3)))
    batch = dict(inputs=torch.randn(len(paths), 24, 8, 8), data_samples=samples)
    hook.after_test_iter(SimpleNamespace(), 0, batch, samples)
    assert [sample.img_path for sample in samples] == paths


def test_pictures_are_drawn_on_the_photos(photos: dict[str, np.ndarray], tmp_path: Path) -> None:
    run_hook(list(photos), tmp_path / 'out', enable=True)
    written = sorted((tmp_path / 'out').iterdir())
    assert len(written) == 2
    for file, (path, photo) in zip(written, photos.items()):
        assert Path(path).parent.name in file.name
        picture = cv2.imread(str(file))
        height, width = picture.shape[:2]
        assert_allclose(height / width, 160 / 240, rtol=0.02)
        below = cv2.resize(picture, (240, 160), interpolation=cv2.INTER_AREA)[90:]  # the text is in the upper corner
        assert np.abs(below.astype(float) - photo[90:]).mean() < 8
        assert not np.array_equal(cv2.resize(picture, (240, 160))[:60, :120], photo[:60, :120])


def test_a_picture_that_cannot_be_drawn_is_a_warning(photos: dict[str, np.ndarray], tmp_path: Path,
                                                     log: list[str]) -> None:
    broken, good = photos
    Path(broken).write_bytes(b'')
    run_hook([broken, str(tmp_path / 'absent.png'), good], tmp_path / 'out', enable=True)
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['2-cat-000.png_0.png']
    told = [line.split(': cannot draw')[0] for line in log if 'cannot draw' in line]
    assert told == [broken, str(tmp_path / 'absent.png')]


def test_images_are_read_with_the_backend_of_the_hook(photos: dict[str, np.ndarray], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    data = Path(next(iter(photos))).read_bytes()
    monkeypatch.setattr(mmfreq.models.cls.fileio, 'get',
                        lambda path, backend_args: asked.append((path, backend_args)) or data)
    run_hook(['s3://bucket/cat/1.png'], tmp_path / 'out', enable=True, backend_args=dict(backend='petrel'))
    assert asked == [('s3://bucket/cat/1.png', dict(backend='petrel'))]
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['0-cat-1.png_0.png']


def test_every_nth_image_is_drawn_over_batches_of_unequal_size(photos: dict[str, np.ndarray], tmp_path: Path) -> None:
    UniversalVisualizer.get_instance('test_stem')
    hook = HOOKS.build(dict(type='FreqVisualizationHook', out_dir=str(tmp_path / 'out'), interval=2, enable=True))
    path = next(iter(photos))
    for batch, count in enumerate((3, 3, 1)):
        hook.after_test_iter(SimpleNamespace(), batch, {}, [DataSample(metainfo=dict(img_path=path))] * count)
    assert sorted(file.name[0] for file in (tmp_path / 'out').iterdir()) == ['0', '2', '4', '6']


def test_hook_is_off_by_default(photos: dict[str, np.ndarray], tmp_path: Path) -> None:
    run_hook(list(photos), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


# Entry at stage 2


def test_late_entry_leaves_out_stage_1_and_takes_the_grid_of_stage_2() -> None:
    model = evaluating(resnet(18, 96, entry_stage=2, out_indices=(1, 2, 3)))
    with torch.no_grad():
        outputs = model(torch.rand(1, 96, 28, 28))
    assert [tuple(output.shape[1:]) for output in outputs] == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert model.first_weight == 'layer2.0.conv1.weight'
    assert not any(key.startswith(('layer1.', *STEM)) for key in model.state_dict())


@pytest.mark.parametrize(('strides', 'stride'), [((1, 2, 2, 2), 8), ((1, 1, 2, 2), 4), ((2, 2, 2, 2), 16)])
def test_input_stride_of_late_entry_is_that_of_stage_2(strides: tuple[int, ...], stride: int) -> None:
    assert resnet(18, 24, entry_stage=2, strides=strides).input_stride == stride
    assert resnet(18, 24, strides=strides).input_stride == 4


def test_multiply_adds_of_late_entry() -> None:
    """ResNet-18 on a 28x28 grid: the stock network's on 224x224 pixels without stem and stage 1, counted by hand."""
    model = evaluating(resnet(18, 96, entry_stage=2))
    actual = get_model_complexity_info(model, (96, 28, 28), show_table=False, show_arch=False)['flops']
    stages = 9 * 28 * 28 * (96 * 128 + 3 * 128 * 128) + 28 * 28 * 96 * 128
    for side, width in ((14, 256), (7, 512)):
        stages += 9 * side * side * (width * width // 2 + 3 * width * width) + side * side * width * width // 2
    assert stages <= actual < 1.01 * stages  # norms are counted too


@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1d'])
def test_late_entry_is_the_stock_network_behind_stage_1(kind: str) -> None:
    stock = evaluating(randomized(MODELS.build(dict(type=kind, depth=18, strides=(1, 1, 2, 2)))))
    model = evaluating(freq(dict(type=kind, depth=18), 64, entry_stage=2))
    model.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        expected = stock.layer4(stock.layer3(stock.layer2(x)))
        assert_allclose(model(x)[0].numpy(), expected.numpy(), rtol=1e-6, atol=0)


@pytest.mark.parametrize('channels', [24, 192])
def test_stock_checkpoint_loads_at_stage_2(stock_file: Path, log: list[str], channels: int) -> None:
    model = resnet(50, channels, entry_stage=2)
    fresh, stock = clone(model.state_dict()), backbone_of(stock_file)
    model.load_state_dict(stock, strict=True)
    shared = min(channels, 256)
    for key, value in model.state_dict().items():
        expected = stock[key].clone()
        if key in ('layer2.0.conv1.weight', 'layer2.0.downsample.0.weight'):
            expected = fresh[key].clone()
            expected[:, :shared] = stock[key][:, :shared]
        assert_allclose(value.numpy(), expected.numpy(), rtol=0, atol=0, err_msg=key)
    line, = said(log)
    assert 'stem dropped' in line
    assert 'layer1 dropped' in line
    assert f'first {min(channels, 256)} of 256 channels taken' in line


@pytest.mark.parametrize(('frozen', 'told'), [(1, False), (2, True)])
def test_frozen_stages_of_late_entry(stock_file: Path, log: list[str], frozen: int, told: bool) -> None:
    model = resnet(50, 24, entry_stage=2, frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (int(name[5]) > frozen), name
    model.load_state_dict(backbone_of(stock_file))
    line, = said(log)
    assert ('frozen_stages=2 keeps layer2.0.conv1.weight from being trained: set it to -1' in line) == told


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(entry_stage=0), 'expected entry_stage to be 1 or 2, got 0'),
    (dict(entry_stage=3), 'got 3'),
    (dict(entry_stage=True), 'got True'),
    (dict(entry_stage=2, out_indices=(0, 3)), r'expected out_indices >= 1.* got \(0, 3\)'),
    (dict(entry_stage=2, num_stages=1, strides=(1, ), dilations=(1, ), out_indices=(0, )), 'num_stages >= entry_stage'),
])
def test_entry_stages_that_do_not_exist(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet(18, 24, **arguments)
