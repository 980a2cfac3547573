"""A copy of the working tree, for tests that change the code."""

import subprocess

from .processes import repository


def files():
    """The names of the tree's files, without what git ignores."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=repository,
                            check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (repository / name).is_file())


def mirror(contents, to):
    """Makes a directory have these files and no others, by name. What is the same keeps its time, so that cargo does not build
    it again."""
    kept = {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()} if to.exists() else set()
    for name in kept - contents.keys():
        (to / name).unlink()
    for name, content in contents.items():
        path = to / name
        if name not in kept or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
