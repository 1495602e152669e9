"""Reading labelled texts: what is marked, and where it lies in the text as somebody would have written it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from appliance.privacy.kinds import Kind
from benchmarks.labelled import Labelled, WrongMarkup, detokenised, germeval, office, read, uner


def marked(labelled: Labelled) -> list[tuple[str, Kind | None]]:
    return [(labelled.text[label.start : label.end], label.kind) for label in labelled.labels]


def test_marks_become_labels() -> None:
    text, labels = read("Frau [[person:Lange]] wohnt\nin [[place:Celle]].")
    assert text == "Frau Lange wohnt\nin Celle."
    assert [(text[label.start : label.end], label.kind) for label in labels] == [
        ("Lange", Kind.PERSON), ("Celle", Kind.PLACE),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["[[persn:Lange]]", "[[person:Lange]", "[[person:[[place:Celle]]]]"])
def test_wrong_marks_are_refused(wrong: str) -> None:
    with pytest.raises(WrongMarkup):
        read(wrong)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "de-office.txt").write_text("gut\n---\n[[name:Lange]]\n")
    with pytest.raises(WrongMarkup, match=r"de-office\.txt, text 2: .*'name'"):
        list(office(tmp_path))


def test_the_written_texts_are_as_many_as_promised() -> None:
    texts = list(office())
    counts = Counter((each.language, each.slice == "ordinary") for each in texts)
    assert counts["de", False] >= 320
    assert counts["en", False] >= 170
    assert counts["de", True] >= 70
    assert counts["en", True] >= 40
    assert len({each.text for each in texts}) == len(texts)
    for each in texts:
        assert bool(each.labels) == (each.slice != "ordinary"), each.id
        assert all(value == value.strip() for value, _ in marked(each)), each.id


@pytest.mark.parametrize(
    "text",
    [
        "Er sagte: „Nein!“, und ging (wie immer).",
        '"So nicht", sagte er.',
        "Das »Werk« und der «Bund»",
        "Auf geht's, nach L'Aquila.",
        "Es hat 38'500 Plätze.",
        "Kaiser's-Kassiererin im Jahr 2009 ...",
    ],
)
def test_tokens_become_text_again(text: str) -> None:
    tokens = {
        "Er sagte: „Nein!“, und ging (wie immer).": "Er sagte : „ Nein ! “ , und ging ( wie immer ) .",
        '"So nicht", sagte er.': '" So nicht " , sagte er .',
        "Das »Werk« und der «Bund»": "Das » Werk « und der « Bund »",
        "Auf geht's, nach L'Aquila.": "Auf geht 's , nach L'Aquila .",
        "Es hat 38'500 Plätze.": "Es hat 38 '500 Plätze .",
        "Kaiser's-Kassiererin im Jahr 2009 ...": "Kaiser's-Kassiererin im Jahr 2009 ...",
    }[text].split()
    given, places = detokenised(tokens)
    assert given == text.replace(" ...", "...")
    assert [given[start:end] for start, end in places] == tokens


def test_germeval_is_read(tmp_path: Path) -> None:
    file = tmp_path / "set.tsv"
    rows = [
        ("Die", "O", "O"), ("Deutsche", "B-ORG", "B-LOCderiv"), ("Bank", "I-ORG", "O"), ("in", "O", "O"),
        ("Bonn", "B-LOC", "O"), ("rief", "O", "O"), ("Anna", "B-PER", "O"), ("Weiß", "I-PER", "O"),
        ("(", "O", "O"), ("Kölner", "B-LOCderiv", "O"), (")", "O", "O"), (".", "O", "O"),
    ]  # fmt: skip
    lines = [f"{number}\t{word}\t{outer}\t{inner}" for number, (word, outer, inner) in enumerate(rows, 1)]
    file.write_text("#\tsomewhere\n" + "\n".join(lines) + "\n\n#\tsomewhere else\n1\tJa\tO\tO\n")
    first, second = germeval(file)
    assert first.text == "Die Deutsche Bank in Bonn rief Anna Weiß (Kölner)."
    assert marked(first) == [
        ("Deutsche Bank", Kind.ORGANISATION), ("Bonn", Kind.PLACE), ("Anna Weiß", Kind.PERSON), ("Kölner", None),
    ]  # fmt: skip
    assert (second.text, second.labels) == ("Ja", ())


def test_uner_is_read(tmp_path: Path) -> None:
    file = tmp_path / "set.iob2"
    file.write_text(
        "# text = “Kori Schulman's” post\n1\t“\tO\t-\t-\n2\tKori\tB-PER\t-\tx\n3\tSchulman\tI-PER\t-\tx\n"
        "4\t's\tO\t-\t-\n5\t”\tO\t-\t-\n6\tpost\tO\t-\t-\n"
    )
    (only,) = uner(file)
    assert marked(only) == [("Kori Schulman", Kind.PERSON)]
