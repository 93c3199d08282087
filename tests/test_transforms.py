"""Guard the registered transforms by scipy and numpy, in pipelines of both hosts, on odd and broken files."""
import copy
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope, init_default_scope
from PIL import Image
from scipy.fft import dctn
from skimage import data

from mmfreq.dct.stats import load_stats
from mmfreq.hosts import loading
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, RoundPixels, YCbCr

LUMA_24S = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]
CHANNELS_24S = [*LUMA_24S, 64, 65, 72, 73, 128, 129, 136, 137]
STATS = {'mean': [(7 * i) % 31 - 15.5 for i in range(192)], 'std': [1 + (5 * i) % 13 for i in range(192)]}
FREQ = [
    {'type': 'YCbCr'},
    {'type': 'BlockDCT'},
    {'type': 'ChannelSelect', 'channels': '24S'},
    {'type': 'FreqNormalize', 'stats': 'dctnet-classification'},
]
RGB = np.ascontiguousarray(data.astronaut()[60:220, 150:370])  # 160 x 220 pixels around the face


def build(config: Any, scope: str = 'mmengine') -> Callable[[dict], Any]:
    """A transform, or a whole pipeline, as a host of that default scope builds it: from the root registry."""
    with DefaultScope.overwrite_default_scope(scope):
        init_default_scope(scope)
        return Compose(config) if isinstance(config, list) else TRANSFORMS.build(config)


def bgr_image() -> np.ndarray:
    return np.ascontiguousarray(RGB[:, :, ::-1])


def block_coefficients(samples: np.ndarray, n: int = 8) -> np.ndarray:
    """Reference for BlockDCT: scipy on every block of the padded, shifted samples, in float64."""
    height, width, components = samples.shape
    padded = np.pad(samples.astype(np.float64) - 128, ((0, -height % n), (0, -width % n), (0, 0)), mode='edge')
    blocks = padded.reshape(padded.shape[0] // n, n, -1, n, components)
    return dctn(blocks, axes=(1, 3), norm='ortho').transpose(0, 2, 4, 1, 3).reshape(len(blocks), -1, components * n * n)


def upscaled(samples: np.ndarray, factor: int) -> np.ndarray:
    """Reference for the upscale of BlockDCT: torch's bilinear interpolation between pixel centres."""
    tensor = torch.from_numpy(samples.astype(np.float64).transpose(2, 0, 1))[None]
    scaled = torch.nn.functional.interpolate(tensor, scale_factor=factor, mode='bilinear', align_corners=False)
    return scaled[0].numpy().transpose(1, 2, 0)


def frequency_input(bgr: np.ndarray, upscale: int = 1, stats: str = 'dctnet-classification') -> np.ndarray:
    """Reference for the four transforms at once, 24S: (C, h, w) float64. Its colour conversion is the tested one."""
    samples = YCbCr()({'img': bgr})['img']
    coefficients = block_coefficients(upscaled(samples, upscale) if upscale > 1 else samples)[:, :, CHANNELS_24S]
    loaded = load_stats(stats)
    return ((coefficients - loaded.mean[CHANNELS_24S]) / loaded.std[CHANNELS_24S]).transpose(2, 0, 1)


# The registry


def test_registered_names() -> None:
    ours = {name for name, cls in TRANSFORMS.module_dict.items() if cls.__module__ == 'mmfreq.transforms'}
    assert ours == {'YCbCr', 'BlockDCT', 'ChannelSelect', 'FreqNormalize', 'FusedBlockDCT', 'LazyResize',
                    'RoundPixels'}


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet'])
@pytest.mark.parametrize('config', FREQ, ids=lambda config: config['type'])
def test_found_from_every_scope(scope: str, config: dict) -> None:
    transform = build(config, scope)
    assert type(transform).__name__ == config['type']
    assert type(transform).__module__ == 'mmfreq.transforms'


# Each transform's numbers


@pytest.mark.parametrize('order', ['bgr', 'rgb'])
def test_ycbcr(order: str) -> None:
    image = bgr_image() if order == 'bgr' else RGB
    result = YCbCr(order)({'img': image})['img']
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), Image.fromarray(RGB).convert('YCbCr'), rtol=0, atol=1)


