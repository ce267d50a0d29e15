"""README.md and docs/*.md: their examples run and print what the page says, their links lead on.

A page is read as its fences. A `python` block is a program: it is run, and must print the `text`
block behind it. In a `console` block a line that begins with `$` is a command and the lines below
it are what it prints; what calls `.venv/bin/trackd` or shows a file is run, in order, against one
server a page. A block with a name behind its language is a file. `…` stands for anything.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, TIMEOUT_S, TRACKD, environment, run_here
from tests.conftest import Serve
from trackd.cli.main import COMMANDS
from trackd.cli.server_option import DEFAULT_SERVER
from trackd.cli.showcase import picks

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NAMES = [page.name for page in PAGES]

_FENCE = re.compile(r"^( *)```(\w+)(?: ([\w.-]+))?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_RUN_HERE = (".venv/bin/trackd ", "cat ")


@dataclass(frozen=True, slots=True)
class Block:
    """What stands in a fence. file: its name as a file, if it is one."""

    language: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with `$`, and what the page says that it prints."""

    line: str
    prints: str


def blocks_of(page: Path) -> list[Block]:
    """The fences of a page, in order."""
    blocks = []
    for indent, language, file, text in _FENCE.findall(page.read_text()):
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        blocks.append(Block(language, file, "\n".join(lines)))
    return blocks


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a console block."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, prints = part.replace("\\\n", " ").partition("\n")
        yield Command(line, prints)


def all_commands(page: Path) -> list[Command]:
    """The commands of every console block of a page."""
    consoles = [block for block in blocks_of(page) if block.language == "console"]
    return [command for block in consoles for command in commands_of(block)]


def assert_prints(said: str, promised: str, where: str) -> None:
    """What was printed is what the page says, white space at the end of lines aside."""
    lines = [line.rstrip() for line in said.strip().splitlines()]
    wanted = [line.rstrip() for line in promised.strip().splitlines()]
    pattern = "\n".join(re.escape(line).replace("…", ".*") for line in wanted)
    assert re.fullmatch(pattern, "\n".join(lines)), f"{where} printed:\n{said}\nnot:\n{promised}"


