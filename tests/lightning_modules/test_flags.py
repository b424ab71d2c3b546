"""Flags of a run, for every method: precision, accumulation, memory format, compilation, the optimiser."""

import pytest
import torch
from torch import nn

from lightning_modules import METHODS
from networks.layers.compilation import compile_blocks
from tests.conftest import ROOT
from tests.flag_table import FLAGS, as_documented, cells, row_of
from tests.flags import TOLERANCE, Steps, fit, losses_in, needed, of_options
from tests.twins import cases as all_cases
from tests.twins import data_maker

CASES = [case for case in all_cases() if not case.variant]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data module of a case."""
    with data_maker(tmp_path_factory.mktemp("cache"), captions_per_image=2) as make:
        yield make


@pytest.fixture(scope="module")
def single(data, tmp_path_factory):
    """Losses of a case in float32, computed once."""
    known = {}

    def of(case):
        if case.twin not in known:
            known[case.twin], _ = losses_in("32-true", case, data(case), tmp_path_factory.mktemp("single"))
        return known[case.twin]

    return of


@every_case
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_half_precision_with_a_loss_scaler(case, data, single, tmp_path):
    """No step overflows, and the losses are those of float32."""
    with as_documented(case, "16-mixed"):
        losses, scales = losses_in("16-mixed", case, data(case), tmp_path)
        assert len(set(scales)) == 1
        assert losses == pytest.approx(single(case), rel=TOLERANCE)
        assert single(case)[-1] < 0.999 * single(case)[0]


@every_case
def test_bfloat16(case, data, single, tmp_path):
    with as_documented(case, "bf16-mixed"):
        losses, _ = losses_in("bf16-mixed", case, data(case), tmp_path)
        assert losses == pytest.approx(single(case), rel=TOLERANCE)


@every_case
def test_accumulation_steps_once_for_all_batches(case, data, tmp_path):
    """The second batch meets the weights of the first, the third does not."""
    own = data(case)
    options = {
        "lr": 0.5,
        "lr_pretrained": 0.5,
        "warmup_steps": 0,
        "schedule": "constant",
        **needed(case, own, tmp_path),
    }
    if "fine_tune_epochs" in case.method.options():
        options["lr_first"] = 0.5
    still = {**options, **{name: 0.0 for name in options if name.startswith("lr")}}
    with as_documented(case, "accumulation"):
        moving, fixed = (
            fit(of_options(case, own, **each), own, tmp_path, epochs=2, limit_val_batches=0, accumulate_grad_batches=2)
            for each in (options, still)
        )
        assert moving.losses[:2] == pytest.approx(fixed.losses[:2], rel=1e-5)
        assert moving.losses[2] != pytest.approx(fixed.losses[2], rel=1e-3)


@every_case
def test_convolutions_are_in_channels_last(case, data):
    own = data(case)
    module = case.make(own).train()
    formats = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(
                lambda _, inputs: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    with as_documented(case, "channels_last"):
        module.step_loss(next(iter(own.train_dataloader())))
        assert formats
        assert all(formats)


@every_case
def test_blocks_can_be_compiled(case, data):
    own = data(case)
    batch = next(iter(own.train_dataloader()))
    plain, compiled = case.make(own).train(), case.make(own).train()
    with as_documented(case, "compile"):
        assert compile_blocks(compiled, backend="eager") > 0
        torch.testing.assert_close(compiled.step_loss(batch)[0], plain.step_loss(batch)[0])
        assert compiled.state_dict().keys() == plain.state_dict().keys()


@every_case
def test_the_optimiser_is_fused(case, data, tmp_path):
    seen = []

    class Look(Steps):
        def on_train_start(self, trainer, pl_module):
            seen.append(trainer.optimizers[0].defaults.get("fused"))

    own = data(case)
    module = of_options(case, own, **needed(case, own, tmp_path))
    with as_documented(case, "fused"):
        fit(module, own, tmp_path, max_steps=1, limit_val_batches=0, callbacks=[Look()])
        assert seen == [True]


def test_the_table_has_every_method_and_every_flag():
    rows = {row_of(case) for case in CASES}
    assert {name.removesuffix(" (text)") for name in rows} == set(METHODS)
    assert set(cells()) == {(row, flag) for row in rows for flag in FLAGS}


@pytest.mark.parametrize(("flag", "place"), FLAGS.items())
def test_every_flag_is_tested_where_the_table_is_read(flag, place):
    assert f'as_documented(case, "{flag}")' in (ROOT / "tests" / place).read_text().replace(
        "as_documented(case, strategy)", f'as_documented(case, "{flag}")'
    )
