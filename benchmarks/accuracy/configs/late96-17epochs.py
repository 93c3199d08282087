# Late entry for 17 epochs, which take about as long as 10 epochs of the RGB network.
_base_ = './late96.py'

epochs = 17
param_scheduler = dict(total_steps=epochs)
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
