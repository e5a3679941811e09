"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("report");
const COLOURS = ["#3b78e7", "#d9822b", "#2e9e6b", "#b35bd1", "#c94f4f", "#6b8e23", "#2aa5b8", "#8d6e63"];
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  for (const child of children) element.append(child);
  return element;
}
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  for (const child of children) element.append(child);
  return element;
}
const percent = (ratio) => ratio == null ? "-" : (100 * ratio).toFixed(100 * ratio < 10 ? 1 : 0) + " %";
function scaled(value, unit) {
  const prefixes = ["", "k", "M", "G"];
  let at = 0;
  while (Math.abs(value) >= 1000 && at < 3) { value /= 1000; at += 1; }
  return value.toPrecision(3) + " " + prefixes[at] + unit;
}
const time = (us) => us == null ? "-" : us < 1000 ? us.toPrecision(3) + " us" : us < 1e6 ? (us / 1000).toPrecision(3) + " ms" : (us / 1e6).toPrecision(3) + " s";
const count = (number) => number == null ? "-" : Number(number).toLocaleString("en");
function value(evidence) {
  const { value, unit } = evidence;
  if (value == null) return "-";
  if (unit === "us") return time(value);
  if (unit === "s") return time(value * 1e6);
  if (unit === "ratio" || unit === "probability") return percent(value);
  if (unit.startsWith("of the ")) return percent(value) + " " + unit;
  return (Number.isInteger(value) ? count(value) : value.toPrecision(4)) + " " + unit;
}
function section(id, title) {
  const box = make("section", { id }, make("h2", {}, title));
  main.append(box);
  return box;
}
// Columns: [heading, value of a row, whether it is a number].
function table(parent, rows, columns) {
  const head = make("tr", {}, ...columns.map(([name, , number]) => make("th", number ? { class: "n" } : {}, name)));
  const body = rows.map((row) => make("tr", {}, ...columns.map(([, pick, number]) => make("td", number ? { class: "n" } : {}, String(pick(row) ?? "-")))));
  parent.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))));
}

// Where a part of the report is drawn, by the first word of an evidence's source.
const PLACES = { ledger: "books", tcp_flows: "timeline", stages: "stages", reordering: "order", coalescing: "merging", retransmits: "timeline", threads: "threads", daemons: "threads", taps: "books", flows: "books", benchmark: "run", stalls: "timeline" };

function header() {
  const run = data.run;
  main.append(make("h1", {}, run.command.length ? run.command.join(" ") : "recording " + run.id));
  const parts = [run.host + " on Linux " + run.kernel, run.started_at];
  if (run.duration_s != null) parts.push(time(run.duration_s * 1e6));
  for (const tunnel of data.tunnels) parts.push(tunnel.interface + " (" + (tunnel.daemon ? tunnel.daemon.comm : tunnel.kind) + (tunnel.mtu ? ", MTU " + tunnel.mtu : "") + ")");
  const result = data.benchmark;
  if (result && result.throughput_bps_received != null) parts.push(scaled(result.throughput_bps_received, "bit/s") + " received");
  main.append(make("p", { class: "faint", id: "run" }, parts.join(", ")));
  const capture = data.capture;
  if (capture.lost > 0) main.append(make("p", { class: "alarm" }, count(capture.lost) + " events were lost: findings that need them are unknown, not refuted."));
  else if (!capture.complete) main.append(make("p", { class: "alarm" }, "The recording is not whole: what follows is about what is there."));
}

