// What happened: a strip over time with a lane for each kind, and the same as a list.
const LANES = [
  ["version", "versions"], ["rejected", "rejected"], ["backup", "backups"], ["verdict", "verdicts"],
  ["alarm", "alarms"], ["rollback", "rollbacks"], ["person", "people"],
];
const MARKS = {
  good: (x, y) => svg("circle", { cx: x, cy: y, r: 5, class: "good" }),
  plain: (x, y) => svg("circle", { cx: x, cy: y, r: 4, class: "plain" }),
  warning: (x, y) => svg("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9, class: "warning" }),
  bad: (x, y) => svg("path", { d: `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z`, class: "bad" }),
};

function timelineStrip(entries) {
  const lanes = LANES.filter(([kind]) => entries.some((each) => each.kind === kind));
  const left = 90, width = 1180, top = 8, step = 26, right = 20;
  const first = entries[0].time, last = Math.max(...entries.map((each) => each.until || each.time));
  const span = Math.max(last - first, 1e-9);
  const at = (time) => left + ((width - left - right) * (time - first)) / span;
  const height = top + lanes.length * step + 24;
  const strip = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${entries.length} events from ${moment(first)} to ${moment(last)} UTC, as listed below` });
  lanes.forEach(([kind, label], lane) => {
    const y = top + lane * step + step / 2;
    strip.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "axis" }), svg("text", { x: 0, y: y + 4, class: "soft" }, label));
    for (const each of entries.filter((entry) => entry.kind === kind)) {
      const mark = svg("g", {}, svg("title", {}, `${moment(each.time)} ${each.title}${each.count > 1 ? ` × ${each.count}` : ""}\n${each.detail}`));
      if (each.until) mark.append(svg("rect", { x: at(each.time), y: y - 3, width: Math.max(2, at(each.until) - at(each.time)), height: 6, rx: 3, class: each.tone }));
      mark.append(MARKS[each.tone](at(each.time), y));
      strip.append(mark);
    }
  });
  for (let tick = 0; tick <= 4; tick += 1) {
    const time = first + (span * tick) / 4;
    const text = span < 172800 ? moment(time).slice(11) : moment(time).slice(0, 16);
    strip.append(svg("text", { x: at(time), y: height - 4, class: "soft", "text-anchor": ["start", "middle", "middle", "middle", "end"][tick] }, text));
  }
  return strip;
}

function timelineList(entries, hidden) {
  const rows = entries.filter((each) => !hidden.has(each.kind)).reverse();
  return table(
    "Newest first; times are UTC.",
    [{ label: "time", kind: "time" }, { label: "what" }, { label: "details", kind: "words" }],
    rows.map((each) => [
      moment(each.time),
      el("span", {}, el("span", { class: `dot tone-${each.tone}`, role: "img", "aria-label": each.tone }), each.title, each.count > 1 ? el("span", { class: "chip" }, `× ${each.count} until ${moment(each.until).slice(11)}`) : null),
      each.detail,
    ]),
  );
}

function drawTimeline() {
  const entries = report.timeline;
  if (!entries.length) return show("timeline-body", el("p", { class: "quiet" }, "Nothing happened yet."));
  const hidden = new Set();
  const list = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All events" }, timelineList(entries, hidden));
  const kinds = LANES.filter(([kind]) => entries.some((each) => each.kind === kind));
  const checks = kinds.map(([kind, label]) => {
    const count = entries.filter((each) => each.kind === kind).reduce((sum, each) => sum + each.count, 0);
    const box = el("input", { type: "checkbox", checked: true, onchange: (event) => {
      if (event.target.checked) hidden.delete(kind); else hidden.add(kind);
      list.replaceChildren(timelineList(entries, hidden));
    } });
    return el("label", { class: "check" }, box, `${label} (${number(count)})`);
  });
  const left = report.timeline_left_out;
  show("timeline-body", timelineStrip(entries), el("div", { class: "bar", role: "group", "aria-label": "Kinds in the list" }, ...checks), list,
    left ? el("p", { class: "hint" }, `${number(left)} older ones are not shown.`) : null || "");
}
