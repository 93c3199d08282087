"""The registered transforms against scipy and numpy, in pipelines of both hosts, on odd files."""
import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope, init_default_scope
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references import FACE, exact_dct, resized

from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.transforms import (
    BlockDCT,
    ChannelDrop,
    ChannelSelect,
    FreqNormalize,
    FusedBlockDCT,
    RoundPixels,
    YCbCr,
)

CHANNELS_24S = channel_indices('24S')
STATS = {'mean': [(7 * i) % 31 - 15.5 for i in range(192)], 'std': [1 + (5 * i) % 13 for i in range(192)]}
FREQ = [dict(type='YCbCr'), dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S'),
        dict(type='FreqNormalize', stats='dctnet-classification')]
RGB = np.ascontiguousarray(FACE[:, :, ::-1])


def build(config: Any, scope: str = 'mmengine') -> Callable[[dict], Any]:
    """Build a transform, or a whole pipeline, as a host of that default scope does: from the root registry."""
    with DefaultScope.overwrite_default_scope(scope):
        init_default_scope(scope)
        return Compose(config) if isinstance(config, list) else TRANSFORMS.build(config)


def frequency_input(bgr: np.ndarray, upscale: int = 1, name: str = 'dctnet-classification') -> np.ndarray:
    """Reference for the four transforms, 24S: (C, h, w) float64. test_blocks.py checks the colour conversion."""
    samples, stats = YCbCr()({'img': bgr})['img'], load_stats(name)
    samples = resized(samples, [side * upscale for side in bgr.shape[:2]]) if upscale > 1 else samples
    return (((exact_dct(samples) - stats.mean) / stats.std)[:, :, CHANNELS_24S]).transpose(2, 0, 1)


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet'])
def test_every_scope_finds_the_transforms(scope: str) -> None:
    ours = {name for name, cls in TRANSFORMS.module_dict.items() if cls.__module__ == 'mmfreq.transforms'}
    assert ours == {'YCbCr', 'BlockDCT', 'ChannelDrop', 'ChannelSelect', 'FreqNormalize', 'FusedBlockDCT', 'LazyResize',
                    'LoadYCbCrFromFile', 'RoundPixels'}
    for config in FREQ:
        assert type(build(config, scope)).__module__ == 'mmfreq.transforms'


# Each transform's numbers


@pytest.mark.parametrize(('order', 'image'), [('bgr', FACE), ('rgb', RGB)])
def test_ycbcr(order: str, image: np.ndarray) -> None:
    result = YCbCr(order)({'img': image})['img']
    assert result.dtype == np.uint8
    assert_allclose(result.astype(int), Image.fromarray(RGB).convert('YCbCr'), rtol=0, atol=1)


@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 1), (8, 2), (4, 1), (16, 1), (8, 3), (2, 2)])
@pytest.mark.parametrize('shape', [(160, 220), (37, 61), (1, 1)])
def test_block_dct(shape: tuple[int, int], block_size: int, upscale: int) -> None:
    image = RGB[:shape[0], :shape[1]]
    result = BlockDCT(block_size=block_size, upscale=upscale)({'img': image})['img']
    assert result.dtype == np.float32
    samples = resized(image, [side * upscale for side in shape]) if upscale > 1 else image
    assert_allclose(result, exact_dct(samples, block_size), rtol=0, atol=2e-3)


@pytest.mark.parametrize('dtype', ['float32', 'int8'])
def test_channel_drop_keeps_each_selection_equally_often(dtype: str) -> None:
    scale, keep, counts = dict(int8=20).get(dtype), ['24N', '12N', [0, 17]], {24: 0, 12: 0, 2: 0}
    freq = FusedBlockDCT('24N', 'imagenette-224-4x4', 4, dtype=dtype, scale=scale)
    full, drop = freq({'img': FACE})['img'], ChannelDrop(keep, 4)
    np.random.seed(0)
    for _ in range(300):
        image = drop(freq({'img': FACE}))['img']
        kept = next(names for names in keep if len(channel_indices(names, 4)) == np.any(image, axis=(0, 1)).sum())
        chosen = np.isin(channel_indices('24N', 4), channel_indices(kept, 4))
        assert_array_equal(image, np.where(chosen, full, 0))
        counts[chosen.sum()] += 1
    assert min(counts.values()) > 65  # 100 are expected, with a deviation of 8
    with pytest.raises(ValueError, match='ChannelDrop: expected .* all channels of 24N'):
        ChannelDrop(['24N'], 4)(dict(img=full[..., :12], freq_channels=channel_indices('12N', 4)))


