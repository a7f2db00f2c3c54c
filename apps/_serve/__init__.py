"""The rooms of apps/serve.py: tensors from and to JSON, versions, batches, the web."""