@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 1), (8, 2), (4, 1), (16, 1), (8, 3), (2, 2)])
@pytest.mark.parametrize('shape', [(160, 220), (37, 61), (1, 1)])
def test_block_dct(shape: tuple[int, int], block_size: int, upscale: int) -> None:
    image = RGB[:shape[0], :shape[1]]
    result = BlockDCT(block_size=block_size, upscale=upscale)({'img': image})['img']
    assert result.dtype == np.float32
    samples = upscaled(image, upscale) if upscale > 1 else image
    np.testing.assert_allclose(result, block_coefficients(samples, block_size), rtol=0, atol=2e-3)


@pytest.mark.parametrize(('channels', 'block_size', 'expected'), [
    ('24S', 8, CHANNELS_24S),
    ('192', 8, list(range(192))),
    ([130, 0, 65], 8, [130, 0, 65]),
    ([[0, 9], [1], [2]], 8, [0, 9, 65, 130]),
    ([[0, 15], [1], [2]], 4, [0, 15, 17, 34]),
])
def test_channel_select(channels: Any, block_size: int, expected: list[int]) -> None:
    cube = np.random.default_rng(0).normal(size=(5, 7, 3 * block_size**2)).astype(np.float32)
    results = ChannelSelect(channels, block_size)({'img': cube})
    assert results['img'].dtype == np.float32
    assert results['img'].flags.c_contiguous
    np.testing.assert_array_equal(results['img'], np.stack([cube[:, :, i] for i in expected], axis=2))
    assert results['freq_channels'] == expected
    assert all(type(i) is int for i in results['freq_channels'])


@pytest.mark.parametrize('channels', [None, CHANNELS_24S, [130, 0, 65]])
def test_freq_normalize(channels: Optional[list[int]]) -> None:
    used = channels or list(range(192))
    image = np.random.default_rng(0).normal(0, 100, (3, 4, len(used))).astype(np.float32)
    results = {'img': image} if channels is None else {'img': image, 'freq_channels': channels}
    result = FreqNormalize(STATS)(results)['img']
    assert result.dtype == np.float32
    for position, channel in enumerate(used):
        expected = (image[:, :, position].astype(np.float64) - STATS['mean'][channel]) / STATS['std'][channel]
        np.testing.assert_allclose(result[:, :, position], expected, rtol=1e-6, atol=1e-5)


def test_freq_normalize_of_other_blocks() -> None:
    stats = {'mean': list(range(48)), 'std': list(range(1, 49))}
    image = np.broadcast_to(np.arange(48, dtype=np.float32) * 3, (2, 2, 48))
    result = FreqNormalize(stats, block_size=4)({'img': image})['img']
    np.testing.assert_allclose(result[1, 1], [2 * i / (i + 1) for i in range(48)], rtol=1e-6)


def test_freq_normalize_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps({'source': 'test', **STATS}))
    image = np.random.default_rng(0).normal(0, 100, (3, 4, 192)).astype(np.float32)
    expected = FreqNormalize(STATS)({'img': image})['img']
    np.testing.assert_array_equal(FreqNormalize(str(path))({'img': image})['img'], expected)


# All transforms, each with an input


def cube(channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, (4, 5, channels)).astype(np.float32)


ALL = [
    (RoundPixels, {}, RGB.astype(np.float32) + 0.3, 'RoundPixels()'),
    (YCbCr, {'channel_order': 'rgb'}, RGB, "YCbCr(channel_order='rgb')"),
    (BlockDCT, {}, RGB, 'BlockDCT(block_size=8, upscale=1)'),
    (BlockDCT, {'block_size': 4, 'upscale': 2}, RGB, 'BlockDCT(block_size=4, upscale=2)'),
    (ChannelSelect, {'channels': '24T'}, cube(192), "ChannelSelect(channels='24T', block_size=8)"),
    (ChannelSelect, {'channels': [[0], [1], []], 'block_size': 2}, cube(12),
     'ChannelSelect(channels=[[0], [1], []], block_size=2)'),
    (FreqNormalize, {'stats': 'dctnet-classification'}, cube(192),
     "FreqNormalize(stats='dctnet-classification', block_size=8, dtype='float32', scale=None)"),
    (FreqNormalize, {'stats': {'mean': [0, 1, 2], 'std': [1, 2, 3]}, 'block_size': 1, 'dtype': 'int8', 'scale': 6},
     cube(3), "FreqNormalize(stats={'mean': [0, 1, 2], 'std': [1, 2, 3]}, block_size=1, dtype='int8', scale=6)"),
    (FusedBlockDCT, {'channels': '24S', 'stats': 'photos-448', 'upscale': 2, 'dtype': 'int8', 'scale': 4.5}, RGB,
     "FusedBlockDCT(channels='24S', stats='photos-448', block_size=8, upscale=2, channel_order='bgr', dtype='int8', "
     'scale=4.5)'),
]  # yapf: disable
over_all = pytest.mark.parametrize(('cls', 'arguments', 'image', 'text'), ALL,
                                   ids=[f'{i}-{row[0].__name__}' for i, row in enumerate(ALL)])


