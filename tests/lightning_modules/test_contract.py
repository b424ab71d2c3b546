"""What holds for every method; the list of methods is the parameter, so a new one is tested without a line.

A method is made from its twins in experiments/offline, see `tests.twins`.
"""

import copy
import json
import math
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import cli
from core.metric_rows import read_metric_rows
from lightning_modules import METHODS
from lightning_modules.captioning import CaptioningModule
from lightning_modules.classification import ClassificationModule
from lightning_modules.loading import load_module
from lightning_modules.parts.tokens import TokenOptions
from metrics.names import METRICS
from networks.layers.sequences import select_rows, target_mask
from tests.conftest import ROOT
from tests.lightning_modules.boards import BOARDS, DRAWN
from tests.twins import (
    batch_maker,
    cases,
    fitting_twins,
    freezing,
    predicts,
    saved_and_loaded,
    with_padding,
    write_twins,
)
from tests.wandb_records import read_board

CASES = cases()
LEARNING = [case for case in CASES if case.variant in ("", "stored")]
STEPS = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data module and a training batch of a case, made once for all that have the same data."""
    with batch_maker(tmp_path_factory.mktemp("cache"), captions_per_image=1) as make:
        yield make


def step(module, optimizer, batch):
    """One optimiser step; returns the loss before it."""
    optimizer.zero_grad()
    loss, _ = module.step_loss(batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def learning(module):
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def frozen_parts(module):
    """Parts all of whose parameters are frozen, by name."""
    parts = {name: part for name, part in module.named_modules() if next(part.parameters(), None) is not None}
    return {name: part for name, part in parts.items() if not any(one.requires_grad for one in part.parameters())}


def frozen_tensors(module):
    """Names of frozen parameters, and of the buffers beside them."""
    alone = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return alone | {f"{name}.{own}" for name, part in frozen_parts(module).items() for own in part.state_dict()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_twin(method):
    assert fitting_twins(METHODS[method]), f"no experiment in experiments/offline trains {method}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_starts_where_chance_does(case, made):
    """Log V per word, log 2 per label; a distance of codes has no such value and only has to be a number."""
    data, batch = made(case)
    module = case.make(data)
    with torch.no_grad():
        loss = module.step_loss(batch)[0].item()
    if isinstance(module, TokenOptions):
        chance = math.log(data.vocab_size) + module.hparams.get("label_weight", 0.0) * math.log(2)
        assert loss == pytest.approx(chance, rel=0.15)
    elif isinstance(module, ClassificationModule):
        assert loss == pytest.approx(math.log(2), rel=0.15)
    else:
        assert math.isfinite(loss)
        assert loss > 0


@pytest.mark.parametrize("case", [case for case in LEARNING if issubclass(case.method, CaptioningModule)], ids=str)
def test_decoding_step_by_step_scores_as_teacher_forcing_does(case, made):
    data, batch = made(case)
    captioner = case.make(data).eval().captioner
    ids, lengths = batch["caption_ids"], batch["caption_lengths"]
    with torch.no_grad():
        memory = captioner.encode(batch)
        expected = captioner(memory, ids, lengths, batch["image_index"]).logits
        rows, state, scores = select_rows(memory, batch["image_index"]), None, []
        for token in ids[:, :-1].unbind(1):
            logits, state = captioner.step(rows, token, state)
            scores.append(logits)
    found = torch.stack(scores, dim=1)[target_mask(lengths, ids.shape[1])]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_learns_gets_a_gradient_and_what_is_frozen_does_not_move_by_a_bit(case, made):
    data, batch = made(case)
    module = case.make(data).train()
    chosen = learning(module)
    before = copy.deepcopy(module.state_dict())
    optimizer, seen = torch.optim.AdamW(chosen.values(), lr=0.1, weight_decay=0.1), set()
    for _ in range(2):  # what stands before a layer that starts at zero gets its gradient in the second step
        step(module, optimizer, batch)
        seen |= {name for name, one in chosen.items() if one.grad is not None and one.grad.abs().sum() > 0}
    assert set(chosen) - seen == set()
    after, kept = module.state_dict(), frozen_tensors(module)
    assert [name for name in chosen if torch.equal(before[name], after[name])] == []
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []
    for part in (*frozen_parts(module).values(), *module.frozen_modules()):
        acting = [inner for inner in part.modules() if isinstance(inner, (_BatchNorm, nn.Dropout, nn.RNNBase))]
        assert not any(inner.training for inner in acting)


@pytest.mark.parametrize("option", sorted({option for method in METHODS.values() for option in freezing(method)}))
def test_what_shall_freeze_freezes(option, made):
    """In one of the twins at least: a network that is a single layer has nothing to freeze below it."""
    frozen, free = ({case.twin: case for case in CASES if case.variant == name} for name in (option, f"no-{option}"))
    more = [
        frozen_tensors(frozen[twin].make(made(case)[0])) - frozen_tensors(case.make(made(case)[0]))
        for twin, case in free.items()
    ]
    assert any(more)


@pytest.mark.parametrize("case", LEARNING, ids=str)
def test_thirty_steps_on_a_batch_halve_the_loss(case, made):
    """Of labels, what is left above their own entropy: the least that probabilities such as .4 allow."""
    data, batch = made(case)
    module = case.make(data).train()
    least = 0.0
    if isinstance(module, ClassificationModule):
        least = nn.functional.binary_cross_entropy(batch["labels"], batch["labels"]).item()
    optimizer = torch.optim.AdamW(learning(module).values(), lr=2e-2)
    losses = [step(module, optimizer, batch) for _ in range(STEPS + 1)]
    assert losses[-1] - least < (losses[0] - least) / 2, losses


@pytest.mark.parametrize("case", LEARNING, ids=str)
def test_padding_does_not_matter(case, made):
    data, batch = made(case)
    module = case.make(data).eval()
    with torch.no_grad():
        one, other = (module.step_loss(each)[0] for each in with_padding(batch, data.pad_id))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_saved_and_loaded_module_gives_the_same(case, made, tmp_path):
    data, batch = made(case)
    module = case.make(data).train()
    step(module, torch.optim.SGD(learning(module).values(), lr=0.01), batch)
    module.eval()
    again = saved_and_loaded(module, tmp_path / "module.ckpt")
    assert dict(again.hparams) == dict(module.hparams)
    assert learning(again).keys() == learning(module).keys()
    with torch.no_grad():
        assert torch.equal(again.step_loss(batch)[0], module.step_loss(batch)[0])


# through the command line


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of all twins, each trained for an epoch of a few scenes after what it needs."""
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(folder / "cache"))
        patch.delenv("WANDB_MODE")
        for name, line in write_twins(folder).items():
            line = [one for one in line if "fast_dev_run" not in one and one != "--wandb=off"]
            if line[0] == "fit":
                line += ["--wandb=offline", "--tensorboard=true", "--trainer.accumulate_grad_batches=2"]
                line += [f"--trainer.callbacks+={DRAWN[name]}"] if name in DRAWN else []
            assert cli.main(line) == 0
    return folder / "runs"


