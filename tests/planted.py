"""Code in a file, which tells when it runs."""

import torch


class Planted(torch.nn.Module):
    """TorchScript that runs when it is read."""

    def forward(self, labels):
        return labels

    @torch.jit.export
    def __getstate__(self):
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool):
        self.training = state
        print("planted code runs")
