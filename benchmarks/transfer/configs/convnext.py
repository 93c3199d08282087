# A small ConvNeXt with the data and the length of training of resnet.py.
_base_ = './resnet.py'

arch = dict(depths=[1, 1, 3, 1], channels=[40, 80, 160, 320])
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch=arch, drop_path_rate=0.),
    neck=None,
    head=dict(in_channels=320))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = dict(eta_max=2e-3)