function findings() {
  const box = section("why", "Why");
  const supported = data.findings.filter((finding) => finding.verdict === "supported");
  if (!supported.length) box.append(make("p", {}, "Nothing is supported by the evidence."));
  supported.forEach((finding, number) => {
    const facts = [];
    if (finding.share != null && finding.id !== "healthy") facts.push(percent(finding.share) + " of the problem");
    if (finding.confidence != null) facts.push(finding.confidence >= 0.995 ? "sure" : percent(finding.confidence) + " sure");
    const details = make("details", { class: "finding" + (finding.id === "healthy" ? " healthy" : ""), id: "finding-" + finding.id },
      make("summary", {}, make("strong", {}, (number + 1) + " " + finding.id), " " + finding.summary + (facts.length ? "; " + facts.join(", ") : "")));
    if (number < 3) details.open = true;
    table(details, finding.evidence, [
      ["measured", (one) => one.metric], ["value", value, true], ["expected", (one) => one.expected || ""],
      ["from", (one) => one.source],
    ]);
    const rows = details.querySelectorAll("tbody tr");
    finding.evidence.forEach((one, at) => {
      const place = PLACES[one.source.split(/[. ]/)[0]];
      if (place) rows[at].lastChild.replaceChildren(make("a", { href: "#" + place }, one.source));
    });
    if (finding.consequence_of.length) details.append(make("p", { class: "faint" }, "Follows from " + finding.consequence_of.join(", ")));
    if (finding.remedy) details.append(make("p", {}, make("strong", {}, "Try "), finding.remedy));
    if (finding.refuted_by) details.append(make("p", { class: "faint" }, "Wrong if " + finding.refuted_by));
    box.append(details);
  });
  for (const [title, verdict] of [["Not the cause", "refuted"], ["Not judged", "unknown"]]) {
    const ids = data.findings.filter((one) => one.verdict === verdict && one.applicable).map((one) => one.id);
    if (ids.length) box.append(make("p", { class: "faint" }, title + ": " + ids.join(", ")));
  }
}

const charts = [];
function draw() {
  const front = getComputedStyle(document.documentElement).getPropertyValue("--front").trim();
  const line = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  for (const one of charts) {
    if (one.plot) one.plot.destroy();
    const axis = (extra) => Object.assign({ stroke: front, grid: { stroke: line }, ticks: { stroke: line } }, extra);
    one.plot = new uPlot({
      title: one.title, width: one.box.clientWidth || 800, height: one.height || 220,
      // One cursor and one zoom for all plots over time.
      cursor: { sync: { key: one.key || "time", scales: ["x", null] }, drag: { x: true, y: false } },
      scales: { x: { time: false } },
      axes: [axis({ label: one.axis || "s after the sender's first event" }), axis({ label: one.label, size: 80, values: (u, all) => all.map((number) => scaled(number, "").trim()) })],
      series: [{ label: "s" }, ...one.series.map((series, at) => Object.assign({ label: series.label, stroke: COLOURS[at % COLOURS.length], width: 1.5, points: { show: false } }, series.options))],
    }, one.values, one.box);
  }
}
function chart(parent, title, label, flows, pick) {
  const times = [...new Set(flows.flatMap((flow) => flow.series.map((point) => point.start_s)))].sort((a, b) => a - b);
  if (times.length < 2) return;
  const box = make("div", { class: "chart" });
  parent.append(box);
  const columns = flows.map((flow) => {
    const by = new Map(flow.series.map((point) => [point.start_s, pick(point)]));
    return times.map((at) => by.get(at) ?? null);
  });
  charts.push({ box, title, label, series: flows.map((flow) => ({ label: flow.src + " > " + flow.dst })), values: [times, ...columns] });
}
function timeline() {
  const flows = data.tcp_flows.filter((flow) => flow.series.length > 1 && flow.acked_bytes > 10000);
  if (!flows.length) return;
  const box = section("timeline", "Over time (drag to zoom, double click to see all)");
  chart(box, "Throughput", "bit/s", flows, (point) => point.throughput_bps);
  chart(box, "Congestion window", "segments", flows, (point) => point.cwnd);
  chart(box, "Smoothed round trip", "us", flows, (point) => point.srtt_us);
  chart(box, "Retransmissions", "segments", flows, (point) => point.retransmits);
  for (const flow of flows.filter((flow) => flow.resent.length).slice(0, 2)) sequence(box, flow);
}
// What was acknowledged over time, and each segment sent again at its place: filled where the original did not arrive, hollow
// where it did.
function sequence(parent, flow) {
  const line = [];
  let bytes = 0;
  flow.series.forEach((point, at) => {
    line.push([point.start_s, bytes]);
    const next = flow.series[at + 1];
    if (next) bytes += (point.throughput_bps || 0) / 8 * (next.start_s - point.start_s);
  });
  const kinds = [...new Set(flow.resent.map((one) => one.cause))].sort().flatMap((cause) => [[cause, false], [cause, true]]);
  const of = (one, kind) => one.cause === kind[0] && (one.original_arrived === true) === kind[1];
  const there = kinds.filter((kind) => flow.resent.some((one) => of(one, kind)));
  const rows = line.map(([at, bytes]) => [at, bytes]).concat(flow.resent.map((one) => [one.time_s, null, one]));
  rows.sort((a, b) => a[0] - b[0]);
  const box = make("div", { class: "chart", id: "sequence" });
  parent.append(box);
  const causes = [...new Set(there.map((kind) => kind[0]))];
  charts.push({ box, title: "Sequence: " + flow.src + " > " + flow.dst, label: "bytes", height: 300,
    series: [{ label: "acknowledged", options: { spanGaps: true } }, ...there.map(([cause, arrived]) => {
      const colour = COLOURS[(1 + causes.indexOf(cause)) % COLOURS.length];
      return { label: cause + (arrived ? ", original arrived" : ""), options: { stroke: colour, width: 0, paths: () => null,
        points: { show: true, size: 7, stroke: colour, fill: arrived ? "transparent" : colour, width: 1.5 } } };
    })],
    values: [rows.map((row) => row[0]), rows.map((row) => row[1]), ...there.map((kind) => rows.map((row) => row[2] && of(row[2], kind) ? row[2].offset : null))] });
}