def check_dashboards(run, expected):
    """W&B, whose records are read back, has everything of a run and its evaluations; TensorBoard has the same."""
    board = read_board(run)
    facts = json.loads((run / "run.json").read_text())
    assert board.run["id"] == facts["wandb_id"]
    settings = ("precision", "seed", "commit", "batch_size", "data_fingerprint", "method", "dataset", "experiment")
    assert all(board.config[name] not in (None, "") for name in settings)
    assert all(f"{part}/class_path" in board.config for part in ("model", "data"))
    assert board.config["trainer/max_epochs"] == 1
    images = {f"{stage}/{name}" for stage in ("val", "test") for name in expected.images}
    if "labels" in expected.tables:
        images.add("test/label_samples")
    tables = {f"{stage}/{name}" for stage in ("val", "test") for name in expected.tables}
    assert board.keys("images") == images
    assert board.keys("table") == tables == board.tables.keys()
    for name in tables:
        assert board.tables[name]["columns"] == expected.tables[name.partition("/")[2]]
    curves = {re.sub("^(label_[a-z0-9]+)/.*", r"\1/", key) for key in board.keys() - images - tables}
    assert curves == expected.curves | {name if "/" in name else f"val/{name}" for name in expected.scores}
    rows = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    for place, (name, row) in enumerate(rows.items()):
        prefix = f"test/baselines/{name}" if place else "test"
        assert {key: board.summary[f"{prefix}/{key}"] for key in row} == pytest.approx(row)
    assert (len(rows) > 1) == expected.baselines
    assert board.summary.keys() >= {f"best/{name}" for name in (*expected.scores, "step") if "/" not in name}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    seen = events.Tags()
    assert images <= set(seen["images"])
    assert {f"{name}/text_summary" for name in tables} <= set(seen["tensors"])
    assert {f"test/{name}" for name in expected.scores if "/" not in name} <= set(seen["scalars"])


def metrics_of(run):
    """Names of all figures that a run and its evaluations wrote."""
    columns, _ = read_metric_rows(run / "metrics.csv")
    rows = [json.loads(path.read_text()) for path in run.glob("eval/*/metrics.json")]
    assert len(rows) == 2
    return {*columns} - {"step", "epoch"} | {name for row in rows for scores in row.values() for name in scores}


TWINS = [case for case in CASES if not case.variant]


@pytest.mark.parametrize("case", TWINS, ids=str)
def test_a_run_is_evaluated_by_its_folder(case, runs, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WANDB_MODE")
    module = load_module(runs / case.twin)
    assert type(module) is case.method
    assert all(value.isfinite().all() for value in module.state_dict().values() if value.is_floating_point())
    for command in ("validate", "test", *(("predict",) if predicts(case.method) else ())):
        assert cli.main([command, "--ckpt_path", str(runs / case.twin)]) == 0, command
    if not predicts(case.method):
        capsys.readouterr()
        assert cli.main(["predict", "--ckpt_path", str(runs / case.twin)]) == 1
        assert "predicts nothing: measure the run with python cli.py test" in capsys.readouterr().err
    check_dashboards(runs / case.twin, BOARDS[case.twin])
    own = [name for name in metrics_of(runs / case.twin) if not name.startswith(("throughput/", "lr-"))]
    assert {re.sub("^(train|val|test)/", "", name) for name in own} <= {item.key for item in METRICS}


@pytest.mark.parametrize("case", LEARNING, ids=str)
def test_mixed_precision_runs(case, runs, monkeypatch, tmp_path):
    """And stored features, which the twins' own runs have not."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CAPTION_CACHE", str(tmp_path / "cache"))
    line = [one.replace(str(tmp_path / "runs"), str(runs)) for one in write_twins(tmp_path)[case.twin]]
    line[line.index("--run_dir") + 1] = str(tmp_path / "run")
    line = [one for one in line if not one.startswith(("--wandb", "--trainer."))]
    if case.variant:  # the other stages' runs have a CNN
        twin = next(one for one in TWINS if one.twin == case.twin)
        changes = {name: value for name, value in case.options.items() if value != twin.options.get(name)}
        line = [*line[:5], f"--data.init_args.encoder={case.data['init_args']['encoder']}"]
        line += [f"--model.init_args.{name}={json.dumps(value)}" for name, value in changes.items()]
    assert cli.main([*line, "--trainer.fast_dev_run=true", "--trainer.precision=bf16-mixed"]) == 0
