#!/usr/bin/env python3
"""Top-1 of EfficientNet-Lite0 with its ImageNet weights on DCT channels, without training. Then run summarize.py.

The photos are the validation photos of Imagenette at 224x224 pixels. The unpacking layer of mmfreq turns the channels
into the pixels of the stock network, which ONNX Runtime evaluates in float32, four times as fast as torch on a CPU. A
row whose result is in results/zero_shot.json is not repeated.
"""
import argparse
import json
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterator

import cv2
import numpy as np
import torch
from lite0 import stock_model, write_checkpoint
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

import mmfreq
import mmfreq.models.cls  # noqa: F401, registers the backbones
from mmfreq.dct.channels import channel_indices
from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import load_on_rates
from mmfreq.transforms import FusedBlockDCT

HERE = Path(__file__).parent
RESULT = HERE / 'results/zero_shot.json'
SIDE, BATCH = 224, 25
EVERY = 4  # rows that need less precision take every fourth photo
PIXELS = dict(mean=[127] * 3, std=[128] * 3, to_rgb=True)
# The numbers of Imagenette's classes among the 1,000 of ImageNet.
CLASSES = dict(n01440764=0, n02102040=217, n02979186=482, n03000684=491, n03028079=497, n03394916=566, n03417042=569,
               n03425413=571, n03445777=574, n03888257=701)


def jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """Encode an image as JPEG and decode it."""
    return cv2.imdecode(jpeg_file(image, quality), cv2.IMREAD_COLOR)


def jpeg_file(image: np.ndarray, quality: float) -> np.ndarray:
    """Return the bytes of an image as a JPEG file."""
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]


def blur(image: np.ndarray, deviation: float) -> np.ndarray:
    """Blur by a Gaussian of a deviation in pixels."""
    return cv2.GaussianBlur(image, (0, 0), deviation)


def noise(image: np.ndarray, deviation: float) -> np.ndarray:
    """Add Gaussian noise of a deviation in levels, which is the same for all images."""
    added = image + deviation * np.random.default_rng(0).standard_normal(image.shape)
    return np.clip(np.rint(added), 0, 255).astype(np.uint8)


