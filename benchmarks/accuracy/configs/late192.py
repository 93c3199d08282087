# Late entry at stage 2: all 192 channels of 64x64 crops, the RGB network's size: a grid of 8x8 blocks.
_base_ = './dct24s.py'

model = dict(backbone=dict(in_channels=192, entry_stage=2))
freq = [dict(type='FusedBlockDCT', channels='192', stats='{{ fileDirname }}/../statistics-64.json')]
train_pipeline = [
    _base_.train_pipeline[0],
    dict(_base_.train_pipeline[1], scale=64),
    _base_.train_pipeline[2],
    *freq,
    _base_.train_pipeline[-1],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=73),
    dict(_base_.test_pipeline[2], crop_size=64),
    *freq,
    _base_.test_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
