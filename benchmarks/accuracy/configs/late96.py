# Late entry at stage 2: the frequencies of 24S in blocks of 16x16 pixels, which makes 96 channels (8x8 of Y, 4x4 of Cb
# and Cr). A 128x128 crop has a grid of 8x8 blocks.
_base_ = './dct24s.py'

luma = [16 * row + column for row in range(8) for column in range(8)]
chroma = [16 * row + column for row in range(4) for column in range(4)]
model = dict(backbone=dict(in_channels=96, entry_stage=2))
freq = [dict(
    type='FusedBlockDCT',
    channels=[luma, chroma, chroma],
    block_size=16,
    stats='{{ fileDirname }}/../statistics-16x16.json')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
