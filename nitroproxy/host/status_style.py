"""The style sheet of the status page: for light and dark screens, from 400 pixels on."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d0d7de;--card:#f6f8fa;--good:#116329;
--goodbg:#dafbe1;--warn:#7a4e00;--warnbg:#fff1c9;--bad:#a40e26;--badbg:#ffe5e8;--ink:#0550ae;--ink2:#8250df}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9aa4af;--line:#30363d;--card:#161b22;
--good:#7ee2a0;--goodbg:#0f2d1c;--warn:#f2cc60;--warnbg:#332701;--bad:#ff9aa6;--badbg:#3c1015;--ink:#79b8ff;--ink2:#d2a8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;background:var(--bg);color:var(--fg);
font:15px/1.45 system-ui,sans-serif}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline}
h1{font-size:1.25rem;margin:0}h2{font-size:1rem;margin:1.5rem 0 .5rem}h2 .dim{font-weight:400}
a{color:var(--ink)}.dim{color:var(--dim)}nav{margin-left:auto}
.pass,.warn,.fail,.unknown{border-radius:.3rem;padding:.05rem .4rem;font-weight:600;white-space:nowrap}
.pass{color:var(--good);background:var(--goodbg)}.warn{color:var(--warn);background:var(--warnbg)}
.fail{color:var(--bad);background:var(--badbg)}.unknown{color:var(--dim);border:1px dashed var(--dim)}
p.say{margin:.75rem 0 0;padding:.6rem .8rem;border-left:.25rem solid;border-radius:0 .3rem .3rem 0;font-weight:400;
white-space:normal;overflow-wrap:anywhere}
.say.unknown{border-style:solid;border-width:0 0 0 .25rem}
ol.layers{list-style:none;display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.5rem;padding:0;margin:0}
.layers li,.tiles div{border:1px solid var(--line);border-radius:.4rem;padding:.5rem .6rem;background:var(--card)}
.layers b{display:block}.layers small{display:block;color:var(--dim);overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:.5rem;margin:0}
.tiles div{display:flex;flex-direction:column;padding-bottom:.25rem}
.tiles dt{color:var(--dim)}.tiles dd{margin:0;font-variant-numeric:tabular-nums;display:flex;gap:0 1rem;flex-wrap:wrap}
.tiles dd b{font-size:1.25rem;font-weight:500}.tiles dd small{color:var(--dim)}
.tiles dd.axis{justify-content:space-between;font-size:.75rem;color:var(--dim)}
.tiles dd.plot{display:block;margin-top:auto;border-bottom:1px solid var(--line)}
svg{display:block;width:100%;height:3rem}
polyline{fill:none;stroke-width:1.5;vector-effect:non-scaling-stroke}
.a{stroke:var(--ink)}.b{stroke:var(--ink2);stroke-dasharray:4 3}
.key{display:inline-block;width:1.6rem;border-top:2px solid var(--ink);vertical-align:middle;margin:0 .3rem 0 .8rem}
.legend{white-space:nowrap}.key.two{border-top:2px dashed var(--ink2)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,.l{text-align:left}th{font-weight:500}thead th{color:var(--dim)}
td.w{white-space:normal;text-align:left;overflow-wrap:anywhere;min-width:8rem}
code{font:13px/1.4 ui-monospace,monospace}
meter{width:6rem;vertical-align:middle}
.two-up{display:grid;grid-template-columns:minmax(0,1fr);gap:0 2rem}
@media(min-width:60rem){.two-up{grid-template-columns:minmax(0,2fr) minmax(0,3fr)}}
footer{margin-top:2rem;color:var(--dim);border-top:1px solid var(--line);padding-top:.5rem}
@media(max-width:600px){
.cards thead{display:none}
.cards tr{display:grid;grid-template-columns:1fr 1fr;gap:0 1rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
.cards th,.cards td.l,.cards td.w,.cards td.n{grid-column:1/-1}
.cards td,.cards th{display:flex;justify-content:space-between;gap:.5rem;border:0;padding:.05rem 0;text-align:left}
.cards td.l,.cards td.w{white-space:normal;overflow-wrap:anywhere}
.cards td[data-l]::before{content:attr(data-l);color:var(--dim);white-space:nowrap}
.cards th{font-weight:600}nav{margin-left:0}
.room th,.room td{padding:.25rem 0;white-space:normal}.room meter{width:3.5rem}}
"""
