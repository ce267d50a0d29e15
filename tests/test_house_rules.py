"""The house rules that a machine can check, as a ratchet: the lists of exceptions only get shorter.

Whoever breaks a rule here either mends it or argues an exception where everybody sees it. An
exception that is no longer needed, or is wider than needed, fails as well.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from trackd.store import failpoint

ROOT = Path(__file__).parent.parent
ROOMS = [room for room in ("src", "tests", "bench", "scripts") if (ROOT / room).exists()]
MODULE_LINES_MAX = 400
# An exception need not be changed with every line.
SLACK_LINES = 5
FUNCTION_LINES_MAX = 60

# path -> (lines, why)
LONG_MODULES: dict[str, tuple[int, str]] = {}

# path::function -> (lines, why)
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {
    "src/trackd/store/planner.py::_plan_scans": (
        90,
        "the loop over scans is the hot path: a call per step would cost a tenth of the machine",
    ),
}

BANNED_CLASS_NAMES = re.compile(r"\w+(Manager|Helper|Utils|Base|Handler)")
# In pieces, so that this file does not hold them.
BANNED_WORDS = re.compile(
    r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b"
)
# They run what somebody else wrote into the data.
BANNED_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load"}
BANNED_IMPORTS = {"pickle", "shelve", "dill"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the house that is not generated, by its path."""
    found = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            if "_pb2" not in file.name:
                found[str(file.relative_to(ROOT))] = ast.parse(file.read_text(encoding="utf-8"))
    assert len(found) > 100
    return found


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds, with the path of its module."""
    for path, module in modules().items():
        for node in ast.walk(module):
            if isinstance(node, kinds):
                yield path, node


def ratchet(found: dict[str, int], exceptions: dict[str, tuple[int, str]]) -> list[str]:
    """What is over the limit without an exception, and exceptions that are wider than needed."""
    faults = [
        f"{name}: {lines} lines"
        for name, lines in found.items()
        if lines > exceptions.get(name, (0, ""))[0]
    ]
    faults += [
        f"{name}: its exception allows more than {found.get(name, 0)} lines"
        for name, (lines, _) in exceptions.items()
        if lines > found.get(name, 0) + SLACK_LINES
    ]
    faults += [
        f"{name}: its exception says no reason" for name, (_, why) in exceptions.items() if not why
    ]
    return faults


def test_imports_point_inward() -> None:
    """The contracts of pyproject.toml: which room may import which."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_modules_are_short() -> None:
    """A file that outgrows its sentence is two files."""
    lines = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules()
    }
    long = {path: count for path, count in lines.items() if count > MODULE_LINES_MAX}
    assert ratchet(long, LONG_MODULES) == []


def test_functions_are_short() -> None:
    """Under 60 lines, from `def` to the last one."""
    found = {}
    for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        lines = (node.end_lineno or 0) - node.lineno + 1
        if lines >= FUNCTION_LINES_MAX:
            found[f"{path}::{node.name}"] = lines
    assert ratchet(found, LONG_FUNCTIONS) == []


def test_classes_are_named_after_what_they_are() -> None:
    """Nouns of the trade, not of the absence of an idea."""
    named = [
        (path, node.name) for path, node in nodes(ast.ClassDef) if isinstance(node, ast.ClassDef)
    ]
    assert [each for each in named if BANNED_CLASS_NAMES.fullmatch(each[1])] == []


def test_every_module_says_what_lives_in_it() -> None:
    """A docstring that opens the file, one sentence at least."""
    docstrings = {path: ast.get_docstring(module) or "" for path, module in modules().items()}
    assert [
        path for path, text in docstrings.items() if not re.match(r"\S.+?[.:?!]", text, re.DOTALL)
    ] == []


def test_public_names_of_the_product_are_documented() -> None:
    """Classes, and functions that another file may call; a protocol's members may speak for it."""
    silent = [
        f"{path}::{node.name}"
        for path, module in modules().items()
        if path.startswith("src/")
        for node in module.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_every_test_states_a_guarantee() -> None:
    """Its docstring is what breaks when it fails."""
    silent = [
        f"{path}::{node.name}"
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_values_have_slots() -> None:
    """A dataclass of the product takes no attribute that it does not name."""
    without = [
        f"{path}::{node.name}"
        for path, node in nodes(ast.ClassDef)
        if isinstance(node, ast.ClassDef) and path.startswith("src/")
        for decorator in node.decorator_list
        if ast.unparse(decorator).startswith("dataclass")
        and "slots=True" not in ast.unparse(decorator)
    ]
    assert without == []


def test_nothing_is_left_for_later() -> None:
    """No word that puts work off, in any file of the house."""
    left = [
        f"{path}:{number}"
        for path in modules()
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if BANNED_WORDS.search(line)
    ]
    assert left == []


def test_nothing_runs_what_it_reads() -> None:
    """No pickles, no eval: stored bytes are parsed, never executed."""
    calls = [
        f"{path}:{node.lineno}"
        for path, node in nodes(ast.Call)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS
    ]
    imports = [
        f"{path}:{node.lineno}"
        for path, node in nodes(ast.Import, ast.ImportFrom)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name and name.partition(".")[0] in BANNED_IMPORTS
    ]
    assert calls + imports == []


def test_every_failpoint_is_reached_somewhere() -> None:
    """And every place that can be reached has a name that a test can arm."""
    reached = {
        node.args[0].value
        for path, node in nodes(ast.Call)
        if isinstance(node, ast.Call)
        and path.startswith("src/")
        and ast.unparse(node.func) == "failpoint.reach"
        and isinstance(node.args[0], ast.Constant)
    }
    assert reached == failpoint.NAMES


@pytest.mark.parametrize("text", ["class AHelper: pass", "class WaybillManager: pass"])
def test_the_rule_of_names_can_be_broken(text: str) -> None:
    """A rule that nothing can break says nothing."""
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.ClassDef)
    assert BANNED_CLASS_NAMES.fullmatch(node.name)


def test_the_ratchet_goes_one_way() -> None:
    """Longer than its exception, without an exception, or with one that is not needed: a fault."""
    assert ratchet({"a": 70}, {"a": (70, "why")}) == []
    assert len(ratchet({"a": 71}, {"a": (70, "why")})) == 1
    assert len(ratchet({"b": 61}, {})) == 1
    assert len(ratchet({"a": 61}, {"a": (70, "why")})) == 1
    assert len(ratchet({}, {"a": (70, "why")})) == 1
    assert len(ratchet({"a": 70}, {"a": (70, "")})) == 1