@pytest.mark.parametrize(('channels', 'block_size', 'expected'), [
    ('24S', 8, CHANNELS_24S), ('192', 8, list(range(192))), ([130, 0, 65], 8, [130, 0, 65]),
    ([[0, 15], [1], [2]], 4, [0, 15, 17, 34])])
def test_channel_select(channels: Any, block_size: int, expected: list[int]) -> None:
    image = cube(3 * block_size**2)
    results = ChannelSelect(channels, block_size)({'img': image})
    assert results['img'].dtype == np.float32
    assert results['img'].flags.c_contiguous
    assert_array_equal(results['img'], np.stack([image[:, :, i] for i in expected], axis=2))
    assert results['freq_channels'] == expected
    assert all(type(i) is int for i in results['freq_channels'])


@pytest.mark.parametrize('channels', [None, CHANNELS_24S, [130, 0, 65]])
def test_freq_normalize(channels: Optional[list[int]], tmp_path: Path) -> None:
    (tmp_path / 'mine.json').write_text(json.dumps({'source': 'test', **STATS}))
    used = list(range(192)) if channels is None else channels
    image, extra = cube(len(used)), {} if channels is None else {'freq_channels': channels}
    mean, std = (np.array(STATS[key])[used] for key in ('mean', 'std'))
    for stats in (STATS, str(tmp_path / 'mine.json')):
        result = FreqNormalize(stats)({'img': image, **extra})['img']
        assert result.dtype == np.float32
        assert_allclose(result, (image.astype(np.float64) - mean) / std, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int16, np.uint8])
def test_round_pixels(dtype: type) -> None:
    """To the nearest level, halves to the even one, and clipped."""
    levels = np.array([-3.7, 0.4, 0.5, 1.5, 254.6, 255.4, 300]).astype(dtype)
    expected = {'f': [0, 0, 0, 2, 255, 255, 255], 'i': [0, 0, 0, 1, 254, 255, 255]}
    rounded = RoundPixels()({'img': np.tile(levels[:, None, None], (1, 2, 3))})['img']
    assert rounded.dtype == np.uint8
    assert_array_equal(rounded[:, 1, 2], expected.get(np.dtype(dtype).kind, levels))


# All transforms, each with an input


def cube(channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, (4, 5, channels)).astype(np.float32)


ALL = [
    (RoundPixels(), RGB.astype(np.float32) + 0.3, 'RoundPixels()'),
    (YCbCr('rgb'), RGB, "YCbCr(channel_order='rgb')"),
    (BlockDCT(4, 2), RGB, 'BlockDCT(block_size=4, upscale=2)'),
    (ChannelSelect([[0], [1], []], 2), cube(12), 'ChannelSelect(channels=[[0], [1], []], block_size=2)'),
    (FreqNormalize({'mean': [0, 1, 2], 'std': [1, 2, 3]}, 1, 'int8', 6), cube(3),
     "FreqNormalize(stats={'mean': [0, 1, 2], 'std': [1, 2, 3]}, block_size=1, dtype='int8', scale=6)"),
    (FusedBlockDCT('24S', 'photos-448', upscale=2, dtype='int8', scale=4.5), RGB,
     "FusedBlockDCT(channels='24S', stats='photos-448', block_size=8, upscale=2, channel_order='bgr', dtype='int8', "
     'scale=4.5)')]


