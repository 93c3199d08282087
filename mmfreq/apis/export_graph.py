"""The parts of an exported classifier: pixels to the network's input, and the network to scores."""
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

from mmfreq.config.pipelines import lazy_step, network_pipeline, pipelines, transform_type
from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.blocks import LEVEL_SHIFT
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import block_stats

_ENDS = ('LoadImageFromFile', 'LoadAnnotations', 'PackInputs', 'PackDetInputs')
_DCT = ('YCbCr', 'BlockDCT', 'ChannelSelect', 'FreqNormalize')


def resize_edge(step: dict) -> Callable:
    """Return mmpretrain's ResizeEdge of the short edge for float pixels (N, 3, H, W)."""
    def size(height: int, width: int) -> list[int]:
        short = torch.sym_min(height, width)
        return [step['scale'] * height // short, step['scale'] * width // short]

    return _resize(step, size, step.get('edge', 'short') == 'short')


def resize(step: dict) -> Callable:
    """Return a Resize to a fixed (width, height) for float pixels (N, 3, H, W)."""
    scale = step.get('scale') or 0
    size = [scale, scale] if isinstance(scale, int) else [*scale[::-1]]
    return _resize(step, lambda height, width: size, bool(scale) and not step.get('keep_ratio'))


def _resize(step: dict, size: Callable, is_known: bool) -> Callable:
    backend, mode = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    if not is_known or backend not in ('cv2', 'pillow') or mode not in ('bilinear', 'bicubic'):
        raise ValueError('the test pipeline: expected Resize to a fixed scale or ResizeEdge of the '
                         f'short edge, bilinear or bicubic, got {dict(step)}; --input channels '
                         'leaves it out of the file')

    def resized(image: torch.Tensor) -> torch.Tensor:
        height, width = size(*image.shape[2:])
        shapes = [(height, width)]
        if backend == 'pillow' and not step.get('lazy'):
            shapes.insert(0, (image.shape[2], width))  # Pillow rounds the resized rows, too
        for shape in shapes:
            image = F.interpolate(image, shape, mode=mode, antialias=backend == 'pillow')
            image = image if step.get('lazy') else whole_levels(image)
        return image

    return resized


def whole_levels(image: torch.Tensor) -> torch.Tensor:
    """Round to 0..255, halves up as in either backend; the margin lets every runtime see the same."""
    return (image + 0.5001).floor().clamp(0, 255)


def image_size(images: torch.Tensor) -> torch.Tensor:
    """Return height and width of images (N, C, H, W) as a float64 tensor, which a graph computes."""
    return torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in images.shape[2:]])


def opencv_bilinear(images: torch.Tensor, new: torch.Tensor, shape: Sequence[int],
                    rounds: bool = True) -> torch.Tensor:
    """Resize as OpenCV does, to the bit: its weights are multiples of 1/2048, its sums integers.

    Args:
        images (torch.Tensor): uint8 or float pixels (N, C, H, W).
        new (torch.Tensor): Height and width of the resized images, float64 (2, ).
        shape (Sequence[int]): Rows and columns to return; those beyond ``new`` repeat the last one.
        rounds (bool): Whether weights and levels are rounded; LazyResize's are not.

    Returns:
        torch.Tensor: float32 (N, C, rows, columns), whole numbers if they are rounded.
    """
    rows, columns = map(_taps, image_size(images), new, shape, (rounds, rounds))
    low, high, weight = columns
    images = (images.index_select(3, low) * (2048 - weight) + images.index_select(3, high) * weight)
    low, high, weight = rows
    if not rounds:
        weight = weight[:, None]
        images = images.index_select(2, low) * (2048 - weight) + images.index_select(2, high) * weight
        return (images / 2**22).float()
    images = (images / 16).floor()
    weight = weight[:, None] / 2**16
    above = (images.index_select(2, low) * (2**-5 - weight)).floor()
    below = (images.index_select(2, high) * weight).floor()
    return ((above + below + 2) / 4).floor().float()


def _taps(size: torch.Tensor, new: torch.Tensor, count: int, rounds: bool) -> tuple[torch.Tensor, ...]:
    """Return the two pixels of a line that each new pixel lies between, and 2048 times the weight of the second."""
    place = torch.minimum(torch.arange(count, dtype=torch.float64), new - 1) + 0.5
    place = place / (new / size) - 0.5
    place = place.float() if rounds else place.clamp(min=0)
    first = place.floor()
    low, high = first.clamp(min=0).double(), (first + 1).double()
    weight = ((place - first) * 2048).double()
    weight = weight.round() if rounds else weight
    return torch.minimum(low, size - 1).long(), torch.minimum(high, size - 1).long(), weight


