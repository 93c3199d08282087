# A small ViT on patches of 8x8 pixels with the data and the length of training of resnet.py.
_base_ = './resnet.py'

arch = dict(embed_dims=96, num_layers=5, num_heads=3, feedforward_channels=384)
model = dict(
    backbone=dict(
        _delete_=True, type='VisionTransformer', arch=arch, img_size=64, patch_size=8, out_type='avg_featmap'),
    neck=None,
    head=dict(in_channels=96))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = dict(eta_max=1e-3)
