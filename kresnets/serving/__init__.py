"""A server to try an exported model with: TF Serving's REST paths, and a page to drop images on."""
