# Swin-T on 24 channels of a 448x448 crop, 24 x 56 x 56, one block for each 4x4 patch.
# RandAugment and RandomErasing work on pixels, before FusedBlockDCT. Mixup and CutMix work on the batch of channels.
# They commute with the DCT: both treat all channels alike, and CutMix pastes whole blocks.
_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqSwinTransformer', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-448')]
load = dict(type='LoadImageFromFile')
train_pipeline = [
    load, dict(_base_.train_pipeline[1], scale=448), *_base_.train_pipeline[2:-1], *freq, _base_.train_pipeline[-1]]
test_pipeline = [
    load, dict(_base_.test_pipeline[1], scale=512), dict(_base_.test_pipeline[2], crop_size=448), *freq,
    _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
