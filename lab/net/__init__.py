"""Networks of stacked Sessions: layers, parameter buffers, optimizers and action distributions."""
