# ResNeXt-50 32x4d on 24 channels of a 448x448 crop, 24 x 56 x 56.
_base_ = 'mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNeXt', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-448')]
load = dict(type='LoadImageFromFile')
train_crop = dict(_base_.train_pipeline[1], type='LazyResize', resize='RandomResizedCrop', scale=448)
test_resize = dict(_base_.test_pipeline[1], type='LazyResize', resize='ResizeEdge', scale=512)
train_pipeline = [load, train_crop, *_base_.train_pipeline[2:-1], *freq, _base_.train_pipeline[-1]]
test_pipeline = [
    load, test_resize, dict(_base_.test_pipeline[2], crop_size=448), *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
