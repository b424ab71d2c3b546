"""Policy gradient: what raises the expected reward of captions that were drawn from the model.

Letters: B images, K captions drawn of each, N = B K captions, M scored tokens.
"""

import torch
from torch import Tensor


def advantages(rewards: Tensor, baseline: Tensor | None = None) -> Tensor:
    """How much better each caption is than what is expected of its image.

    Args:
        rewards: rewards of the captions drawn, `(B, K)`.
        baseline: reward that is expected of each image, such as that of its greedy caption (Rennie et al. 2017),
            `(B,)`; None: the mean of the image's other captions (leave-one-out, Kool et al. 2019), which needs K of 2
            or more. Neither depends on the caption itself, so that the gradient has no bias.

    Returns:
        `(B, K)`.

    >>> advantages(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
    [[-3.0, -1.5, 4.5]]
    """
    if baseline is not None:
        return rewards - baseline.unsqueeze(1)
    count = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (count / (count - 1))


def policy_loss(log_prob: Tensor, tokens: Tensor, advantage: Tensor, reward: Tensor) -> Tensor:
    """Minus the mean reward, with the gradient of REINFORCE (Williams 1992), per token.

    Args:
        log_prob: log-probability of every token drawn, in the order of the captions, `(M,)`, with gradients.
        tokens: number of tokens of each caption, `(N,)`, long; they sum to M.
        advantage: advantage of each caption, `(N,)`.
        reward: reward of each caption, `(N,)`.

    Returns:
        A scalar. Its value is minus the mean of `reward`, its gradient that of the mean over all tokens of
        ``-advantage * log_prob``.
    """
    weight = torch.repeat_interleave(advantage, tokens, output_size=len(log_prob))
    surrogate = -(weight * log_prob).mean()
    return surrogate - surrogate.detach() - reward.mean()
