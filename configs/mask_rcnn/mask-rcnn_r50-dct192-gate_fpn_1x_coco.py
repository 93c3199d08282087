# Mask R-CNN on all 192 channels behind a gate that learns which ones each image needs (Xu et al. 2020, Fig. 4 and 5).
_base_ = './mask-rcnn_r50-dct24s_fpn_1x_coco.py'

model = dict(backbone=dict(in_channels=192, gate=dict()))
freq = [dict(_base_.freq[0], channels='192')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='GateLossHook', loss_weight=0.1)]
