# All 192 channels behind a gate that ends with 24 of them.
_base_ = './dct192.py'

model = dict(backbone=dict(gate=dict()))
# The logits of the gate learn faster than the rest, without decay (OneCycleLR knows one rate for all).
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=10, decay_mult=0)}))
epochs = _base_.epochs
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', by_epoch=True, begin=1, end=epochs, T_max=epochs - 1, convert_to_iter_based=True),
]
custom_hooks = [dict(type='GateLossHook', target=24)]
