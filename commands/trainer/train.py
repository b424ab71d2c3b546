"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's command line with run folders and exact resume."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger

import datamodules  # noqa: F401  # its classes may be named by class_path
from callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint, best_checkpoint
from callbacks.dashboard import Dashboard
from callbacks.health import HealthWatch
from callbacks.predictions import PredictionWriter
from callbacks.progress import JsonLines, ProgressBar
from callbacks.report import RunReport
from callbacks.stop_signals import StopSignals
from callbacks.throughput import Throughput
from commands.trainer import config_files, runs
from commands.trainer.dashboards import add_dashboard_options, dashboards_of, labels_of
from commands.trainer.memory import find_batch_size, out_of_memory, save_batch_size
from commands.trainer.mistakes import mistake_behind
from commands.trainer.old_names import NewNames
from commands.trainer.parser import OneLineParser
from commands.trainer.quiet import quieten
from commands.trainer.refused import check_checkpoint, check_sharding, check_strategy, check_trainer
from commands.trainer.speed import MatmulPrecision, compile_model, set_matmul_precision
from core.collection import paused_collection
from core.errors import Interrupted, UserError
from core.files import write_text
from core.text import divert, say, say_record
from core.trust import remember
from datamodules.base import CaptionDataModule
from lightning_modules.base import DATA_FACTS, BaseModule
from reporting.background import Background
from reporting.loggers import Dashboards, evaluation_loggers, make_loggers, own_wandb_run, wandb_id_of


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` and ``run.json`` into the folder of a new run; a resumed run keeps its own."""

    noted: Mapping[str, Any] = {}
    """Further entries of ``run.json``."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Saves once, on the first process."""
        if self.already_saved or stage != "fit" or not trainer.is_global_zero:
            return
        self.already_saved = True
        folder = Path(trainer.default_root_dir)
        if not (folder / "config.yaml").exists():
            runs.write_facts(folder, wandb_id_of(trainer.loggers), **self.noted)
            # last, since a folder with a configuration is a run that can be resumed
            write_text(folder / "config.yaml", self.parser.dump(self.config, skip_unset=False))
            remember(folder / "config.yaml")


class TrainerCLI(LightningCLI):
    """Lightning's command line; config and flags rule, a checkpoint only restores state."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keeps the arguments as they were typed."""
        self._args: list[str] = list(sys.argv[1:] if args is None else args)
        super().parse_arguments(parser, args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's own options and the links from data facts to the module's arguments."""
        add = parser.add_argument
        add("--run_dir", type=str | None, default=None, help="run folder; by default runs/EXPERIMENT/TIME")
        add_dashboard_options(parser)
        add("--checkpoint_steps", type=int | None, default=None, help="write last.ckpt every so many optimiser steps")
        add(
            "--trust",
            action="store_true",
            help="accept classes from outside this project in the configuration of a run; their code is run",
        )
        add("--find_batch_size", type=bool, default=False, help="fit: find the largest batch size that fits first")
        add(
            "--matmul_precision",
            type=MatmulPrecision,
            default="highest",
            help="precision of float32 matrix products on a GPU; high: TF32",
        )
        add("--compile", type=bool, default=False, help="fit: compile the network's blocks (torch.compile)")
        add("--checkpoint_minutes", type=float, default=10.0, help="write last.ckpt every so many minutes")
        add("--report", type=bool, default=True, help="write report.html into the run folder at the end")
        parser.set_defaults({"trainer.log_every_n_steps": 10})
        for fact in DATA_FACTS:
            parser.link_arguments("data", f"model.init_args.{fact}", compute_fn=_reader(fact), apply_on="instantiate")

    signals: ClassVar[StopSignals]
    output: ClassVar[contextlib.ExitStack]
    """Ended before the last lines are printed."""
    last: LastCheckpoint | None = None

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration alone, whatever the checkpoint's hyper-parameters are."""

    def before_instantiate_classes(self) -> None:
        """Finds the run folder and the checkpoint, before anything slow happens."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if (config["trainer"]["accumulate_grad_batches"] or 0) < 1:
            raise UserError("trainer.accumulate_grad_batches is below 1: expected the number of batches for each step")
        check_strategy(config["trainer"]["strategy"])
        if self.subcommand == "fit":
            check_trainer(config["trainer"])
        if config["quiet"] or config["json_lines"]:
            self.output.enter_context(divert(records=config["json_lines"]))
        if "verbose" in config:
            config["verbose"] = False  # RunReport prints the table
        config["weights_only"] = True
        set_matmul_precision(config["matmul_precision"])
        writes = not config["trainer"]["fast_dev_run"]
        self.run_dir, checkpoint = runs.locate(
            self.subcommand, config["run_dir"], config["ckpt_path"], runs.config_files(self._args), writes
        )
        if checkpoint is None and config["trainer"]["enable_checkpointing"] is False and writes:
            runs.check_unused(self.run_dir)
        # the saved configuration is that of an experiment, wherever it runs
        config["run_dir"] = None
        config["trust"] = False
        config["ckpt_path"] = None if checkpoint is None else str(checkpoint)
        self._saved_config = config.clone()
        self._trained_in = self.run_dir if checkpoint is None else runs.run_of(checkpoint)
        self._saved_config["ckpt_path"] = None
        self._saved_config["find_batch_size"] = False  # config.yaml has the size that is found

    def before_fit(self) -> None:
        """Finds the batch size and compiles, if that is wanted.

        Raises:
            UserError: see `commands.trainer.memory.find_batch_size`; or there are several processes.
        """
        config = self.config["fit"]
        assert isinstance(self.model, BaseModule)
        assert isinstance(self.datamodule, CaptionDataModule)
        check_sharding(self.model, self.trainer)
        if config["find_batch_size"] and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # debug connector
            if self.trainer.world_size > 1:
                raise UserError(
                    "find_batch_size=true with several processes: find the size with --trainer.devices=1, then pass it "
                    "as --data.init_args.batch_size, which counts the images of each process"
                )
            size = find_batch_size(self.model, self.datamodule, self.config_init["fit"]["trainer"])
            save_batch_size(self._saved_config, size)
        if config["compile"]:
            compile_model(self.model)

    def _run_subcommand(self, subcommand: str) -> None:
        """Looks at checkpoints that libraries read by themselves; says what to change when the memory runs out."""
        if (checkpoint := self.config[subcommand]["ckpt_path"]) is not None:
            check_checkpoint(Path(checkpoint), self.trainer, trains=subcommand == "fit")
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            mistake = out_of_memory(error, self.config[subcommand])
            if mistake is None:
                raise
            raise mistake from error

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer.

        Raises:
            UserError: one of them refuses a value.
        """
        try:
            with paused_collection():
                super().instantiate_classes()
        except ValueError as error:
            cause: BaseException = error
            while (inner := cause.__cause__ or cause.__context__) and not isinstance(cause, UserError):
                cause = inner
            if isinstance(cause, UserError) or not isinstance(cause, ValueError):
                raise
            raise UserError(f"a value is refused: {cause} (CAPTION_DEBUG=1 shows by what)") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what every run has: its folder, checkpoints, loggers, report."""
        assert self.subcommand is not None
        if self.subcommand == "predict" and type(self.model).predict_step is LightningModule.predict_step:
            raise UserError("this method predicts nothing: measure the run with python cli.py test --ckpt_path RUN")
        config = self.config[self.subcommand]
        settings = dict(self.config_init[self.subcommand]["trainer"])
        settings |= {"default_root_dir": str(self.run_dir), "use_distributed_sampler": False}
        fast = bool(settings.get("fast_dev_run"))
        given = _as_list(settings["callbacks"])
        own: list[Callback] = [PredictionWriter(), RunReport(), self.signals]
        own[:0] = self._progress(settings, given)  # a bar lets go of the terminal before the report
        saves = self.subcommand == "fit" and not fast and settings.get("enable_checkpointing") is not False
        if saves:
            assert isinstance(self.model, BaseModule)
            folder = self.run_dir / "checkpoints"
            steps, minutes = config["checkpoint_steps"], config["checkpoint_minutes"]
            self.last = LastCheckpoint(folder / "last.ckpt", every_n_steps=steps, minutes=minutes, signals=self.signals)
            own += [best_checkpoint(folder, self.model.monitor), self.last]
        if self.subcommand == "fit" and not fast:
            saving = SaveRunConfig(self._parser(self.subcommand), self._saved_config)
            own.append(saving)
            settings["logger"] = self._loggers(settings.get("logger"))
            saving.noted = {"dashboard": labels_of(self._dashboards(self.run_dir))}
        elif self.subcommand != "fit":
            settings["logger"] = self._evaluation_loggers(settings.get("logger")) or False
        if not fast:
            own += self._watchers(given)
        settings["callbacks"] = [*given, *own]
        settings["enable_checkpointing"] = saves
        settings["enable_model_summary"] = bool(settings.get("enable_model_summary"))  # RunReport has one line
        settings["plugins"] = [*_as_list(settings.get("plugins")), AtomicCheckpointIO()]
        try:
            return Trainer(**settings)
        except (ValueError, TypeError) as error:
            raise UserError(f"trainer: {error}") from error

    def _progress(self, settings: dict[str, Any], given: Sequence[Callback]) -> list[Callback]:
        """What shows how far a run is."""
        config = self.config[str(self.subcommand)]
        if config["quiet"] or config["json_lines"]:
            settings["enable_progress_bar"] = False
            return [JsonLines()] if config["json_lines"] else []
        shown = settings.get("enable_progress_bar") is not False
        return [ProgressBar()] if shown and not any(isinstance(item, AnyProgressBar) for item in given) else []

    def _watchers(self, given: Sequence[Callback]) -> list[Callback]:
        """What describes a run beside its results."""
        if self.subcommand == "predict":
            return [HealthWatch()]
        found: list[Callback] = [
            HealthWatch(),
            Dashboard(artifacts=self.config[str(self.subcommand)]["wandb_artifacts"]),
        ]
        if self.subcommand == "fit" and not any(isinstance(item, LearningRateMonitor) for item in given):
            found.append(LearningRateMonitor())
        if self.subcommand == "fit" and not any(isinstance(item, Throughput) for item in given):
            found.append(Throughput())
        return found

    def _loggers(self, given: Logger | Sequence[Logger] | bool | None) -> list[Logger]:
        """The CSV file always; loggers named in the configuration replace W&B and TensorBoard."""
        named = [logger for logger in _as_list(given) if isinstance(logger, Logger)]
        dashboards = self._dashboards(self.run_dir, off=bool(named) or given is False)
        return [*make_loggers(self.run_dir, dashboards), *(Background(logger) for logger in named)]

    def _evaluation_loggers(self, given: Logger | Sequence[Logger] | bool | None) -> list[Logger]:
        """Those of the training run, which gets the figures of its evaluations."""
        fast = self.config[str(self.subcommand)]["trainer"]["fast_dev_run"]
        if self.subcommand == "predict" or fast or given not in (None, True) or self._trained_in is None:
            return []
        return evaluation_loggers(self._trained_in, self._dashboards(self._trained_in))

    def _dashboards(self, run: Path, *, off: bool = False) -> Dashboards:
        config = self.config[str(self.subcommand)].as_dict()
        return dashboards_of(config, run, runs.config_files(self._args), off=off)


def _reader(fact: str) -> Any:
    """Function that reads one fact from the data module; cheap properties only."""
    return lambda data: getattr(data, fact, None)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def main(args: Sequence[str]) -> int:
    """Runs one of Lightning's subcommands.

    Args:
        args: the subcommand and its options.

    Raises:
        UserError: an option, a file or a value is wrong.
    """
    quieten()
    trust = "--trust" in args
    args = runs.with_saved_config(list(args))
    config_files.check_files(runs.config_files(args), trust)
    config_files.check_words(args)
    if any(".dict_kwargs" in arg for arg in args):
        raise UserError("dict_kwargs is not accepted, since nobody checks its keys; use init_args")
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    signals = StopSignals()
    with signals.installed():
        try:
            with (
                runs.ownership(),
                NewNames() as names,
                contextlib.ExitStack() as output,
                own_wandb_run(),
                _told_by(names),
            ):
                cli = _run(names.arguments(args), signals, output)
        except Interrupted as stop:
            raise runs.interrupted(stop) from None
    if cli.trainer.is_global_zero and not cli.trainer.fast_dev_run:  # type: ignore[attr-defined]  # debug connector
        _conclude(cli, cli.config[str(cli.subcommand)])
    if cli.last is not None and (diverged := cli.last.losses.diverged):
        raise UserError(diverged)
    return 0


def _conclude(cli: TrainerCLI, config: Mapping[str, Any]) -> None:
    """Says where the run is and writes its report."""
    machine = bool(config["json_lines"])
    if not machine:
        say(f"run folder: {cli.run_dir}")
    report = _write_report(cli) if config["report"] else None
    if machine:
        say_record({"event": "end", "run": str(cli.run_dir), "report": None if report is None else str(report)})
    elif report is not None:
        say(f"report: {report}")


def _write_report(cli: TrainerCLI) -> Path | None:
    """Writes the report of the run; what fails costs a line, not the run."""
    run = cli.run_dir.parent.parent if cli.run_dir.parent.name == "eval" else cli.run_dir
    if not (run / "config.yaml").is_file() or os.environ.get("CAPTION_REPORT") == "off":
        return None
    from commands.report import write_report
    from commands.run_report.content import LiveData

    try:
        return write_report(run, live=LiveData(cli.run_dir, cli.datamodule))
    except Exception as error:  # results are written; a page about them is no reason to fail
        if os.environ.get("CAPTION_DEBUG"):
            raise
        say(f"warning: no report was written ({' '.join(str(error).split())})", err=True)
        return None


@contextlib.contextmanager
def _told_by(names: NewNames) -> Iterator[None]:
    """Errors name the files that were given, not their copies."""
    try:
        yield
    except UserError as error:
        if (text := names.original(str(error))) == str(error):
            raise
        raise UserError(text) from error


def _run(args: list[str], signals: StopSignals, output: contextlib.ExitStack) -> TrainerCLI:
    """Builds everything and runs the subcommand; what is the user's mistake becomes a ``UserError``."""
    try:
        # a parser for each subcommand would take a third of a second
        only = {args[0]: LightningCLI.subcommands()[args[0]]}
        own = {"signals": signals, "output": output, "subcommands": staticmethod(lambda: only)}
        run: type[TrainerCLI] = type("RunCLI", (TrainerCLI,), own)
        return run(
            BaseModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_class=OneLineParser,
            parser_kwargs={"parser_mode": "omegaconf+"},
            seed_everything_default=42,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=None if args == sys.argv[1:] else args,
        )
    except Exception as error:
        mistake = mistake_behind(error, runs.config_files(args))
        if mistake is None:
            raise
        raise mistake from error