function bars(parent, rows) {
  const names = [...new Set(rows.flatMap((row) => row.parts.map((part) => part.name)))];
  const colour = (name) => COLOURS[names.indexOf(name) % COLOURS.length];
  parent.append(make("p", { class: "key" }, ...names.map((name) => make("span", {}, make("i", { style: "background:" + colour(name) }), name))));
  const most = Math.max(...rows.map((row) => row.total));
  for (const row of rows) {
    const bar = make("div", { class: "bar", role: "img", "aria-label": row.title });
    for (const part of row.parts) bar.append(make("span", { style: "width:" + 100 * part.us / most + "%;background:" + colour(part.name), title: part.name + " " + time(part.us) }));
    parent.append(make("div", {}, row.title), bar);
  }
}
function stages() {
  if (!data.stages.length) return;
  const box = section("stages", "Where a packet spends its time");
  table(box, data.stages, [["stage", (row) => row.name], ["direction", (row) => row.direction], ["packets", (row) => count(row.packets), true],
    ["p50", (row) => time(row.p50_us), true], ["p90", (row) => time(row.p90_us), true], ["p99", (row) => time(row.p99_us), true],
    ["max", (row) => time(row.max_us), true], ["backlog", (row) => count(row.backlog_max_packets), true]]);
  if (!data.waterfalls.length) return;
  box.append(make("h3", {}, "Single packets"));
  bars(box, data.waterfalls.map((one) => ({
    title: one.packet + ", " + one.direction + ", " + time(one.total_us), total: one.total_us,
    parts: one.stages.map((stage) => ({ name: stage.name, us: stage.us ?? stage.time_us ?? 0 })),
  })));
}

