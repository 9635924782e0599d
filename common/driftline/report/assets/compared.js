// The table that is looked at, its columns unpacked once.
const opened = new Map();

function current() {
  const index = chosen.table;
  if (!opened.has(index)) {
    const packed = report.tables[index];
    const key = (each) => `${each.metric}/${each.neighbours}`;
    opened.set(index, {
      ...packed,
      ids: unpack(packed.ids), moved: unpack(packed.moved), sample: unpack(packed.in_sample),
      direction: unpack(packed.direction), distance: unpack(packed.distance), domain: unpack(packed.domain),
      named: unpack(packed.named), drawnOf: unpack(packed.drawn_of),
      changes: new Map(packed.changes.map((each) => [key(each), { quantity: unpack(each.quantity), ratio: unpack(each.ratio), similarity: unpack(each.similarity) }])),
      lists: new Map(packed.lists.map((each) => [each.metric, {
        width: each.old.shape[1], old: unpack(each.old), new: unpack(each.new), low: unpack(each.low), high: unpack(each.high),
        oldDistance: unpack(each.old_distance), newDistance: unpack(each.new_distance),
      }])),
      pictures: new Map(packed.views.filter((each) => !each.reason).map((each) => [each.name, { old: unpack(each.old), new: unpack(each.new) }])),
    });
  }
  return opened.get(index);
}

function changesNow(of = current()) {
  return of.changes.get(`${chosen.metric}/${chosen.neighbours}`);
}

// The neighbours of a drawn row in one version under the chosen K and distance, nearest first.
function neighboursOf(node, side) {
  const of = current(), lists = of.lists.get(chosen.metric);
  const found = [], start = node * lists.width;
  for (let at = start; at < start + chosen.neighbours; at += 1) {
    const name = lists[side][at];
    if (name === NOBODY) break;
    const code = lists[`${side}Distance`][at] / 65535;
    found.push({ name, id: String(of.named[name]), drawn: of.drawnOf[name], distance: lists.low[node] + code * (lists.high[node] - lists.low[node]) });
  }
  return found;
}

function selectNode(node) {
  choose({ node });
}

function drawSettings() {
  const of = current();
  const spaces = [{ value: "full", label: `none: all ${of.dim} dimensions` }, ...of.views.map((each) => ({ value: each.name, label: `${each.title}, 2 dimensions`, reason: each.reason }))];
  const tables = report.tables.map((each, at) => ({ value: at, label: each.table }));
  show("table-choice", choice("choose-table", "Table", tables, chosen.table, (value) => choose({ table: Number(value), node: -1 })));
  show("settings",
    choice("choose-k", "Neighbours K", of.neighbour_counts.map((each) => ({ value: each, label: String(each) })), chosen.neighbours, (value) => choose({ neighbours: Number(value) })),
    choice("choose-metric", "Distance", of.metrics.map((each) => ({ value: each, label: METRICS[each] || each })), chosen.metric, (value) => choose({ metric: value })),
    choice("choose-space", "Reduction", spaces, chosen.space, (value) => choose({ space: value })));
}

function greyed(of) {
  const reasons = of.views.filter((each) => each.reason).map((each) => `${each.title} cannot be chosen: ${each.reason}.`);
  return reasons.length ? el("p", { class: "hint reasons" }, reasons.join(" ")) : null;
}

function drawSummary() {
  const of = current();
  const both = of.rows_before - of.removed;
  const size = of.sampled >= both
    ? `All ${number(both)} rows that are in both versions are drawn.`
    : `Drawn: a random sample of ${number(of.sampled)} of the ${number(both)} rows in both versions, and ${number(of.farthest)} more that moved farthest of all. Histograms and similarities of domains are over the sample alone.`;
  const all = Math.max(of.rows_before, of.rows_before + of.added);
  const pool = of.pool >= all ? "Neighbours are exact, among all rows." : `Neighbours are exact among ${number(of.pool)} rows, chosen at random, of ${number(all)}.`;
  const bad = of.left_out ? ` ${number(of.left_out)} drawn rows hold NaN, infinity or only zeros and have no neighbours under cosine.` : "";
  show("summary",
    el("p", {}, `${of.before} has ${number(of.rows_before)} rows of ${of.table}, ${of.after} has ${number(of.rows_after)}: ${number(of.changed)} changed, ${number(of.added)} added, ${number(of.removed)} removed.`),
    el("p", { class: "hint", id: "sample-size" }, `${size} ${pool}${bad}`),
    facts(of.whole));
}
