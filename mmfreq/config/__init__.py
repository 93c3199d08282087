"""Reading and writing OpenMMLab configs; knows no host."""
