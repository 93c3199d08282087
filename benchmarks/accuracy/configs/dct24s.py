# 24 DCT channels of 128x128 crops, twice the size of the RGB crops: a grid of 16x16 blocks, the size of the
# first stage's features in the RGB network.
_base_ = './rgb.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNet', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='{{ fileDirname }}/../statistics.json')]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=128, crop_ratio_range=(0.25, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    *freq,
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=146, edge='short'),
    dict(type='CenterCrop', crop_size=128),
    *freq,
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
