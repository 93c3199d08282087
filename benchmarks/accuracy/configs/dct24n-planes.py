# 24 native channels from the planes of Y, Cb and Cr that a JPEG file holds.
_base_ = './dct24n.py'

train_load, train_crop, flip, dct, train_pack = _base_.train_pipeline
load = dict(type='LoadYCbCrFromFile')
train_pipeline = [load, dict(train_crop, type='LazyResize', resize='RandomResizedCrop'), flip, dct, train_pack]
_, test_resize, test_crop, _, test_pack = _base_.test_pipeline
test_pipeline = [load, dict(test_resize, type='LazyResize', resize='ResizeEdge'), test_crop, dct, test_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