class Reader:
    """Somebody who does what a page says, in a checkout with a server running."""

    def __init__(self, home: Path, server: str) -> None:
        self._home = home
        self._server = server
        (home / ".venv").symlink_to(Path(sys.executable).parent.parent)
        (home / "examples").symlink_to(ROOT / "examples")

    def follows(self, blocks: list[Block]) -> int:
        """Runs what can be run; how many programs and commands that were."""
        ran = 0
        for block, following in zip(blocks, [*blocks[1:], Block("", "", "")], strict=True):
            if block.file:
                (self._home / block.file).write_text(block.text + "\n")
            if block.language == "python":
                promised = following.text if following.language == "text" else ""
                self._runs([sys.executable, "-c", self._here(block.text)], promised)
                ran += 1
            for command in commands_of(block) if block.language == "console" else ():
                if command.line.startswith(_RUN_HERE):
                    self._runs(["/bin/sh", "-c", command.line], command.prints)
                    ran += 1
        return ran

    def _here(self, program: str) -> str:
        return program.replace(DEFAULT_SERVER, self._server)

    def _runs(self, words: list[str], promised: str) -> None:
        ended = subprocess.run(
            words,
            cwd=self._home,
            env=environment(self._server, COLUMNS="100"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert ended.returncode == 0, f"{words[-1]}\nended with {ended.returncode}: {ended.stdout}"
        assert_prints(ended.stdout, promised, words[-1])


def _runnable(page: Path) -> bool:
    is_run = any(command.line.startswith(_RUN_HERE) for command in all_commands(page))
    return is_run or any(block.language == "python" for block in blocks_of(page))


RUNNABLE = [page for page in PAGES if _runnable(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_what_a_page_shows_happens(page: Path, serve: Serve, tmp_path: Path) -> None:
    """Every program and command of a page works as printed, in the order of the page."""
    home = tmp_path / "checkout"
    home.mkdir()
    ran = Reader(home, serve("--partitions", "2").grpc).follows(blocks_of(page))
    assert ran > 0


def test_the_readme_shows_the_client_and_the_command() -> None:
    """No change of a fence's label takes the README's examples out of the test above."""
    blocks = blocks_of(ROOT / "README.md")
    assert sum(block.language == "python" for block in blocks) >= 3
    commands = [command.line for command in all_commands(ROOT / "README.md")]
    assert sum(line.startswith(_RUN_HERE) for line in commands) >= 5
    assert commands[:2] == ["make run", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_of_a_page_exists(page: Path) -> None:
    """Make targets are in the Makefile, subcommands and their flags in the command's help."""
    text = page.read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)) <= set(targets)
    lines = [command.line for command in all_commands(page)]
    lines += re.findall(r"`(trackd [^`\n]+)`", text)
    for line in lines:
        words = shlex.split(line)
        at = next((n for n, word in enumerate(words[:-1]) if _is_call(word, words[n + 1])), None)
        if at is None:
            assert Path(words[0]).name != "trackd" or words[1] == "--version", line
            continue
        helped = run_here(words[at + 1], "--help").out
        name = words[at + 2] if len(words) > at + 2 else ""
        if re.search(rf"^│ {re.escape(name)} ", helped, re.MULTILINE) and name[:1].isalpha():
            # A command of a group: its flags are its own.
            helped = run_here(words[at + 1], name, "--help").out
        for flag in (word for word in words[at + 2 :] if word.startswith("--")):
            assert re.search(rf"{flag}\b", helped), f"{line}: there is no {flag}"


def _is_call(word: str, name: str) -> bool:
    return Path(word).name == "trackd" and name in {command.name for command in COMMANDS}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that links name."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", page.read_text()):
        if ":" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in map(_slug, headings), f"{page.name} links to {target}#{anchor}"


def _shape(line: str) -> str:
    """A line of the demo without what differs from run to run."""
    line = re.sub(r" --server \S+", "", line)
    line = re.sub(r"\S*trackd track \w+", "trackd track W", line)
    line = re.sub(r"\S*trackd (stats|endpoints)", r"trackd \1", line)
    return " ".join(re.sub(r"[\d,.:]+", "0", line).split())


@pytest.fixture
def demo_said(tmp_path: Path) -> Iterator[str]:
    """What `make run` shows, of a smaller network on free ports, until it tells of Ctrl-C."""
    out = tmp_path / "said"
    places = {"TRACKD_GRPC": "127.0.0.1:0", "TRACKD_METRICS": "127.0.0.1:0"}
    with out.open("w") as file:
        demo = subprocess.Popen(
            [TRACKD, "demo", *("--parcels", "300"), *("--rate", "50000")],
            cwd=tmp_path,
            env=environment("") | places,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while "Ctrl-C" not in out.read_text():
            assert demo.poll() is None, out.read_text()
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.02)
        yield out.read_text()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(TIMEOUT_S) == 0
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()


def test_make_run_shows_what_the_readme_says(demo_said: str) -> None:
    """Line by line, but for figures, waybill numbers, and which parcels and news there were."""
    (promised,) = [
        command.prints for command in all_commands(ROOT / "README.md") if command.line == "make run"
    ]
    assert re.search(r"^run:.*\n\t\S+/trackd demo ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    said = {_shape(line) for line in demo_said.splitlines()}
    kinds = {f"{what} trackd track W" for what, _ in picks._KINDS}
    webhook = "  204 verified   "
    assert f"\n{webhook}" in demo_said
    for line in filter(str.strip, promised.splitlines()):
        if line.startswith(webhook):
            continue
        assert _shape(line) in said | kinds, f"the demo does not say: {line}"
