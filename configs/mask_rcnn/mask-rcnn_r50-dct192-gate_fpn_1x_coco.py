# Mask R-CNN on all 192 channels behind a gate that learns to keep 24 of them (Xu et al. 2020, Fig. 4 and 5).
_base_ = './mask-rcnn_r50-dct24s_fpn_1x_coco.py'

model = dict(backbone=dict(in_channels=192, gate=dict()))
freq = [dict(_base_.freq[0], channels='192')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# The gate's logits learn faster than the other weights and without weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=30, decay_mult=0)}))
custom_hooks = [*_base_.custom_hooks, dict(type='GateLossHook', target=24)]
