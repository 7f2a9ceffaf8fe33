"""The documentation is complete: public names have an entry in the API pages, relative links a target."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ofa", "predictors", "latency_tables", "search")
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def module_file(root: Path, module: str) -> Path:
    """Return the file of a module or of a package."""
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_names(source: str) -> list[str]:
    """Return the names of a module's `__all__`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def origin(root: Path, module: str, name: str) -> tuple[str, str]:
    """Return the module that defines what `module` hands on, and its name there."""
    for node in ast.walk(ast.parse(module_file(root, module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            originals = {alias.asname or alias.name: alias.name for alias in node.names}
            if name in originals:
                return origin(root, node.module, originals[name])
    return module, name


def is_described(root: Path, module: str, name: str) -> bool:
    """Return whether a name has a docstring where it is defined; API pages leave out names without one."""
    body = ast.parse(module_file(root, module).read_text()).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) is not None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = following.value if isinstance(following, ast.Expr) else None
            return isinstance(value, ast.Constant) and isinstance(value.value, str)
    raise AssertionError(f"{module} does not define {name}")


def num_entries(root: Path, module: str, name: str, directives: list[str]) -> int:
    """Return how often the API pages describe a public name: with its folder, or by itself.

    A folder's page shows the file instead of a function of the same name.
    """
    source, original = origin(root, module, name)
    is_hidden = root.joinpath(*module.split("."), f"{name}.py").exists()
    with_folder = is_described(root, source, original) and not is_hidden
    by_itself = sum(directives.count(path) for path in {f"{module}.{name}", f"{source}.{original}"})
    return by_itself + with_folder * directives.count(module)


def pages(root: Path) -> Iterator[Path]:
    """Yield README and all pages."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = (re.sub(r"[^\w\s-]", "", heading) for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[-\s]+", "-", heading.strip().lower()) for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or heading does not exist."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_one_entry_in_the_api_pages(package: str, root: Path) -> None:
    text = "\n".join(path.read_text() for path in (root / "docs" / "api").glob("*.md"))
    assert "members:" not in text and "filters:" not in text
    directives = DIRECTIVE.findall(text)
    for file in sorted((root / package).rglob("__init__.py")):
        module = ".".join(file.parent.relative_to(root).parts)
        for name in public_names(file.read_text()):
            assert num_entries(root, module, name, directives) == 1, f"{module}.{name}"


def test_every_directive_of_the_api_pages_names_something(root: Path) -> None:
    for path in (root / "docs" / "api").glob("*.md"):
        for directive in DIRECTIVE.findall(path.read_text()):
            module, _, name = directive.rpartition(".")
            if not module_file(root, directive).exists():
                is_described(root, *origin(root, module, name))  # raises for what is not defined


def test_relative_links_have_a_target(root: Path) -> None:
    broken = {str(page.relative_to(root)): links for page in pages(root) if (links := broken_links(page))}
    assert not broken


def test_what_is_missing_is_noticed(tmp_path: Path) -> None:
    names = '__all__ = ["c", "f", "x", "y", "a"]\n'
    source = f'from pack.a import a, b as c\n{names}def f(): pass\nx = 1\n"""X."""\ny = 2\n'
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(source)
    (tmp_path / "pack" / "a.py").write_text('class b:\n    """B."""\ndef a():\n    """A."""\n')
    counts = [num_entries(tmp_path, "pack", name, ["pack", "pack.y"]) for name in public_names(source)]
    assert counts == [1, 0, 1, 1, 0]
    assert num_entries(tmp_path, "pack", "a", ["pack", "pack.a.a"]) == 1
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n## D\n[1](page.md#a-b-c) [2](#d) [3](no.md) [4](#e) [5](https://x/no)\n")
    assert broken_links(page) == ["no.md", "#e"]
