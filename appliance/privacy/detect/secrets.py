"""Passwords, keys and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

from appliance.privacy.detect.rule import Parts, Rule, Set, all_of, words
from appliance.privacy.kinds import Kind, Span

# Plugins of detect-secrets that know the form of somebody's tokens. Not those that measure entropy, which fire on every
# ordinary sentence, nor those whose expressions take quadratic time (rules below find what they do).
_PLUGINS = (
    ("artifactory", "ArtifactoryDetector"), ("aws", "AWSKeyDetector"), ("azure_storage_key", "AzureStorageKeyDetector"),
    ("discord", "DiscordBotTokenDetector"), ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"), ("jwt", "JwtTokenDetector"), ("mailchimp", "MailchimpDetector"),
    ("pypi_token", "PypiTokenDetector"), ("sendgrid", "SendGridDetector"), ("slack", "SlackDetector"),
    ("square_oauth", "SquareOAuthDetector"), ("stripe", "StripeDetector"),
    ("telegram_token", "TelegramBotTokenDetector"), ("twilio", "TwilioKeyDetector"),
)  # fmt: skip
_LONG = re.compile(r"\S{16,}")
_PIECE, _OVERLAP = 1000, 200

_WORDS = (
    r"(?:[\wäöüß]{0,20}?(?:passw(?:or[dt]|ort)|kennwort|passphrase|passwd|zugangscode|pass ?code|losungswort|"
    r"kennwörter|passwörter)e?s?|pwd?|pwd|zugangsdaten|login|credentials)"
)
_PASSWORD_HINTS = Parts(
    "passw",
    "passp",
    "passc",
    "passor",
    "kennw",
    "pw",
    "zugang",
    "losung",
    "login",
    "credential",
    "pass code",
)
_VALUE = r"(?P<quote>[\"'„“‚‘`«»]?)(?P<find>[^\s\"'„“”‚‘’`«»,;<>]{3,80})(?P<after>[\"'“”‘’`«»]?)"
_PASSWORD = re.compile(
    rf"(?i)(?<![A-Za-zÄÖÜäöüß])(?:{_WORDS})(?![A-Za-zÄÖÜäöüß])(?P<fill>\"?'?[ \t]?(?:[=:]{{1,2}}>?|->)\s{{0,3}}|"
    rf"[^\n.;:!?=]{{0,60}}? "
    rf"(?:war|ist|lautet|lautete|heißt|heisst|is|was|auf|to|mit|with)(?: jetzt| nun| wieder| immer noch|"
    rf" now)?:?\s{{1,2}}|[ \t]){_VALUE}"
)


def _is_given(match: re.Match[str]) -> bool:
    return (
        re.match(r"(?i)\$[{(]|\{\{|<|\*{3}|x{4}|\.\.\.|os\.|getenv|none\b|null\b|true\b|false\b", match["find"]) is None
    )


_RULES: tuple[tuple[Rule, Parts], ...] = (  # with what, in lower case, stands wherever they find
    (Rule("private key", Kind.SECRET, 1.0, re.compile(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|"
        r"-(?!----END)){0,20000}(?:-----END[A-Z0-9 ]{0,50}-----)?|"
        r"PuTTY-User-Key-File-\d")), Parts("private key", "putty")),
    (Rule("basic auth", Kind.SECRET, 1.0, re.compile(r"://[^\s/@:\"']{0,100}:(?P<find>[^\s@/\"']{1,200})@")),
        Parts("://")),
    (Rule("jwt", Kind.SECRET, 1.0, re.compile(
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_.+/=-]*)?")), Parts("eyj")),
    (Rule("bearer", Kind.SECRET, 1.0, re.compile(
        r"(?i)(?<!\w)(?:bearer|authorization:? basic|x-api-key:?|api[-_ ]?(?:key|schlüssel)[\"']?\s?(?:[:=]|is|ist|"
        r"lautet))\s{0,2}[\"']?"
        r"(?P<find>[A-Za-z0-9._~+/-]{12,}={0,2})"),
        lambda m: re.search(r"\d", m["find"]) is not None or len(m["find"]) > 30),
        Parts("bearer", "authorization", "api")),
    (Rule("token", Kind.SECRET, 1.0, re.compile(
        r"(?<![\w-])(?P<find>(?:sk|pk|rk)[-_](?:[A-Za-z]{2,10}[-_]){0,3}[A-Za-z0-9_-]{16,}|gh[pousr]_\w{20,}|"
        r"hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}|github_pat_\w{20,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|glpat-[\w-]{16,}|"
        r"xox[a-z]-[\w-]{10,}|dop_v1_\w{30,}|"
        r"AGE-SECRET-KEY-\w{20,})"),
        lambda m: re.search(r"\d", m["find"]) is not None),
        Parts("sk-", "pk-", "rk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_", "npm_", "pat_",
         "aiza", "ya29", "glpat", "xox", "dop_", "age-")),
    (Rule("connection", Kind.SECRET, 1.0, re.compile(
        r"(?i)(?<!\w)(?:password|pwd|sharedaccesskey|accountkey|secret|_authtoken|"
        r"client_secret)\s?=\s?[\"']?(?P<find>[^\s;\"'&]{3,200})"),
        _is_given), Parts("=")),
    (Rule("environment", Kind.SECRET, 0.95, re.compile(
        r"(?<![\w.])[A-Z0-9_]{0,60}?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSWORT|PASS|PWD|"
        r"CREDENTIALS?)(?:_[A-Z0-9_]{1,30})?"
        r" ?= ?[\"']?(?P<find>[^\s\"']{4,400})"), _is_given), Parts("=")),
)  # fmt: skip
_NUMBERED = re.compile(
    r"(?:TAN|PIN|PUK|OTP|CVV|CVC|Pin|Tan|pin|tan|puk|otp|cvv|cvc|code|Code|CODE|password)s?[23]?(?:[- ]?(?:Code|Nummer|"
    r"Nr\.?|number))?(?!\w)"
    r"[^\d\n.;!?]{0,25}?(?P<find>\d(?:[ -]?\d){2,9})(?!\w|[.,]\d)"
)
_NUMBERED_HINTS = Parts("tan", "pin", "puk", "otp", "cvv", "cvc", "code", "password")
_NUMBERED_AFTER = re.compile(
    r"(?i)(?:\A|[^\w])(?:[mi]?(?:TAN|PIN|PUK|OTP|CVV|CVC)|[\wäöü]{2,20}-PIN|(?:zugangs|sicherheits|freischalt|"
    r"aktivierungs|bestätigungs|einmal|entsperr|zahlen|tür|verifizierungs|verification|security|access|alarm|"
    r"one[- ]time|pass|pin)[- ]?(?:code|password))\Z"
)
_RANDOM = re.compile(r"(?<![\w/+-])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w/.+=-])")
_NO_SECRETS = words(
    "siehe folgt folgend folgende vergessen ändern geändert zurücksetzen zurückgesetzt falsch richtig korrekt "
    "abgelaufen leer unbekannt sicher geheim. nicht nie kein keine muss soll sollte wird wurde ist sind war haben hat "
    "mindestens maximal bitte dein ihr mein das die der den ein eine neu neues alte altes per mit und oder auf zu im "
    "in bei von für see below above required optional invalid incorrect wrong expired reset forgotten your my the a an "
    "not must should min max at true false none null string str expired. gültig ungültig notwendig erforderlich "
    "pflicht safe secure strong weak enter eingeben senden angeben"
)


class Secrets:
    """Secrets of known forms, and those that somebody names as what they are."""

    def __init__(self) -> None:
        plugins = [getattr(import_module(f"detect_secrets.plugins.{module}"), name) for module, name in _PLUGINS]
        self._forms = [(plugin.secret_type, form) for plugin in plugins for form in plugin.denylist]

    def find(self, text: str, lower: str, grams: Set[str]) -> Iterator[Span]:
        """Secrets anywhere in the text. `lower` is it in lower case, as long as the text."""
        for rule, hints in _RULES:
            if hints.within(lower, grams):
                yield from all_of((rule,), text, [(0, len(text))])
        if _PASSWORD_HINTS.within(lower, grams):
            yield from _passwords(text)
        for match in _NUMBERED.finditer(text) if _NUMBERED_HINTS.within(lower, grams) else ():
            if _NUMBERED_AFTER.search(text, max(match.start() - 32, 0), _end_of_word(match)):
                yield Span(*match.span("find"), Kind.SECRET, 0.9, "pin")
        for match in _LONG.finditer(text):
            for start in range(match.start(), match.end(), _PIECE - _OVERLAP):
                yield from self._known(text, start, min(start + _PIECE, match.end()))

    def _known(self, text: str, start: int, end: int) -> Iterator[Span]:
        piece = text[start:end]
        if not any(map(str.isdigit, piece)):
            return
        for match in _RANDOM.finditer(text, start, end):
            if _looks_random(match[0]):
                yield Span(*match.span(), Kind.SECRET, 0.8, "random")
        for name, form in self._forms:
            for match in form.finditer(piece):
                yield Span(start + match.start(), start + match.end(), Kind.SECRET, 1.0, name)


def _end_of_word(match: re.Match[str]) -> int:
    end = match.start()
    while end < len(match.string) and match.string[end].isalpha():
        end += 1
    return end


def _passwords(text: str) -> Iterator[Span]:
    for match in _PASSWORD.finditer(text):
        value = match["find"] if match["quote"] else match["find"].rstrip(".:)]}?")
        if len(value) < 3 or value.lower().rstrip("!") in _NO_SECRETS or not _is_given(match):
            continue
        fill = match["fill"].strip()
        mixed = any(map(str.isdigit, value)) or any(
            not c.isalnum() and c not in "-./()" for c in match["find"].rstrip(".,?)")
        )
        mixed = mixed or (value[1:] != value[1:].lower() and value[1:] != value[1:].upper())
        last = not text[match.end() : match.end() + 40].partition("\n")[0].strip(" .!?)\"'")
        if mixed or (match["quote"] and match["after"]) or (fill and not fill[-1].isalpha() and last):
            yield Span(match.start("find"), match.start("find") + len(value), Kind.SECRET, 0.9, "password")


def _looks_random(token: str) -> bool:
    kinds = sum(any(map(test, token)) for test in (str.isdigit, str.islower, str.isupper))
    return kinds == 3 and max(map(len, re.split(r"[-_/+]", token))) >= 20
