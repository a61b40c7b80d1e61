"""The form of the code, measured: short lines, small cells, few parameters, whole sentences."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "distillnb").glob("[a-z]*.py"))
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)

WIDEST = 120  # columns
MOST = 10  # parameters of a function
MANY_PARAMETERS = {  # loops that are compiled know only arrays and numbers; a door's settings are what users choose
    "_compiled_steps", "sgd_epoch", "_strongest_windows", "DistilledClassifier.__init__", "any_teacher", "label_texts",
    "label_partitions",
}


def definitions(tree, prefix=""):
    """Name and node of every function and class: methods as Class.method, functions in functions as f.<locals>.g."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}." + "<locals>." * isinstance(node, ast.FunctionDef))
        else:
            yield from definitions(node, prefix)


def parameters(function):
    """How many parameters a function has, `self` and `cls` not counted."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def own_lines(path):
    """Number and text of the lines that somebody wrote: `__all__` is nbdev's."""
    text = path.read_text()
    made = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            made |= set(range(node.lineno, node.end_lineno + 1))
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if number not in made]


@each_module
def test_lines_are_short(path):
    wide = {number: len(line) for number, line in own_lines(path) if len(line) > WIDEST}
    assert not wide, f"columns by line: {wide}"


@each_module
def test_functions_take_few_parameters(path):
    many = {name: parameters(node) for name, node in definitions(ast.parse(path.read_text()))
            if not isinstance(node, ast.ClassDef) and parameters(node) > MOST and name not in MANY_PARAMETERS}
    assert not many, f"{many}: an object that holds them would have a name"


@each_module
def test_docstrings_are_sentences(path):
    tree = ast.parse(path.read_text())
    for name, node in definitions(tree):
        if not any(part.startswith(("_", "<")) for part in name.split(".")):
            text = ast.get_docstring(node)
            inherited = isinstance(node, ast.FunctionDef) and "." in name and text is None
            assert inherited or text and text.strip().endswith((".", "...")), f"{name}: {text!r}"


CORRECT = "longer|more|less|fewer|better|worse|larger|smaller|faster|slower|other|wonder|different"
NOT_ENGLISH = re.compile(rf"\b(is|are|was|were) no (?!({CORRECT})\b)\w+")
BEFORE = re.compile(r"\b([Tt]here|[Hh]ere)\W*$")  # "there is no", "where there are no"


def wrong_negations(text):
    """What says "is no folder" where "is not a folder" is meant."""
    return [text[max(0, match.start() - 30):match.end() + 20] for match in NOT_ENGLISH.finditer(text)
            if not BEFORE.search(text[:match.start()])]


@pytest.mark.parametrize("text, count", [
    ("x is no folder: choose another", 1), ("texts that are no strings", 1),
    ("There is no folder", 0), ("there are no texts", 0), ("it is no longer there", 0), ("is not a folder", 0)])
def test_wrong_negations_are_seen(text, count):
    assert len(wrong_negations(text)) == count


@each_module
def test_negations_are_english(path):
    tree = ast.parse(path.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts += [line.partition("  # ")[2] for _, line in own_lines(path)]
    wrong = [part for text in texts for part in wrong_negations(text)]
    assert not wrong, wrong