def full_results(image: np.ndarray) -> dict[str, Any]:
    """Return what a host's pipeline carries along."""
    return {'img': image.copy(), 'img_path': 'a.png', 'img_shape': (160, 220), 'scale_factor': (1.0, 1.0),
            'flip': False, 'gt_label': 3, 'gt_bboxes': np.array([[1., 2., 30., 40.]], np.float32)}


@over_all
def test_only_the_image_changes(cls: type, arguments: dict, image: np.ndarray, text: str) -> None:
    results, before = full_results(image), full_results(image)
    given, transform = results['img'], cls(**arguments)
    after = transform(results)
    assert after is results
    if 'channels' in arguments:
        channels = after.pop('freq_channels')
        channels.append(191)  # each result has a list of its own
        assert transform(full_results(image))['freq_channels'] == channels[:-1]
    assert set(after) == set(before)
    for key in set(before) - {'img'}:
        np.testing.assert_array_equal(after[key], before[key])
        assert type(after[key]) is type(before[key])
    np.testing.assert_array_equal(given, image)  # the array itself was not written to


@over_all
def test_repr_and_pickle(cls: type, arguments: dict, image: np.ndarray, text: str) -> None:
    transform = cls(**arguments)
    copied = pickle.loads(pickle.dumps(transform))
    assert repr(copied) == repr(transform) == text
    expected, result = transform(full_results(image)), copied(full_results(image))
    assert result.keys() == expected.keys()
    assert result['img'].dtype == expected['img'].dtype
    np.testing.assert_array_equal(result['img'], expected['img'])
    assert result.get('freq_channels') == expected.get('freq_channels')


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int16, np.uint8])
def test_rounded_pixels(dtype: type) -> None:
    """To the nearest level, halves to the even one, and clipped."""
    levels = np.array([-3.7, 0.4, 0.5, 1.5, 254.6, 255.4, 300]).astype(dtype)
    expected = {'f': [0, 0, 0, 2, 255, 255, 255], 'i': [0, 0, 0, 1, 254, 255, 255]}
    image = np.tile(levels[:, None, None], (1, 2, 3))
    rounded = RoundPixels()({'img': image})['img']
    assert rounded.dtype == np.uint8
    np.testing.assert_array_equal(rounded[:, 1, 2], expected.get(np.dtype(dtype).kind, levels))


def test_rounded_pixels_go_into_the_dct() -> None:
    config = [{'type': 'RoundPixels'}, {'type': 'FusedBlockDCT', 'channels': '24S', 'stats': 'photos-448'}]
    expected = build(config)({'img': bgr_image()})['img']
    np.testing.assert_array_equal(build(config)({'img': bgr_image() + np.float32(0.2)})['img'], expected)
    with pytest.raises(ValueError, match=r"round the pixels before: dict\(type='RoundPixels'\)"):
        build(config[1:])({'img': bgr_image() + np.float32(0.2)})


# Whole pipelines

@pytest.fixture
def image_file(tmp_path: Path) -> str:
    path = str(tmp_path / 'image.png')
    Image.fromarray(RGB).save(path)
    return path


AUGMENTATION = [{'type': 'RandomResizedCrop', 'scale': 448}, {'type': 'RandomFlip', 'prob': 0.5}]


def run_seeded(pipeline: Callable[[dict], Any], results: dict, seed: int) -> dict:
    np.random.seed(seed)
    return pipeline(copy.deepcopy(results))


