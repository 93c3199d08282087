# The network of rgb.py on 1,000 images of clothes. Sixty epochs are 960 iterations, about the 1,100 of rgb.py.
_base_ = './rgb.py'

epochs = 60
train_dataloader = dict(dataset=dict(data_root='data/clothing10'))
val_dataloader = dict(dataset=dict(data_root='data/clothing10'))
test_dataloader = val_dataloader
param_scheduler = dict(total_steps=epochs)
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
default_hooks = dict(input_spec=dict(type='InputSpecHook'), logger=dict(interval=8))