def center_crop(step: dict) -> Callable:
    """Return CenterCrop; halves are rounded to even, as Python does."""
    size = step['crop_size']
    width, height = (size, size) if isinstance(size, int) else size

    def crop(image: torch.Tensor) -> torch.Tensor:
        for axis, side in ((2, height), (3, width)):
            rest = image.shape[axis] - side
            half = rest // 2
            image = image.narrow(axis, half + rest % 2 * (half % 2), side)
        return image

    return crop


_STEPS = {'ResizeEdge': resize_edge, 'Resize': resize, 'CenterCrop': center_crop}


def window_reverse(windows: torch.Tensor, height: int, width: int, size: int) -> torch.Tensor:
    """Put windows (N * h * w, size, size, C) back into maps (N, height, width, C).

    mmpretrain's own finds N by a division of floats, which a graph keeps as a constant.
    """
    rows, columns = height // size, width // size
    maps = windows.view(-1, rows, columns, size, size, windows.shape[-1])
    return maps.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def read_pipeline(cfg: Config) -> tuple[list[dict], dict]:
    """Read the test pipeline of ``cfg``, the DCT on the device included.

    Returns:
        tuple[list[dict], dict]: The steps between loader and packer that work on pixels, and the
        arguments of the DCT's transforms in one dict, which is empty without a DCT. A resize with
        ``lazy`` does not round.

    Raises:
        ValueError: Colours are converted, but no DCT follows.
    """
    geometry, freq = [], {}
    pipeline = pipelines(cfg, 'test_dataloader')[0]
    waits = {'lazy': True} if 'LazyResize' in map(transform_type, pipeline) else {}
    for step in network_pipeline(cfg, pipeline):
        kind = transform_type(step)
        if kind in _DCT:
            freq.update(step, type=kind)
        elif kind not in _ENDS:
            known = {key: value for key, value in step.items() if key != '_scope_'}
            geometry.append({**known, 'type': kind, **(waits if lazy_step(step) else {})})
    if freq.get('type') == 'YCbCr':
        raise ValueError('the test pipeline: YCbCr without BlockDCT cannot be exported')
    return geometry, freq


def block_map(freq: dict) -> tuple[BlockMap, dict[str, Any]]:
    """Return the map of blocks to normalised channels, and what the metadata say about it."""
    size = freq.get('block_size', 8)
    chosen = channel_indices(freq['channels'], size) if 'channels' in freq else range(3 * size**2)
    stats = freq.get('stats') or dict(mean=[0.] * 3 * size**2, std=[1.] * 3 * size**2)
    loaded = block_stats(stats, size)
    made = BlockMap(list(chosen), loaded.mean, loaded.std, size, freq.get('upscale', 1),
                    freq.get('channel_order', 'bgr'))
    described = dict(channels=list(map(int, chosen)), block_size=size, upscale=made.upscale,
                     mean=loaded.mean[list(chosen)].tolist(), std=loaded.std[list(chosen)].tolist())
    return made, described


