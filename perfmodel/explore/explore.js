"use strict";
// Asks the service what the controls say, and shows what it answers: it computes no figure of its own.
(function () {
  const byId = (id) => document.getElementById(id);
  const form = byId("controls"), main = byId("main"), root = document.documentElement;
  const controls = [...form.querySelectorAll("[data-start]")];
  const AXES = ["batches", "contexts"];
  const CONFIG = { displayModeBar: false, responsive: true };
  const PAUSE = 250; // after the last key until it is asked [ms]
  let asking = null, typed = 0, edited = "", shown = null, mapDrawn = "";

  // The question: the controls, the link, the request.

  const values = () => Object.fromEntries(controls.map(({ name, value }) => [name, value.trim()]));
  const given = () => Object.entries(values()).filter(([, value]) => value !== "");

  function question(ofMap) {
    const all = Object.fromEntries(given());
    const axes = Object.fromEntries(AXES.filter((name) => name in all).map((name) => [name, all[name]]));
    AXES.forEach((name) => delete all[name]);
    if (ofMap) Object.assign(all, { batch_size: axes.batches, context: axes.contexts });
    return { question: all, axes };
  }

  const link = () => "?" + new URLSearchParams(given());

  function setControls(search) {
    const asked = new URLSearchParams(search), linked = [...asked].length > 0;
    controls.forEach((control) => {
      const value = asked.get(control.name);
      const absent = linked && !AXES.includes(control.name) ? "" : control.dataset.start;
      control.value = value === null ? absent : value;
      if (control.tagName === "SELECT" && value !== null && control.value !== value) offer(control, value);
    });
  }

  // A link may name what the list spells otherwise: it is offered as it stands, and the service judges.
  function offer(control, value) {
    const option = document.createElement("option");
    option.value = option.textContent = value;
    control.append(option);
    control.value = value;
  }

  // Asking: the latest question wins.

  async function post(path, body, signal) {
    const reply = await fetch(path, {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    return { ok: reply.ok, reply };
  }

  async function ask() {
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    main.setAttribute("aria-busy", "true");
    const { question: asked, axes } = question(false);
    try {
      const { ok, reply } = await post("/explore", { question: asked, ...axes }, mine.signal);
      const answer = await reply.json();
      if (mine !== asking) return;
      clearFaults();
      if (ok) show(answer);
      else refuse(answer);
    } catch (failure) {
      if (mine !== asking || failure.name === "AbortError") return;
      clearFaults();
      byId("general-fault").textContent = "The service does not answer. Is draftplan explore still running?";
    }
    main.setAttribute("aria-busy", "false");
    root.dataset.answered = String(Number(root.dataset.answered || 0) + 1);
  }

  function changed(name) {
    clearTimeout(typed);
    const next = link();
    if (next !== location.search) {
      const write = edited === name ? "replaceState" : "pushState";
      history[write](null, "", next);
      edited = name;
    }
    ask();
  }

  // Refusals stand beside the control that they are about.

  function clearFaults() {
    document.querySelectorAll(".fault").forEach((place) => (place.textContent = ""));
    controls.forEach((control) => control.removeAttribute("aria-invalid"));
  }

  function refuse(details) {
    const general = [];
    (details.problems || []).forEach((fault) => {
      const said = [fault.problem, fault.remedy, fault.nearest ? `Did you mean ${fault.nearest}?` : ""];
      const text = said.filter((part) => part).map((part) => part.replace(/[.?]?$/, (end) => end || ".")).join(" ");
      const names = fault.key.split(/, |\./).map((key) => byId(key)).filter((one) => controls.includes(one));
      if (!names.length) general.push(`${fault.key}: ${text}`);
      names.slice(0, 1).forEach((control) => {
        control.setAttribute("aria-invalid", "true");
        byId(control.name + "-fault").textContent = text;
      });
    });
    if (!(details.problems || []).length) general.push(details.detail);
    byId("general-fault").textContent = general.join(" ");
    byId("headline").textContent = details.counts ? "Nothing fits: no configuration is feasible." : details.title + ".";
  }

  // Showing.

  function element(tag, text, attributes) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    Object.entries(attributes || {}).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  }

  const list = (id, sentences) => byId(id).replaceChildren(...sentences.map((text) => element("li", text)));

  function show(answer) {
    shown = answer;
    byId("headline").textContent = answer.headline;
    byId("title").textContent = answer.title;
    byId("cell").textContent = answer.cell;
    byId("why").textContent = answer.why;
    byId("command").textContent = answer.command;
    list("remarks", answer.remarks);
    list("assumed", answer.assumed);
    byId("facts").replaceChildren(...answer.facts.map((fact) => {
      const item = element("li");
      item.append(element("span", fact.name), element("strong", fact.value), element("span", fact.note));
      return item;
    }));
    draw();
    tables();
  }

  // Tables are made when somebody looks at them.
  function tables() {
    const open = (id) => byId(id).closest("details").open;
    if (shown && open("map-table")) mapTable(shown.map);
    ["causes", "lengths"].forEach((id) => {
      if (shown && open(id + "-table")) table(id + "-table", shown[id] && shown[id].table);
    });
  }

  function table(id, told) {
    const place = byId(id);
    place.replaceChildren();
    if (!told) return;
    const row = (cells, chosen) => {
      const line = element("tr", undefined, chosen ? { class: "chosen" } : {});
      line.append(...cells);
      return line;
    };
    const head = element("thead"), body = element("tbody");
    head.append(row(told.head.map((text) => element("th", text, { scope: "col" }))));
    body.append(...told.rows.map(([first, ...rest], at) =>
      row([element("th", first, { scope: "row" }), ...rest.map((text) => element("td", text))], at === told.chosen)));
    place.append(element("caption", told.caption), head, body);
  }

  function mapTable(told) {
    const place = byId("map-table"), focused = document.activeElement;
    const keep = place.contains(focused) && focused.tagName === "BUTTON";
    const head = element("thead"), body = element("tbody"), line = element("tr");
    line.append(element("th", "batch", { scope: "col" }));
    told.data[0].x.forEach((context) => line.append(element("th", context, { scope: "col" })));
    head.append(line);
    told.table.map((cells, row) => [cells, row]).reverse().forEach(([cells, row]) => {
      const tr = element("tr");
      tr.append(element("th", told.data[0].y[row], { scope: "row" }));
      cells.forEach((cell, column) => {
        const chosen = row === told.at[0] && column === told.at[1];
        const button = element("button", cell.text, {
          type: "button", "aria-label": cell.label, "aria-pressed": String(chosen), tabindex: chosen ? "0" : "-1",
          "data-row": row, "data-column": column,
        });
        const td = element("td");
        td.append(button);
        tr.append(td);
      });
      body.append(tr);
    });
    place.replaceChildren(element("caption", "Speedup: batch sizes down, contexts across"), head, body);
    if (keep) place.querySelector('[aria-pressed="true"]').focus();
  }

  function choose(row, column) {
    const { batches, contexts } = shown.map;
    if (batches[row] === undefined || contexts[column] === undefined) return;
    byId("batch_size").value = batches[row];
    byId("context").value = contexts[column];
    edited = "";
    changed("cell");
  }

  // Colours are the page's own, light or dark.
  function themed(layout, charts) {
    const ink = getComputedStyle(document.body).color;
    const line = getComputedStyle(document.querySelector("header")).borderBottomColor;
    const axis = (told) => ({ gridcolor: line, linecolor: line, zerolinecolor: line, ...told });
    return {
      autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: 10, t: 10, b: 50 }, ...layout,
      font: { family: getComputedStyle(document.body).fontFamily, color: ink, size: charts ? 12 : 13 },
      hoverlabel: { align: "left" },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { color: ink, ...shape.line } })),
      annotations: layout.annotations || [],
    };
  }

  function draw() {
    if (!shown) return;
    const width = byId("map").clientWidth, columns = shown.map.contexts.length;
    const room = (width - 70) / columns, wide = width > 620;
    const [drawn] = shown.map.data;
    const trace = { ...drawn, showscale: wide, texttemplate: room > 30 ? "%{text}" : "" };
    if (room <= 56) Object.assign(trace, { text: drawn.customdata, textfont: { size: 10 } });
    const map = byId("map"), layout = themed(shown.map.layout);
    const drawnNow = JSON.stringify([trace, layout.font.color, layout.height]);
    if (drawnNow === mapDrawn) Plotly.relayout(map, { shapes: layout.shapes }); // only the cell is another
    else Plotly.react(map, [trace], layout, CONFIG);
    mapDrawn = drawnNow;
    if (!map.dataset.listens) {
      map.dataset.listens = "yes";
      map.on("plotly_click", ({ points: [{ pointIndex }] }) => choose(pointIndex[0], pointIndex[1]));
    }
    ["causes", "lengths"].forEach((id) => {
      const figure = shown[id];
      if (figure) Plotly.react(id, figure.data, themed(figure.layout, true), CONFIG);
      else Plotly.purge(id);
    });
  }

  // Taking along.

  async function take(path, body, done) {
    const status = byId("taken");
    status.textContent = "One moment.";
    try {
      const { ok, reply } = await post(path, body);
      if (ok) status.textContent = await done(reply);
      else {
        const details = await reply.json();
        status.textContent = `${details.title}: ${details.detail}`;
      }
    } catch (failure) {
      status.textContent = `It did not work: ${failure.message}.`;
    }
  }

  function copy() {
    const engine = byId("engines");
    return take("/export", { question: question(true).question, format: engine.value }, async (reply) => {
      const told = await reply.json(), words = engine.selectedOptions[0].textContent, place = byId("export");
      place.hidden = told.text === "";
      place.textContent = told.text;
      list("export-notes", told.notes);
      if (told.refusal) return `Not for ${words}: ${told.refusal}`;
      return (await toClipboard(told.text, place)) ? `Copied for ${words}.` : "Select it and copy it by hand.";
    });
  }

  async function toClipboard(text, place) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      if (place) getSelection().selectAllChildren(place);
      return false;
    }
  }

  function save() {
    return take("/report", question(true).question, async (reply) => {
      const address = URL.createObjectURL(await reply.blob());
      element("a", "", { href: address, download: "draftplan-report.html" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
      return "Saved as draftplan-report.html.";
    });
  }

  // Light or dark: the system's, until somebody says otherwise.

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const kept = {
    get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* it is not kept */ } },
  };

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    byId("theme").setAttribute("aria-pressed", String(isDark()));
    draw();
  }

  // What people do.

  controls.forEach((control) => {
    control.addEventListener("change", () => { changed(control.name); edited = ""; });
    if (control.tagName === "INPUT") {
      control.addEventListener("input", () => {
        clearTimeout(typed);
        typed = setTimeout(() => changed(control.name), PAUSE);
      });
    }
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    controls.forEach((control) => (control.value = control.dataset.start));
    changed("reset");
    edited = "";
  });
  byId("map-table").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button) choose(Number(button.dataset.row), Number(button.dataset.column));
  });
  byId("map-table").addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key], { row, column } = event.target.dataset;
    if (!step || row === undefined) return;
    event.preventDefault();
    choose(Number(row) + step[0], Number(column) + step[1]);
  });
  document.querySelectorAll("details").forEach((each) => each.addEventListener("toggle", tables));
  byId("copy").addEventListener("click", copy);
  byId("save").addEventListener("click", save);
  byId("link").addEventListener("click", async () => {
    byId("link").textContent = (await toClipboard(location.origin + "/" + link())) ? "Copied" : "Copy the address";
    setTimeout(() => (byId("link").textContent = "Copy link"), 1500);
  });
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    kept.set(theme);
    setTheme(theme);
  });
  dark.addEventListener("change", () => setTheme(""));
  addEventListener("popstate", () => { edited = ""; setControls(location.search); ask(); });

  setControls(location.search);
  if (!location.search) history.replaceState(null, "", link());
  setTheme(kept.get() || "");
  ask();
})();
