"""TransferAttack 2663e4a: VNIFGSM draws neighbours around the point ahead (vmifgsm.py:50).

The authors' code (JHL-HUST/VT, vni_fgsm.py:181) draws them around the iterate, at most beta * eps
away. Run this beside the clone.
"""

import torch
from transferattack.gradient.vnifgsm import VNIFGSM

points = []
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
network[0].register_forward_pre_hook(lambda layer, inputs: points.append(inputs[0].detach()))
VNIFGSM.load_model = lambda self, name: network
images = torch.rand(1, 3, 4, 4)
VNIFGSM("", epsilon=0.1, alpha=0.01, beta=0.1, epoch=1)(images, torch.tensor([0]))
print("Farthest neighbour, beta * eps:", float((torch.stack(points) - images).abs().max()), 0.01)
