"""torchattack 1.7.2: NIFGSM, SINIFGSM, TIFGSM and GRA differ from their authors' code.

In nifgsm.py:96, sinifgsm.py:107 and tifgsm.py:121 the decay multiplies the new gradient, not the
sum so far. So a decay has no effect on TIFGSM, and the look-ahead of NIFGSM does not grow: on a
linear network NI's tenth gradient is 9 steps and 9 of look-ahead away. In sinifgsm.py:101,
`delta.grad` still holds the copies before. In gra.py:91, values are compared instead of signs: on a
linear network no sign changes, and GRA moves by the whole budget, but the class by less.
"""

import torch
from torchattack import GRA, NIFGSM, TIFGSM

torch.manual_seed(0)
images, labels = torch.rand(4, 3, 32, 32) * 0.8 + 0.1, torch.arange(4)
layers = torch.nn.Conv2d(3, 8, 5), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(6272, 4)
network, linear = (
    torch.nn.Sequential(*layers),
    torch.nn.Sequential(layers[2], torch.nn.Linear(3072, 2)),
)
first, second = (TIFGSM(network, decay=decay)(images, labels) for decay in (0.0, 1.0))
print("TIFGSM is the same with decay 0 and 1:", torch.equal(first, second))
moved = GRA(linear, eps=0.05)(images, labels % 2) - images
print("GRA moves by this share of the budget:", moved.abs().max().item() / 0.05)
linear.register_forward_pre_hook(lambda layer, inputs: points.append(inputs[0].detach()))
points, words = [], {"eps": 1.0, "alpha": 0.01, "clip_min": -9, "clip_max": 9}
NIFGSM(linear, **words)(images, labels % 2)
print("NIFGSM, tenth gradient, steps away:", (points[9] - images).abs().mean().item() / 0.01)
