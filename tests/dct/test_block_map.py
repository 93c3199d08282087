"""Guard the fused transform, int8 and the device module by a float64 chain that rounds nothing."""
import copy
import errno
import itertools
import os
import pickle
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numba
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import init_default_scope
from scipy.fft import dctn
from skimage import data
from tool_runs import forked

from mmfreq.config.pipelines import single_transforms
from mmfreq.dct import kernel
from mmfreq.dct.block_map import BlockMap, upscale_matrix
from mmfreq.dct.channels import CHANNEL_NAMES, channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.models.cls import FreqDataPreprocessor
from mmfreq.models.dct_layer import BlockDCTLayer
from mmfreq.models.det import FreqDetDataPreprocessor
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

from mmdet.structures import DetDataSample  # isort: skip
from mmpretrain.models.utils import ClsDataPreprocessor  # isort: skip
from mmpretrain.structures import DataSample  # isort: skip

IMAGE = np.ascontiguousarray(data.astronaut()[60:220, 150:370, ::-1])  # BGR, 160 x 220 pixels around the face
MEAN, STD = np.linspace(-30, 30, 192), 1 + np.arange(192) % 13.
STATS = dict(mean=MEAN.tolist(), std=STD.tolist())
STATS_NAME = 'photos-448'


def exact_coefficients(image: np.ndarray, n: int = 8, upscale: int = 1, order: str = 'bgr') -> np.ndarray:
    """(h, w, 3*N*N) in float64: JFIF, torch's bilinear upscale, numpy's padding, scipy's DCT; no rounding."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)[::-1 if order == 'bgr' else 1]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    samples = np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], axis=-1)
    if upscale > 1:
        tensor = torch.from_numpy(samples.transpose(2, 0, 1))[None]
        samples = torch.nn.functional.interpolate(tensor, scale_factor=upscale, mode='bilinear', align_corners=False)
        samples = samples[0].numpy().transpose(1, 2, 0)
    height, width, _ = samples.shape
    padded = np.pad(samples - 128, ((0, -height % n), (0, -width % n), (0, 0)), mode='edge')
    blocks = padded.reshape(padded.shape[0] // n, n, -1, n, 3)
    return dctn(blocks, axes=(1, 3), norm='ortho').transpose(0, 2, 4, 1, 3).reshape(len(blocks), -1, 3 * n * n)


def exact(image: np.ndarray, channels: Any, stats: Any = STATS_NAME, n: int = 8, upscale: int = 1,
          order: str = 'bgr') -> np.ndarray:
    """The normalised channels (h, w, C) that the fused transform stands for."""
    mean, std = (np.array(stats['mean']), np.array(stats['std'])) if isinstance(stats, dict) else (
        load_stats(stats).mean, load_stats(stats).std)
    return ((exact_coefficients(image, n, upscale, order) - mean) / std)[:, :, channel_indices(channels, n)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height: int, width: int) -> np.ndarray:
    return np.repeat(noise(height, width)[:, :, :1], 3, axis=2)


# The fused transform


@pytest.mark.parametrize('channels', CHANNEL_NAMES)
@pytest.mark.parametrize(('shape', 'upscale', 'stats'), [
    ((160, 220), 1, STATS_NAME), ((37, 61), 1, STATS_NAME), ((1, 1), 1, STATS_NAME),
    ((53, 87), 2, 'photos-1333x800')])
def test_every_named_selection(channels: str, shape: tuple[int, int], upscale: int, stats: str) -> None:
    image = IMAGE[:shape[0], :shape[1]]
    results = FusedBlockDCT(channels, stats, upscale=upscale)({'img': image})
    assert results['img'].dtype == np.float32
    assert results['freq_channels'] == channel_indices(channels)
    np.testing.assert_allclose(results['img'], exact(image, channels, stats, upscale=upscale), rtol=0, atol=1e-3)


@pytest.mark.parametrize('make', [noise, grey, lambda *shape: np.zeros((*shape, 3), np.uint8),
                                  lambda *shape: np.full((*shape, 3), 255, np.uint8)],
                         ids=['noise', 'grey', 'black', 'white'])
@pytest.mark.parametrize('order', ['bgr', 'rgb'])
@pytest.mark.parametrize('channels', ['24D', '192', [130, 0, 65], [191], [[], [3], []], [[63, 9, 0], [], [1, 2]]],
                         ids=str)
def test_contents_orders_and_lists(channels: Any, order: str, make: Any) -> None:
    image = make(41, 56)
    result = FusedBlockDCT(channels, STATS_NAME, channel_order=order)({'img': image})['img']
    np.testing.assert_allclose(result, exact(image, channels, order=order), rtol=0, atol=1e-3)


@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 2), (8, 4), (8, 8), (4, 1), (16, 1), (4, 2), (2, 2), (1, 1)])
@pytest.mark.parametrize('shape', [(48, 64), (37, 61), (3, 5), (1, 1)])
def test_block_sizes_and_upscales(shape: tuple[int, int], block_size: int, upscale: int) -> None:
    image, total = noise(*shape), 3 * block_size**2
    stats = dict(mean=np.linspace(-9, 9, total).tolist(), std=[2.] * total)
    every = list(range(total))
    result = FusedBlockDCT(every, stats, block_size, upscale)({'img': image})['img']
    assert result.shape[:2] == tuple(-(-side * upscale // block_size) for side in shape)
    np.testing.assert_allclose(result, exact(image, every, stats, block_size, upscale), rtol=0, atol=1e-3)


@pytest.mark.parametrize('upscale', [1, 2])
def test_large_images_go_through_in_strips(upscale: int) -> None:
    image = noise(203, 1333)
    result = FusedBlockDCT('24S', STATS_NAME, upscale=upscale)({'img': image})['img']
    np.testing.assert_allclose(result, exact(image, '24S', upscale=upscale), rtol=0, atol=1e-3)


@pytest.mark.parametrize(('channels', 'upscale'), [('24S', 1), ('192', 1), ('64T', 2)])
def test_the_four_transforms_differ_by_the_rounding_of_colours_alone(channels: str, upscale: int) -> None:
    """A colour rounded by up to 0.5 moves an orthonormal coefficient of 64 of them by up to 4, by sqrt(1/12) rms."""
    chain = Compose([YCbCr(), BlockDCT(upscale=upscale), ChannelSelect(channels), FreqNormalize(STATS)])
    expected = chain({'img': IMAGE, 'key': 'kept'})
    results = FusedBlockDCT(channels, STATS, upscale=upscale)({'img': IMAGE, 'key': 'kept'})
    assert results.keys() == expected.keys()
    assert results['freq_channels'] == expected['freq_channels']
    assert results['img'].shape == expected['img'].shape
    moved = (results['img'] - expected['img']) * STD[expected['freq_channels']]
    assert np.abs(moved).max() <= 4
    assert 0.01 < np.sqrt(np.mean(moved**2)) < 0.35
    # where nothing needs rounding, nothing differs
    black = {'img': np.zeros((24, 40, 3), np.uint8)}
    np.testing.assert_allclose(FusedBlockDCT(channels, STATS, upscale=upscale)(dict(black))['img'],
                               chain(dict(black))['img'], rtol=0, atol=1e-3)


def test_a_worked_example() -> None:
    """One block: pixels 0 on the left half and 255 on the right half, of blue alone."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:, 0] = 255
    stats = dict(mean=[10.] * 192, std=[4.] * 192)
    first = np.sqrt(8) * 0.5 * sum(np.cos((2 * x + 1) * np.pi / 16) for x in range(4, 8)) * 255
    expected = [(0.114 * 127.5 - 128) * 8, 0.114 * first, 0, 0.5 * 127.5 * 8, 0.5 * first]
    result = FusedBlockDCT([0, 1, 8, 64, 65], stats)({'img': image})['img']
    np.testing.assert_allclose(result[0, 0], (np.array(expected) - 10) / 4, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('view', [
    lambda image: np.broadcast_to(image, image.shape), lambda image: image[:, ::-1],
    lambda image: image[::-1], lambda image: image[::-1, ::-1],
    lambda image: image[:, :, ::-1], lambda image: image[::-1, :, ::-1], lambda image: image[3:140, 5:99],
    lambda image: image[3:139, 8:104][:, ::-1], lambda image: image[::2, ::3], lambda image: np.asfortranarray(image),
], ids=range(10))
@pytest.mark.parametrize('upscale', [1, 2])
def test_views_give_what_copies_give(view: Any, upscale: int) -> None:
    transform = FusedBlockDCT('24S', STATS_NAME, upscale=upscale)
    image = view(IMAGE.copy())
    kept = image.copy()
    result = transform({'img': image})['img']
    np.testing.assert_array_equal(result, transform({'img': np.ascontiguousarray(kept)})['img'])
    np.testing.assert_array_equal(image, kept)


def test_packers_need_not_copy() -> None:
    result = FusedBlockDCT('24S', STATS_NAME)({'img': IMAGE})['img']
    assert np.ascontiguousarray(result.transpose(2, 0, 1)).base is not None
    assert np.shares_memory(np.ascontiguousarray(result.transpose(2, 0, 1)), result)


def test_kernel_is_the_map() -> None:
    """The dense weights, applied pixel by pixel."""
    stats = load_stats(STATS_NAME)
    block_map = BlockMap(channel_indices('24D'), stats.mean, stats.std, 8, 2)
    image = noise(8, 12)
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode='edge')
    found = [[[np.sum(kernel.transpose(1, 2, 0) * padded[4 * row:4 * row + 6, 4 * col:4 * col + 6]) + bias
               for kernel, bias in zip(block_map.kernel, block_map.bias)] for col in range(3)] for row in range(2)]
    np.testing.assert_allclose(found, exact(image, '24D', upscale=2), rtol=0, atol=1e-9)


