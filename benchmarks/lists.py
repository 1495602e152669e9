"""What the site's own lists cost: to make ready, and to look for in a text.

    python -m benchmarks.lists
    python -m benchmarks.lists --entries 10000

People and companies drawn by chance are put on a list; then all hand-written texts of benchmarks/office are looked
through for them, which hold few of them, and letters that hold one in every tenth word. Times are processor time; of
looking, the least of some rounds, per KB of text.

To reach with 50,000 entries: ready in 2 s, 0.2 ms per KB of the written texts.

Saves lists.json under results/. Exit status: 0 all reached, 1 not, 2 wrong command line.
"""

from __future__ import annotations

import random
import sys
import time

from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.matcher import Matcher
from benchmarks import setting
from benchmarks.identities import Registry
from benchmarks.labelled import office
from benchmarks.pairs import MARKS
from benchmarks.results import keep
from benchmarks.terminal import command_line, show

READY_SECONDS, KB_MS = 2.0, 0.2
_ROUNDS = 5
_LETTERS = 200
_FORMS = ("GmbH", "AG", "GmbH & Co. KG", "e.K.", "OHG", "Bau GmbH", "und Söhne KG", "Metallbau")
_LETTER = (
    "Sehr geehrte Frau {}, anbei erhalten Sie den Bescheid über die Einkommensteuer des Jahres für die Firma {}. Bitte "
    "prüfen Sie die Angaben in den nächsten Tagen und melden Sie sich bei {} oder bei mir.\n"
)


def entries(count: int, chance: random.Random) -> list[SiteEntry]:
    """People, and one company for each four of them. Surnames are as varied as in a large office."""
    names = Registry()
    syllables = sorted({name[:3].lower() for name in names.last if name[:3].isalpha()})

    def surname() -> str:
        if chance.random() < 0.5:
            return chance.choice(names.last)
        return "".join(chance.choices(syllables, k=3)).capitalize()

    people = [SiteEntry(f"{chance.choice(names.first)} {surname()}", Kind.CLIENT) for _ in range(count * 4 // 5)]
    firms = [SiteEntry(f"{surname()} {chance.choice(_FORMS)}", Kind.ORGANISATION) for _ in range(count - len(people))]
    return people + firms


def ms_per_kb(matcher: Matcher, text: str) -> float:
    """Milliseconds of processor time for a KB of the text."""
    least = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        matcher.find(text)
        least = min(least, time.process_time() - began)
    return least * 1e3 / (len(text.encode()) / 1024)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_line("lists", __doc__)
    parser.add_argument("--entries", type=int, default=50_000, help="on the list (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: %(default)s)")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)  # noqa: S311 - no secret
    known = entries(options.entries, chance)
    began = time.process_time()
    matcher = Matcher(known)
    ready = time.process_time() - began
    drawn = ([entry.name for entry in chance.choices(known, k=3)] for _ in range(_LETTERS))
    letters = "".join(_LETTER.format(*names) for names in drawn)
    written = ms_per_kb(matcher, "\n".join(each.text for each in office()))
    dense = ms_per_kb(matcher, letters)
    judged = [
        (ready <= READY_SECONDS, f"ready: {ready:.2f} s; at most {READY_SECONDS:g} s"),
        (written <= KB_MS, f"written texts: {written:.3f} ms per KB; at most {KB_MS:g} ms"),
    ]
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    show(f"  letters, a name in every tenth word: {dense:.3f} ms per KB")
    figures = {
        "setting": setting.describe(),
        "amount": {"entries": options.entries, "seed": options.seed},
        "ready_seconds": ready, "written_ms_per_kb": written, "letters_ms_per_kb": dense,
    }  # fmt: skip
    keep(options.results, "lists", figures)
    return 0 if all(reached for reached, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
