//! The page's style sheet: light and dark, screen and paper.
//!
//! The colours are those of Okabe and Ito, told apart by people who do not see all colours; line styles, patterns and
//! words say the same again.
//!
//! Not here: what the classes are put on (`page`, `svg`).

pub(super) const STYLE: &str = r#"
:root{--paper:#fff;--panel:#f6f7f9;--ink:#16202b;--soft:#56616e;--rule:#d9dee4;--level:#e6e9ee;--axis:#8a94a0;
--s0:#0060a8;--s1:#c24a00;--good:#00694a;--good-back:#dff3ea;--bad:#a11d12;--bad-back:#fbe5e1;--shade:#8a94a026;
--fault:#5b6b7d;--ready:#a9d8c8;--suspect:#f2b705;--suspect-line:#a67900;--down:#b3340f;--left:#8a6fb8;--own:#2b3947;
--off:#eceff2;--off-line:#aab3bd;--unlisted:#fff;--gap:#ffffffb8;--cell-ink:#16202b;--cell-ink-down:#fff}
@media (prefers-color-scheme:dark){:root{--paper:#12171d;--panel:#1a2129;--ink:#e6ebf0;--soft:#9ba8b5;--rule:#2e3843;
--level:#28313b;--axis:#6d7a88;--s0:#5ab4f0;--s1:#f0a03c;--good:#6fd3ab;--good-back:#123a2d;--bad:#ff9a86;--bad-back:#4a1d16;
--shade:#a9b6c424;--fault:#8fa1b5;--ready:#2c6b58;--suspect:#e3ac0a;--suspect-line:#7d5c00;--down:#ff6f45;--left:#a58bd6;
--own:#c9d3dd;--off:#1e262f;--off-line:#4b5866;--unlisted:#12171d;--gap:#12171d99;--cell-ink:#12171d;--cell-ink-down:#12171d}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:40px 32px 80px}
h1{font-size:30px;line-height:1.2;margin:0 0 8px;letter-spacing:-.01em}
h2{font-size:23px;line-height:1.3;margin:0 0 6px;display:flex;flex-wrap:wrap;gap:12px;align-items:center}
h3{font-size:16px;margin:32px 0 8px}
h4{font-size:15px;margin:20px 0 4px;font-weight:600}
h4 .when{color:var(--soft);font-weight:400}
p{margin:0 0 8px;max-width:76ch}
a{color:var(--s0)}
code{font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;overflow-wrap:anywhere}
.lead{font-size:17px;margin-bottom:20px}
.lead .pass,.lead .fail{font-weight:600}
.about{font-size:17px}
.facts,.note,.up{color:var(--soft);font-size:14px}
.note{margin:2px 0 0 76px;max-width:110ch}
section{border-top:2px solid var(--rule);margin-top:56px;padding-top:32px}
.pass{color:var(--good)}.fail{color:var(--bad)}
.badge{display:inline-block;font-size:13px;font-weight:600;line-height:1;padding:5px 9px;border-radius:12px;white-space:nowrap}
.badge.pass{background:var(--good-back)}.badge.fail{background:var(--bad-back)}
.scroll{overflow-x:auto;margin:0 0 8px}
table{border-collapse:collapse;font-size:14px;line-height:1.4}
th{text-align:left;font-weight:600;color:var(--soft);border-bottom:1px solid var(--axis);padding:5px 18px 5px 0;white-space:nowrap;vertical-align:bottom}
td{border-bottom:1px solid var(--rule);padding:6px 18px 6px 0;vertical-align:baseline}
th:last-child,td:last-child{padding-right:0}
.num{text-align:right;white-space:nowrap}
nav a{white-space:nowrap}
td .pass,td .fail{white-space:nowrap}
figure{margin:26px 0 0;break-inside:avoid}
figcaption{display:flex;flex-wrap:wrap;gap:2px 22px;align-items:baseline}
figcaption h3{margin:0}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:14px;color:var(--soft);margin:0 0 6px;max-width:none}
.legend span{display:inline-flex;align-items:center;gap:6px}
.drawing{overflow-x:auto}
.drawing>svg{min-width:640px}
.pair{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:0 36px;align-items:start}
.pair .drawing>svg{min-width:0}
.pair .note{margin-left:0}
.pair figure{margin-top:18px}
.matrix{margin-top:2px}
.matrix figcaption{font-size:14px;color:var(--soft);padding-left:58px}
details{margin-top:20px;border:1px solid var(--rule);border-radius:6px;padding:0 16px;background:var(--panel)}
summary{cursor:pointer;font-weight:600;padding:10px 0}
details[open]>summary{margin-bottom:4px}
.reproduce{margin:0;font-size:14px}
dt{color:var(--soft)}dd{margin:0 0 10px}
.up{margin-top:24px}
svg{display:block;width:100%;height:auto;overflow:visible}
svg.patterns{position:absolute;width:0;height:0}
svg.key{display:inline-block;width:28px;height:8px;flex:none}
svg.key[viewBox="0 0 12 8"]{width:12px}
svg.cell-key{width:13px;height:13px}
svg.cell-key rect{stroke:var(--axis);stroke-width:1}
svg text{font-family:inherit;font-size:12px;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .tick,svg .axis-title{fill:var(--soft)}
svg .axis-title{font-size:12px}
svg .lane-label{font-size:12.5px}
svg .row-label{font-size:13px;font-weight:600}
svg .mark-label{font-weight:600}
svg .lane-label,svg .row-label,svg .mark-label{paint-order:stroke;stroke:var(--paper);stroke-width:2px;stroke-linejoin:round}
svg .t0{fill:var(--s0)}svg .t1{fill:var(--s1)}
.axis{stroke:var(--axis);fill:none}
.level{stroke:var(--level);fill:none}
.shade{fill:var(--shade)}
.fault{fill:var(--fault)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1)}
.line.s1{stroke-dasharray:6 3}
.mark{fill:var(--paper);stroke-width:2}
.alarm-suspect{fill:url(#p-suspect)}
.alarm-down{fill:var(--down)}
.host{opacity:.45}
.host.s0,.host.s1{stroke:none}
.host.s0{fill:var(--s0)}.host.s1{fill:var(--s1)}
.whisker{stroke-width:1;fill:none}
.box{fill:var(--paper);fill-opacity:.6;stroke-width:1.5}
.median{stroke-width:3;fill:none}
.cell{stroke:none}
.ready{fill:var(--ready)}.suspect{fill:url(#p-suspect)}.down{fill:var(--down)}.left{fill:var(--left)}
.own{fill:var(--own)}.off{fill:url(#p-off)}.unlisted{fill:var(--unlisted)}
.gaps{stroke:var(--gap);stroke-width:.8;fill:none;pointer-events:none}
.border{fill:none;stroke:var(--axis);pointer-events:none}
svg .cell-letter{font-size:11px;font-weight:600;fill:var(--cell-ink);pointer-events:none}
.p-suspect-back{fill:var(--suspect)}.p-suspect-line{fill:var(--suspect-line)}
.p-off-back{fill:var(--off)}.p-off-line{fill:var(--off-line)}
:target{scroll-margin-top:12px}
@media (max-width:640px){main{padding:24px 16px 48px}.note{margin-left:0}}
@media print{@page{margin:14mm}body{font-size:13px}.pair{grid-template-columns:1fr 1fr;gap:0 20px}h2,h3,h4,.legend,figcaption,dt{break-after:avoid}table,dl{break-inside:avoid}main{max-width:none;padding:0}section{break-before:page;margin-top:0;border:0}svg,.badge,.cell{print-color-adjust:exact;-webkit-print-color-adjust:exact}.drawing,.scroll{overflow:visible}.drawing>svg{min-width:0}.up{display:none}details{break-inside:avoid}}
"#;