@pytest.mark.parametrize('error', [RuntimeError('cannot cache function: no locator available'),
                                   OSError(errno.ENOSPC, 'No space left on device')], ids=['folder', 'disk'])
def test_loops_are_compiled_where_nothing_can_be_written(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(signature: Any = None, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise error
        return numba.njit(signature, **options)

    monkeypatch.setattr(kernel, 'njit', njit)
    double = kernel.compiled(numba.int64(numba.int64))(lambda x: 2 * x)
    assert (double(21), len(double.signatures)) == (42, 1)


def double(folder: Path) -> None:
    """Keep machine code in ``folder``; print 42 and the warnings."""
    numba.config.CACHE_DIR = ''  # beside the file
    sys.path.insert(0, str(folder))
    import doubling
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        compiled = kernel.compiled(numba.int64(numba.int64))(doubling.double)
    print(compiled(21), len(caught), *(w.message for w in caught))


def doublings(folder: Path, count: int = 1) -> list[str]:
    """What processes print that compile at once."""
    (folder / 'doubling.py').write_text('def double(x):\n    return 2 * x\n')
    os.utime(folder / 'doubling.py', (1e9, 1e9))  # code that is older than what is kept of it
    return [text for _, text in forked(*[partial(double, folder)] * count)]


def test_processes_that_start_at_once_leave_a_whole_cache(tmp_path: Path) -> None:
    assert [output.split()[0] for output in doublings(tmp_path, 4)] == ['42'] * 4
    assert doublings(tmp_path) == ['42 0\n']


def test_a_damaged_cache_is_replaced(tmp_path: Path) -> None:
    assert doublings(tmp_path) == ['42 0\n']
    for ending, kept in (('nbi', 0), ('nbi', 0.5), ('nbc', 0), ('nbc', 0.5)):
        file, = tmp_path.rglob(f'doubling*.{ending}')
        file.write_bytes(file.read_bytes()[:int(kept * file.stat().st_size)])
        output, = doublings(tmp_path)
        assert output.startswith("42 1 mmfreq: replaced a damaged file in numba's cache"), ending
    assert doublings(tmp_path) == ['42 0\n']


def test_machine_code_is_of_the_sources_of_all_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel holds code of others, whose changes numba does not see."""
    assert doublings(tmp_path) == ['42 0\n']
    monkeypatch.setattr(kernel, '_SOURCES', 0)
    assert doublings(tmp_path) == ['42 0\n']
    assert len(list(tmp_path.rglob('doubling*.nbc'))) == 2


def test_a_pickled_transform_holds_no_machine_code() -> None:
    """Spawned workers load what is kept on disk; a pickled dispatcher of numba would compile anew in each of them."""
    assert b'numba' not in pickle.dumps(FusedBlockDCT('24S', STATS_NAME))


def test_upscale_matrix() -> None:
    np.testing.assert_array_equal(upscale_matrix(4, 2), [
        [0.25, 0.75, 0, 0], [0, 0.75, 0.25, 0], [0, 0.25, 0.75, 0], [0, 0, 0.75, 0.25]])
    np.testing.assert_array_equal(upscale_matrix(3, 1), np.eye(3))
    np.testing.assert_allclose(upscale_matrix(8, 4).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(channels='25S'), 'channels: expected one of 6S'),
    (dict(channels=[0, 0]), 'every index once'),
    (dict(stats='nowhere'), 'stats: expected one of'),
    (dict(stats=dict(mean=[0.], std=[1.])), 'stats: expected mean and std for all 192 channels, got 1'),
    (dict(channel_order='ycc'), "channel_order: expected 'bgr' or 'rgb', got 'ycc'"),
    (dict(upscale=3), 'block_size: expected a multiple of upscale=3, got 8'),
    (dict(upscale=0), 'upscale: expected an integer >= 1, got 0'),
    (dict(block_size=2.), 'block_size: expected an integer >= 1'),
    (dict(dtype='uint8'), "dtype: expected one of float32, int8, got 'uint8'"),
    (dict(dtype='int8'), "scale: expected a number > 0 for dtype='int8'"),
    (dict(dtype='int8', scale=0), 'scale: expected a number > 0'),
    (dict(dtype='int8', scale=[1]), r'scale: expected a number > 0 .*got \[1\]'),
    (dict(dtype='int8', scale=float('inf')), 'scale: expected a number > 0'),
    (dict(scale=6.), "scale: expected none for dtype='float32', got 6.0"),
])
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedBlockDCT(**{'channels': '24S', 'stats': STATS_NAME, **arguments})


# int8


def test_int8_rounds_and_saturates() -> None:
    values = np.array([[[-400, -12.8, -0.26, -0.25, 0, 0.25, 0.26, 0.75, 12.6, 12.8, 300]]], np.float32)
    stats = dict(mean=[0.] * 12, std=[1.] * 12)
    results = {'img': values, 'freq_channels': list(range(11))}
    result = FreqNormalize(stats, block_size=2, dtype='int8', scale=10)(results)['img']
    assert result.dtype == np.int8
    # halves to even
    np.testing.assert_array_equal(result, [[[-127, -127, -3, -2, 0, 2, 3, 8, 126, 127, 127]]])
    packed = np.empty(values.size, np.int8)
    kernel.saturate(10 * values.ravel(), 127, packed)
    np.testing.assert_array_equal(packed, result.ravel())


@pytest.mark.parametrize('scale', [6, 16.5])
def test_fused_int8(scale: float) -> None:
    result = FusedBlockDCT('48S', STATS_NAME, dtype='int8', scale=scale)({'img': IMAGE})['img']
    assert result.dtype == np.int8
    steps = np.clip(exact(IMAGE, '48S') * scale, -127, 127)
    assert np.abs(result - steps).max() < 0.5 + 1e-3 * scale
    assert np.abs(steps).max() == 127  # some saturate


def test_int8_inverse() -> None:
    transform = FreqNormalize(STATS_NAME, dtype='int8', scale=6)
    stats, channels = load_stats(STATS_NAME), channel_indices('24S')
    coefficients = exact_coefficients(IMAGE)[:, :, channels].astype(np.float32)
    packed = transform({'img': coefficients, 'freq_channels': channels})['img']
    error = (transform.inverse(packed, channels) - coefficients) / stats.std[channels]
    assert np.abs(error[np.abs(packed) < 127]).max() < 0.5 / 6 + 1e-4
    assert np.abs(error).max() < 10


def test_the_stock_classification_preprocessor_undoes_int8() -> None:
    pack = Compose([FusedBlockDCT('24S', STATS_NAME, dtype='int8', scale=8), packer('mmpretrain')])
    batch = default_collate([pack({'img': IMAGE, 'gt_label': 1})] * 2)
    assert batch['inputs'].dtype == torch.int8
    assert batch['inputs'].numel() * batch['inputs'].element_size() == 2 * 24 * 20 * 28
    out = ClsDataPreprocessor(mean=[0], std=[8])(batch)['inputs']
    assert out.dtype == torch.float32
    expected = np.clip(exact(IMAGE, '24S'), -127 / 8, 127 / 8).transpose(2, 0, 1)
    np.testing.assert_allclose(out[1].numpy(), expected, rtol=0, atol=0.5 / 8 + 1e-3)


def packer(scope: str) -> Any:
    init_default_scope(scope)
    kind = 'PackInputs' if scope == 'mmpretrain' else 'PackDetInputs'
    return Compose([dict(type=kind)])


@pytest.mark.parametrize('values', [1, 24])
def test_the_detection_preprocessor_undoes_int8_and_pads_with_the_mean(values: int) -> None:
    mean, std = ([0.], [0.125]) if values == 1 else (list(range(24)), [0.125 * (i + 1) for i in range(24)])
    preprocessor = FreqDetDataPreprocessor(mean=mean, std=std)
    inputs = [torch.full((24, 3, 9), 16, dtype=torch.int8), torch.full((24, 8, 5), -7, dtype=torch.int8)]
    out = preprocessor(dict(inputs=inputs, data_samples=[DetDataSample(), DetDataSample()]))
    assert out['inputs'].shape == (2, 24, 8, 16)
    for value, found, (rows, cols) in zip((16, -7), out['inputs'].numpy(), ((3, 9), (8, 5))):
        expected = np.zeros((24, 8, 16))
        expected[:, :rows, :cols] = ((value - np.array(mean)) / np.array(std))[:, None, None]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [s.pad_shape for s in out['data_samples']] == [(32, 64), (32, 32)]
    assert preprocessor.state_dict() == {}


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(mean=[0.]), r'to undo int8; got mean=\[0\.0\], std=None'),
    (dict(mean=[0.], std=[1.] * 24), 'as many values as std'),
    (dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), r'to undo int8; got mean=\[123'),
    (dict(placement='device', freq=dict(channels='24S', stats=STATS_NAME, upscale=2), mean=[0.], std=[1.]),
     "mean, std: expected none with placement='device'"),
    (dict(placement='device', freq=dict(channels='24S', stats=STATS_NAME)), 'stride: expected 8, .* got 4'),
    (dict(placement='gpu'), "placement: expected one of cpu, device, got 'gpu'"),
    (dict(placement='device'), 'freq: expected dict'),
    (dict(freq=dict(channels='24S', stats=STATS_NAME)), "freq: .* got .* with placement='cpu'"),
])
def test_bad_arguments_of_the_detection_preprocessor(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreqDetDataPreprocessor(**arguments)


def test_statistics_of_other_lengths_stop_the_batch() -> None:
    preprocessor = FreqDetDataPreprocessor(mean=[0.] * 48, std=[1.] * 48)
    with pytest.raises(ValueError, match='one value or as many as the inputs have channels, got 48 for .* 24 channels'):
        preprocessor(dict(inputs=[torch.zeros(24, 3, 9)], data_samples=[DetDataSample()]))


# On the network's device


def as_images(*images: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]


@pytest.mark.parametrize(('channels', 'upscale'), [('24S', 1), ('24D', 2), ('192', 1), ([130, 0, 65], 4)])
@pytest.mark.parametrize('shape', [(64, 96), (37, 61), (1, 1)])
@pytest.mark.parametrize('reduced', [True, False])
def test_layer(reduced: bool, shape: tuple[int, int], channels: Any, upscale: int,
               monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where products round their factors to bfloat16, more coarsely than TF32 does."""
    module = BlockDCTLayer(channels, STATS_NAME, upscale=upscale)
    assert module.state_dict() == {}
    images = [noise(*shape, seed=i) for i in range(2)]
    if reduced:
        addmm = torch.addmm
        monkeypatch.setattr(torch, 'addmm', lambda total, a, b: addmm(
            total, a.bfloat16().float(), b.bfloat16().float()))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = module(torch.stack(as_images(*images)))
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    expected = np.stack([exact(image, channels, upscale=upscale).transpose(2, 0, 1) for image in images])
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('capture', [
    lambda module, images: torch.compile(module, backend='aot_eager', fullgraph=True),
    lambda module, images: torch.jit.trace(module, (images, )),
    lambda module, images: torch.export.export(module, (images, )).module(),
], ids=['compile', 'trace', 'export'])
def test_layer_becomes_one_graph(capture: Any) -> None:
    module = BlockDCTLayer('24S', STATS_NAME, upscale=2, channel_order='rgb')
    graph = capture(module, torch.stack(as_images(noise(32, 48))))
    found = graph(torch.stack(as_images(noise(32, 48, 1))))[0].numpy()
    expected = exact(noise(32, 48, 1), '24S', upscale=2, order='rgb').transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('images', [torch.zeros(1, 3, 8, 8), torch.zeros(1, 24, 8, 8, dtype=torch.uint8),
                                    torch.zeros(1, 3, 0, 8, dtype=torch.uint8)], ids=range(3))
def test_inputs_that_are_no_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"placement='device': expected images, uint8 \(N, 3, H, W\), got .*pipeline"):
        BlockDCTLayer('24S', STATS_NAME)(images)


FREQ = dict(type='FusedBlockDCT', channels='24S', stats=STATS_NAME)


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_classification_preprocessor_in_both_places(collate: Any) -> None:
    images, batches = [noise(160, 220), IMAGE[:, ::-1].copy()], []
    for steps in ([FREQ], []):
        pack = Compose([*steps, packer('mmpretrain')])
        batches.append(collate([pack({'img': image.copy(), 'gt_label': i, 'img_shape': (160, 220)})
                                for i, image in enumerate(images)]))
    assert batches[1]['inputs'][0].dtype == torch.uint8
    augment = dict(to_onehot=True, num_classes=3, batch_augments=dict(augments=[dict(type='Mixup', alpha=1.)]))
    found = []
    for batch, arguments in zip(batches, ({}, dict(placement='device', freq=FREQ))):
        torch.manual_seed(0)
        np.random.seed(0)
        out = FreqDataPreprocessor(**arguments, **augment)(copy.deepcopy(batch), training=True)
        assert out['inputs'].dtype == torch.float32
        found.append((out['inputs'].numpy(), [s.gt_score.tolist() for s in out['data_samples']],
                      [s.metainfo for s in out['data_samples']]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0, atol=1e-3)
    assert found[1][1:] == found[0][1:]
    plain = FreqDataPreprocessor(placement='device', freq=FREQ)(batches[1])['inputs']
    np.testing.assert_allclose(plain[0].numpy(), exact(images[0], '24S').transpose(2, 0, 1), rtol=0, atol=1e-3)


def test_classification_preprocessor_on_the_cpu_is_the_stock_one() -> None:
    batch = dict(inputs=torch.randint(-127, 128, (2, 24, 5, 7), dtype=torch.int8), data_samples=[DataSample()] * 2)
    arguments = dict(mean=[0], std=[0.25])
    np.testing.assert_array_equal(FreqDataPreprocessor(**arguments)(batch)['inputs'],
                                  ClsDataPreprocessor(**arguments)(batch)['inputs'])


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(to_rgb=True), 'to_rgb: expected none'),
    (dict(mean=[0.], std=[1.]), 'mean: expected none'),
    (dict(freq=dict(channels='25S', stats=STATS_NAME)), 'channels: expected one of'),
])
def test_bad_arguments_of_the_classification_preprocessor(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreqDataPreprocessor(**{'placement': 'device', 'freq': FREQ, **arguments})


def test_detection_preprocessor_in_both_places() -> None:
    """Images of unequal, odd sizes: the same inputs and shapes in pixels, masks padded alike."""
    freq = dict(FREQ, upscale=2)
    images, found = [noise(107, 161), IMAGE, noise(37, 41)], []
    for steps, arguments in (([freq], {}), ([], dict(placement='device', freq=freq))):
        pack = Compose([*steps, packer('mmdet')])
        batch = pseudo_collate([pack({'img': image.copy(), 'img_shape': image.shape[:2], 'img_id': 0})
                                for image in images])
        preprocessor = FreqDetDataPreprocessor(pad_mask=True, **arguments)
        out = preprocessor(batch, training=True)
        found.append((out['inputs'].numpy(), [s.metainfo for s in out['data_samples']]))
    assert found[0][0].shape == (3, 24, 40, 56)
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0, atol=1e-3)
    assert found[1][1] == found[0][1]
    assert found[0][1][0]['pad_shape'] == (128, 192)
    assert found[0][1][0]['batch_input_shape'] == (160, 224)


@pytest.mark.parametrize(('order', 'upscale', 'dtype'), itertools.product(['bgr', 'rgb'], [1, 2], [None, 'int8']))
def test_the_config_stands_for_the_four_transforms(order: str, upscale: int, dtype: Optional[str]) -> None:
    extra = dict(dtype='int8', scale=2) if dtype else {}
    fused = dict(type='FusedBlockDCT', channels='24D', stats=STATS, channel_order=order, upscale=upscale, **extra)
    init_default_scope('mmpretrain')
    chain = Compose(single_transforms(fused))
    # grey whole levels: the chain's rounding does nothing
    image = grey(50, 61)
    np.testing.assert_allclose(Compose([fused])({'img': image})['img'], chain({'img': image})['img'], rtol=0,
                               atol=1 if dtype else 1e-3)
