# ResNeSt-50 on 24 channels of a 448x448 crop, 24 x 56 x 56. As in the stock config, testing uses a larger
# crop: 24 x 64 x 64. RandAugment, ColorJitter and Lighting work on pixels, before FusedBlockDCT.
_base_ = 'mmpretrain::resnest/resnest50_32xb64_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNeSt', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-448')]
load = dict(type='LoadImageFromFile')
train_pipeline = [
    load, _base_.train_pipeline[1], dict(_base_.train_pipeline[2], scale=448, crop_padding=64),
    *_base_.train_pipeline[3:-1], *freq, _base_.train_pipeline[-1]]
test_pipeline = [
    load, dict(_base_.test_pipeline[1], crop_size=512, crop_padding=64), *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
