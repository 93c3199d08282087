# DCT-24D of Xu et al. 2020, Table 1: 24 x 56 x 56, the channels that the learned gate keeps most often.
_base_ = './resnet50-dct24s_8xb32_in1k.py'

freq = [dict(_base_.freq[0], channels='24D')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
