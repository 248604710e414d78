"""What this machine has: memory, GPUs, model files, downloads."""
