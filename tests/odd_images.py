"""Images such as no camera takes of a product."""

import torch


def odd_images(count, size, seed):
    """(N, 3, size, size) in [-1, 1]: black, white, and `count` of each other kind."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=draws)
    constant = torch.rand(count, 3, 1, 1, generator=draws) * 2 - 1
    spot = torch.full_like(noise, -1.0)
    spot[:, :, size // 2, size // 3] = 1
    both = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, size, size)
    return torch.cat([
        both, constant.expand_as(noise), noise.clamp(-1, 1), noise.sign(),
        (noise / 3).cumsum(3).clamp(-1, 1), spot])