@pytest.mark.parametrize('seed', range(2))
def test_mmpretrain_pipeline(seed: int, image_file: str) -> None:
    start = [{'type': 'LoadImageFromFile'}, *AUGMENTATION]
    results = {'img_path': image_file, 'gt_label': 7}
    packed = run_seeded(build([*start, *FREQ, {'type': 'PackInputs'}], 'mmpretrain'), results, seed)
    stock = run_seeded(build([*start, {'type': 'PackInputs'}], 'mmpretrain'), results, seed)
    assert packed['inputs'].dtype == torch.float32
    assert packed['inputs'].shape == (24, 56, 56)
    expected = frequency_input(np.ascontiguousarray(stock['inputs'].numpy().transpose(1, 2, 0)))
    np.testing.assert_allclose(packed['inputs'].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert packed['data_samples'].gt_label.tolist() == [7]
    assert packed['data_samples'].metainfo == stock['data_samples'].metainfo
    assert packed['data_samples'].img_shape[:2] == (448, 448)


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_mmdet_pipeline(flip: float, image_file: str) -> None:
    start = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True},
             {'type': 'Resize', 'scale': (333, 200), 'keep_ratio': False}, {'type': 'RandomFlip', 'prob': flip}]
    freq = [FREQ[0], {'type': 'BlockDCT', 'upscale': 2}, FREQ[2],
            {'type': 'FreqNormalize', 'stats': 'dctnet-instance-segmentation'}]
    pack = [{'type': 'PackDetInputs'}]
    boxes = [[10., 20., 110., 90.], [0., 0., 220., 160.]]
    results = {'img_path': image_file, 'img_id': 5, 'height': 160, 'width': 220,
               'instances': [{'bbox': box, 'bbox_label': i, 'ignore_flag': 0} for i, box in enumerate(boxes)]}
    packed = run_seeded(build(start + freq + pack, 'mmdet'), results, 0)
    stock = run_seeded(build(start + pack, 'mmdet'), results, 0)
    assert packed['inputs'].dtype == torch.float32
    assert packed['inputs'].shape == (24, 50, 84)
    sample = packed['data_samples']
    assert sample.metainfo == stock['data_samples'].metainfo
    assert sample.img_shape == (200, 333)
    assert sample.ori_shape == (160, 220)
    left, right = (333 / 220 * np.array(boxes)[:, [0, 2]]).T
    expected = np.stack([*((333 - right, 333 - left) if flip else (left, right))], axis=1)
    found = sample.gt_instances.bboxes
    found = getattr(found, 'tensor', found).numpy()
    np.testing.assert_allclose(found[:, [0, 2]], expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found[:, [1, 3]], 1.25 * np.array(boxes)[:, [1, 3]], rtol=1e-5)
    assert sample.gt_instances.labels.tolist() == [0, 1]
    bgr = np.ascontiguousarray(stock['inputs'].numpy().transpose(1, 2, 0))
    expected = frequency_input(bgr, 2, 'dctnet-instance-segmentation')
    np.testing.assert_allclose(packed['inputs'].numpy(), expected, rtol=1e-4, atol=1e-3)


# Bad arguments and bad images


