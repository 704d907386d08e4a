"use strict";
// Listens to the reader, and says in words what is drawn.
(function () {
  const { priced, state, at, choose, isRecommendation } = lookup;
  const { ms, times, entries, short, safe, letter, named, brief, budgetOf, range } = charts;
  const byId = (id) => document.getElementById(id);
  const CONTROLS = ["strategy", "budget", "gamma", "acceptance"];
  const ARROWS = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  function button(found, batch, context) {
    if (found === null) return "–";
    const here = batch === state.batch && context === state.context, kept = budgetOf(found);
    const said = safe(brief(found)) + (kept ? `, KV ${kept}` : "");
    const text = found.drafter < 0 ? "plain" : `${times(found.speedup)}<small>${said}</small>`;
    const place = `data-batch="${batch}" data-context="${context}"`;
    return `<button type="button" tabindex="${here ? 0 : -1}" aria-pressed="${here}" ${place}>${text}</button>`;
  }

  function fillTable(grid) {
    for (const row of byId("cells").tBodies[0].rows) {
      const batch = priced.batch_sizes.indexOf(Number(row.cells[0].textContent));
      for (const cell of [...row.cells].slice(1)) {
        const context = Number(cell.dataset.context);
        cell.innerHTML = button(grid[batch][context], batch, context);
      }
    }
  }

  function sentence(found, batch, context) {
    const plain = at(priced.plain_s, batch, context, 0, 0), { cell } = found, kept = budgetOf(found);
    const said = found.drafter < 0
      ? [`Decode plainly: ${ms(plain)} ms per token.`]
      : [
        `${named(found)}${kept ? `, draft KV budget ${kept}` : ""}, ${found.gamma} drafted: ${ms(found.tpot)} ms ` +
        `per token instead of ${ms(plain)}, ${times(found.speedup)} (${range(found, batch, context)}).`,
      ];
    if (cell) said.push(`Why: ${cell.why}.`);
    if (cell && cell.drafter >= 0 && cell.pays !== null) {
      said.push(`It beats plain decoding with a probability of ${Math.round(cell.pays * 100)}\u00a0%.`);
    }
    if (cell && cell.next) said.push(`Next best: ${cell.next}.`);
    return said.join(" ");
  }

  function drawCell() {
    const { batch, context } = state, found = choose(batch, context);
    const place = `batch ${priced.batch_sizes[batch]}, context ${entries(priced.context_lens[context])}`;
    byId("cell-name").textContent = place;
    charts.needed(batch, context);
    charts.latency(context, batch);
    if (found === null) {
      byId("said").textContent = "Nothing of what you chose fits in memory here.";
      charts.nothing("causes", "Nothing fits");
      charts.nothing("lengths", "Nothing fits");
      return;
    }
    byId("said").textContent = sentence(found, batch, context);
    charts.causes(found, batch, context);
    charts.lengths(found, batch, context);
  }

  function draw() {
    fillTable(charts.map());
    byId("shown").textContent = isRecommendation()
      ? "Shown: the recommendation."
      : "Shown: what you chose, not the recommendation. Every cell holds the best of it that fits.";
    drawCell();
    charts.doubts();
  }

  function select(batch, context, focus) {
    if (priced.batch_sizes[batch] === undefined || priced.context_lens[context] === undefined) return;
    Object.assign(state, { batch, context });
    draw();
    const chosen = document.querySelector('#cells button[aria-pressed="true"]');
    if (focus && chosen) chosen.focus();
  }

  function read() {
    for (const name of CONTROLS) state[name] = byId(name).value;
    const rate = byId("rate");
    state.rate = Number(rate.value);
    rate.disabled = state.acceptance !== "rate";
    const said = priced.rates[state.rate].toFixed(2);
    byId("rate-said").textContent = said;
    rate.setAttribute("aria-valuetext", said);
    draw();
  }

  function reset() {
    for (const name of CONTROLS) byId(name).selectedIndex = 0;
    byId("rate").value = priced.rates.indexOf(0.8);
    read();
  }

  function fill(id, options) {
    const item = ([value, text]) => `<option value="${safe(value)}">${safe(text)}</option>`;
    byId(id).innerHTML = options.map(item).join("");
  }

  async function copy(pressed) {
    const text = byId(pressed.dataset.copies);
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch (refused) {
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    pressed.textContent = "Copied";
    setTimeout(() => { pressed.textContent = "Copy"; }, 1500);
  }

  function fillControls() {
    const kept = priced.drafters.flatMap((one) => one.kv_budgets).filter((budget) => budget !== null);
    const budgets = [...new Set(kept)].sort((one, other) => one - other);
    fill("strategy", [
      ["best", "best of all"],
      ...priced.drafters.map((one, place) => [place, `${letter(place)} ${one.label}`]),
    ]);
    fill("budget", [["best", "best"], ...budgets.map((budget) => [budget, entries(budget)])]);
    fill("gamma", [["best", "best, or none"], ...priced.gammas.map((gamma) => [gamma, gamma])]);
    Object.assign(byId("rate"), { min: 0, max: priced.rates.length - 1, step: 1 });
    const places = [...byId("cells").tHead.rows[0].cells].slice(1)
      .map((cell) => priced.context_lens.indexOf(Number(cell.textContent.replace(/,/g, ""))));
    for (const row of byId("cells").tBodies[0].rows) {
      [...row.cells].slice(1).forEach((cell, place) => { cell.dataset.context = places[place]; });
    }
  }

  function listen() {
    const form = byId("controls"), cells = byId("cells");
    form.addEventListener("input", read);
    form.addEventListener("reset", (event) => { event.preventDefault(); reset(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    byId("map").on("plotly_click", ({ points: [point] }) => {
      const batch = priced.batch_sizes.map(String).indexOf(String(point.y));
      select(batch, priced.context_lens.map(short).indexOf(String(point.x)));
    });
    cells.addEventListener("click", (event) => {
      const pressed = event.target.closest("button");
      if (pressed) select(Number(pressed.dataset.batch), Number(pressed.dataset.context), true);
    });
    cells.addEventListener("keydown", (event) => {
      const step = ARROWS[event.key];
      if (!step) return;
      event.preventDefault();
      select(state.batch + step[0], state.context + step[1], true);
    });
    for (const one of document.querySelectorAll("[data-copies]")) one.addEventListener("click", () => copy(one));
    addEventListener("beforeprint", () => { charts.onPaper(680); draw(); });
    addEventListener("afterprint", () => { charts.onPaper(null); draw(); });
    let width = byId("map").clientWidth;
    addEventListener("resize", () => {
      if (byId("map").clientWidth === width) return;
      width = byId("map").clientWidth;
      draw();
    });
  }

  fillControls();
  const best = priced.cells.reduce((found, cell) => (cell.speedup > found.speedup ? cell : found));
  Object.assign(state, { batch: best.batch, context: best.context });
  reset();
  listen();
  document.documentElement.dataset.drawn = "yes";
})();
