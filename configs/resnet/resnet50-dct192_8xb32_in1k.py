# DCT-192 of Xu et al. 2020, Table 1: all channels, 192 x 56 x 56.
_base_ = './resnet50-dct24s_8xb32_in1k.py'

model = dict(backbone=dict(in_channels=192))

freq = [dict(_base_.freq[0], channels='192')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
