"""The report's only style sheet; it is written into the page."""

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1d2329; --quiet: #59636e; --paper: #fdfdfc; --surface: #f3f4f3; --line: #d4d8d6;
  --series-1: #1f6f9f; --series-2: #d0682a; --series-3: #7c8a86; --series-4: #b59a3c; --accent: #1f6f9f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e5e8e6; --quiet: #a0aaa6; --paper: #15191b; --surface: #1f2528; --line: #3b4447;
    --series-1: #5fb0dd; --series-2: #ee9560; --series-3: #93a19d; --series-4: #d6bd63; --accent: #7cc2ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.1rem 4rem; max-width: 54rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 3px solid var(--accent); }
h3 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 68ch; }
.quiet, figcaption, caption { color: var(--quiet); font-size: .92rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .7rem; margin: 1.1rem 0; }
dl div { background: var(--surface); border-radius: .5rem; padding: .7rem .9rem; }
dt { color: var(--quiet); font-size: .84rem; }
dd { margin: 0; }
dd b { display: block; font-size: 1.3rem; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums; }
dd span { color: var(--quiet); font-size: .86rem; }
figure { margin: .8rem 0 1.4rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .4rem; max-width: 68ch; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; min-width: 60%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--line); }
th, td { white-space: nowrap; }
td.wide { white-space: normal; min-width: 16rem; max-width: 26rem; overflow-wrap: anywhere; }
th { font-weight: 600; }
.number { text-align: right; }
.verdict { border-left: 4px solid var(--accent); background: var(--surface); padding: .7rem 1rem; }
.verdict.reject { border-color: var(--series-2); }
code { font-size: .92em; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } }
"""
