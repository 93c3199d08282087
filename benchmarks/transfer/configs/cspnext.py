# CSPNeXt-tiny, the backbone of RTMDet-tiny, with the data and the length of training of resnet.py.
_base_ = './resnet.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mmdet.CSPNeXt', arch='P5', out_indices=(4, ), expand_ratio=0.5, deepen_factor=0.167,
        widen_factor=0.375, channel_attention=True, act_cfg=dict(type='mmdet.SiLU')),
    head=dict(in_channels=384))
data_preprocessor = dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], to_rgb=False)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, weight_decay=0.05))
param_scheduler = dict(eta_max=4e-3)
