"""torchattack 1.7.2: NIFGSM, SINIFGSM, TIFGSM and GRA differ from their authors' code.

In nifgsm.py:96, sinifgsm.py:107 and tifgsm.py:121 the decay multiplies the new gradient, not the
sum so far. On a linear network, whose gradient does not turn, NI's tenth gradient is 9 steps and 9
of look-ahead away, but that of the class 9 and 1. In sinifgsm.py:101, `delta.grad` still holds the
copies before. The kernel of tifgsm.py:148-152 is a square root. In gra.py:91, values are compared
instead of signs: without a changed sign GRA moves by the whole budget, but the class by less.
"""

import torch
from torchattack import GRA, NIFGSM

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))
images, labels, points = torch.rand(4, 3, 32, 32) * 0.8 + 0.1, torch.arange(4) % 2, []
network[0].register_forward_pre_hook(lambda layer, inputs: points.append(inputs[0].detach()))
NIFGSM(network, eps=0.1)(images, labels)
print("NIFGSM, tenth gradient, steps away:", (points[9] - images).abs().mean().item() / 0.01)
moved = GRA(network, eps=0.1)(images, labels) - images
print("GRA moves by this share of the budget:", moved.abs().max().item() / 0.1)
