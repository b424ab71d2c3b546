"""The study of a sweep: Optuna chooses settings, stops bad trials and remembers everything in one file."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from commands.sweeps.document import Parameter, Sweep, Value
from core.errors import UserError

FILE = "study.db"
_MADE_FROM = "sweep"
_REASON = "reason"


def open_study(sweep: Sweep, out: Path, seed: int) -> optuna.Study:
    """Opens the study in a folder, or begins one.

    Args:
        sweep: what is searched.
        out: folder of the sweep.
        seed: seed of the choice of settings.

    Raises:
        UserError: the folder holds the study of another sweep, or the file is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = out / FILE
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=sweep.name,
            direction="maximize" if sweep.maximize else "minimize",
            load_if_exists=True,
        )
        done = len(study.trials)
    except Exception as error:  # of SQLAlchemy, SQLite or Optuna, by the kind of damage
        raise UserError(
            f"{path} cannot be read as a study ({' '.join(str(error).split())[:200]}); give another --out"
        ) from error
    made_from = study.user_attrs.get(_MADE_FROM)
    if made_from is not None and made_from != sweep.fingerprint():
        raise UserError(f"{path} is the study of another sweep than the file describes now: give another --out")
    if made_from is None:
        for settings in grid(sweep) if sweep.method == "grid" else ():
            study.enqueue_trial(settings)
        study.set_user_attr(_MADE_FROM, sweep.fingerprint())
    study.sampler, study.pruner = make_sampler(sweep, seed + done), _pruner(sweep)
    return study


def suggest(sweep: Sweep, trial: Trial) -> dict[str, Value]:
    """The settings of a trial, all searched options in the order of the file."""
    return {one.name: _value(one, trial) for one in sweep.parameters}


def unfinished(study: optuna.Study) -> list[Trial]:
    """Trials that were cut off, to be resumed, the oldest first."""
    return [Trial(study, one._trial_id) for one in study.get_trials(states=(TrialState.RUNNING,))]


def report(study: optuna.Study, trial: Trial, values: Sequence[float]) -> bool:
    """Tells the study what a trial has logged so far; whether it should be stopped.

    Args:
        study: study of the trial.
        trial: that is running.
        values: values of the metric, one for each validation, from the first on.
    """
    known = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    stop = False
    for number, value in enumerate(values, 1):
        if number not in known:
            trial.report(value, number)
            stop = stop or trial.should_prune()
    return stop


def finish(
    study: optuna.Study, trial: Trial, values: Sequence[float], *, failed: str = "", pruned: bool = False
) -> None:
    """Closes a trial.

    Args:
        study: study of the trial.
        trial: that has ended.
        values: values of the metric, one for each validation; the best one counts.
        failed: why it failed; empty when it did not.
        pruned: it was stopped because others were better.
    """
    if failed:
        trial.set_user_attr(_REASON, failed)
        study.tell(trial, state=TrialState.FAIL)
    elif pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, best(study, values))


def best(study: optuna.Study, values: Sequence[float]) -> float:
    """The best of some values."""
    return (max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min)(values)


def value_of(study: optuna.Study, trial: FrozenTrial) -> float | None:
    """Value of a trial; of one that was stopped, its best so far."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    return best(study, list(trial.intermediate_values.values())) if trial.intermediate_values else None


def reason(trial: FrozenTrial) -> str:
    """Why a trial failed."""
    return str(trial.user_attrs.get(_REASON, ""))


def importances(study: optuna.Study) -> Mapping[str, float]:
    """How much of the variance of the metric each setting explains (fANOVA); empty while too little is known."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4 or len({one.value for one in done}) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (ValueError, RuntimeError):  # every setting has one value, or they explain nothing
        return {}


def _value(one: Parameter, trial: Trial) -> Value:
    if one.choices is not None:
        chosen: Value = trial.suggest_categorical(one.name, one.choices)
        return chosen
    if one.whole:
        return trial.suggest_int(one.name, int(one.low), int(one.high), step=int(one.step or 1), log=one.log)
    return trial.suggest_float(one.name, one.low, one.high, step=one.step, log=one.log)


def make_sampler(sweep: Sweep, seed: int) -> optuna.samplers.BaseSampler:
    """Chooses the settings of trials: a tree-structured Parzen estimator (Bergstra et al. 2011), or chance."""
    if sweep.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # trials that run at the same time would choose the same settings
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constant_liar=True)


def grid(sweep: Sweep) -> list[dict[str, Value]]:
    """All combinations of the values of a grid."""
    names = [one.name for one in sweep.parameters]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*map(_values, sweep.parameters))]


def _values(one: Parameter) -> Sequence[Value]:
    if one.choices is not None:
        return one.choices
    step = one.step or 1
    values = [one.low + place * step for place in range(int((one.high - one.low) / step + 1e-9) + 1)]
    return [int(value) for value in values] if one.whole else values


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    if sweep.min_iter is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=sweep.min_iter, reduction_factor=sweep.eta)
