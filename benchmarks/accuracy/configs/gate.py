# All 192 channels behind a gate that learns to keep 24 of them.
_base_ = './dct192.py'

model = dict(backbone=dict(gate=dict()))
# The gate's logits learn faster than the other weights and without weight decay. OneCycleLR is replaced because it
# sets one learning rate for all weights.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=30, decay_mult=0)}))
epochs = _base_.epochs
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', by_epoch=True, begin=1, end=epochs, T_max=epochs - 1, convert_to_iter_based=True),
]
custom_hooks = [dict(type='GateLossHook', target=24)]
