# ViT-B/16 on 24 channels of a 448x448 crop, 24 x 56 x 56: 4x4 blocks for each 16x16 patch, 196 tokens.
# AutoAugment works on pixels, before FusedBlockDCT; Mixup works on the batch of channels, which is equivalent.
_base_ = 'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqVisionTransformer', in_channels=24))
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
