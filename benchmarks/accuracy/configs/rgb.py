# The stock ResNet-18 at half width on 64x64 crops of the 224x224 images of Imagenette.
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'

model = dict(backbone=dict(stem_channels=32, base_channels=32), head=dict(num_classes=10, in_channels=256, topk=(1, )))
data_preprocessor = dict(num_classes=10)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.25, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=73, edge='short'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/imagenette')
train_dataloader = dict(
    batch_size=64, num_workers=0, dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64, num_workers=0, dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator

epochs = 10
optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = dict(
    _delete_=True, type='OneCycleLR', eta_max=0.2, total_steps=epochs, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(max_epochs=epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
