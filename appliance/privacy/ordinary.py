"""Ordinary words that are names, too."""

from __future__ import annotations

# Those that are written small: of German, adjectives, verbs and particles.
_GERMAN = """
lange lang langer langen klein kleine kleiner gross grosse grosser weiss weisse schwarz braun rot roth grau gruen blau
kurz kurze junge jung junger alt alte alter neu neue reich arm stark starke gut gute guter beste lieb liebe schoen
schoene ernst froh frohe fromm kluge klug still stille sauer suess bitter kalt warm heiss hell dunkel hoch tief breit
schmal dick flach rund scharf stumpf fest hart harte weich schnell schlau wild zart voll leer recht rechts links frei
fremd essen singen baden weil sieben neun acht drei eins hundert max april mai mark sein seine ist sind war hat haben
wird werden kann muss soll will darf mag tut geht kommt steht liegt gibt nimmt an am auf aus bei bis da dann das dass
dem den der des die dir doch du ein eine einen einer er es euch fuer hier ich ihm ihn ihr ihre im in ja je kein man
mich mir mit nach nein nicht noch nun nur ob oder ohne sich sie so ueber um und uns vom von vor was weg wem wen wer
wie wir wo zu zum zur ab als also auch bitte danke wenn wann welche damit
"""
_ENGLISH = """
a i and are as at be but by can do for from had has have he her here him his how if is it its let may me my no not of
off on or our out she some than that their them then there they this to too two up us was we were when where which who
with would yes you your all any art bill bob chance chase dale dawn dean don drew drop earl faith fox frank gene glen
grace grant green guy hall hill holly hope hunter iris ivy jack jade jay jewel joy june king lake lane law lee long
love mason miles miller moss nick noble page park parish pat peace pearl pope porter price prince queen ray reed rich
rob robin rock rose rush rusty sandy savage scott sharp short skip small smith snow stone storm strong sue summer
sunny taylor tone top tree trip trust tucker turner van victor violet wade walker ward way wells west white wise wolf
wood woods young black brown gray grey gold silver red blue baker barber bishop brooks bush butler carpenter carter
church clay cook cooper cross day field fields fisher ford foster gardener rivers rice banks bond bright north south
east general major model system user assistant tool text name type content data test default value number list object
string function
"""
ORDINARY = frozenset(_GERMAN.split()) | frozenset(_ENGLISH.split())
"""In one spelling, umlauts written out. Where one is a name, what is written small is mostly the ordinary word."""
