# 24 DCT channels of a 224x224 crop: a grid of 28x28 blocks, the size of the first stage's features in the RGB demo.
_base_ = './resnet18_demo.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNet', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-448')]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LazyResize', resize='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    *freq,
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LazyResize', resize='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    *freq,
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
