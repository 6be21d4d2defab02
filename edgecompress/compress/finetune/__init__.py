"""Recovery training: distillation, quantization-aware where the weights are stored small."""

from edgecompress.compress.finetune.loop import distill
from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.finetune.task import Loss, Task

__all__ = ["Loss", "Recipe", "Task", "distill"]
