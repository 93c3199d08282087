# RTMDet-tiny on photos of balloons, 320x320 pixels. Its backbone is the CSPNeXt of cspnext.py.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

model = dict(
    backbone=dict(init_cfg=dict(checkpoint=''), norm_cfg=dict(type='BN')),
    neck=dict(norm_cfg=dict(type='BN')),
    bbox_head=dict(num_classes=1, norm_cfg=dict(type='BN')))

size = (320, 320)
load = _base_.train_pipeline[:2]
resize = dict(type='RandomResize', scale=(640, 640), ratio_range=(0.5, 2.0), keep_ratio=True)
crop = [dict(type='RandomCrop', crop_size=size), *_base_.train_pipeline[5:7],
        dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114)))]
train_pipeline = [*load, dict(_base_.train_pipeline[2], img_scale=size), resize, *crop,
                  dict(_base_.train_pipeline[8], img_scale=size), _base_.train_pipeline[-1]]
train_pipeline_stage2 = [*load, dict(resize, scale=size), *crop, _base_.train_pipeline[-1]]
test_pipeline = [_base_.test_pipeline[0], dict(type='Resize', scale=size, keep_ratio=True),
                 dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114))), *_base_.test_pipeline[3:]]
data_root = 'data/balloon/'
dataset = dict(data_root=data_root, metainfo=dict(classes=('balloon', )))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **dataset, ann_file='annotations/train.json', data_prefix=dict(img='train/'), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, ann_file='annotations/val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

epochs, last = 40, 10  # without Mosaic and MixUp at the end, as in the stock config
train_cfg = dict(max_epochs=epochs, val_interval=epochs, dynamic_intervals=None)
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', eta_min=5e-5, by_epoch=True, begin=0, end=epochs, T_max=epochs,
         convert_to_iter_based=True),
]
custom_hooks = [_base_.custom_hooks[0], dict(_base_.custom_hooks[1], switch_epoch=epochs - last,
                                             switch_pipeline=train_pipeline_stage2)]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1))
