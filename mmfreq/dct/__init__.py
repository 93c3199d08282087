"""Colour conversion, block DCT, channel selections and statistics; imports nothing else of mmfreq.

Words that the whole package uses:

- image: uint8 pixels (H, W, 3) as loaded and augmented, before the DCT.
- component: Y, Cb or Cr, into which the colours of an image are converted.
- upscale: the integer factor by which an image is enlarged bilinearly before the DCT.
- block_size: the side N of a DCT block, in pixels of the upscaled image.
- stride: the pixels of the image from one block to the next, ``block_size / upscale``.
- grid_shape: the rows and columns of blocks that cover an image; a cell is one place of this grid.
- channel: one frequency of one component, numbered as in :mod:`mmfreq.dct.blocks`; 8x8 blocks have
  192 channels.
- coefficient: the value of a channel in one block.
- selection: the channels that a network receives, such as ``'24S'``.
- statistics: mean and standard deviation of each channel over a data set.
- on_rate: the fraction of images for which a gate (:mod:`mmfreq.selection`) keeps a channel.
"""
from mmfreq.dct.blocks import block_dct, block_idct, coefficients_to_bgr, from_ycbcr, to_ycbcr
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats

__all__ = ['block_dct', 'block_idct', 'channel_indices', 'coefficients_to_bgr', 'from_ycbcr',
           'load_stats', 'to_ycbcr']
