# EfficientNet-Lite0 as its ImageNet weights expect it, to be evaluated on the photos of Imagenette, 224 x 224 pixels.
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1280))
data_preprocessor = dict(num_classes=1000, mean=[127, 127, 127], std=[128, 128, 128], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='data/imagenette/val', pipeline=test_pipeline))
test_evaluator = dict(type='Accuracy')
test_cfg = dict()
