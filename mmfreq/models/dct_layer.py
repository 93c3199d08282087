"""The DCT on the network's device: one convolution, and the preprocessors' choice of the place."""
from contextlib import contextmanager
from threading import Lock
from typing import Any, Iterator, Optional, Union

import torch
import torch.nn.functional as F
from torch import nn

from mmfreq.dct.blocks import LEVEL_SHIFT
from mmfreq.dct.channels import ChannelSpec
from mmfreq.input_spec import InputSpec

_PRECISION = Lock()


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Let cuDNN convolve in full float32 for a moment, one thread at a time."""
    cudnn = torch.backends.cudnn
    # torch 2.9 replaced allow_tf32, and raises RuntimeError if a program uses both
    owner, name, value = ((cudnn.conv, 'fp32_precision', 'ieee') if hasattr(cudnn, 'conv')
                          else (cudnn, 'allow_tf32', False))
    with _PRECISION:
        users = getattr(owner, name)
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, users)


class BlockConvolution(nn.Module):
    """An affine map of blocks, such as :class:`~mmfreq.dct.block_map.BlockMap`, as a convolution.

    The state dict is empty.

    Args:
        kernel (np.ndarray | torch.Tensor): (C, 3, window, window), weights of the pixels (colour,
            row, column) of a block.
        bias (np.ndarray | torch.Tensor): (C,).
        stride (int): Pixels from one block to the next. Defaults to 1.
        margin (int): Further pixels on either side that a block depends on. Defaults to 0.
        reverse (bool): Whether the colours of the pixels come in the opposite order to those of
            ``kernel``. Defaults to False.
    """

    def __init__(self, kernel: Any, bias: Any, stride: int = 1, margin: int = 0,
                 reverse: bool = False) -> None:
        super().__init__()
        kernel, bias = torch.as_tensor(kernel).double(), torch.as_tensor(bias).double()
        kernel = kernel.flip(1) if reverse else kernel
        bias = bias + LEVEL_SHIFT * kernel.sum((1, 2, 3))
        self.stride, self.margin = stride, margin
        self.register_buffer('kernel', kernel.float(), persistent=False)
        self.register_buffer('bias', bias.float(), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convolve pixels.

        Args:
            pixels (torch.Tensor): float32 (N, 3, H, W), levels 0..255. Edges are replicated up to a
                whole block.

        Returns:
            torch.Tensor: float32 (N, C, ceil(H / stride), ceil(W / stride)).
        """
        height, width = pixels.shape[2:]
        margin, stride = self.margin, self.stride
        if margin or stride > 1:
            pads = [margin, -width % stride + margin, margin, -height % stride + margin]
            pixels = F.pad(pixels, pads, mode='replicate')
        # shifted levels lose fewer digits in float32; the bias undoes the shift
        return F.conv2d(pixels - LEVEL_SHIFT, self.kernel, self.bias, stride=stride)


class BlockDCTLayer(BlockConvolution):
    """Convert batches of images to normalised DCT channels.

    Arguments and errors are those of :class:`~mmfreq.transforms.FusedBlockDCT`, without int8. The
    layer computes in float32, also under autocast. On a GPU it switches TF32 off for its own
    convolution and then restores the user's setting, where torch.compile breaks its graph.

    Attributes:
        spec (InputSpec): Description of the channels.
    """

    def __init__(self, channels: ChannelSpec, stats: Union[str, dict], block_size: int = 8,
                 upscale: int = 1, channel_order: str = 'bgr') -> None:
        spec = InputSpec.of(dict(type='FusedBlockDCT', channels=channels, stats=stats,
                                 block_size=block_size, upscale=upscale,
                                 channel_order=channel_order))
        block_map = spec.block_map()
        super().__init__(block_map.kernel, block_map.bias, block_map.stride, block_map.margin)
        self.spec = spec

    @classmethod
    def of(cls, freq: dict[str, Any]) -> 'BlockDCTLayer':
        """Build from a preprocessor's ``freq``, which may be the config of a FusedBlockDCT."""
        unused = ('type', '_scope_', 'dtype', 'scale')
        return cls(**{key: value for key, value in freq.items() if key not in unused})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images.

        Args:
            images (torch.Tensor): uint8 (N, 3, H, W). Edges are replicated up to a whole block.

        Returns:
            torch.Tensor: float32 (N, C, h, w), on the device of the images.

        Raises:
            ValueError: Another dtype or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError("placement='device': expected images, uint8 (N, 3, H, W), got "
                             f'{images.dtype} {tuple(images.shape)}; the pipeline must not '
                             'have DCT transforms')
        with torch.autocast(images.device.type, enabled=False):
            if not images.is_cuda:
                return super().forward(images.float())
            with _without_tf32():
                return super().forward(images.float())


class PlacementMixin:
    """Mixin for a data preprocessor that can compute the DCT on the network's device.

    Args:
        placement (str): ``'cpu'``: the pipeline computes the DCT. ``'device'``: the pipeline packs
            uint8 images, and the preprocessor converts them. Defaults to ``'cpu'``.
        freq (dict, optional): Arguments of :class:`BlockDCTLayer` for ``'device'``, or the config
            of a FusedBlockDCT, whose ``type``, ``dtype`` and ``scale`` are ignored.
        **kwargs: Arguments of the stock class.
    """

    def __init__(self, placement: str = 'cpu', freq: Optional[dict[str, Any]] = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.to_channels = BlockDCTLayer.of(freq) if placement == 'device' else None

    def placed(self, data: dict) -> dict:
        """Return the batch with DCT channels as its ``inputs``, which are images on the device."""
        if self.to_channels is None:
            return data
        inputs = self.cast_data(data['inputs'])
        with torch.no_grad():
            if isinstance(inputs, torch.Tensor):
                inputs = self.to_channels(inputs)
            else:
                inputs = [self.to_channels(image[None])[0] for image in inputs]
        return {**data, 'inputs': inputs}
