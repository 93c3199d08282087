# The gate of gate.py, trained for 17 epochs.
_base_ = './gate.py'

epochs = 17
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=epochs, T_max=epochs - 1)]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
