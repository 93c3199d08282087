# Faster R-CNN on photos of balloons, 416 pixels wide or high. Its backbone is the half-width ResNet-18 of resnet.py.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

width = 64
model = dict(
    backbone=dict(depth=18, base_channels=32, init_cfg=dict(prefix='backbone.', checkpoint='')),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=1)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=20)))

scale = (416, 416)
train_pipeline = [*_base_.train_pipeline[:2], dict(type='Resize', scale=scale, keep_ratio=True),
                  *_base_.train_pipeline[3:]]
test_pipeline = [_base_.test_pipeline[0], dict(type='Resize', scale=scale, keep_ratio=True), *_base_.test_pipeline[2:]]
data_root = 'data/balloon/'
dataset = dict(data_root=data_root, metainfo=dict(classes=('balloon', )))
train_dataloader = dict(
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

epochs = 24
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=epochs, T_max=epochs, convert_to_iter_based=True),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.05), clip_grad=dict(max_norm=35, norm_type=2))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
