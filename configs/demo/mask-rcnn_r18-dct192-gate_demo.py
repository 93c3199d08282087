# Mask R-CNN on all 192 channels behind a gate.
_base_ = './mask-rcnn_r18-dct24s_demo.py'

model = dict(backbone=dict(in_channels=192, gate=dict()))
freq = [dict(_base_.freq[0], channels='192')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# The demo is short: the gate's logits learn faster than the other weights, without weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=10, decay_mult=0)}))
custom_hooks = [*_base_.custom_hooks, dict(type='GateLossHook', target=24)]