@pytest.mark.parametrize(('transform', 'image', 'text'), ALL, ids=[type(row[0]).__name__ for row in ALL])
def test_only_the_image_changes_also_in_a_worker(transform: Any, image: np.ndarray, text: str) -> None:
    """A spawned worker unpickles the transform. Each result has a list of channels of its own."""
    before = {'img': image, 'img_path': 'a.png', 'img_shape': (160, 220), 'flip': False, 'gt_label': 3}
    copied = pickle.loads(pickle.dumps(transform))
    assert repr(copied) == repr(transform) == text
    kept = image.copy()
    first, second, other = (step(dict(before)) for step in (transform, transform, copied))
    assert_array_equal(image, kept)
    first.pop('freq_channels', []).append(191)
    assert second.pop('freq_channels', None) == other.pop('freq_channels', None)
    for result in (first, second, other):
        assert {**result, 'img': 0} == {**before, 'img': 0}
        assert result['img'].dtype == first['img'].dtype
        assert_array_equal(result['img'], first['img'])


# Whole pipelines


@pytest.fixture
def image_file(tmp_path: Path) -> str:
    path = str(tmp_path / 'image.png')
    Image.fromarray(RGB).save(path)
    return path


def run_seeded(pipeline: Callable[[dict], Any], results: dict, seed: int) -> dict:
    np.random.seed(seed)
    return pipeline(copy.deepcopy(results))


@pytest.mark.parametrize('seed', range(2))
def test_mmpretrain_pipeline(seed: int, image_file: str) -> None:
    start = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=448),
             dict(type='RandomFlip', prob=0.5)]
    results = {'img_path': image_file, 'gt_label': 7}
    packed = run_seeded(build([*start, *FREQ, dict(type='PackInputs')], 'mmpretrain'), results, seed)
    stock = run_seeded(build([*start, dict(type='PackInputs')], 'mmpretrain'), results, seed)
    assert packed['inputs'].dtype == torch.float32
    expected = frequency_input(np.ascontiguousarray(stock['inputs'].numpy().transpose(1, 2, 0)))
    assert_allclose(packed['inputs'], expected, rtol=1e-4, atol=1e-4)
    assert packed['data_samples'].gt_label.tolist() == [7]
    assert packed['data_samples'].metainfo == stock['data_samples'].metainfo
    assert packed['data_samples'].img_shape[:2] == (448, 448)


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_mmdet_pipeline(flip: float, image_file: str) -> None:
    start = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
             dict(type='Resize', scale=(333, 200), keep_ratio=False), dict(type='RandomFlip', prob=flip)]
    freq = [FREQ[0], dict(type='BlockDCT', upscale=2), FREQ[2],
            dict(type='FreqNormalize', stats='dctnet-instance-segmentation')]
    boxes = [[10., 20., 110., 90.], [0., 0., 220., 160.]]
    results = {'img_path': image_file, 'img_id': 5, 'height': 160, 'width': 220,
               'instances': [{'bbox': box, 'bbox_label': i, 'ignore_flag': 0} for i, box in enumerate(boxes)]}
    packed = run_seeded(build([*start, *freq, dict(type='PackDetInputs')], 'mmdet'), results, 0)
    stock = run_seeded(build([*start, dict(type='PackDetInputs')], 'mmdet'), results, 0)
    assert packed['inputs'].dtype == torch.float32
    expected = frequency_input(np.ascontiguousarray(stock['inputs'].numpy().transpose(1, 2, 0)), 2,
                               'dctnet-instance-segmentation')
    assert_allclose(packed['inputs'], expected, rtol=1e-4, atol=1e-3)
    sample = packed['data_samples']
    assert sample.metainfo == stock['data_samples'].metainfo
    assert (sample.img_shape, sample.ori_shape) == ((200, 333), (160, 220))
    left, right = (333 / 220 * np.array(boxes)[:, [0, 2]]).T
    across = np.stack([333 - right, 333 - left] if flip else [left, right], axis=1)
    bboxes = sample.gt_instances.bboxes
    bboxes = getattr(bboxes, 'tensor', bboxes).numpy()
    assert_allclose(bboxes[:, [0, 2]], across, rtol=1e-5, atol=1e-3)
    assert_allclose(bboxes[:, [1, 3]], 1.25 * np.array(boxes)[:, [1, 3]], rtol=1e-5)


