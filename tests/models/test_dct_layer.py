"""The DCT on the network's device, and int8 in the preprocessors, against a float64 chain that rounds nothing."""
import copy
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import init_default_scope
from numpy.testing import assert_allclose, assert_array_equal
from references import FACE, exact, noise

import mmfreq.models.det  # noqa: F401  before mmdet, for mmcv without compiled ops
from mmfreq.models import dct_layer
from mmfreq.models.cls import FreqDataPreprocessor
from mmfreq.models.dct_layer import BlockConvolution, BlockDCTLayer
from mmfreq.models.det import FreqDetDataPreprocessor
from mmfreq.transforms import FusedBlockDCT

from mmdet.structures import DetDataSample  # isort: skip
from mmpretrain.models.utils import ClsDataPreprocessor  # isort: skip

STATS = 'photos-448'
FREQ = dict(type='FusedBlockDCT', channels='24S', stats=STATS)


def batch_of(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images])


@pytest.mark.parametrize(('channels', 'upscale'), [('24S', 1), ('24D', 2), ('192', 1), ([130, 0, 65], 4)])
@pytest.mark.parametrize('shape', [(64, 96), (37, 61), (1, 1)])
def test_layer(shape: tuple[int, int], channels: Any, upscale: int) -> None:
    module = BlockDCTLayer(channels, STATS, upscale=upscale)
    assert module.state_dict() == {}
    images = [noise(*shape, seed=seed) for seed in range(2)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = module(batch_of(*images))
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    expected = np.stack([exact(image, channels, STATS, upscale=upscale).transpose(2, 0, 1) for image in images])
    assert_allclose(result, expected, rtol=0, atol=1e-3)


def test_a_convolution_of_pixels_in_the_opposite_order_of_colours() -> None:
    block_map = BlockDCTLayer('24S', STATS, upscale=2).spec.block_map()
    convolution = BlockConvolution(block_map.kernel, block_map.bias, block_map.stride, block_map.margin, reverse=True)
    result = convolution(batch_of(noise(37, 61)[:, :, ::-1]).float())[0]
    assert_allclose(result, exact(noise(37, 61), '24S', STATS, upscale=2).transpose(2, 0, 1), rtol=0, atol=1e-3)
    pixels = BlockConvolution(torch.eye(3)[:, :, None, None], torch.zeros(3))(batch_of(FACE).float())[0]
    assert_allclose(pixels, FACE.transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize('capture', [
    lambda module, images: torch.compile(module, backend='aot_eager', fullgraph=True),
    lambda module, images: torch.jit.trace(module, (images, )),
    lambda module, images: torch.export.export(module, (images, )).module(),
], ids=['compile', 'trace', 'export'])
def test_layer_becomes_one_graph(capture: Any) -> None:
    module = BlockDCTLayer('24S', STATS, upscale=2, channel_order='rgb')
    graph = capture(module, batch_of(noise(32, 48)))
    expected = exact(noise(32, 48, 1), '24S', STATS, upscale=2, order='rgb').transpose(2, 0, 1)
    assert_allclose(graph(batch_of(noise(32, 48, 1)))[0], expected, rtol=0, atol=1e-3)


def test_tf32_is_off_for_the_convolution_alone() -> None:
    """The older switch can still be read afterwards; torch refuses to, if the two disagree."""
    before = torch.backends.cudnn.allow_tf32
    with dct_layer._without_tf32():
        switch = getattr(torch.backends.cudnn, 'conv', None)  # torch 2.9
        assert switch.fp32_precision == 'ieee' if switch else not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize('users', [True, False])
def test_tf32_of_older_torch_returns_after_an_error(users: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    older, seen = type('cudnn', (), dict(allow_tf32=users)), []
    monkeypatch.setattr(torch.backends, 'cudnn', older)
    with suppress(KeyError), dct_layer._without_tf32():
        seen.append(older.allow_tf32)
        raise KeyError
    assert [*seen, older.allow_tf32] == [False, users]


@pytest.mark.parametrize('images', [torch.zeros(1, 3, 8, 8), torch.zeros(1, 24, 8, 8, dtype=torch.uint8)])
def test_inputs_other_than_images(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"placement='device': .*uint8 \(N, 3, H, W\), got "):
        BlockDCTLayer('24S', STATS)(images)


# Preprocessors


def packer(scope: str) -> Any:
    init_default_scope(scope)
    return Compose([dict(type='PackInputs' if scope == 'mmpretrain' else 'PackDetInputs')])


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_classification_in_both_places(collate: Any) -> None:
    images, batches = [noise(160, 220), FACE[:, ::-1].copy()], []
    for steps in ([FREQ], []):
        pack = Compose([*steps, packer('mmpretrain')])
        batches.append(collate([pack({'img': image.copy(), 'gt_label': i, 'img_shape': (160, 220)})
                                for i, image in enumerate(images)]))
    assert batches[1]['inputs'][0].dtype == torch.uint8
    augment = dict(to_onehot=True, num_classes=3, batch_augments=dict(augments=[dict(type='Mixup', alpha=1.)]))
    results = []
    for batch, arguments in zip(batches, ({}, dict(placement='device', freq=FREQ))):
        torch.manual_seed(0)
        np.random.seed(0)
        out = FreqDataPreprocessor(**arguments, **augment)(copy.deepcopy(batch), training=True)
        results.append((out['inputs'].numpy(), [(s.gt_score.tolist(), s.metainfo) for s in out['data_samples']]))
    assert_allclose(results[1][0], results[0][0], rtol=0, atol=1e-3)
    assert results[1][1] == results[0][1]
    plain = FreqDataPreprocessor(placement='device', freq=dict(FREQ, dtype='int8', scale=6))(batches[1])['inputs']
    assert_allclose(plain[0], exact(images[0], '24S', STATS).transpose(2, 0, 1), rtol=0, atol=1e-3)


def test_detection_in_both_places() -> None:
    """Images of unequal, odd sizes: the same inputs, and the same shapes in pixels."""
    freq, results = dict(FREQ, upscale=2), []
    for steps, arguments in (([freq], {}), ([], dict(placement='device', freq=freq))):
        pack = Compose([*steps, packer('mmdet')])
        batch = pseudo_collate([pack({'img': image.copy(), 'img_shape': image.shape[:2], 'img_id': 0})
                                for image in (noise(107, 161), FACE, noise(37, 41))])
        out = FreqDetDataPreprocessor(pad_mask=True, **arguments)(batch, training=True)
        results.append((out['inputs'].numpy(), [s.metainfo for s in out['data_samples']]))
    assert results[0][0].shape == (3, 24, 40, 56)
    assert_allclose(results[1][0], results[0][0], rtol=0, atol=1e-3)
    assert results[1][1] == results[0][1]
    assert results[0][1][0]['pad_shape'] == (128, 192)
    assert results[0][1][0]['batch_input_shape'] == (160, 224)


def test_the_stock_preprocessor_undoes_int8() -> None:
    pack = Compose([FusedBlockDCT('24S', STATS, dtype='int8', scale=8), packer('mmpretrain')])
    batch = default_collate([pack({'img': FACE, 'gt_label': 1})] * 2)
    assert batch['inputs'].dtype == torch.int8
    out = ClsDataPreprocessor(mean=[0], std=[8])(batch)['inputs']
    assert out.dtype == torch.float32
    expected = np.clip(exact(FACE, '24S', STATS), -127 / 8, 127 / 8).transpose(2, 0, 1)
    assert_allclose(out[1], expected, rtol=0, atol=0.5 / 8 + 1e-3)
    assert_array_equal(FreqDataPreprocessor(mean=[0], std=[8])(batch)['inputs'], out)


def test_the_detection_preprocessor_undoes_int8_and_pads_with_the_mean() -> None:
    preprocessor = FreqDetDataPreprocessor(mean=[0.], std=[8.])
    inputs = [torch.full((24, 3, 9), 16, dtype=torch.int8), torch.full((24, 8, 5), -7, dtype=torch.int8)]
    out = preprocessor(dict(inputs=inputs, data_samples=[DetDataSample(), DetDataSample()]))
    assert out['inputs'].shape == (2, 24, 8, 16)
    for value, channels, (rows, cols) in zip((16, -7), out['inputs'].numpy(), ((3, 9), (8, 5))):
        expected = np.zeros((24, 8, 16))
        expected[:, :rows, :cols] = value / 8
        assert_allclose(channels, expected, rtol=1e-6)
    assert [s.pad_shape for s in out['data_samples']] == [(32, 64), (32, 32)]
    assert preprocessor.state_dict() == {}
