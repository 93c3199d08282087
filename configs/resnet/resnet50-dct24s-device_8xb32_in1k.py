# DCT-24S, made of uint8 photos on the network's device.
_base_ = './resnet50-dct24s_8xb32_in1k.py'

data_preprocessor = dict(
    type='FreqDataPreprocessor', placement='device', freq=dict(channels='24S', stats='photos-448'))
train_pipeline = [*_base_.train_pipeline[:3], _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
