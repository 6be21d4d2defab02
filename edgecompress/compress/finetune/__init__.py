"""Recovery training: distillation, quantization-aware where the weights are stored small."""

from edgecompress.compress.finetune.batches import Answers
from edgecompress.compress.finetune.judge import Metric
from edgecompress.compress.finetune.loop import distill
from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.finetune.task import Loss, Task
from edgecompress.compress.finetune.user_metric import user_metric

__all__ = ["Answers", "Loss", "Metric", "Recipe", "Task", "distill", "user_metric"]
