import torch

# more threads than cores slow the small networks here down, and results must not depend on their number
torch.set_num_threads(1)