class PixelSteps(nn.Module):
    """Pixels, uint8 (N, H, W, 3), to the network's input: the test pipeline and the preprocessor.

    Args:
        cfg (Config): Config of mmpretrain.
        preprocessor (nn.Module): The model's, for the normalisation of RGB pixels.
        order (str): Order of the colours in the file's input, ``'rgb'`` or ``'bgr'``.

    Attributes:
        described (dict): What the metadata say about the input's making.

    Raises:
        ValueError: A transform that has no counterpart in a graph. It is named.
    """

    def __init__(self, cfg: Config, preprocessor: nn.Module, order: str) -> None:
        super().__init__()
        geometry, freq = read_pipeline(cfg)
        self.steps, self.described = list(map(self.step, geometry)), dict(steps=geometry)
        kernel, bias = self._dct(freq) if freq else self._pixels(preprocessor)
        if order != ('bgr' if not freq else freq.get('channel_order', 'bgr')):
            kernel = kernel.flip(1)
        self.register_buffer('kernel', kernel.float())  # of pixels - 128, which loses fewer digits
        self.register_buffer('bias', (bias + LEVEL_SHIFT * kernel.sum((1, 2, 3))).float())

    @staticmethod
    def step(step: dict) -> Any:
        """Return the counterpart of a transform of the pipeline."""
        if step['type'] not in _STEPS:
            raise ValueError(f'the test pipeline: {step["type"]} cannot be exported, only '
                             f'{", ".join(_STEPS)} and the DCT; --input channels leaves '
                             'the pipeline out of the file')
        return _STEPS[step['type']](step)

    def _dct(self, freq: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the convolution of a selection's normalised channels."""
        made, described = block_map(freq)
        self.stride, self.margin = made.stride, made.margin
        self.described.update(described)
        return torch.tensor(made.kernel), torch.tensor(made.bias)

    def _pixels(self, preprocessor: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the 1x1 convolution that normalises BGR pixels."""
        self.stride, self.margin = 1, 0
        mean, std = torch.zeros(3).double(), torch.ones(3).double()
        if preprocessor._enable_normalize:
            mean[:], std[:] = preprocessor.mean.flatten(), preprocessor.std.flatten()
        kernel = torch.diag(1 / std)
        reverse = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        kernel = kernel.flip(1) if reverse else kernel
        self.described.update(mean=mean.tolist(), std=std.tolist())
        return kernel[:, :, None, None], -mean / std

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Return images, uint8 (N, H, W, 3), in the size to which the first steps resize them."""
        images = images.permute(0, 3, 1, 2).float()
        for step, about in zip(self.steps, self.described['steps']):
            if about['type'] == 'CenterCrop':
                break
            images = step(images)
        return whole_levels(images).permute(0, 2, 3, 1).to(torch.uint8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input, float32 (N, C, h, w)."""
        images = images.permute(0, 3, 1, 2).float()
        for step in self.steps:
            images = step(images)
        return self.converted(images)

    def converted(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input for resized images, float32 (N, 3, H, W): one convolution."""
        height, width = images.shape[2:]
        margin, stride = self.margin, self.stride
        if margin or stride > 1:
            pads = [margin, -width % stride + margin, margin, -height % stride + margin]
            images = F.pad(images, pads, mode='replicate')
        return F.conv2d(images - LEVEL_SHIFT, self.kernel, self.bias, stride=stride)


class Coefficients(nn.Module):
    """DCT coefficients, float32 or int8 (N, C, h, w), to the network's input.

    Arguments and attributes as :class:`PixelSteps`; ValueError if the test pipeline gives pixels.
    """

    def __init__(self, cfg: Config, preprocessor: nn.Module) -> None:
        super().__init__()
        geometry, freq = read_pipeline(cfg)
        if not freq or getattr(preprocessor, 'to_channels', None) is not None:
            raise ValueError('--input channels: expected a test pipeline that computes DCT channels;'
                             ' export this config with --input image')
        self.scale = float(preprocessor.std.flatten()[0]) if preprocessor._enable_normalize else 1.
        self.described = dict(steps=geometry, **block_map(freq)[1], scale=self.scale)

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, C, h, w), int8's scale undone."""
        return channels.float() / self.scale


class Classifier(nn.Module):
    """A front end, and mmpretrain's classifier behind it, to scores.

    Args:
        front (nn.Module): :class:`PixelSteps` or :class:`Coefficients`.
        model (nn.Module): An ImageClassifier in evaluation mode.
        half (bool): Whether what stands behind ``front`` computes in float16.

    Raises:
        ValueError: A model or a head whose scores are no softmax or sigmoid of one output.
    """
    outputs = 'scores',

    def __init__(self, front: nn.Module, model: nn.Module, half: bool = False) -> None:
        from mmpretrain.models import ClsHead, ImageClassifier, MultiLabelClsHead
        super().__init__()
        head, known = model.head, (ClsHead, MultiLabelClsHead)
        base: Optional[type] = next((kind for kind in known if isinstance(head, kind)), None)
        if type(model) is not ImageClassifier or base is None or type(head).predict is not base.predict:
            raise ValueError(f'expected an ImageClassifier with a head such as LinearClsHead, got '
                             f'{type(model).__name__} with {type(head).__name__}, which cannot be '
                             'exported')
        self.dtype = torch.float16 if half else torch.float32
        self.front, self.model = front, model.to(self.dtype)
        self.multi_label = base is MultiLabelClsHead

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores, float32 (N, classes)."""
        logits = self.model.head(self.model.extract_feat(self.front(images).to(self.dtype))).float()
        return logits.sigmoid() if self.multi_label else logits.softmax(1)
