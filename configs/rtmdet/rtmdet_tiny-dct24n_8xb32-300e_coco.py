# RTMDet-tiny on 24 native channels, 24 x 160 x 160: the stock pipeline and then the DCT of 4x4 blocks. The backbone turns the
# channels into pixels and is otherwise the stock one. Stock checkpoints need no training: docs/stock_weights.md.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

custom_imports = dict(imports=['mmfreq.models.det'])
freq = dict(type='FusedBlockDCT', channels='24N', stats='imagenette-224-4x4', block_size=4)
model = dict(
    data_preprocessor=dict(type='FreqDetDataPreprocessor', mean=None, std=None),
    backbone=dict(type='UnpackedCSPNeXt', freq=freq, pixels=_base_.model.data_preprocessor))

train_pipeline = [*_base_.train_pipeline[:-1], freq, _base_.train_pipeline[-1]]
train_pipeline_stage2 = [*_base_.train_pipeline_stage2[:-1], freq, _base_.train_pipeline_stage2[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], freq, _base_.test_pipeline[-1]]
views = _base_.tta_pipeline[1].transforms
tta_pipeline = [
    _base_.tta_pipeline[0], dict(type='TestTimeAug', transforms=[*views[:-1], [freq], views[-1]])]
train_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
ema, switch = _base_.custom_hooks
custom_hooks = [
    ema, dict(switch, switch_pipeline=train_pipeline_stage2), dict(type='NumClassCheckHook')]
default_hooks = dict(input_spec=dict(type='InputSpecHook'))