def downsize(image: np.ndarray, side: float) -> np.ndarray:
    """Shrink to a side by area averaging, and enlarge to the former size by bicubic interpolation."""
    small = cv2.resize(image, (int(side), int(side)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)


CHANGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = dict(
    jpeg=jpeg, blur=blur, noise=noise, downsize=downsize)
AMOUNTS = dict(jpeg=(95, 50, 30, 10), blur=(1, 2), noise=(8, 16, 32), downsize=(112, 80, 56))


@dataclass(frozen=True)
class Row:
    """An input of the network.

    Args:
        channels (str | list | tuple): Selection. Empty for RGB.
        block_size (int): Side of a block.
        upscale (int): Factor by which the DCT upscales the image. Blocks of 8x8 pixels without it are of an image that
            was enlarged to 448x448 before.
        scale (float): Steps of int8 for a standard deviation, 0 for float32.
        stats (str): Statistics of 4x4 blocks.
        change (str): What happens to the photo before, of ``CHANGES``.
        amount (float): Its argument.
        every (int): 1 for all photos, n for every n-th.
    """
    channels: Any = ''
    block_size: int = 4
    upscale: int = 1
    scale: float = 0
    stats: str = 'imagenette-224-4x4'
    change: str = ''
    amount: float = 0
    every: int = 1


def all_rows() -> dict[str, Row]:
    """Return the rows by their names, the most important ones first."""
    native = ('24N', '12N', '48N', '18N', '6N')
    squares = ('24S', '12S', '6S')
    triangle = (0, 1, 2, 3, 4, 5, 6, 8, 9, 12)
    between = {8: (triangle[:3] + (4, 5, 8), (0, ), (0, )), 36: (tuple(range(16)), triangle, triangle)}
    rows = {'RGB': Row()}
    rows |= {name: Row(name) for name in native}
    rows |= {f'{name} of 448': Row(name, 8) for name in squares}
    rows['24S upscaled'] = Row('24S', 8, 2)
    rows |= {f'{name} int8': Row(name, scale=8) for name in ('24N', '12N')}
    rows |= {f'{name} int8': Row(name, scale=8, every=EVERY) for name in ('48N', '18N', '6N')}
    rows |= {f'{count} learned': Row(learned(f'48N-{count}-seed0', count)) for count in (24, 12)}
    rows['24 learned of 448'] = Row(learned('192-24-seed0', 24), 8)
    rows |= {f'RGB {side}': Row(change='downsize', amount=side, every=EVERY)
             for side in map(side_of, (36, 24, 18, 12, 8, 6))}
    rows |= {f'{count} channels': Row(selection, every=EVERY) for count, selection in between.items()}
    rows |= {f'JPEG {quality}': Row(change='jpeg', amount=quality, every=EVERY)
             for quality in (95, 85, 75, 50, 30, 20, 15, 10, 5)}
    steps = (('24N', 16), ('24N', 4), ('24N', 2), ('24N', 1), ('12N', 2), ('6N', 2))
    ranges = dict(scale=127, stats='imagenette-224-4x4-range')
    rows |= {f'{name} int8 own scales': Row(name, **ranges) for name in ('24N', '12N', '18N', '6N')}
    rows |= {f'{name} int8 scale {scale}': Row(name, scale=scale, every=EVERY) for name, scale in steps}
    rows |= {f'24 random {seed}': Row(random_channels(24, seed)) for seed in range(3)}
    rows |= {f'{name} of 448 int8': Row(name, 8, scale=8) for name in squares}
    rows |= {f'{change} {amount}, {name or "RGB"}': Row(name, change=change, amount=amount, every=2 * EVERY)
             for change, amounts in AMOUNTS.items() for amount in amounts for name in ('', '24N', '12N')}
    return rows


def random_channels(count: int, seed: int) -> tuple[int, ...]:
    """Draw some of the 48 native channels."""
    return tuple(sorted(np.random.default_rng(seed).choice(48, count, replace=False).tolist()))


def learned(gate: str, count: int) -> tuple[int, ...]:
    """Return the channels that a gate of gates.py keeps most often."""
    return tuple(sorted(load_on_rates(str(HERE / f'results/gates/{gate}.json')).top(count)))


def side_of(channels: int) -> int:
    """Return the side of an RGB image with as many values as a number of native channels."""
    return round(SIDE * (channels / 48)**0.5)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=Path('data/imagenette/val'), help='one folder for each class')
    parser.add_argument('--checkpoint', type=Path, default=Path('work_dirs/transfer/lite0.pth'),
                        help='made by lite0.py, which runs first if there is none')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='rows (default: all)')
    return parser.parse_args()


def main() -> None:
    """Evaluate the missing rows."""
    args = parse_args()
    mmfreq.setup()
    torch.set_grad_enabled(False)
    if not args.checkpoint.is_file():
        write_checkpoint(args.checkpoint)
    network = stock_network(args.checkpoint)
    photos, labels = read_photos(args.data)
    results = json.loads(RESULT.read_text(encoding='utf-8')) if RESULT.is_file() else {}
    for name, row in all_rows().items():
        if name in results or args.rows and name not in args.rows:
            continue
        results[name] = evaluate(network, row, photos, labels)
        lines = ',\n'.join(f'{json.dumps(key)}: {json.dumps(value)}' for key, value in results.items())
        atomic_write_text(str(RESULT), f'{{\n{lines}\n}}\n')
        print(f'{name}: {results[name]["top1"]:.2f}', flush=True)


