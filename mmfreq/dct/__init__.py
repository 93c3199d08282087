"""The maths of the input: colour, block DCT, channel selections, statistics. Imports nothing else of the package."""
from mmfreq.dct.blocks import block_dct, block_idct, coefficients_to_bgr, from_ycbcr, to_ycbcr
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats

__all__ = [
    'block_dct', 'block_idct', 'channel_indices', 'coefficients_to_bgr', 'from_ycbcr', 'load_stats', 'to_ycbcr'
]
