# All 192 channels behind a gate that learns to keep 6 of them.
_base_ = './resnet18-dct24s_demo.py'

model = dict(backbone=dict(in_channels=192, gate=dict()))
freq = [dict(_base_.freq[0], channels='192')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# The demo is short. The gate's logits therefore learn faster than the other weights and without weight decay, and the
# budget falls late and slowly. OneCycleLR is replaced because it sets one learning rate for all weights.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=20, decay_mult=0)}))
train_cfg = dict(max_epochs=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=38),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=6, T_max=6, convert_to_iter_based=True),
]
custom_hooks = [dict(type='GateLossHook', target=6, phases=(0.3, 0.8))]