@pytest.mark.parametrize(('config', 'message'), [
    ({'type': 'YCbCr', 'channel_order': 'gbr'}, "channel_order: expected 'bgr' or 'rgb', got 'gbr'"),
    ({'type': 'BlockDCT', 'block_size': 0}, 'block_size: expected an integer >= 1, got 0'),
    ({'type': 'BlockDCT', 'block_size': True}, 'block_size: .*got True'),
    ({'type': 'BlockDCT', 'upscale': 0}, 'upscale: expected an integer >= 1, got 0'),
    ({'type': 'ChannelSelect', 'channels': '25S'}, "channels: expected one of 6S, 12S, .*got '25S'"),
    ({'type': 'ChannelSelect', 'channels': 24}, 'channels: expected a name or lists of indices, got int'),
    ({'type': 'ChannelSelect', 'channels': '24S', 'block_size': 4}, 'block_size=4'),
    ({'type': 'ChannelSelect', 'channels': [0], 'block_size': 0}, 'block_size: .*got 0'),
    ({'type': 'FreqNormalize', 'stats': 'imagenet'}, "stats: .*dctnet-classification.*got 'imagenet'"),
    ({'type': 'FreqNormalize', 'stats': {'mean': [0] * 24, 'std': [1] * 24}}, 'all 192 channels, got 24'),
    ({'type': 'FreqNormalize', 'stats': {'mean': [0] * 192, 'std': [1] * 191}}, 'of one length'),
    ({'type': 'FreqNormalize', 'stats': {**STATS, 'std': [0] + [1] * 191}}, 'stats: .*std > 0.*std=0.0 in channel 0'),
    ({'type': 'FreqNormalize', 'stats': {**STATS, 'mean': [float('nan')] * 192}}, r'mean=nan.*\(192 such channels\)'),
    ({'type': 'FreqNormalize', 'stats': {'mean': [0] * 192}}, r"stats: expected the keys mean and std, got \['mean'\]"),
    ({'type': 'FreqNormalize', 'stats': 'dctnet-classification', 'block_size': 4}, 'all 48 channels, got 192'),
    ({'type': 'FreqNormalize', 'stats': 'dctnet-classification', 'block_size': 0}, 'block_size: .*got 0'),
    ({'type': 'FreqNormalize', 'stats': None}, 'stats: .*got None'),
    ({'type': 'FreqNormalize', 'stats': [[0] * 192, [1] * 192]}, 'stats: '),
])
def test_bad_arguments(config: dict, message: str) -> None:
    arguments = dict(config)
    cls = TRANSFORMS.get(arguments.pop('type'))
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@pytest.mark.parametrize(('transform', 'results', 'message'), [
    (YCbCr(), {'img': np.zeros((8, 8, 3), np.float32)}, r'uint8 image \(H, W, 3\), got float32 \(8, 8, 3\)'),
    (YCbCr(), {'img': np.zeros((8, 8, 3), np.uint16)}, 'got uint16'),
    (YCbCr(), {'img': np.zeros((0, 8, 3), np.uint8)}, r'non-empty.*\(0, 8, 3\)'),
    (BlockDCT(), {'img': np.zeros((8, 8, 3), np.float32)}, 'uint8 image.*got float32'),
    (BlockDCT(), {'img': np.zeros((8, 8, 1), np.uint8)}, r'got uint8 \(8, 8, 1\)'),
    (BlockDCT(upscale=2), {'img': np.zeros((8, 8), np.uint8)}, r'got uint8 \(8, 8\)'),
    (FusedBlockDCT('24S', STATS), {'img': np.zeros((8, 8), np.uint8)}, r'uint8 image.*got uint8 \(8, 8\)'),
    (FusedBlockDCT('24S', STATS), {'img': np.zeros((0, 8, 3), np.uint8)}, r'non-empty.*\(0, 8, 3\)'),
    (ChannelSelect('24S'), {'img': np.zeros((8, 8, 24), np.float32)},
     r'ChannelSelect: expected all 192 channels of BlockDCT, got \(8, 8, 24\)'),
    (ChannelSelect([0], 4), {'img': np.zeros((8, 8, 192), np.float32)}, r'all 48 channels .*got \(8, 8, 192\)'),
    (ChannelSelect('24S'), {'img': np.zeros((8, 192), np.float32)}, r'got \(8, 192\)'),
    (FreqNormalize(STATS), {'img': np.zeros((8, 8, 24), np.float32)},
     r'FreqNormalize: expected 192 channels, got an image \(8, 8, 24\)'),
    (FreqNormalize(STATS), {'img': np.zeros((8, 8, 24), np.float32), 'freq_channels': [0, 1]},
     r'expected 2 channels, got .*\(8, 8, 24\)'),
    (FreqNormalize(STATS), {'img': np.zeros((8, 192), np.float32)}, r'got .*\(8, 192\)'),
    (FreqNormalize(STATS), {'img': np.zeros((8, 8, 1), np.float32), 'freq_channels': [700]}, '700'),
    (FreqNormalize(STATS), {'img': np.zeros((8, 8, 1), np.float32), 'freq_channels': [-1]}, r'\[-1\]'),
])
def test_bad_images(transform: Callable[[dict], dict], results: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform(results)


# Files


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def sixteen_bits() -> Image.Image:
    ramp = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    return Image.frombytes('I;16', (64, 48), ramp.astype('<u2').tobytes())


PICTURE = Image.fromarray(RGB)
ODD_FILES = {
    'color.jpg': encoded(PICTURE, 'JPEG', quality=90),
    'progressive.jpg': encoded(PICTURE, 'JPEG', progressive=True),
    'grayscale.jpg': encoded(PICTURE.convert('L'), 'JPEG'),
    'cmyk.jpg': encoded(PICTURE.convert('CMYK'), 'JPEG'),
    'palette.png': encoded(PICTURE.quantize(16), 'PNG'),
    'bilevel.png': encoded(PICTURE.convert('1'), 'PNG'),
    'transparent.png': encoded(PICTURE.convert('RGBA'), 'PNG'),
    'sixteen_bits.png': encoded(sixteen_bits(), 'PNG'),
    'rotated.jpg': encoded(PICTURE, 'JPEG', exif=orientation(6)),
    'mirrored.jpg': encoded(PICTURE, 'JPEG', exif=orientation(2)),
    **{f'{side}x{side}.jpg': encoded(PICTURE.resize((side, side)), 'JPEG') for side in (1, 3, 7, 9, 17)},
    **{f'{w}x{h}.png': encoded(PICTURE.resize((w, h)), 'PNG') for w, h in ((1, 17), (300, 1))},
}  # yapf: disable
over_odd_files = pytest.mark.parametrize('name', ODD_FILES)


def written(folder: Path, name: str, content: Optional[bytes] = None) -> str:
    path = folder / name
    path.write_bytes(ODD_FILES[name] if content is None else content)
    return str(path)


@over_odd_files
def test_odd_files_go_through_the_transforms(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    results = build([{'type': 'LoadImageFromFile'}, *FREQ])({'img_path': path})
    stock = LoadImageFromFile()({'img_path': path})['img']
    assert results['img'].dtype == np.float32
    np.testing.assert_allclose(results['img'].transpose(2, 0, 1), frequency_input(stock), rtol=1e-4, atol=1e-4)
    assert results['freq_channels'] == CHANNELS_24S
    assert results['img_shape'] == stock.shape[:2]


@pytest.mark.parametrize('name', ['grayscale.jpg', 'bilevel.png', 'sixteen_bits.png'])
def test_grey_files_have_no_chroma(name: str, tmp_path: Path) -> None:
    results = build([{'type': 'LoadImageFromFile'}, *FREQ[:2]])({'img_path': written(tmp_path, name)})
    np.testing.assert_allclose(results['img'][:, :, 64:], 0, atol=1e-4)
    assert np.abs(results['img'][:, :, :64]).max() > 100


# Broken files

JPEG = ODD_FILES['color.jpg']


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('content', [b'', b'Not found', JPEG[:50]], ids=['empty', 'text', 'cut'])
def test_unreadable_files_are_named(content: bytes, backend: str, tmp_path: Path) -> None:
    path = written(tmp_path, 'broken.jpg', content)
    loader = build({'type': 'LoadImageFromFile', 'imdecode_backend': backend}, 'mmpretrain')
    with pytest.raises(ValueError, match=rf'^{re.escape(path)}: cannot be decoded as an image'):
        loader({'img_path': path})
    assert LoadImageFromFile(ignore_empty=True)({'img_path': written(tmp_path, 'e.jpg', b'')}) is None


def test_an_image_of_another_size_than_its_annotations_say_is_a_warning(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, for the first; a file without a stated size has none to differ from."""
    said: list[str] = []
    monkeypatch.setattr(loading, '_told', set())
    monkeypatch.setattr(loading, 'print_log', lambda text, *rest: said.append(text))
    path = written(tmp_path, 'x.jpg', JPEG)
    height, width = LoadImageFromFile()({'img_path': path})['img'].shape[:2]
    LoadImageFromFile()({'img_path': path, 'width': width, 'height': height})
    assert said == []
    for _ in range(2):
        LoadImageFromFile()({'img_path': path, 'width': height + 1, 'height': width})
    assert len(said) == 1
    assert said[0].startswith(f'{path}: has {width}x{height} pixels, but the annotation file says {height + 1}x{width}')


@pytest.mark.parametrize('transform', [YCbCr(), BlockDCT(), FusedBlockDCT('24S', 'photos-448')],
                         ids=lambda transform: type(transform).__name__)
def test_float_pixels_are_refused_with_transform_file_and_way_out(transform: Any) -> None:
    results = {'img': RGB.astype(np.float32), 'img_path': 'a/b.jpg'}
    with pytest.raises(ValueError, match=rf'^{type(transform).__name__}: .* got float32 .*; round the '
                       r'pixels before: dict\(type=.RoundPixels.\) \(img_path: a/b.jpg\)$'):
        transform(results)


def test_an_image_that_a_resize_leaves_no_row_of_is_named() -> None:
    results = dict(img=np.zeros((1, 1000, 3), np.uint8), img_path='flat.png')
    pipeline = build([{'type': 'Resize', 'scale': (256, 192), 'keep_ratio': True}], 'mmdet')
    with pytest.raises(ValueError, match=r'cannot take the image: OpenCV.*resize.* \(img_path: flat.png\)$') as refused:
        pipeline(results)
    assert '\n' not in str(refused.value)
