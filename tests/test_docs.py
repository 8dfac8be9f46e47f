"""README and docs/ say what is: links lead somewhere, commands are all there, messages and outputs are the program's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Told

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
Cli = Callable[..., Told]
Write = Callable[..., Path]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To files of this repository, and to headings in them."""
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target[0]).resolve() if target[0] else page
        assert path.exists(), target
        if target[1]:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert target[1][1:] in map(_anchor, heads), target


def _anchor(heading: str) -> str:
    """As GitHub makes it: letters, digits, hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_command_is_in_the_readme() -> None:
    """One line at least each."""
    listed = re.search(r"Commands:\n(.*?)\n\n", README, re.S)
    assert listed is not None
    for name in re.findall(r"^  ([a-z-]+) ", listed.group(1), re.M):
        assert re.search(rf"^    fastrecipes {name}\b", README, re.M), name


def _fixed_texts() -> str:
    """All texts of the package, as they stand in it, with a gap for what is filled in."""
    found = []
    for path in (ROOT / "fastrecipes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values))  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_of_the_readme_are_the_programs() -> None:
    """Word for word but for numbers."""
    section = README.partition("## When something goes wrong")[2].partition("\n## ")[0]
    said = re.findall(r"^\| `([^`]+)`", section, re.M)
    texts = _fixed_texts()
    assert len(said) > 5
    for message in said:
        assert re.sub(r"\d+", "\0", message) in texts, message


def _block(command: str) -> str:
    """What the README shows for a command."""
    found = re.search(rf"^\$ {re.escape(command)}\n(.*?)(?=^```|^\$ )", README, re.M | re.S)
    assert found is not None, command
    return found.group(1)


def _shape(text: str) -> list[str]:
    """The first word of every line but those of epochs, of rows, and of what machines differ in, which vary."""
    text = re.sub(r"^machine differs.*?\n\n", "", text, flags=re.M | re.S)
    lines = [
        line.split(" ")[0].rstrip(":") for line in text.splitlines() if line and not line.startswith((" ", "stages."))
    ]
    return list(dict.fromkeys(re.sub(r"^\w+/\d.*", "RUN", line) for line in lines))


def test_the_first_recipe_and_its_plan(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the README begins with gives the plan that it shows, on the demo images; a CPU may add its precision."""
    monkeypatch.chdir(tmp_path)
    recipe = re.search(r"^```python\n(.*?)^```", README, re.M | re.S)
    assert recipe is not None
    (tmp_path / "badges.py").write_text(recipe.group(1))
    told = cli("plan", "badges.py", "--set", "precision=fp32")
    assert told.code == 0, told.err
    assert told.out.rstrip() == re.sub(r"; precision auto[^\n]*", "", _block("fastrecipes plan badges.py")).rstrip()


def test_shown_runs_and_comparisons_have_the_shape_of_real_ones(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Tables with the same columns, lines that begin alike, in the same order."""
    path, out = recipe_file(name="badges.py"), tmp_path / "runs"
    first = cli("run", path, "--out", out)
    cli("run", path, "--out", out, "--set", "stages.1.unfreeze=1")
    shown = _block("fastrecipes run badges.py")
    columns = next(line.split() for line in shown.splitlines() if line.startswith("stage "))
    assert columns == next(line.split() for line in first.out.splitlines() if line.startswith("stage "))
    assert [w for w in _shape(shown) if w in ("run", "stage", "best", "report", "next")] == [
        "run",
        "stage",
        "best",
        "report",
        "next",
    ]
    assert [w for w in _shape(first.out) if w in ("stage", "best", "run", "report", "next")] == [
        "stage",
        "best",
        "run",
        "report",
        "next",
    ]
    assert re.search(r"^stages\.0 epoch 1/\d: train_loss [\d.]+, valid_loss [\d.]+, accuracy [\d.]+, lr ", shown, re.M)
    assert re.search(
        r"^stages\.0 epoch 1/\d: train_loss [\d.]+, valid_loss [\d.]+, accuracy [\d.]+, lr ", first.err, re.M
    )
    compared = cli("compare", "badges", "--out", out).out
    told = _block("fastrecipes compare badges")
    for word in ("run ", "stage ", "recipe differs in"):
        ours, theirs = (next(line for line in text.splitlines() if line.startswith(word)) for text in (told, compared))
        assert ours.split()[:3] == theirs.split()[:3]
    assert _shape(told) == _shape(compared)


def test_every_field_has_its_word() -> None:
    """In docs/vocabulary.md; `origin` is no field that a recipe gives."""
    from fastrecipes.declare.fields import field_names
    from fastrecipes.declare.recipe import Recipe, Stage

    page = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    names = {*field_names(Recipe), *field_names(Stage)} - {"origin"}
    assert not [name for name in sorted(names) if not re.search(rf"\b{name}\b", page)]
