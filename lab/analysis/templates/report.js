"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent), table = $("table"), GRAY = "#7f8b96", UNRANKED = "#d55e00";
const trials = [...table.tBodies].map(body => ({body, number: Number(body.dataset.trial), row: body.rows[0], details: body.rows[1]}));
const heads = [...table.tHead.rows[0].cells], columnNames = Object.keys(data.columns);
const ranked = trials.filter(trial => trial.body.dataset.ranked);
const firstFive = (ranked.length ? ranked : trials).slice(0, 5).map(trial => trial.number);
const view = {chosen: new Set(firstFive), open: new Set(), metric: columnNames[0], sort: "rank", descending: false, filter: "", all: false};

/* ---- Plots: built by lab/analysis/report_figures.py, colored here by which Trials are chosen ---- */

function draw(host, traces, layout, onTrial) {
  const lines = traces.map(trace => typeof trace.x === "number" ? {...trace, x: data.frames[trace.x]} : trace);
  Plotly.react(host, lines, {...layout, template: data.template}, 
    {responsive: true, displaylogo: false, displayModeBar: host.id.startsWith("panel") ? false : "hover"});
  host.removeAllListeners("plotly_click");
  if (onTrial) host.on("plotly_click", ({points: [point]}) => onTrial(point.customdata ?? point.data.meta?.trial));
}
/** Return the color of a chosen Trial, by its place in the ranking as in experiment.png; null if it is not chosen. */
function colorOf(number) {
  return view.chosen.has(number) ? data.colors[number] : null;
}
function drawCurves() {
  if (!columnNames.length) return;
  const {data: traces, layout} = data.columns[view.metric];
  const styled = traces.map(trace => {
    const color = colorOf(trace.meta.trial), visible = Boolean(color);
    if (trace.meta.kind === "band") return {...trace, visible, fillcolor: `${color}26`};
    if (trace.meta.kind === "session") return {...trace, visible, line: {color, width: 1, dash: "dash"}};
    const line = {color: color ?? GRAY, width: color ? 2 : 1, dash: visible ? data.dashes[trace.meta.trial] : "solid"};
    return {...trace, showlegend: visible, opacity: color ? 1 : .35, line};
  });
  draw($("curves"), styled.sort((a, b) => Boolean(colorOf(a.meta.trial)) - Boolean(colorOf(b.meta.trial))), layout, choose);
}
function drawProfile() {
  if ($("profile")) draw($("profile"), data.across.data, data.across.layout);
}
function drawPanels() {
  data.panels[$("metric")?.value ?? 0].forEach((panel, index) => {
    const traces = panel.data.map(trace => {
      if (!trace.customdata) return trace;
      const colors = trace.customdata.map(colorOf), other = trace.marker?.symbol ? UNRANKED : GRAY;
      const marker = {color: colors.map(color => color ?? other), size: colors.map(color => color ? 9 : 6)};
      return {...trace, error_y: {...trace.error_y, color: GRAY}, marker: {...trace.marker, ...marker}};
    });
    draw($(`panel-${index}`), traces, panel.layout, number => number && choose(number));
  });
}

/* ---- Choosing and opening Trials ---- */

function choose(number) {
  if (number == null) return;
  if (!view.chosen.delete(number)) view.chosen.add(number);
  showChosen();
}
function showChosen() {
  for (const {row, number} of trials) {
    const box = row.querySelector("input");
    [box.checked, box.style.accentColor] = [view.chosen.has(number), data.colors[number]];
    row.classList.toggle("chosen", view.chosen.has(number));
  }
  drawCurves();
  drawPanels();
  keepView();
}
function setOpen(trial, open) {
  open ? view.open.add(trial.number) : view.open.delete(trial.number);
  trial.details.hidden = !open;
  trial.row.querySelector(".disclose").setAttribute("aria-expanded", open);
  const traces = data.trials[trial.number];
  if (open && traces.length) draw($(`curves-${trial.number}`), traces, data.trialLayout);
  keepView();
}

/* ---- Sorting and filtering ---- */

