"""Training: samples and pairs to a model, in two phases, on one process or on Ray Train."""
