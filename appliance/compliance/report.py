"""A report in its two forms, and the checksums by which it is known again."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from appliance import durable
from appliance.compliance.collect import Facts
from appliance.compliance.compose import compose, title
from appliance.compliance.page import page
from appliance.compliance.paper import paper
from appliance.compliance.words import Language, Words

_FOOTER = re.compile(rb"<footer>[^<]*<code>([0-9a-f]{64})</code></footer></body></html>\n")


@dataclass(frozen=True, slots=True)
class Report:
    """Both files, by their names."""

    html: bytes
    pdf: bytes
    name: str

    @property
    def files(self) -> dict[str, bytes]:
        """The files: page, paper, and the checksums of both as `sha256sum` writes them."""
        made = {f"{self.name}.html": self.html, f"{self.name}.pdf": self.pdf}
        sums = "".join(f"{sha256(content)}  {name}\n" for name, content in made.items())
        return made | {f"{self.name}.SHA256SUMS": sums.encode()}

    def write(self, folder: Path) -> list[Path]:
        """Write them into `folder`. Raises OSError."""
        for name, content in self.files.items():
            durable.replace(folder / name, content)
        return [folder / name for name in self.files]


def make(facts: Facts, language: Language) -> Report:
    """Both forms of the report in `language`."""
    words = Words(language, facts.month.zone)
    blocks, name = compose(facts, words), title(facts, words)
    bottom = words("paper.footer", at=words.moment(facts.made))
    html = page(name, blocks, language=language, host=facts.host, bottom=bottom, footer=words("footer"))
    pdf = paper(
        name, compose(facts, words, content_sum(html)), language=language, host=facts.host, header=name, bottom=bottom,
        made=facts.made.astimezone(facts.month.zone),
    )  # fmt: skip
    return Report(html, pdf, f"compliance-{facts.month.since:%Y-%m}-{language}")


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_sum(html: bytes) -> str:
    """The SHA-256 of all of a page before its last line."""
    return sha256(html[: html.rstrip(b"\n").rfind(b"\n") + 1])


def self_consistent(html: bytes) -> bool:
    """Whether the last line of a page is the checksum of all before it."""
    found = _FOOTER.fullmatch(html[html.rstrip(b"\n").rfind(b"\n") + 1 :])
    return found is not None and found[1].decode() == content_sum(html)
