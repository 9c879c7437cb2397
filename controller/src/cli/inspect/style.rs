//! How the page looks, on a screen and on paper. No scripts, no fonts, no pictures from elsewhere.

/// The page's style sheet.
pub(super) const CSS: &str = r#"
:root { --ink: #1c2430; --dim: #68727f; --line: #d9dee5; --soft: #f5f7f9; --good: #1a7f4b;
  --warn: #9a6400; --bad: #b3261e; --blue: #2458b8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 2rem 2.5rem 4rem; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 1rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); } .lead { font-size: 1.1rem; margin-top: .3rem; }
code, pre, .num, .mono { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace;
  font-size: .88em; }
.tag { display: inline-block; border: 1px solid currentColor; border-radius: 1em;
  padding: 0 .65em; font-size: .82rem; line-height: 1.55; font-weight: 600; white-space: nowrap; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.busy { color: var(--blue); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr));
  gap: .7rem; margin: 1.2rem 0; }
.numbers div { background: var(--soft); border-radius: .5rem; padding: .6rem .85rem; }
.numbers b { display: block; font-size: 1.4rem; font-weight: 650; line-height: 1.25; }
.numbers span { color: var(--dim); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .6rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; color: var(--dim); font-weight: 600; font-size: .82rem;
  border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; }
td { border-bottom: 1px solid var(--line); padding: .32rem .6rem .32rem 0; vertical-align: top;
  overflow-wrap: anywhere; }
td.num, th.num { text-align: right; white-space: nowrap; }
pre { background: var(--soft); border-radius: .4rem; padding: .6rem .8rem; margin: .3rem 0 .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 30rem; overflow: auto; }
details { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .45rem 0; } summary:hover { background: var(--soft); }
details > div { padding: 0 0 .8rem 1.1rem; }
.alert { border-left: 4px solid var(--bad); background: #fdf3f2; padding: .6rem .9rem;
  margin: .8rem 0; } .alert.wait { border-color: var(--warn); background: #fdf8ee; }
.steps { display: flex; height: 1.5rem; border-radius: .3rem; overflow: hidden; margin: .3rem 0; }
.steps span { overflow: hidden; white-space: nowrap; font-size: .72rem; line-height: 1.5rem;
  padding-left: .25rem; color: #fff; min-width: 2px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .8rem; }
svg { max-width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: #68727f; }
footer { margin-top: 3rem; color: var(--dim); font-size: .85rem;
  border-top: 1px solid var(--line); padding-top: .7rem; }
@media print { body { padding: 0; max-width: none; font-size: 11px; } pre { max-height: none; }
  h2 { break-after: avoid; } tr, .numbers div, svg { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"#;
