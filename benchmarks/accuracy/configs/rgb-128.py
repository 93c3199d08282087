# RGB crops of 128x128, the size that the DCT rows transform.
_base_ = './rgb.py'

train_pipeline = [_base_.train_pipeline[0], dict(_base_.train_pipeline[1], scale=128), *_base_.train_pipeline[2:]]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=146),
    dict(_base_.test_pipeline[2], crop_size=128),
    _base_.test_pipeline[3],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
