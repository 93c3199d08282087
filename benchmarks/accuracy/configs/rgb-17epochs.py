# The RGB network for as many epochs as late96-17epochs.py.
_base_ = './rgb.py'

epochs = 17
param_scheduler = dict(total_steps=epochs)
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
