# All 192 channels behind a gate that learns which ones each image needs (Xu et al. 2020, Fig. 4).
_base_ = './resnet50-dct192_8xb32_in1k.py'

model = dict(backbone=dict(gate=dict()))
custom_hooks = [dict(type='GateLossHook', loss_weight=0.1)]
