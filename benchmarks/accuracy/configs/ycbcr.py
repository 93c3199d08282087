# YCbCr pixels. Mean and deviation were measured on the training images.
_base_ = './rgb.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
data_preprocessor = dict(mean=[115.5, 124.3, 129.1], std=[67.9, 17.7, 15.6], to_rgb=False)

ycbcr = dict(type='YCbCr')
train_pipeline = [*_base_.train_pipeline[:3], ycbcr, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], ycbcr, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
