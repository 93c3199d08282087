# DCT-6S of Xu et al. 2020, Table 2: 6 x 112 x 112.
_base_ = './mobilenet-v2-dct24s_8xb32_in1k.py'

model = dict(backbone=dict(in_channels=6))

freq = [dict(_base_.freq[0], channels='6S')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
