# DCT-24S, computed from uint8 pixels on the device of the network.
_base_ = './resnet50-dct24s_8xb32_in1k.py'

data_preprocessor = dict(
    type='FreqDataPreprocessor', placement='device', freq=dict(channels='24S', stats='photos-448'))
load, flip, pack = _base_.train_pipeline[0], _base_.train_pipeline[2], _base_.train_pipeline[-1]
train_pipeline = [load, dict(type='RandomResizedCrop', scale=448), flip, pack]
test_pipeline = [load, dict(type='ResizeEdge', scale=512, edge='short'), _base_.test_pipeline[2], pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
