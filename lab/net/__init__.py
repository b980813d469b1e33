"""Networks of stacked Sessions: layers, parameter buffers, optimisers and action distributions."""
