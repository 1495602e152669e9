"""How a printed report looks: A4, black on white."""

from __future__ import annotations

_MARGIN = "font: 8pt Arial, 'Liberation Sans', sans-serif;"
_PLAIN = """
* { box-sizing: border-box; }
body { font: 10pt/1.35 Arial, "Liberation Sans", sans-serif; color: #000; background: #fff; max-width: 180mm;
  margin: 8mm auto; padding: 0 2mm; overflow-wrap: anywhere; }
@media print { body { margin: 0; padding: 0; max-width: none; } }
h1 { font-size: 17pt; margin: 0 0 1mm; }
h2 { font-size: 12.5pt; margin: 7mm 0 1.5mm; break-after: avoid; }
h3 { font-size: 10.5pt; margin: 4mm 0 1mm; break-after: avoid; }
p { margin: 0 0 2mm; orphans: 3; widows: 3; }
.small { font-size: 8.5pt; }
ul { margin: 0 0 2mm; padding-left: 5mm; }
li { margin-bottom: 1mm; break-inside: avoid; }
code { font: 8pt "DejaVu Sans Mono", "Liberation Mono", monospace; }
.wrong { background: #000; color: #fff; font-weight: bold; -webkit-print-color-adjust: exact;
  print-color-adjust: exact; }
.verdict { border: .7mm solid #000; padding: 3mm 4mm; margin: 4mm .5mm; font-size: 13pt; font-weight: bold; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2mm; font-size: 8.5pt; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
th, td { text-align: left; vertical-align: top; padding: .7mm 2.5mm .7mm 0; border-bottom: .2mm solid #999; }
th { border-bottom: .4mm solid #000; font-size: 8pt; overflow-wrap: normal; }
td.mark { width: 6mm; padding-left: 1mm; font-size: 11pt; }
td.mark + td { padding-left: 2mm; width: 42%; }
th:empty + th { padding-left: 2mm; }
small { font-size: 6.5pt; }
td.word { white-space: nowrap; }
td.wrong { padding-left: 1mm; }
dl { display: grid; grid-template-columns: 36mm 1fr; gap: .8mm 3mm; margin: 0 0 2mm; }
dt { font-weight: bold; }
dd { margin: 0; }
.proof { border: .4mm solid #000; padding: 3mm 4mm; margin: 0 .5mm; break-inside: avoid; }
"""


def style(top: str, moment: str, bottom: str) -> str:
    """The style sheet, with these words in the margins of each printed page, beside its number."""
    corners = {
        "top-left": _quoted(top),
        "top-right": _quoted(moment),
        "bottom-left": _quoted(bottom),
        "bottom-right": 'counter(page) " / " counter(pages)',
    }
    margins = "\n".join(f"  @{place} {{ content: {content}; {_MARGIN} }}" for place, content in corners.items())
    return f"\n@page {{ size: A4; margin: 18mm 15mm 16mm;\n{margins} }}{_PLAIN}"


def _quoted(text: str) -> str:
    # Nothing that could end a string of CSS, or the element around it.
    return '"' + "".join(each for each in text if each.isalnum() or each in " :-.") + '"'