def stock_network(checkpoint: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the stock network, from normalised pixels (N, 3, 224, 224) to scores (N, 1000)."""
    import onnxruntime
    model = stock_model()
    load_checkpoint(model, str(checkpoint), map_location='cpu')
    file, images = checkpoint.with_suffix('.onnx'), torch.zeros(2, 3, SIDE, SIDE)
    model.forward = lambda images: model.head((*model.neck(model.backbone(images)), ))
    torch.onnx.export(model, (images, ), file, dynamo=True, dynamic_shapes=({0: torch.export.Dim('n')}, ))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options)
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def read_photos(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Read all photos, uint8 BGR (224, 224, 3), and their classes of ImageNet."""
    files = [(path, label) for name, label in CLASSES.items() for path in sorted((folder / name).iterdir())]
    return [cv2.imread(str(path)) for path, _ in files], np.array([label for _, label in files])


def evaluate(network: Callable[[np.ndarray], np.ndarray], row: Row, photos: list[np.ndarray],
             labels: np.ndarray) -> dict[str, Any]:
    """Return the top-1 of a row, which photos are correct, and the numbers of values and bytes of an image."""
    used = np.arange(0, len(labels), row.every)
    changed = CHANGES.get(row.change, lambda image, amount: image)
    images = (changed(photos[i], row.amount) for i in used)
    inputs, sizes, correct = input_of(row), [], []
    for start in range(0, len(used), BATCH):
        batch = list(islice(images, BATCH))
        pixels, sent = inputs(batch)
        correct.append(network(pixels).argmax(1) == labels[used[start:start + BATCH]])
        sizes += [compressed(values) for values in islice(sent, 1)]  # one of a batch is enough for a mean
    flags = np.concatenate(correct)
    result = dict(photos=len(used), top1=100 * float(flags.mean()), values=values_of(row))
    if row.change == 'jpeg' and not row.channels:
        result['bytes'] = float(np.mean([len(jpeg_file(photos[i], row.amount)) for i in used]))
    elif sizes:
        result |= dict(bytes=values_of(row), **dict(zip(('zlib', 'zstd'), np.mean(sizes, axis=0).tolist())))
    return dict(**result, correct=np.packbits(flags).tobytes().hex())


def values_of(row: Row) -> int:
    """Return the number of values of an image."""
    if not row.channels:
        side = row.amount if row.change == 'downsize' else SIDE
        return int(3 * side**2)
    return len(channel_indices(row.channels, row.block_size)) * (SIDE // 4)**2


def input_of(row: Row) -> Callable[[list[np.ndarray]], tuple[np.ndarray, Iterator]]:
    """Return a function from images to the network's pixels, and to int8 or uint8 arrays to be sent."""
    if not row.channels:
        return rgb_pixels if not row.change else lambda images: (rgb_pixels(images)[0], iter(()))
    enlarged = row.block_size == 8 and row.upscale == 1
    stats = row.stats if row.block_size == 4 else 'photos-448'
    freq = dict(channels=row.channels, block_size=row.block_size, stats=stats, upscale=row.upscale)
    transform = FusedBlockDCT(**freq, **(dict(dtype='int8', scale=row.scale) if row.scale else {}))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = unpacked_backbone(dict(freq, type='FusedBlockDCT'))

    def channels(image: np.ndarray) -> np.ndarray:
        image = cv2.resize(image, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_LINEAR) if enlarged else image
        return transform.transform(dict(img=image))['img']

    def inputs(images: list[np.ndarray]) -> tuple[np.ndarray, Iterator]:
        sent = np.stack([channels(image) for image in images]).transpose(0, 3, 1, 2)
        batch = torch.from_numpy(np.ascontiguousarray(sent)).float() / (row.scale or 1)
        return backbone.enter(batch).numpy(), iter(sent if row.scale else ())

    return inputs


def unpacked_backbone(freq: dict[str, Any]) -> torch.nn.Module:
    """Build a backbone with the unpacking layer of the channels ``freq``, which is the same for all backbones."""
    return MODELS.build(dict(type='mmpretrain.UnpackedResNet', depth=18, freq=freq, pixels=PIXELS))


def rgb_pixels(images: list[np.ndarray]) -> tuple[np.ndarray, Iterator]:
    """Return the normalised pixels of images, and their uint8 pixels."""
    batch = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
    pixels = (batch.astype(np.float32) - PIXELS['mean'][0]) / PIXELS['std'][0]
    return np.ascontiguousarray(pixels, np.float32), iter(batch)


def compressed(values: np.ndarray) -> tuple[int, int]:
    """Return the sizes in bytes of an array, compressed by zlib and by zstd at their strongest usual levels."""
    import zstandard
    data = np.ascontiguousarray(values).tobytes()
    return len(zlib.compress(data, 9)), len(zstandard.ZstdCompressor(level=19).compress(data))


if __name__ == '__main__':
    main()
