"""Self-critical training (Rennie et al. 2017): captions are drawn from the model, and good ones made likelier.

Letters: B images, K captions drawn of each, N = B K captions, L tokens of the longest, M scored tokens.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from core.batch import Batch
from core.errors import UserError
from lightning_modules.parts.rewards import CaptionReward
from lightning_modules.parts.tokens import TokenOptions
from networks.captioners.base import Captioner
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import CaptionOutput, Memory
from networks.losses.policy import advantages, policy_loss

if TYPE_CHECKING:
    TokenMixin = TokenOptions
else:
    TokenMixin = object  # see `lightning_modules.parts.mixin`

Baseline = Literal["samples", "greedy"]


class SelfCriticalOptions(TokenMixin):
    """A captioner that can be trained on the metrics of what it writes, after it has been trained on captions.

    Start from a trained run (``init_from``), with a small learning rate and without dropout: captions are drawn from,
    and scored by, the network as it is in training.

    Args:
        reward_samples: captions drawn of each image and step; 0: training on the captions of the data.
        reward_baseline: what a caption must surpass: the mean of the image's other ``samples``, or the ``greedy``
            caption.
        reward_cider_d: weight of CIDEr-D in the reward.
        reward_bleu4: weight of the caption's BLEU-4.
        reward_truth: weight of the fact F1; synthetic scenes only.
        caption_loss: weight of the loss on the captions of the data, beside the reward.
    """

    captioner: Captioner

    def __init__(
        self,
        *,
        reward_samples: int = 0,
        reward_baseline: Baseline = "samples",
        reward_cider_d: float = 1.0,
        reward_bleu4: float = 0.0,
        reward_truth: float = 0.0,
        caption_loss: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reward_samples, self.reward_baseline = reward_samples, reward_baseline
        self.reward_cider_d, self.reward_bleu4, self.reward_truth = reward_cider_d, reward_bleu4, reward_truth
        self.caption_loss = caption_loss
        self._reward: CaptionReward | None = None

    def check_settings(self) -> None:
        """Also checks the options of the reward."""
        super().check_settings()
        if self.reward_baseline not in get_args(Baseline):
            raise UserError(
                f"reward_baseline is {self.reward_baseline!r}: expected one of {', '.join(get_args(Baseline))}"
            )
        least = 2 if self.reward_baseline == "samples" else 1
        if self.reward_samples and self.reward_samples < least:
            raise UserError(
                f"reward_samples is {self.reward_samples}: expected {least} or more with "
                f"reward_baseline={self.reward_baseline}, or 0"
            )
        weights = {name: getattr(self, name) for name in ("reward_cider_d", "reward_bleu4", "reward_truth")}
        if self.reward_samples and not any(weights.values()):
            raise UserError(
                f"reward_samples is {self.reward_samples}, but all weights are 0: set one of {', '.join(weights)}"
            )
        if self.reward_samples and self.reward_truth and not self.data.scenes("train"):
            raise UserError(f"reward_truth is {self.reward_truth}: only synthetic scenes have known facts; set it to 0")

    def on_fit_start(self) -> None:
        """Counts the references of the training images, once."""
        super().on_fit_start()
        if self.reward_samples:
            self._reward = CaptionReward(
                references={name: texts for name, texts in self.data.references("train").items() if texts},
                scenes=self.data.scenes("train") if self.reward_truth else {},
                cider_d=self.reward_cider_d,
                bleu4=self.reward_bleu4,
                truth=self.reward_truth,
            )

    def self_critical_loss(self, batch: Batch, memory: Memory) -> tuple[Tensor, int]:
        """Minus the mean reward, and over how many tokens its gradient is a mean.

        Args:
            batch: the batch.
            memory: memory of its B images, under the conditions that captions are drawn under.
        """
        images = len(batch["image_id"])
        drawn = decode(self.captioner, memory, self._sampling())
        rewards = self._rewards(batch, drawn)
        expected = None
        if self.reward_baseline == "greedy":
            greedy = decode(self.captioner, memory, DecodingSettings(max_tokens=self.max_tokens))
            expected = self._rewards(batch, greedy).squeeze(1)
            self.log("train/greedy_reward", expected.mean(), batch_size=images)
        output, lengths = self._scored(memory, drawn)
        log_prob = output.logits.log_softmax(dim=1).gather(1, output.targets.unsqueeze(1)).squeeze(1)
        advantage = advantages(rewards, expected).flatten()
        loss = policy_loss(log_prob, lengths, advantage, rewards.flatten())
        self.log("train/reward", rewards.mean(), prog_bar=True, batch_size=images)
        self.log("train/sample_length", lengths.float().mean(), batch_size=images)
        return loss, len(log_prob)

    def _sampling(self) -> DecodingSettings:
        return DecodingSettings(sample=True, num_captions=self.reward_samples, max_tokens=self.max_tokens)

    def _rewards(self, batch: Batch, found: Hypotheses) -> Tensor:
        """Rewards of captions, `(B, K)`."""
        assert self._reward is not None, "on_fit_start() comes first"
        images, count = found.lengths.shape
        tokens = found.token_ids.flatten(0, 1).tolist()
        names = [name for name in batch["image_id"] for _ in range(count)]
        ended = [self.captioner.eos_id in row for row in tokens]
        values = self._reward(names, self.decoded(tokens), ended)
        return torch.tensor(values, dtype=torch.float32, device=found.log_prob.device).view(images, count)

    def _scored(self, memory: Memory, drawn: Hypotheses) -> tuple[CaptionOutput, Tensor]:
        """Scores of the tokens drawn, with gradients, and the number of them in each caption, `(N,)`.

        Tokens that are never drawn have no score, as when they are drawn.
        """
        captioner = self.captioner
        images, count, _ = drawn.token_ids.shape
        first = drawn.token_ids.new_full((images * count, 1), captioner.bos_id)
        tokens = torch.cat([first, drawn.token_ids.flatten(0, 1)], dim=1)
        lengths = drawn.lengths.flatten()
        index = torch.arange(images, device=tokens.device).repeat_interleave(count)
        output: CaptionOutput = captioner(memory, tokens, lengths + 1, index)
        never = [i for i in (captioner.bos_id, captioner.pad_id, captioner.unk_id) if i is not None]
        banned = torch.zeros(output.logits.shape[1], dtype=torch.bool)
        banned[never] = True
        output.logits = output.logits.float().masked_fill(banned.to(tokens.device), -torch.inf)
        return output, lengths
