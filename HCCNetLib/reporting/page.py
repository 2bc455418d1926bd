"""Style and script of the report. The page reads and prints without the script."""

from __future__ import annotations

STYLE = """
:root { --ink: #1b2733; --soft: #5c6873; --rule: #d5dbe1; --blue: #1f5a94; --orange: #b4530a; --overlay: 1 }
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact }
body { margin: 0; color: var(--ink); background: #fff; overflow-wrap: break-word;
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 0 20px 30px }
.research { position: sticky; top: 0; z-index: 1; padding: 7px 20px; text-align: center; font-weight: 600;
  color: #fff; background: #7a1f1f }
h1 { font-size: 25px; margin: 20px 0 2px } h2 { font-size: 19px; margin: 26px 0 8px }
h3 { font-size: 17px; margin: 22px 0 8px } h3 small { font-weight: 400; color: var(--soft); margin-left: 6px }
p { margin: 6px 0 } header p, .note, figcaption { color: var(--soft) }
.note, .legend, figcaption { font-size: 13px } figure { margin: 8px 0 } code { font-size: 12px; color: var(--soft) }
.belief { margin-top: 26px; padding: 2px 16px 12px; background: #f4f7fa; border-left: 4px solid #6c8fb3 }
.belief h2 { margin-top: 10px } .belief tr:last-child > * { border-bottom: 0 }
.wide { overflow-x: auto } .exams small { color: var(--soft) }
.demonstration { border: 2px solid var(--orange); background: #fff4e5; padding: 12px 16px; font-size: 17px }
ul.warning { margin: 8px 0; padding: 8px 12px 8px 30px; background: #fdf8e3; border-left: 4px solid #c79a00 }
.no-meaning { font-weight: 600; color: var(--orange) }
.risk { display: flex; gap: 22px; align-items: center; margin: 6px 0 } .figure { font-size: 58px; font-weight: 700;
  white-space: nowrap }
.of { font-size: 17px }
table { border-collapse: collapse; font-size: 14px } th, td { padding: 4px 12px 4px 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--rule); font-weight: 400 }
thead th { font-weight: 600 } .exams { width: 100%; margin-top: 8px }
.exams td:nth-child(n+3), .exams thead th:nth-child(n+3) { text-align: right }
.exams th[scope=row] { min-width: 12ch }
.exams th[scope=row], .provenance td { overflow-wrap: anywhere }
.exams td, .provenance th { white-space: nowrap }
svg { display: block } .chart { width: 100%; font-size: 13px; fill: var(--ink) }
.chart text.row { text-anchor: end; fill: var(--soft) } .tick { fill: var(--soft); font-size: 12px }
.axis { stroke: #8b959e; fill: none } .grid { stroke: #e7ebee; fill: none }
.mark { stroke: var(--ink); stroke-width: 2 } .leader { stroke: #8b959e; fill: none }
.now { stroke: var(--ink); stroke-dasharray: 5 4; fill: none }
.line { stroke: var(--blue); stroke-width: 2; fill: none }
.point { fill: var(--blue) } .without { fill: none; stroke: var(--orange); stroke-width: 2 }
.band { fill: var(--blue); fill-opacity: .13 } .main { font-weight: 700 }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round }
.horizons { display: flex; flex-wrap: wrap; gap: 8px 34px; align-items: center }
.horizons > * { flex: 1 1 400px } .horizons figure { flex-basis: 520px; max-width: 640px }
.horizons th[scope=row], .keys span { white-space: nowrap }
.dot { fill: var(--blue); fill-opacity: .75; stroke: #fff } .attention { fill: #6c8fb3 }
.key { display: inline-block; width: 30px; height: 14px; vertical-align: -2px }
.slices { display: grid; gap: 10px; align-items: start } .slices > div { min-width: 0 }
.slices figure { margin: 0 0 6px }
.slice { width: 100% } .backdrop { fill: #000 } .overlay, .against { opacity: var(--overlay) }
.letter { fill: #ffd75e; text-anchor: middle; dominant-baseline: central; font-weight: 700 }
text.bar { fill: #e8ecef; dominant-baseline: central }
path.bar { stroke: #e8ecef; fill: none; stroke-width: 1.3px; vector-effect: non-scaling-stroke }
.field polygon, .field path, .cross path { fill: none; stroke-width: 1.3px; vector-effect: non-scaling-stroke }
.field polygon, .field path { stroke: #5fe0f5 } .cross path { stroke: #fff }
.field .under, .cross .under { stroke: #000; stroke-width: 3px; stroke-opacity: .55 }
.no-outline .slices .field, .no-higher .evidence .overlay, .no-lower .evidence .against,
.no-raised .change .overlay, .no-lowered .change .against { display: none }
.legend { display: flex; flex-wrap: wrap; gap: 4px 30px; align-items: center } .legend span { display: flex; gap: 8px;
  align-items: center }
.scale { width: 216px; height: 34px; flex: none; font-size: 11px; fill: var(--ink) } .midgray { fill: #808080 }
.controls { display: flex; flex-wrap: wrap; gap: 6px 30px; align-items: center } .controls[hidden] { display: none }
.controls label { display: flex; gap: 8px; align-items: center }
@media screen and (max-width: 700px) { .slices { grid-template-columns: 1fr !important } }
@media print {
  @page { margin: 12mm } main { padding: 0 } .controls { display: none }
  body, table, .note, .legend, figcaption { font-size: 11px } code { font-size: 10px } .of { font-size: 14px }
  .wide { overflow: visible } .exams { font-size: 10px } .exams th, .exams td { padding-right: 7px }
  .scale { width: 150px; height: 24px } .legend { gap: 2px 18px } .evidence .lower { display: none }
  h1 { font-size: 19px } h2 { font-size: 15px } h3 { font-size: 13px } .figure { font-size: 40px }
  .research { position: static } h2, h3, .intro { page-break-after: avoid; break-after: avoid }
  .evidence .overlay, .change .overlay, .change .against { display: inline !important }
  .evidence .against { display: none !important }
  .exam, .warnings, .belief, figure, table, .provenance { page-break-inside: avoid; break-inside: avoid }
}
"""

SCRIPT = """
const inputs = [...document.querySelectorAll(".controls input")];
function follow(changed) {
  for (const input of inputs.filter(other => other.name === changed.name)) {
    input.value = changed.value;
    input.checked = changed.checked;
  }
  if (changed.type === "range") document.documentElement.style.setProperty("--overlay", changed.value);
  else document.body.classList.toggle("no-" + changed.name, !changed.checked);
}
for (const input of inputs) input.addEventListener("input", event => follow(event.target));
for (const bar of document.querySelectorAll(".controls")) bar.removeAttribute("hidden");
"""
