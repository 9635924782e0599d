// Every alarm: what was called for, the figures it was raised from, what became of it.
function judgedCard(each) {
  const parts = [el("h3", {}, `${each.table}: ${each.standing}${each.rule ? `, by ${each.rule}` : ""}`), facts(each.facts)];
  if (each.node_count) {
    const more = each.node_count - each.nodes.length;
    parts.push(el("p", { class: "hint" }, `Deviating: ${each.nodes.join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}`));
  }
  for (const [caption, lines] of [["Tick statistics", each.channels], ["Producers, the largest gradients first", each.producers]]) {
    if (!lines.length) continue;
    const names = Object.keys(lines[0]);
    parts.push(table(caption, names.map((name) => ({ label: name })), lines.map((line) => names.map((name) => (typeof line[name] === "number" ? figure(line[name]) : String(line[name]))))));
  }
  return el("div", { class: "card" }, ...parts);
}

function alarmCard(alarm) {
  const steps = alarm.steps.map((each) => [moment(each.time), el("span", {}, el("span", { class: `dot tone-${each.tone}`, role: "img", "aria-label": each.tone }), each.title), each.detail]);
  return el("article", { class: "card alarm" },
    el("h3", {}, `Alarm ${alarm.number} on ${alarm.table}, by ${alarm.rule}`),
    el("p", {}, `${moment(alarm.time)} UTC. ${alarm.why}`),
    el("p", {}, el("span", { class: "chip" }, `called for: ${alarm.action}`), el("span", { class: "chip" }, alarm.outcome ? `came of it: ${alarm.outcome}` : "still going on")),
    facts(alarm.facts),
    alarm.judged.length ? el("details", { open: true }, el("summary", {}, `Evidence: ${alarm.judged.length} verdict${alarm.judged.length > 1 ? "s" : ""}`), ...alarm.judged.map(judgedCard)) : null,
    steps.length ? table("Steps", [{ label: "time", kind: "time" }, { label: "what" }, { label: "who, why, figures", kind: "words" }], steps) : null);
}

function drawAlarms() {
  const judged = report.timeline.some((each) => each.kind === "verdict");
  const none = judged ? "No alarm was raised." : "No alarm, and no verdict either: no drift monitor has spoken here.";
  show("alarms-body", ...(report.alarms.length ? report.alarms.map(alarmCard) : [el("p", { class: "quiet" }, none)]));
}
