# DCT-24S of Xu et al. 2020, Table 2: 24 channels of an 896x896 crop, 24 x 112 x 112.
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqMobileNetV2', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-896')]
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_crop = dict(type='LazyResize', resize='RandomResizedCrop', scale=896, backend='pillow')
test_resize = dict(type='LazyResize', resize='ResizeEdge', scale=1024, edge='short', backend='pillow')
train_pipeline = [load, train_crop, dict(type='RandomFlip', prob=0.5, direction='horizontal'), *freq, pack]
test_pipeline = [load, test_resize, dict(type='CenterCrop', crop_size=896), *freq, pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
