# All 192 channels behind a gate that learns to keep 24 of them (Xu et al. 2020, Fig. 4).
_base_ = './resnet50-dct192_8xb32_in1k.py'

model = dict(backbone=dict(gate=dict()))
# The gate's logits learn faster than the other weights and without weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=30, decay_mult=0)}))
custom_hooks = [dict(type='GateLossHook', target=24)]
