"""How the report looks on paper, in typst's language. A constant: no text of a report is ever put into it."""

from __future__ import annotations

TEMPLATE = r"""
#let data = json(bytes(sys.inputs.data))
#let mono = "DejaVu Sans Mono"
#let grey = luma(110)

#set document(title: data.title, author: data.host, date: datetime(..data.date))
#set page(
  paper: "a4",
  margin: (top: 24mm, bottom: 20mm, x: 20mm),
  header: block(
    width: 100%, inset: (bottom: 1.2mm), stroke: (bottom: .3pt),
    text(size: 8pt)[#data.header #h(1fr) #data.host],
  ),
  footer: context text(size: 7.5pt)[#data.bottom #h(1fr) #counter(page).display("1 / 1", both: true)],
)
#set text(lang: data.lang, font: "Libertinus Serif", size: 10pt, hyphenate: true)
#set par(leading: .55em, spacing: .8em, justify: false)
#show heading.where(level: 1): it => block(above: 7mm, below: 2.5mm, sticky: true, text(size: 13.5pt, it.body))
#show heading.where(level: 2): it => block(above: 4.5mm, below: 1.5mm, sticky: true, text(size: 10.5pt, it.body))

// A long word may break behind each sign that parts it, else behind 26 characters, as many as a pseudonym has. It is
// copied from the paper whole.
#let code(body, size: 7.6pt) = {
  set text(font: mono, size: size, hyphenate: false)
  body.matches(regex("[^ /.:,;@=-]{0,26}[ /.:,;@=-]*")).map(part => part.text).filter(part => part != "").join(box())
}
#let blank(body) = box(
  width: 100%, height: 6mm, stroke: (bottom: .4pt), inset: (bottom: .8mm),
  align(right + bottom, text(size: 7pt, fill: grey, body)),
)
#let inline(parts) = for part in parts {
  if part.as == "code" { code(part.text) }
  else if part.as == "strong" { strong(part.text) }
  else if part.as == "blank" { blank(part.text) }
  else { part.text }
}

#let draw = (
  Heading: b => heading(level: b.level, b.text),
  Paragraph: b => block(sticky: b.leads, par(text(size: if b.small { 8.5pt } else { 10pt }, inline(b.text)))),
  Bullets: b => block(breakable: b.items.len() > 14, list(..b.items.map(inline))),
  Table: b => block(above: 3mm, below: 4mm, width: 100%, breakable: b.breaks, {
    set text(size: 8.5pt)
    set par(leading: .5em)
    table(
      columns: b.widths.map(width => width * 1fr),
      stroke: (_, y) => (bottom: if y == 0 { .8pt } else { .3pt + luma(150) }),
      inset: (x, _) => (
        left: if b.right.contains(x - 1) and not b.right.contains(x) { 4mm } else { 1.2mm },
        right: 1.2mm, y: 1.1mm,
      ),
      align: (x, y) => (if b.right.contains(x) { right } else { left }) + if y == 0 { bottom } else { top },
      table.header(..b.head.map(word => text(size: 8pt, strong(word)))),
      ..b.rows.map(row => row.cells.map(cell => table.cell(breakable: not row.whole, inline(cell)))).flatten(),
    )
  }),
  Pairs: b => block(below: 3mm, breakable: b.rows.len() > 14, {
    set par(leading: .5em)
    set text(size: 9pt)
    grid(
      columns: (42mm, 1fr),
      row-gutter: 1.7mm,
      column-gutter: 3mm,
      ..b.rows.map(((word, parts)) => (text(hyphenate: false, strong(word)), inline(parts))).flatten(),
    )
  }),
  Verdict: b => block(
    width: 100%, above: 4mm, below: 4mm, inset: 4mm, breakable: false,
    stroke: 1.6pt, fill: if b.holds { white } else { black }, {
      set text(size: 12pt, weight: "bold", fill: if b.holds { black } else { white })
      grid(
        columns: (auto, 1fr), column-gutter: 2.5mm, row-gutter: 3mm,
        ..b.sentences.map(((good, text)) => (if good { "✓" } else { "✗" }, text)).flatten(),
      )
    },
  ),
  Listing: b => block(
    width: 100%, above: 2.5mm, below: 3mm, inset: (left: 2.5mm, y: .5mm), stroke: (left: 1.2pt + luma(150)),
    breakable: b.lines.len() > 25,
    { set par(leading: .45em); b.lines.map(line => code(line, size: 7.2pt)).join(linebreak()) },
  ),
)

#title()
#for block in data.blocks { (draw.at(block.kind))(block) }
"""
