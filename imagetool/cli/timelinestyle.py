"""How a timeline's page looks: in light and dark, narrow and wide, and on paper."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#fbfbfd;--card:#fff;--ink:#1c2330;--dim:#5d6778;--line:#e1e5ec;--grid:#eef1f5;
--done:#a9c3ea;--done-ink:#15315d;--hot:#b9570b;--hot-ink:#fff;--cached:#cfe9d6;--cached-line:#7fbf93;
--cached-ink:#1a5530;--failed:#c5283d;--failed-ink:#fff;--stopped:#c9ced8;--other:#d9cdf0;--other-ink:#3d2a66;
--link:#1f5fbf;--well:#f3f5f9}
@media (prefers-color-scheme:dark){:root{--bg:#12151c;--card:#1a1f29;--ink:#e6e9f0;--dim:#98a2b3;--line:#2c3442;
--grid:#232a36;--done:#35527f;--done-ink:#dce8fb;--hot:#f0862b;--hot-ink:#1d0f02;--cached:#1f4a30;--cached-line:#3f8a5b;
--cached-ink:#c8f0d5;--failed:#e5566a;--failed-ink:#22060a;--stopped:#454d5b;--other:#4b3b73;--other-ink:#e6dcfa;
--link:#8ab4f8;--well:#141922}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1440px;padding:28px 32px 48px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
a{color:var(--link)}
h1{margin:0;font-size:24px;line-height:1.3;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:34px 0 8px;font-size:17px}
h3{margin:14px 0 4px;font-size:14px}
header p{margin:4px 0;color:var(--dim);overflow-wrap:anywhere}
.state{display:inline-block;margin-left:6px;padding:2px 11px;border-radius:99px;font-size:13px;font-weight:600;
vertical-align:3px;background:var(--cached);color:var(--cached-ink)}
.state.failed{background:var(--failed);color:var(--failed-ink)}
pre{margin:4px 0;padding:10px 12px;border-radius:8px;background:var(--well);white-space:pre-wrap;overflow-wrap:anywhere}
pre.error{border-left:4px solid var(--failed)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:20px 0 0;padding:0;
list-style:none}
.tiles li{display:flex;flex-direction:column;padding:12px 16px;border:1px solid var(--line);border-radius:12px;
background:var(--card);min-width:0}
.tiles span,.tiles small{color:var(--dim);font-size:13px}
.tiles b{font-size:23px;line-height:1.35;font-variant-numeric:tabular-nums}
.tiles small{overflow-wrap:anywhere}
.legend{margin:0 0 10px;color:var(--dim);font-size:13px}
.legend i{position:static!important;display:inline-block;width:26px;height:12px!important;margin:0 2px 0 14px;
vertical-align:-1px}
.legend i:first-child{margin-left:0}
.lanes{padding:8px 16px 14px;border:1px solid var(--line);border-radius:12px;background:var(--card)}
.lane{display:grid;grid-template-columns:minmax(120px,190px) 1fr;gap:14px;align-items:center;padding:5px 0}
.lane+.lane{border-top:1px solid var(--grid)}
.who{min-width:0;line-height:1.3}
.who b{display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.who small{color:var(--dim);font-size:12px}
.track{position:relative;height:32px;background:repeating-linear-gradient(to right,var(--grid) 0 1px,transparent 1px
var(--tick))}
.rows .track{height:20px}
.axis{padding:2px 0}
.axis .track{height:18px;background:none;color:var(--dim);font-size:12px;font-variant-numeric:tabular-nums}
.axis .track span{position:absolute;white-space:nowrap}
.bar{position:absolute;top:4px;bottom:4px;min-width:3px;border-radius:4px;overflow:hidden;background:var(--done);
color:var(--done-ink);font-size:12px;line-height:24px;font-style:normal;text-decoration:none;white-space:nowrap}
.bar span{display:block;padding:0 7px;overflow:hidden;text-overflow:ellipsis}
.rows .bar{top:2px;bottom:2px;line-height:16px}
.bar.critical{background:var(--hot);color:var(--hot-ink)}
.bar.slowest{font-weight:700;box-shadow:0 0 0 2px var(--card),0 0 0 4px var(--hot)}
.bar.cached{border:1px solid var(--cached-line);color:var(--cached-ink);line-height:22px;
background:repeating-linear-gradient(135deg,var(--cached) 0 6px,transparent 6px 9px),var(--card)}
.bar.cached.critical{border-bottom:3px solid var(--hot)}
.bar.failed{background:var(--failed);color:var(--failed-ink)}
.bar.stopped{background:var(--stopped);color:var(--ink)}
.bar.other{background:var(--other);color:var(--other-ink)}
a.bar:hover{filter:brightness(1.08)}
a:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px}
i.wait{position:absolute;top:50%;height:0;border-top:2px dotted var(--dim);opacity:.6}
.legend i.wait{height:0!important;vertical-align:4px}
table{width:100%;border-collapse:separate;border-spacing:0;border:1px solid var(--line);border-radius:12px;
background:var(--card);table-layout:fixed;margin-bottom:16px}
caption{padding:4px 0;text-align:left;font-weight:600}
th{font-size:12px;text-align:left;color:var(--dim);font-weight:600}
th,td{padding:5px 8px;border-bottom:1px solid var(--grid);vertical-align:top}
tbody:last-child tr:last-child td{border-bottom:0}
tr.stage th{padding-top:12px;font-size:14px;color:var(--ink)}
.\\#{width:44px;text-align:right;color:var(--dim)}
th.result,td.result{width:112px}
th.when{width:24%}
th.time,th.layer,th.cpu,th.memory{width:84px;text-align:right}
td.time,td.layer,td.cpu,td.memory{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.\\#{font-variant-numeric:tabular-nums}
td{font-size:13px}
td .track{height:22px}
tr.slowest td.time{font-weight:700;color:var(--hot)}
tr.critical td.\\#{box-shadow:inset 4px 0 var(--hot)}
tr:target td{background:var(--well)}
summary{cursor:pointer;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;list-style-position:outside}
details[open] summary{white-space:normal}
dl{display:grid;grid-template-columns:90px 1fr;gap:3px 12px;margin:6px 0 8px;font-size:13px}
dt{color:var(--dim)}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
dd pre{margin:0}
.mark{white-space:nowrap;font-size:13px}
.mark.cached{color:var(--cached-ink)}
.mark.failed{color:var(--failed);font-weight:600}
.mark.waiting,.mark.stopped,.mark.running{color:var(--dim)}
.notes{padding-left:20px}
.notes .warning{font-weight:600}
footer{margin-top:30px;color:var(--dim);font-size:12px}
@media (max-width:900px){body{padding:16px}.cpu,.memory,.when{display:none}.lane{grid-template-columns:1fr;gap:2px}
th.result,td.result{width:92px}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--dim:#444;--line:#ccc;--grid:#e5e5e5}
body{max-width:none;padding:0;font-size:11px}.bar,.state,.legend i{print-color-adjust:exact;
-webkit-print-color-adjust:exact}tr,.lane,.tiles li{break-inside:avoid}
details::details-content{content-visibility:visible;height:auto}summary{white-space:normal;list-style:none}}
"""
