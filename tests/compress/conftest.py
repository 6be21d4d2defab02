from __future__ import annotations

import torch

# The networks here are so small that threads cost more than they give, above all on a busy machine.
torch.set_num_threads(1)
