"""edgecompress: a trained model, some data and a device in; a model that provably fits out."""

__version__ = "0.1.0"
