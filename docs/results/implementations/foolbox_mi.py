"""foolbox 3.3.4: L-infinity MI-FGSM adds signs of gradients (gradient_descent_base.py:272).

The two pixels have gradients (1, 1), then (-0.1, 1). Divided by their mean absolute value, the sum
of the first pixel is 1 - 0.18 > 0, so MI-FGSM moves it up twice. Sums of signs do not: 1 - 1 = 0.
"""

import foolbox
import torch


class Hill(torch.nn.Module):
    """Logits whose loss rises along the first pixel up to 0.505, and falls slowly after it."""

    def forward(self, x):
        """Return two logits."""
        first, second = x.flatten(1).T
        return torch.stack([-(first - 1.1 * (first - 0.505).relu() + second), 0 * first], 1)


attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=0.01, steps=2)
model, goal = foolbox.PyTorchModel(Hill().eval(), (0, 1)), torch.tensor([0])
print(attack.run(model, torch.full((1, 2), 0.5), foolbox.Misclassification(goal), epsilon=0.1))
print("MI-FGSM: 0.52, 0.52")
