"""The sources of the site, staged: written only where they changed, links turned to where their targets stand."""

import re
import shutil
from pathlib import Path, PurePosixPath

from smml import atomic

# [text](target "title") of Markdown, with or without "!"; a target holds no blank and no closing bracket.
_LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)"
)
_HTML_IMAGE = re.compile(r"<img\b[^>]*?\bsrc=\"(?P<target>[^\"]+)\"[^>]*>")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#|/", re.IGNORECASE)


class Stage:
    """A source folder of Sphinx that mirrors a part of the checkout.

    A link to a document of the checkout takes that document along; a link to any other file takes the file
    along as a download; a link to a folder goes to its README.md, or loses its target where it has none.
    A link to nothing is left as it is: the build reports it.
    """

    def __init__(self, root: Path, folder: Path):
        self.root = root.resolve()
        self.folder = folder
        self._written: set[Path] = set()
        self._awaited: list[PurePosixPath] = []

    def write(self, relative: str, text: str) -> None:
        """Stage `text` as `relative`; an unchanged file keeps its time, so that it is not read again."""
        path = self.folder / relative
        self._written.add(path)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            atomic.write_text(path, text)

    def linked(self, text: str, home: str) -> str:
        """Markdown of a file in folder `home` of the checkout, its links turned to where their targets stand."""
        text = _LINK.sub(lambda match: self._turn(match, PurePosixPath(home)), text)
        return _HTML_IMAGE.sub(lambda match: self._turn_image(match, PurePosixPath(home)), text)

    def finish(self) -> None:
        """Stage what the staged documents link to, and what that links to; remove what nothing asked for."""
        while self._awaited:
            relative = self._awaited.pop()
            path = self.folder / relative
            if path in self._written:
                continue
            source = self.root / relative
            if source.suffix == ".md":
                text = source.read_text(encoding="utf-8")
                self.write(str(relative), self.linked(text, str(relative.parent)))
            else:
                self._copy(source, path)
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_file() and path not in self._written:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def _copy(self, source: Path, path: Path) -> None:
        self._written.add(path)
        if path.is_file() and path.read_bytes() == source.read_bytes():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        except OSError as error:
            raise atomic.cannot_write(path, error) from error

    def _turn(self, match: re.Match, home: PurePosixPath) -> str:
        target, text = match["target"], match["text"]
        if match["image"] and target.startswith(("http:", "https:")):
            return text  # The site works without a network: no image of another host.
        if _ELSEWHERE.match(target):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        found = (self.root / home / path).resolve()
        if not found.is_relative_to(self.root) or not found.exists():
            return match[0]
        if found.is_dir():
            if not (found / "README.md").is_file():
                return text
            found, path = found / "README.md", f"{path.rstrip('/')}/README.md"
        self._awaited.append(PurePosixPath(found.relative_to(self.root).as_posix()))
        return f"{match['image']}[{text}]({path}{hash_sign}{anchor}{match['title'] or ''})"

    def _turn_image(self, match: re.Match, home: PurePosixPath) -> str:
        target = match["target"]
        if target.startswith(("http:", "https:")):
            return ""
        found = (self.root / home / target).resolve()
        if not _ELSEWHERE.match(target) and found.is_relative_to(self.root) and found.is_file():
            self._awaited.append(PurePosixPath(found.relative_to(self.root).as_posix()))
        return match[0]
