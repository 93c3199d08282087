# EfficientNet-Lite0 with the pixels of its ImageNet weights, which ../lite0.py writes as a checkpoint. The training is
# that of the transfer to small data sets, on images of 128x128.
_base_ = '../../accuracy/configs/rgb.py'

model = dict(
    backbone=dict(_delete_=True, type='TIMMBackbone', model_name='tf_efficientnet_lite0'),
    head=dict(num_classes=1000, in_channels=1280))
data_preprocessor = dict(num_classes=1000, mean=[127, 127, 127], std=[128, 128, 128], to_rgb=True)

train_pipeline = [_base_.train_pipeline[0], dict(_base_.train_pipeline[1], scale=128), *_base_.train_pipeline[2:]]
test_pipeline = [
    _base_.test_pipeline[0], dict(_base_.test_pipeline[1], scale=146), dict(type='CenterCrop', crop_size=128),
    _base_.test_pipeline[-1]
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, weight_decay=0.05))
param_scheduler = dict(eta_max=4e-3)