// The ledger as a flow: a band from stage to stage, as wide as what went through, and what was lost on its way down.
function ledgerFlow(parent, direction, rows) {
  const step = 118, tall = 70, most = Math.max(...rows.map((row) => Math.max(row.in, row.out)), 1);
  const wide = rows.length * step + 10;
  const picture = svg("svg", { viewBox: "0 0 " + wide + " 140", class: "flow", role: "img", "aria-label": "Flow of packets, " + direction });
  rows.forEach((row, at) => {
    const x = at * step, into = row.in / most * tall, out = row.out / most * tall;
    picture.append(svg("path", { class: "band", d: "M" + x + " 20 L" + (x + step) + " 20 L" + (x + step) + " " + (20 + out) + " L" + x + " " + (20 + into) + " Z" }, svg("title", {}, row.name + ": " + count(row.in) + " in, " + count(row.out) + " out, " + count(row.lost) + " lost, " + count(row.inside) + " inside")));
    if (row.lost > 0) {
      const lost = Math.max(row.lost / most * tall, 1.5);
      picture.append(svg("path", { class: "lost", d: "M" + (x + step * .45) + " " + (20 + into - lost) + " q 20 0 20 40 l " + lost + " 0 q 0 -40 -20 -40 Z" }));
      picture.append(svg("text", { x: x + step * .3, y: 132, class: "lost" }, count(row.lost) + " lost"));
    }
    picture.append(svg("text", { x: x + 2, y: 13 }, row.name), svg("line", { x1: x, x2: x, y1: 18, y2: 92, class: "mark" }));
  });
  parent.append(make("div", {}, direction + ", " + count(most) + " packets at most"), make("div", { class: "scroll" }, picture));
}
function books() {
  const ledger = data.ledger;
  if (!ledger || !ledger.stages.length) return;
  const box = section("books", "Books" + (ledger.balanced === true ? ": balanced" : ledger.reason ? ": " + ledger.reason : ""));
  for (const direction of new Set(ledger.stages.map((row) => row.direction))) ledgerFlow(box, direction, ledger.stages.filter((row) => row.direction === direction));
  table(box, ledger.stages, [["stage", (row) => row.name], ["direction", (row) => row.direction], ["in", (row) => count(row.in), true], ["out", (row) => count(row.out), true],
    ["lost", (row) => count(row.lost), true], ["twice", (row) => count(row.duplicated), true], ["inside", (row) => count(row.inside), true], ["unseen", (row) => count(row.unseen), true], ["unexplained", (row) => count(row.unexplained), true]]);
  if (data.losses.length) table(box, data.losses, [["lost at", (row) => row.stage], ["reason", (row) => row.reason], ["device", (row) => row.device], ["packets", (row) => count(row.packets), true], ["known by", (row) => row.method]]);
}
// Stack samples: width is samples, the outermost function at the bottom. A click makes a frame as wide as the graph.
function flames() {
  const stacks = data.stacks || [];
  if (!stacks.length) return;
  const box = section("flames", "Where the CPU time went (stack samples; click a frame to zoom, Esc or the lowest one for all)");
  const root = { name: "all", samples: 0, children: new Map() };
  for (const { stack, samples } of stacks) {
    let node = root;
    node.samples += samples;
    for (const name of stack.split(";")) {
      if (!node.children.has(name)) node.children.set(name, { name, samples: 0, children: new Map() });
      node = node.children.get(name);
      node.samples += samples;
    }
  }
  const groups = Object.entries(data.samples_by_group || {}).sort((a, b) => b[1] - a[1]);
  const all = groups.reduce((sum, one) => sum + one[1], 0);
  if (groups.length) box.append(make("p", { class: "faint" }, groups.map(([name, samples]) => name + " " + percent(samples / all)).join(", ")));
  const depth = (node) => 1 + Math.max(0, ...[...node.children.values()].map(depth));
  const levels = Math.min(depth(root), 60), row = 17, wide = 1060;
  const picture = svg("svg", { viewBox: "0 0 " + wide + " " + levels * row, class: "flames", role: "img", "aria-label": "Flame graph" });
  function lay(node, x, width, level) {
    if (width < 1 || level >= levels) return;
    const y = (levels - 1 - level) * row, hue = [...node.name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 60, 0);
    const fill = node.name.endsWith("_[k]") ? "hsl(" + (200 + hue / 2) + " 55% 70%)" : "hsl(" + hue + " 75% 68%)";
    const text = width > 40 ? node.name.replace("_[k]", "").slice(0, Math.floor(width / 6.4)) : "";
    const frame = svg("g", { tabindex: "0" }, svg("title", {}, node.name + ": " + count(node.samples) + " samples, " + percent(node.samples / root.samples)),
      svg("rect", { x, y, width: Math.max(width - .5, .5), height: row - 1, fill }), svg("text", { x: x + 3, y: y + 12 }, text));
    frame.addEventListener("click", () => show(node));
    frame.addEventListener("keydown", (event) => { if (event.key === "Enter") show(node); });
    picture.append(frame);
    let at = x;
    for (const child of [...node.children.values()].sort((a, b) => b.samples - a.samples)) {
      lay(child, at, width * child.samples / node.samples, level + 1);
      at += width * child.samples / node.samples;
    }
  }
  function show(node) {
    picture.replaceChildren();
    if (node === root) return lay(root, 0, wide, 0);
    // The whole as the lowest row leads back.
    lay({ name: "all", samples: root.samples, children: new Map() }, 0, wide, 0);
    lay(node, 0, wide, 1);
    picture.firstChild.addEventListener("click", () => show(root));
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") show(root); });
  show(root);
  box.append(picture);
}
// Share of each second that a thread ran, and that it ran or waited for a core while packets waited for it.
function activity(parent) {
  const threads = data.activity || [];
  if (!threads.length) return;
  const seconds = [...new Set(threads.flatMap((one) => one.seconds.map((row) => row[0])))].sort((a, b) => a - b);
  for (const [title, at] of [["Threads: share of a core", 1], ["Threads: saturated share of the time", 2]]) {
    const box = make("div", { class: "chart" });
    parent.append(box);
    const columns = threads.map((one) => { const by = new Map(one.seconds.map((row) => [row[0], row[at]])); return seconds.map((second) => by.get(second) ?? null); });
    charts.push({ box, title, label: "share", key: "threads", axis: "s after the recording began", series: threads.map((one) => ({ label: one.comm + " " + one.tid })), values: [seconds, ...columns] });
  }
}
function rest() {
  if (data.reordering.length) table(section("order", "Order (RFC 4737)"), data.reordering, [["tap", (row) => row.tap], ["namespace", (row) => row.namespace], ["direction", (row) => row.direction], ["packets", (row) => count(row.packets), true], ["reordered", (row) => count(row.reordered), true], ["added here", (row) => count(row.added), true], ["extent p99", (row) => row.extent_p99, true], ["late p99", (row) => time(row.late_time_us_p99), true]]);
  if (data.coalescing.length) table(section("merging", "Segments per unit"), data.coalescing, [["tap", (row) => row.tap], ["device", (row) => row.device], ["namespace", (row) => row.namespace], ["units", (row) => count(row.units), true], ["segments per unit", (row) => row.segments_per_unit.toFixed(1), true], ["largest", (row) => row.segments_max, true]]);
  const threads = data.threads.length ? section("threads", "Threads") : null;
  if (threads) activity(threads);
  if (threads) table(threads, data.threads, [["thread", (row) => row.comm], ["pid", (row) => row.pid, true], ["role", (row) => row.role], ["CPU", (row) => time(row.cpu_s * 1e6), true], ["of a core", (row) => percent(row.cpu_share), true], ["waited for a core", (row) => time(row.runqueue_wait_s * 1e6), true]]);
  if (data.what_if.length) table(section("what-if", "What other settings would have done"), data.what_if, [["change", (row) => row.change], ["retransmissions", (row) => count(row.predicted.retransmits), true], ["spurious", (row) => count(row.predicted.spurious), true], ["basis", (row) => row.basis]]);
  if (data.problems.length) table(section("notes", "Notes"), data.problems, [["part", (row) => row.part], ["severity", (row) => row.severity], ["what", (row) => row.message]]);
  main.append(make("p", { class: "faint" }, "vpnbench " + data.run.tool_version + ", run " + data.run.id));
}

main.replaceChildren();
header(); findings(); timeline(); stages(); books(); flames(); rest();
draw();
dark.addEventListener("change", draw);
matchMedia("print").addEventListener("change", draw);
addEventListener("resize", draw);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
