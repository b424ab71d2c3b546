import copy

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn

from networks.layers.checkpointing import Runner, checkpointed


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        norms = nn.BatchNorm2d(8), nn.BatchNorm2d(3, momentum=None)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), norms[0], nn.ReLU(), nn.Dropout(0.4), nn.Conv2d(8, 3, 1), norms[1]
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def results(block: nn.Module, runner, image: Tensor, *extra: float) -> dict[str, Tensor]:
    """Output, gradients and buffers after two steps."""
    block, image = copy.deepcopy(block).train(), image.clone().requires_grad_()
    torch.manual_seed(3)
    for _ in range(2):
        output = runner(block, image, *extra)
        output.square().mean().backward()
    gradients = {f"grad {name}": parameter.grad for name, parameter in block.named_parameters()}
    return {"output": output, "image": image.grad, **gradients, **dict(block.named_buffers())}


@pytest.mark.parametrize("kind", ["plain", "mbconv"])
def test_checkpointing_changes_neither_gradients_nor_statistics(kind):
    torch.manual_seed(0)
    if kind == "plain":
        block, image, extra = Block(), torch.randn(4, 3, 8, 8), ()
    else:
        block, image, extra = EfficientNet.from_name("efficientnet-b0")._blocks[2], torch.randn(4, 24, 8, 8), (0.5,)
    plain, again = (results(block, runner, image, *extra) for runner in (Runner(False), checkpointed))
    assert plain.keys() == again.keys()
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], msg=name)
    counts = [value for name, value in again.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 2 for count in counts)


def test_buffers_come_back_when_the_recomputation_fails():
    class Fragile(Block):
        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("second time")
            return super().forward(image)

    block = Fragile()
    output = checkpointed(block, torch.randn(2, 3, 8, 8, requires_grad=True))
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()
    assert len(block.state_dict()) == len(Block().state_dict())
    assert block.layers[1].running_mean is not None


def test_without_gradients_the_block_is_simply_run(monkeypatch):
    monkeypatch.setattr("networks.layers.checkpointing.checkpoint", lambda *_, **__: pytest.fail("checkpointed"))
    block, image = Block(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        checkpointed(block, image)
    checkpointed(block.eval(), image)
