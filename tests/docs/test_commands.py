"""Every command line and option that a page, a header, a docstring or a message shows is one that the parsers take."""

import argparse
import contextlib
import io
import re
import runpy
import shutil
import sys
from pathlib import Path

import jsonargparse
import pytest

import cli
import lightning_modules
from commands import recipe
from commands.arguments import Parser
from commands.data_sets import data_class, data_sets
from commands.recipes import document, reading
from commands.trainer import train
from core import renamed
from tests.conftest import ROOT
from tests.docs.texts import (
    PAGES,
    SCRIPTS,
    Text,
    code_of,
    commands,
    flags,
    launches,
    scripts,
    strings_of,
    targets,
    words_of,
)

FOUND = commands()
PLACES = sorted({text.place for text in FOUND})
PLACEHOLDERS = ("X", "COMMAND", "WORDS")
"""What stands for a command in messages."""
CONFIGS = [f"experiments/{name}.yaml" for name in ("ucm_captioning", "emotion_transfer", "attention_rnn")]
"""For commands that find the configuration in a run folder."""
OWN = sorted(cli.COMMANDS)
RESULTS: dict[tuple[str, ...], str | None] = {}
"""What was said of a command line, since many are shown in several places."""


class Parsed(BaseException):
    """The words were accepted; what the command would do is not done."""

    def __init__(self, rest: list[str]) -> None:
        self.rest = rest


def stopping(parse_args):
    """A parser's method that raises `Parsed` once the outermost call of it has accepted the words."""
    depth = 0

    def call(self, *args, **kwargs):
        nonlocal depth
        depth += 1
        try:
            result = parse_args(self, *args, **kwargs)
        finally:
            depth -= 1
        if depth == 0:
            raise Parsed(result[1] if isinstance(result, tuple) else [])
        return result

    return call


def parse_whole(self, args):
    """`argparse.ArgumentParser.parse_args`, which calls `parse_known_args`, with that of argparse."""
    options, rest = argparse.ArgumentParser.parse_known_args(self, args)
    if rest:
        self.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


