# Mask R-CNN with DCT-24S of Xu et al. 2020: 800x1333 pixels, upscaled by two, 24 x 200 x 334.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmfreq.models.det'])
model = dict(
    data_preprocessor=dict(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(type='FreqResNet', in_channels=24, frozen_stages=-1))

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-1333x800', upscale=2)]
load = dict(type='LoadImageFromFile')
resize = dict(type='LazyResize', resize='Resize', scale=(1333, 800), keep_ratio=True)
train_pipeline = [
    load, _base_.train_pipeline[1], resize, _base_.train_pipeline[3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [load, resize, _base_.test_pipeline[2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [dict(type='NumClassCheckHook')]
default_hooks = dict(input_spec=dict(type='InputSpecHook'))
