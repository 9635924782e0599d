// What all parts of the page share. Text from the data becomes text nodes and attributes, never markup.
const NOBODY = 0xffff;
const report = JSON.parse(document.getElementById("report").textContent);
const KINDS = { u1: Uint8Array, u2: Uint16Array, u8: BigUint64Array, f4: Float32Array };

function unpack(column) {
  const text = atob(column.data);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  return new KINDS[column.dtype](bytes.buffer);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((each) => each !== null && each !== undefined));
  return node;
}

function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function show(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

function number(value) {
  return value.toLocaleString("en-US");
}

function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function share(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(1)} %` : "–";
}

function moment(seconds) {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
}

function shortened(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

function facts(list, kind = "facts") {
  return el("dl", { class: kind }, ...list.map((each) => el("div", {}, el("dt", {}, each.name), el("dd", {}, each.value))));
}

function choice(id, label, options, value, onchange) {
  const select = el("select", { id, onchange: (event) => onchange(event.target.value) });
  for (const each of options) {
    select.append(el("option", { value: each.value, disabled: Boolean(each.reason), title: each.reason || null }, each.label));
  }
  select.value = String(value);
  return el("label", { for: id }, label, select);
}

function table(caption, heads, rows, attributes = {}) {
  const head = heads.map((each) => el("th", { scope: "col", class: each.number ? "number" : null }, each.label));
  const body = rows.map((row) =>
    el("tr", {}, ...row.map((cell, at) => el("td", { class: heads[at].number ? "number" : heads[at].kind || null }, cell))),
  );
  return el("table", attributes, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

const METRICS = { cosine: "cosine", l2: "Euclidean (L2)", inner_product: "inner product" };

// What is chosen on the page; whoever draws something is told when that changes.
const chosen = { table: 0, neighbours: 10, metric: "cosine", space: "full", view: "pca", colour: "similarity", node: -1 };
const drawers = [];

function choose(changes) {
  Object.assign(chosen, changes);
  for (const draw of drawers) draw(Object.keys(changes));
}

function drawn(draw) {
  drawers.push(draw);
}