@pytest.fixture
def parse(monkeypatch, capsys):
    """Function that gives a command line to `cli.main` up to the end of its parser; returns the error, or None."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Parser, "parse_known_args", stopping(argparse.ArgumentParser.parse_known_args))
    monkeypatch.setattr(Parser, "parse_args", stopping(parse_whole))
    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", stopping(jsonargparse.ArgumentParser.parse_args))

    def run(words: list[str]) -> str | None:
        key = tuple(words)
        if key not in RESULTS:
            RESULTS[key] = first_error(words)
        return RESULTS[key]

    def first_error(words: list[str]) -> str | None:
        try:
            code = cli.main(words)
        except Parsed as parsed:
            return run(remaining(words, parsed.rest)) if parsed.rest else None
        except SystemExit as stop:  # --model.help
            code = stop.code or 0
        error = capsys.readouterr().err
        return None if code == 0 else error

    return run


def remaining(words: list[str], rest: list[str]) -> list[str]:
    """A command line that takes the options which a command hands on: `score` to a data set, `resume` to `fit`."""
    if words[0] == "score":
        return ["data", "check", words[words.index("--baselines") + 1], *rest]
    return ["fit", "--config", CONFIGS[0], *rest]


@pytest.fixture(scope="module")
def option_names() -> set[str]:
    """Names of all options of all commands, of the methods and of the data sets."""
    names = {"--help"}
    for command in OWN:
        text = help_of(command)
        names |= set(re.findall(r"--[a-z][\w-]*", text))
    with contextlib.suppress(Parsed), pytest.MonkeyPatch.context() as patch:

        def taken(self, parser, args):
            for action in self._subcommand_parsers["fit"]._actions:
                names.update(action.option_strings)
            raise Parsed([])

        patch.setattr(train.TrainerCLI, "parse_arguments", taken)
        cli.main(["fit"])
    for method in lightning_modules.METHODS.values():
        names |= {f"--model.init_args.{name}" for name in arguments_of(method)}
    for name in data_sets():
        own = arguments_of(data_class(name))
        names |= {f"--data.init_args.{argument}" for argument in own} | {f"--{argument}" for argument in own}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        names |= {text for text in strings_of(path) if text.startswith("--")}
    return names


def help_of(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return text.getvalue()


def arguments_of(cls: type) -> set[str]:
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(cls)
    return {action.dest for action in parser._actions}


def filled(words: list[str]) -> list[str]:
    """Words with something in the place of the names that a reader has to fill in."""
    if words[0] == "data" and words[2:] and words[2] in ("NAME", "X"):
        words = [*words[:2], "coco", *words[3:]]
    for number, word in reversed(list(enumerate(words))):
        if word == "--config" and words[number + 1] in ("OVERLAY.yaml", "X"):
            words = words[:number] + words[number + 2 :]
    return [word for word in words if word != "options"]


def error_of(parse, text: Text, names: set[str]) -> str | None:
    words = filled(words_of(text.text) or ["X"])
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if words[0] in PLACEHOLDERS or words[0].startswith("--"):
        return None
    if words[0] not in cli.TRAINER_COMMANDS and words[0] not in cli.COMMANDS:
        return f"there is no command {words[0]}"
    if "--help" in words or (words[0] in cli.TRAINER_COMMANDS and not {"--config", "--ckpt_path"} & set(given)):
        return unknown(given, names)
    if words[0] in cli.TRAINER_COMMANDS and "--config" not in given:
        errors = [parse([words[0], "--config", config, *words[1:]]) for config in CONFIGS]
        return None if None in errors else errors[0]
    error = parse(words)
    if error and ("arguments are required" in error or "expected the data set's name" in error):
        return unknown(given, names)  # a command that is named, not shown whole
    return error


def unknown(given: list[str], names: set[str]) -> str | None:
    wrong = [flag for flag in given if not known(flag, names)]
    return f"no such option: {', '.join(wrong)}" if wrong else None


def known(flag: str, names: set[str]) -> bool:
    """Whether an option exists; of those of nested data modules the last part is looked at."""
    flag = flag.rstrip(".")
    if flag in names or flag.replace("_", "-") in names:
        return True
    if nested := re.match(r"--(?:data\.init_args\.)?(?:source|target)\.(?:init_args\.)?(\w+)$", flag):
        return f"--data.init_args.{nested[1]}" in names
    return flag in ("--data", "--model", "--config", "--data.class_path", "--model.class_path")


@pytest.mark.parametrize("place", PLACES)
def test_command_lines_are_accepted(parse, option_names, place):
    texts = {text.text: text for text in FOUND if text.place == place}
    errors = {text: error for text in texts if (error := error_of(parse, texts[text], option_names))}
    assert not errors


def test_usage_of_the_commands_is_accepted(parse, option_names):
    texts = [text.rpartition(": ")[2] for text in cli.COMMANDS.values()]
    assert len(texts) == len(OWN)
    errors = {text: error for text in texts if (error := error_of(parse, Text(text, "cli.py"), option_names))}
    assert not errors


def test_options_that_stand_alone_exist(option_names):
    found = flags()
    assert len(found) > 100
    assert not [text for text in found if not known(text.text, option_names)]


def test_old_names_of_options_are_not_used():
    shown = [Text(word, text.place) for text in FOUND for word in words_of(text.text)]
    for text in [*flags(), *shown]:
        option = text.text.partition("=")[0]
        name = option.removeprefix("--model.init_args.")
        assert name == option or name not in renamed.OPTIONS, f"{text.place}: {option}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "migration"], ids=lambda page: page.name)
def test_pages_name_no_old_option(page):
    other = {"width", "hidden", "words", "distinct"}  # they have another meaning, too
    assert not set(code_of(page)[1]) & (set(renamed.OPTIONS) - other)


def test_calls_of_torchrun_are_accepted():
    from torch.distributed.run import get_args_parser

    found = launches()
    assert len(found) > 1
    for text in found:
        options = get_args_parser().parse_args([*words_of(text.text), "cli.py"])
        assert options.training_script == "cli.py", text


def test_make_targets_exist():
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    found = targets()
    assert len(found) > 10
    assert not [text for text in found if text.text not in rules]


SHOWN = scripts()


@pytest.mark.parametrize("file", sorted({file for file, _ in SHOWN}))
def test_command_lines_of_benchmarks_and_scripts_are_accepted(monkeypatch, capsys, file):
    """By the parser of the file itself; one without a parser takes no words."""
    path = ROOT / file
    lines = [text for name, text in SHOWN if name == file]
    assert path.is_file(), lines
    if "parse_args(" not in path.read_text():
        assert not [text for text in lines if words_of(text.text.partition(">")[0])]
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopping(argparse.ArgumentParser.parse_args))
    monkeypatch.syspath_prepend(str(path.parent))
    main = runpy.run_path(str(path))["main"]
    for text in lines:
        monkeypatch.setattr(sys, "argv", [file, *words_of(text.text)])
        try:
            main()
        except Parsed:
            continue
        except SystemExit:
            pytest.fail(f"{text.place}: {file}{text.text}: {capsys.readouterr().err}")


def test_every_benchmark_shows_its_command_line():
    shown = {file for file, text in SHOWN if text.place == file}
    runs = {str(path.relative_to(ROOT)) for path in SCRIPTS if "__main__" in path.read_text()}
    assert runs <= shown


def recipe_of(page: Path, number: int, tmp_path: Path) -> Path:
    """One of the two recipes that a page shows, as a file; the second extends a recipe of ours."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)
    assert len(blocks) == 2
    path = tmp_path / "recipe.yaml"
    path.write_text(blocks[number])
    shutil.copytree(ROOT / "experiments" / "recipes", tmp_path, dirs_exist_ok=True)
    return path


def docstring_recipe(tmp_path: Path) -> Path:
    """The recipe in the docstring of the command."""
    block = (recipe.__doc__ or "").partition("::\n\n")[2].partition("\n\n``command``")[0]
    path = tmp_path / "docstring.yaml"
    path.write_text("\n".join(line[4:] for line in block.splitlines()))
    return path


@pytest.mark.parametrize("source", ["page", "groups", "docstring"])
def test_recipe_that_is_shown_is_accepted(parse, monkeypatch, tmp_path, source):
    monkeypatch.chdir(ROOT)
    page = ROOT / "docs" / "recipes.md"
    path = docstring_recipe(tmp_path) if source == "docstring" else recipe_of(page, int(source == "groups"), tmp_path)
    shown = document.resolve(reading.read_document(path), path, {}, tmp_path / "runs")
    stages = shown.stages
    assert len(stages) > (5 if source == "groups" else 10)
    config = {}
    for stage in stages:
        words = list(stage.command)
        if "--config" in words:
            config[stage.name] = words[words.index("--config") + 1]
        elif words[0] == "test":
            run = Path(words[words.index("--ckpt_path") + 1])
            words = ["test", "--config", config[run.name], *words[1:]]
        assert parse([word.replace(f"{tmp_path}", "") for word in words]) is None, stage.name
    assert shown.summary.metrics