const cellOf = (trial, head) => trial.row.cells[heads.indexOf(head)];
function arrange() {
  const head = heads.find(each => each.dataset.key === view.sort) ?? heads[1], {keep, problem} = readFilter(view.filter);
  const sorted = trials.map((trial, place) => ({trial, place, value: cellOf(trial, head).dataset.value}));
  sorted.sort((a, b) => (a.value == null) - (b.value == null) // missing values come last either way
    || (a.value != null && compare(a.value, b.value) * (view.descending ? -1 : 1)) || a.place - b.place);
  table.append(...sorted.map(({trial}) => trial.body));
  trials.forEach(trial => { trial.body.hidden = !keep(trial); });
  heads.forEach(each => each.setAttribute("aria-sort", each !== head ? "none" : view.descending ? "descending" : "ascending"));
  const kept = trials.filter(trial => !trial.body.hidden).length, all = `${trials.length} Trial${trials.length === 1 ? "" : "s"}`;
  $("shown").textContent = problem || (kept < trials.length ? `${kept} of ${all}` : all);
}
function compare(a, b) {
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? a.localeCompare(b, "en", {numeric: true}) : difference;
}
function sortBy(head) {
  view.descending = view.sort === head.dataset.key ? !view.descending : Boolean(head.dataset.descending);
  view.sort = head.dataset.key;
  arrange();
  keepView();
}
/** Return which Trials match words and conditions, and what is wrong with a condition. */
function readFilter(text) {
  const tests = [], problems = [];
  for (const [token] of text.replace(/\s*(<=|>=|!=|=|<|>)\s*/g, "$1").matchAll(/(?:"[^"]*"|\S)+/g)) {
    const [, name, sign, operand] = /^([^<>=!"]+)(<=|>=|!=|=|<|>)(.*)$/.exec(token) ?? [];
    const wanted = (operand ?? token).replaceAll('"', "").toLowerCase(), key = name?.toLowerCase();
    if (!sign) {
      tests.push(({row, details}) => `${row.title} ${row.textContent} ${details.querySelector(".errors").textContent}`
        .toLowerCase().includes(wanted));
      continue;
    }
    const keys = heads.filter(head => head.dataset.key), exact = keys.filter(head => head.dataset.key.toLowerCase() === key);
    const matches = exact.length ? exact : keys.filter(head => head.dataset.key.toLowerCase().endsWith(`.${key}`));
    if (!matches.length) problems.push(`There is no column “${name}”.`);
    else if (matches.length > 1) problems.push(`“${name}” may be ${matches.map(head => head.dataset.key).join(" or ")}.`);
    else if (wanted) tests.push(trial => holds(cellOf(trial, matches[0]), sign, wanted));
  }
  return {keep: trial => tests.every(test => test(trial)), problem: problems.join(" ")};
}
function holds(cell, sign, operand) {
  const value = cell.dataset.value;
  if (value == null) return sign === "!=";
  const number = Number(value), wanted = Number(operand), numbers = !Number.isNaN(number) && !Number.isNaN(wanted);
  const equal = value.toLowerCase() === operand || number === wanted || cell.firstChild.textContent.trim() === operand;
  return {"=": equal, "!=": !equal, "<": numbers && number < wanted && !equal, ">": numbers && number > wanted && !equal,
    "<=": numbers && (number < wanted || equal), ">=": numbers && (number > wanted || equal)}[sign];
}

/* ---- The view is kept in the address, so a reload or a link shows the same ---- */

function readView() {
  const named = [];
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const trial = trials.find(each => `trial-${each.number}` === name);
    if (trial) named.push(trial);
    else if (name === "chosen") view.chosen = new Set(value.match(/\d+/g)?.map(Number));
    else if (name === "metric" && columnNames.includes(value)) view.metric = value;
    else if (name === "sort") [view.sort, view.descending] = [value.replace(/^-/, ""), value.startsWith("-")];
    else if (name === "filter") view.filter = value;
    else if (name === "all") view.all = true;
  }
  return named;
}
function keepView() {
  const parts = [...view.open].map(number => `trial-${number}`);
  const add = (name, value) => parts.push(`${name}=${encodeURIComponent(value)}`);
  if (String([...view.chosen]) !== String(firstFive)) add("chosen", [...view.chosen]);
  if (view.metric !== columnNames[0]) add("metric", view.metric);
  if (view.sort !== "rank" || view.descending) add("sort", (view.descending ? "-" : "") + view.sort);
  if (view.filter) add("filter", view.filter);
  if (view.all) add("all", 1);
  history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
}
function showView() {
  const named = readView();
  [$("filter").value, $("all").checked] = [view.filter, view.all];
  if (columnNames.length) $("column").value = view.metric;
  table.classList.toggle("all", view.all);
  arrange();
  showChosen();
  named.forEach(trial => { trial.body.hidden = false; setOpen(trial, true); });
  named[0]?.row.scrollIntoView();
}

function listen(id, event, change) {
  $(id)?.addEventListener(event, ({target}) => { change(target); keepView(); });
}
listen("column", "change", target => { view.metric = target.value; drawCurves(); });
listen("metric", "change", drawPanels);
listen("filter", "input", target => { view.filter = target.value; arrange(); });
listen("all", "change", target => { view.all = target.checked; table.classList.toggle("all", view.all); });
listen("choose-first", "click", () => { view.chosen = new Set(firstFive); showChosen(); });
listen("choose-none", "click", () => { view.chosen.clear(); showChosen(); });
listen("close-all", "click", () => trials.forEach(trial => setOpen(trial, false)));
heads.slice(1).forEach(head => head.firstElementChild.addEventListener("click", () => sortBy(head)));
for (const trial of trials) {
  trial.row.querySelector("input").addEventListener("change", () => choose(trial.number));
  trial.row.addEventListener("click", ({target}) => {
    if (target.closest(".disclose") || !target.closest("button, a, input") && !String(getSelection()))
      setOpen(trial, trial.details.hidden);
  });
}
addEventListener("hashchange", showView);
showView();
drawProfile();
