"""InputSpec: the one description of the input of a network.

A pipeline, a preprocessor, a checkpoint and an exported file each describe the input of a network.
All of them are read into this class, the only one that other code reads.
"""
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Iterable, Optional

import numpy as np

from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.channels import CHANNEL_NAMES, NATIVE_NAMES, channel_indices
from mmfreq.dct.stats import block_stats

# The arguments of the single transforms. FusedBlockDCT takes all of them.
DCT_ARGUMENTS = {
    'YCbCr': ('channel_order', ),
    'BlockDCT': ('block_size', 'upscale'),
    'ChannelSelect': ('channels', 'block_size'),
    'FreqNormalize': ('stats', 'block_size', 'dtype', 'scale'),
}
META_KEY = 'input_spec'  # in ``meta`` of a checkpoint
DCT_TRANSFORMS = (*DCT_ARGUMENTS, 'FusedBlockDCT')


@dataclass(frozen=True, eq=False)
class InputSpec:
    """The input of a network: normalised DCT channels of an image, or pixels.

    Two specs are equal if a network cannot tell their inputs apart, up to rounding: statistics
    count to six digits, and int8 counts as float32, since the preprocessor undoes the scale.

    Attributes:
        channels (tuple[int, ...]): Channel numbers ``N*N*component + N*vertical + horizontal``, in
            the order of the input. Empty for pixels.
        mean (tuple[float, ...]): Mean that is subtracted, in DCT coefficients of 8-bit levels (in
            levels for pixels): one value for each channel, or none.
        std (tuple[float, ...]): Standard deviation that divides, one value for each ``mean``.
        block_size (int): Side N of a block in upscaled pixels. 1 for pixels.
        upscale (int): Factor by which the image is upscaled before the DCT.
        colors (str): ``'ycbcr'`` of a BGR image, ``'ycbcr-from-rgb'``, ``'bgr'`` or ``'rgb'``.
        dtype (str): ``'float32'`` or ``'int8'``, in which the pipeline returns the channels.
        scale (float, optional): Steps of int8 for one standard deviation.
    """
    channels: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    block_size: int = 1
    upscale: int = 1
    colors: str = 'bgr'
    dtype: str = field(default='float32', compare=False)
    scale: Optional[float] = field(default=None, compare=False)

    @classmethod
    def of(cls, transform: Any) -> 'InputSpec':
        """Describe the output of one DCT transform, which is an instance or its config."""
        if not isinstance(transform, dict):
            transform = dict(vars(transform), type=type(transform).__name__)
        return cls.from_steps([transform])

    @classmethod
    def from_steps(cls, steps: Iterable[dict]) -> 'InputSpec':
        """Describe the output of a pipeline.

        Args:
            steps (Iterable[dict]): Configs of its transforms, in order. Other transforms than those
                of the DCT are ignored. A config without ``type``, such as a preprocessor's
                ``freq``, is that of a FusedBlockDCT.

        Raises:
            ValueError: Unknown channels or statistics.
        """
        arguments: dict[str, Any] = {}
        kinds = set()
        for step in steps:
            kind = step.get('type') or ('FusedBlockDCT' if 'channels' in step else '')
            kind = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
            if kind in DCT_TRANSFORMS:
                kinds.add(kind)
                names = DCT_ARGUMENTS.get(kind) or sum(DCT_ARGUMENTS.values(), ())
                arguments.update((name, step[name]) for name in names if name in step)
        fused = 'FusedBlockDCT' in kinds
        order = arguments.get('channel_order', 'bgr')
        colors = 'bgr'
        if fused or 'YCbCr' in kinds:
            colors = 'ycbcr' if order == 'bgr' else f'ycbcr-from-{order}'
        if not fused and 'BlockDCT' not in kinds:
            return cls(colors=colors)
        size = arguments.get('block_size', 8)
        selection = arguments.get('channels', range(3 * size**2))
        channels = tuple(channel_indices(selection, size))
        mean, std = np.zeros(len(channels)), np.ones(len(channels))
        if 'stats' in arguments:
            stats = block_stats(arguments['stats'], size)
            mean, std = stats.mean[list(channels)], stats.std[list(channels)]
        return cls(channels, tuple(mean.tolist()), tuple(std.tolist()), size,
                   arguments.get('upscale', 1), colors, arguments.get('dtype', 'float32'),
                   arguments.get('scale'))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'InputSpec':
        """Read the result of :meth:`to_dict`."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value
                      for name, value in values.items()})

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any]) -> Optional['InputSpec']:
        """Read the spec in ``meta`` of a checkpoint; None if InputSpecHook did not save it."""
        values = (checkpoint.get('meta') or {}).get(META_KEY)
        return None if values is None else cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and for checkpoints."""
        return asdict(self)

    @property
    def stride(self) -> int:
        """Pixels of the image from one block to the next."""
        return self.block_size // self.upscale

    def block_map(self) -> BlockMap:
        """Return the affine map from an image's pixels to these channels, ``scale`` included.

        Raises:
            ValueError: The channels are not of YCbCr blocks, or ``block_size`` is not a multiple of
                ``upscale``.
        """
        if not self.channels or not self.colors.startswith('ycbcr'):
            raise ValueError(f'expected DCT channels of YCbCr, got {self}')
        mean, std = np.zeros(3 * self.block_size**2), np.ones(3 * self.block_size**2)
        mean[list(self.channels)] = self.mean
        std[list(self.channels)] = np.array(self.std) / (self.scale or 1)
        order = self.colors.removeprefix('ycbcr-from-') if '-' in self.colors else 'bgr'
        return BlockMap(self.channels, mean, std, self.block_size, self.upscale, order)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, InputSpec):
            return NotImplemented
        return not self.differences(other)

    def __hash__(self) -> int:
        return hash((self.channels, self.block_size, self.upscale, self.colors))

    def differences(self, other: 'InputSpec') -> list[str]:
        """Name the attributes in which two inputs differ."""
        names = [item.name for item in fields(self) if item.compare]
        return [name for name in names if _rounded(getattr(self, name)) != _rounded(
            getattr(other, name))]

    @property
    def selection(self) -> str:
        """Name of the channels, such as ``'24S'``, or their numbers; ``'none'`` for pixels."""
        for name in {4: NATIVE_NAMES, 8: CHANNEL_NAMES}.get(self.block_size, ()):
            if tuple(channel_indices(name, self.block_size)) == self.channels:
                return name
        return _short(self.channels) if self.channels else 'none'

    def __str__(self) -> str:
        if not self.channels:
            return f'{self.colors} pixels'
        size = f'{self.block_size}x{self.block_size}'
        upscaled = f' of the image upscaled {self.upscale} times' if self.upscale > 1 else ''
        numbers = f'{self.dtype}, scale {self.scale:g}' if self.scale else self.dtype
        return (f'{len(self.channels)} DCT channels ({self.selection}) of {size} blocks{upscaled}, '
                f'{self.colors}, {numbers}')

    def describe(self, name: str) -> str:
        """Return an attribute's value for a message."""
        return self.selection if name == 'channels' else _short(getattr(self, name))


def _rounded(value: Any) -> Any:
    return tuple(f'{item:.6g}' for item in value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
