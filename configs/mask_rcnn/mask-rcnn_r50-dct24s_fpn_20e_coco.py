# The recipe of the released DCTNet code: 20 epochs, learning rate 0.0025 for two images, gradients clipped at 35.
_base_ = './mask-rcnn_r50-dct24s_fpn_1x_coco.py'

train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=20, by_epoch=True, milestones=[16, 19], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.0025), clip_grad=dict(max_norm=35, norm_type=2))
auto_scale_lr = dict(base_batch_size=2)
