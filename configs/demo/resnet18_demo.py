# The stock RGB baseline at reduced size, on the photographs in scikit-image (python -m demo).
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'

model = dict(head=dict(num_classes=12, topk=(1, )))
data_preprocessor = dict(num_classes=12)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=112),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short'),
    dict(type='CenterCrop', crop_size=112),
    dict(type='PackInputs'),
]
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/demo')
train_dataloader = dict(num_workers=1, dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(
    _delete_=True, type='OneCycleLR', eta_max=0.05, total_steps=3, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(max_epochs=3)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
