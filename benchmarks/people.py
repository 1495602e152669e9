"""What the people of the chat scenario say: conversations in German and English, seeded, of varying length."""

from __future__ import annotations

import random

LONGEST_CONVERSATION = 4
SUBJECTS = {
    "de": (
        (
            "Ein Kunde fragt, warum seine Lieferung zwei Wochen später kommt. Schreibe ihm eine freundliche Antwort.",
            "Bitte kürzer und ohne Entschuldigung im ersten Satz.",
            "Schlage noch einen Betreff vor.",
            "Übersetze das Ganze ins Englische.",
        ),
        (
            "Fasse den folgenden Vermerk zusammen und nenne die Frist.",
            "Wer muss was bis wann tun?",
            "Welche Frage ist noch offen?",
            "Formuliere eine Erinnerung an die Beteiligten.",
        ),
        (
            "Erkläre einer neuen Kollegin, wie eine Dienstreise abgerechnet wird.",
            "Welche Belege braucht sie?",
            "Was gilt bei einer Reise ins Ausland?",
            "Mach daraus eine Liste mit fünf Punkten.",
        ),
    ),
    "en": (
        (
            "Draft a short reply to a supplier who asks to move the delivery date by ten days.",
            "Make it firmer.",
            "Add what we need from them by Friday.",
            "Now a version for a phone call.",
        ),
        (
            "Summarise the following note in three sentences.",
            "What is the risk?",
            "Which step would you take first, and why?",
            "Turn that into a checklist.",
        ),
        (
            "Why does our nightly backup take twice as long as last month? List what to check.",
            "Which of these is quickest to rule out?",
            "How would I measure it?",
            "Write a ticket for the operations team.",
        ),
    ),
}
NOTES = {
    "de": (
        "Das Angebot vom 3. März liegt vor, die Lieferung ist für Mitte Mai zugesagt.",
        "Der Rahmenvertrag gilt bis zum Jahresende und verlängert sich um zwölf Monate.",
        "Die Abnahme der zweiten Halle verschiebt sich, weil ein Prüfbericht fehlt.",
        "Für die Schulung haben sich vierzehn Personen angemeldet, zwei davon aus dem Einkauf.",
        "Die Rechnung wurde am Montag freigegeben und am Donnerstag bezahlt.",
    ),
    "en": (
        "The offer of 3 March is in hand and delivery is promised for the middle of May.",
        "The framework contract runs to the end of the year and renews for twelve months.",
        "Acceptance of the second hall is delayed because one test report is missing.",
        "Fourteen people have signed up for the training, two of them from purchasing.",
        "The invoice was approved on Monday and paid on Thursday.",
    ),
}


class Talker:
    """What one person says: endless, and the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a scenario, no secret
        self._left: list[str] = []
        self.messages: list[dict[str, str]] = []
        self.language = "de"

    def ask(self) -> int:
        """Add the next question to `messages`, in a new conversation when one is over; return tokens wanted."""
        chance = self._chance
        if not self._left:
            self.language = chance.choice(("de", "en"))
            self.messages = []
            self._left = list(chance.choice(SUBJECTS[self.language]))[: chance.randint(1, LONGEST_CONVERSATION)]
            # a few people paste a page, most a line or two
            notes = chance.choices(NOTES[self.language], k=int(chance.triangular(0, 12, 1)))
            self._left[0] = " ".join([self._left[0], *notes])
        self.messages.append({"role": "user", "content": self._left.pop(0)})
        return chance.choice((32, 64, 96, 128))

    def hear(self, answer: str) -> None:
        """Take the answer into the conversation; without one, drop the conversation."""
        self.messages.append({"role": "assistant", "content": answer})
        if not answer:
            self._left = []

    def thinking(self, mean: float) -> float:
        """Seconds until the next question: often short, now and then long."""
        return self._chance.expovariate(1 / mean) if mean else 0.0