# Bad arguments and bad images


@pytest.mark.parametrize(('kind', 'arguments', 'words'), [
    (YCbCr, dict(channel_order='gbr'), "channel_order: .*'gbr'"), (BlockDCT, dict(block_size=True), 'block_size'),
    (BlockDCT, dict(upscale=0), 'upscale: .*0'), (ChannelSelect, dict(channels='25S'), "channels: .*'25S'"),
    (FreqNormalize, dict(stats='photos-448', block_size=4), '48 channels, got .*192'),
    (FreqNormalize, dict(stats='photos-448', dtype='int8'), 'scale=None')])
def test_bad_arguments(kind: type, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**arguments)


@pytest.mark.parametrize(('transform', 'image', 'words'), [
    (YCbCr(), np.zeros((8, 8, 3), np.float32), r'uint8 .*float32 \(8, 8, 3\)'),
    (YCbCr(), np.zeros((0, 8, 3), np.uint8), 'non-empty'), (BlockDCT(), np.zeros((8, 8, 3), np.float32), 'float32'),
    (BlockDCT(), np.zeros((8, 8, 1), np.uint8), r'\(8, 8, 1\)'),
    (FusedBlockDCT('24S', STATS), np.zeros((8, 8), np.uint8), r'\(8, 8\)'),
    (ChannelSelect('24S'), cube(24), r'192 channels .*24\)'), (ChannelSelect('24S'), cube(192)[0], r'\(5, 192\)'),
    (ChannelSelect([0], 4), cube(192), r'48 channels .*192\)'), (FreqNormalize(STATS), cube(24), 'broadcast'),
], ids=range(9))
def test_bad_images_are_named(transform: Any, image: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=rf'^{type(transform).__name__}: .*{words}.* \(img_path: a/b.jpg\)$'):
        transform({'img': image, 'img_path': 'a/b.jpg'})


# Odd files


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


ROTATED = Image.Exif()
ROTATED[0x0112] = 6
PICTURE = Image.fromarray(RGB)
RAMP = Image.frombytes('I;16', (64, 48), (np.arange(48 * 64) * 21).astype('<u2').tobytes())
ODD_FILES = {
    'color.jpg': encoded(PICTURE, 'JPEG', quality=90), 'gray.jpg': encoded(PICTURE.convert('L'), 'JPEG'),
    'cmyk.jpg': encoded(PICTURE.convert('CMYK'), 'JPEG'), 'gray palette.png': encoded(PICTURE.convert('1'), 'PNG'),
    'transparent.png': encoded(PICTURE.convert('RGBA'), 'PNG'), 'gray 16 bits.png': encoded(RAMP, 'PNG'),
    'rotated.jpg': encoded(PICTURE, 'JPEG', exif=ROTATED),
    **{f'{w}x{h}.png': encoded(PICTURE.resize((w, h)), 'PNG') for w, h in ((1, 1), (7, 9), (1, 17), (300, 1))}}


@pytest.mark.parametrize('name', ODD_FILES)
def test_odd_files(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ODD_FILES[name])
    stock = LoadImageFromFile()({'img_path': str(tmp_path / name)})
    results = build(FREQ)(dict(stock))
    assert results['img'].dtype == np.float32
    assert_allclose(results['img'].transpose(2, 0, 1), frequency_input(stock['img']), rtol=1e-4, atol=1e-4)
    assert results['img_shape'] == stock['img'].shape[:2]
    coefficients = build(FREQ[:2])(dict(stock))['img']
    assert (np.abs(coefficients[:, :, 64:]).max() < 1e-4) == name.startswith('gray')
