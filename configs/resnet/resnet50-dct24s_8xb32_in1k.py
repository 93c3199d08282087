# DCT-24S of Xu et al. 2020, Table 1: 24 channels of a 448x448 crop, 24 x 56 x 56.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNet', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-448')]
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_crop = dict(type='LazyResize', resize='RandomResizedCrop', scale=448)
test_resize = dict(type='LazyResize', resize='ResizeEdge', scale=512, edge='short')
train_pipeline = [load, train_crop, dict(type='RandomFlip', prob=0.5, direction='horizontal'), *freq, pack]
test_pipeline = [load, test_resize, dict(type='CenterCrop', crop_size=448), *freq, pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
