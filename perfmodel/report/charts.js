"use strict";
// Draws what was looked up: the map, the time by cause, every speculation length, and a table for each.
const charts = (function () {
  const { priced, state, at, option, bestOf, choose } = lookup;
  const byId = (id) => document.getElementById(id);
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const CAUSES = [
    { name: "linear", word: "linear layers", brief: "linear", colour: "#0072B2", pattern: "" },
    { name: "attention", word: "attention", brief: "attention", colour: "#E69F00", pattern: "/" },
    { name: "recurrence", word: "recurrent states", brief: "states", colour: "#CC79A7", pattern: "x" },
    { name: "communication", word: "communication", brief: "comm.", colour: "#009E73", pattern: "." },
    { name: "overhead", word: "engine", brief: "engine", colour: "#9AA5B1", pattern: "\\" },
  ].filter(({ name }) => name in priced.plain);
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4A8A", "#8C6D31"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const INK = "#1f2933", LINE = "#dfe3e8";
  const FAMILY = getComputedStyle(document.documentElement).getPropertyValue("--data");
  const FONT = { family: FAMILY, color: INK, size: 13 };
  const CONFIG = { displayModeBar: false, responsive: true };
  // Speedup 1 is pale, less is brown, more is blue: apart in the common colour blindnesses, and in grey.
  const SCALE = [
    [0, "#8c510a"], [0.25, "#dfc27d"], [0.3333, "#f4f3ee"], [0.55, "#a6cde2"], [0.8, "#4a98c9"], [1, "#135fa7"],
  ];
  const STEPS = { 0.5: -1, 0.7: -0.5, 1: 0, 1.4: 0.5, 2: 1, 2.8: 1.5, 4: 2 };
  let paper = null; // width of the charts on paper [px], null on a screen

  // Numbers in words.
  function words(number) {
    const brief = Number(number).toPrecision(3);
    return brief.includes("e") ? String(Math.round(Number(brief))) : brief;
  }
  const ms = (seconds) => words(seconds * 1e3);
  const times = (speedup) => speedup.toFixed(2) + "×";
  const entries = (count) => count.toLocaleString("en-US");
  const safe = (text) => String(text).replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
  const letter = (drafter) => (drafter < 0 ? "–" : LETTERS[drafter % 26]);
  const named = (found) => (found.drafter < 0 ? "plain decoding" : priced.drafters[found.drafter].label);
  const brief = (found) => (found.drafter < 0 ? "" : `${letter(found.drafter)} γ${found.gamma}`);

  function short(count) {
    if (count >= 1000 && count % 1000 === 0) return count / 1000 + "k";
    return count >= 1024 && count % 1024 === 0 ? count / 1024 + "K" : entries(count);
  }

  function budgetOf(found) {
    const budget = found.drafter < 0 ? null : priced.drafters[found.drafter].kv_budgets[found.budget];
    return budget === null ? "" : entries(budget);
  }

  // How sure a speedup is: the plan's interval, or what the strategy's own acceptance leaves open.
  function range(found, batch, context) {
    if (found.drafter < 0) return "";
    const { cell, drafter, budget, length } = found;
    if (cell && cell.low !== null) return `80\u00a0% of the cases: ${cell.low.toFixed(2)}–${times(cell.high)}`;
    if (state.acceptance === "rate") return `acceptance rate ${priced.rates[state.rate].toFixed(2)}`;
    const [low, high] = ["low", "high"].map((end) => option(batch, context, drafter, budget, length, end).speedup);
    return `acceptance from low to high: ${low.toFixed(2)}–${times(high)}`;
  }

  function table(id, caption, titles, rows, chosen) {
    const head = titles.map((title) => `<th scope="col">${safe(title)}</th>`).join("");
    const cells = ([first, ...rest]) =>
      `<th scope="row">${safe(first)}</th>` + rest.map((value) => `<td>${safe(value)}</td>`).join("");
    const body = rows.map((row, place) => `<tr${place === chosen ? ' class="chosen"' : ""}>${cells(row)}</tr>`);
    byId(id).className = "number";
    byId(id).innerHTML =
      `<caption>${safe(caption)}</caption><thead><tr>${head}</tr></thead><tbody>${body.join("")}</tbody>`;
  }

  // A chart with a legend that changes its width is drawn anew: its margins follow the legend only then.
  function draw(id, traces, layout) {
    const chart = byId(id), width = String(paper || "");
    if (layout.legend && (chart.dataset.width || "") !== width) Plotly.purge(chart);
    chart.dataset.width = width;
    Plotly.react(chart, traces, {
      ...(paper ? { width: paper } : { autosize: true }),
      font: FONT, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: 10, t: 10, b: 50 },
      hoverlabel: { bgcolor: "white", bordercolor: LINE, font: FONT, align: "left" },
      ...layout,
    }, CONFIG);
  }

  const widthOf = (id) => paper || byId(id).clientWidth;

  function hover(found, batch, context) {
    const lines = [`<b>batch ${priced.batch_sizes[batch]}, context ${entries(priced.context_lens[context])}</b>`];
    if (found === null) return [...lines, "nothing fits"].join("<br>");
    lines.push(safe(named(found)));
    if (found.drafter >= 0) lines.push(`speculation length ${found.gamma}`);
    if (budgetOf(found)) lines.push(`draft KV budget ${budgetOf(found)}`);
    lines.push(`TPOT ${ms(found.tpot)} ms`, `speedup ${times(found.speedup)}`, range(found, batch, context));
    return lines.filter((line) => line).join("<br>");
  }

  function map() {
    const contexts = priced.context_lens, batches = priced.batch_sizes;
    const grid = batches.map((_, batch) => contexts.map((_, context) => choose(batch, context)));
    const each = (show) => grid.map((row, batch) => row.map((found, context) => show(found, batch, context)));
    // What a cell has room for: two lines, the number alone, or nothing.
    const roomy = widthOf("map") > 620, room = (widthOf("map") - (roomy ? 150 : 70)) / contexts.length;
    function says(found) {
      if (found === null || room < 30) return "";
      if (found.drafter < 0) return room < 45 ? "–" : "plain";
      if (room < 56) return found.speedup.toFixed(room < 40 ? 1 : 2);
      return `<b>${times(found.speedup)}</b><br>${brief(found)}`;
    }
    const axis = { type: "category", showgrid: false, zeroline: false, ticks: "", fixedrange: true };
    draw("map", [{
      type: "heatmap", x: contexts.map(short), y: batches.map(String), xgap: 2, ygap: 2,
      z: each((found) => (found === null ? null : Math.max(-1, Math.min(2, Math.log2(found.speedup))))),
      text: each(says), texttemplate: "%{text}", textfont: { size: room < 56 ? 10 : 12 },
      hovertext: each(hover), hoverinfo: "text", hoverongaps: true,
      zmin: -1, zmax: 2, colorscale: SCALE, showscale: roomy,
      colorbar: {
        title: { text: "speedup", side: "right" }, outlinewidth: 0, thickness: 12, len: 0.9,
        tickvals: Object.values(STEPS), ticktext: Object.keys(STEPS).map((step) => step + "×"),
      },
    }], {
      height: Math.max(260, 90 + 46 * batches.length),
      xaxis: { ...axis, title: { text: "context length [tokens]" } },
      yaxis: { ...axis, title: { text: "batch size [sequences]" } },
      shapes: [{
        type: "rect", line: { color: INK, width: 2.5 }, x0: state.context - 0.5, x1: state.context + 0.5,
        y0: state.batch - 0.5, y1: state.batch + 0.5,
      }],
    });
    return grid;
  }

  // The bars of one round: what a plain step, the drafts, the verification and a token cost, by cause. [s]
  function bars(found, batch, context) {
    const rows = [["plain step, 1 token", CAUSES.map(({ name }) => at(priced.plain[name], batch, context, 0, 0))]];
    if (found.drafter < 0) return rows;
    const one = priced.drafters[found.drafter], here = [batch, context, found.budget, found.length];
    const draft = CAUSES.map(({ name }) => at(one.draft[name], ...here));
    const verify = CAUSES.map(({ name }) => at(priced.verify[name], ...here));
    const once = CAUSES.map(({ name }) => (name === "overhead" ? at(one.overhead_s, ...here) : 0));
    const round = draft.map((seconds, cause) => seconds + verify[cause] + once[cause]);
    const passes = [found.gamma + (found.gamma === 1 ? " draft pass" : " draft passes"), draft];
    return [
      ...rows,
      ...(draft.some((seconds) => seconds > 0) ? [passes] : []), // looking tokens up takes no pass
      [`verification of ${found.gamma + 1}`, verify],
      [`round, ${found.tokens.toFixed(2)} tokens`, round],
      ["round per token", round.map((seconds) => seconds / found.tokens)],
    ];
  }

  function causes(found, batch, context) {
    const rows = bars(found, batch, context);
    const sums = rows.map(([, parts]) => parts.reduce((total, one) => total + one, 0));
    const names = rows.map(([name]) => name), inner = widthOf("causes") - 155;
    draw("causes", CAUSES.map(({ word, colour, pattern }, cause) => ({
      type: "bar", orientation: "h", name: word, y: names, x: rows.map(([, parts]) => parts[cause] * 1e3),
      marker: {
        color: colour, line: { color: "white", width: 0.5 },
        pattern: { shape: pattern, fillmode: "overlay", fgcolor: "white", size: 7, solidity: 0.25 },
      },
      hovertemplate: `%{y}<br>${word} %{x:.3g} ms<extra></extra>`,
    })), {
      barmode: "stack", bargap: 0.35, height: 90 + 52 * rows.length, margin: { l: 145, r: 10, t: 10, b: 45 },
      legend: { orientation: "h", x: -0.3, y: 1.02, yanchor: "bottom", traceorder: "normal" },
      xaxis: {
        title: { text: "time [ms]", standoff: 6 }, gridcolor: LINE, zeroline: false, fixedrange: true,
        range: [0, (Math.max(...sums) * 1e3 * inner) / Math.max(inner - 75, 75)],
      },
      yaxis: { autorange: "reversed", ticks: "", fixedrange: true },
      annotations: sums.map((sum, place) => ({
        x: sum * 1e3, y: names[place], text: ` ${ms(sum)} ms`, xanchor: "left", showarrow: false,
        font: { ...FONT, size: 12 },
      })),
    });
    const titles = ["", ...CAUSES.map((cause) => cause.brief), "sum"];
    const body = rows.map(([name, parts], place) => [name, ...parts.map(ms), ms(sums[place])]);
    table("causes-table", "Time by cause [ms]", titles, body, rows.length - 1);
  }

  // The drafter whose lengths are shown: the chosen one, or where plain decoding is chosen the best of the others.
  function shown(found, batch, context) {
    if (found.drafter >= 0) return found;
    return priced.drafters
      .map((_, drafter) => bestOf(drafter, batch, context))
      .reduce((best, one) => (best === null || (one !== null && one.tpot < best.tpot) ? one : best), null);
  }

  function lengths(found, batch, context) {
    const main = shown(found, batch, context);
    if (main === null) return nothing("lengths", "Nothing can draft here");
    const fits = (drafter, budget, length) => at(priced.drafters[drafter].fits, batch, context, budget, length);
    const along = (drafter, budget, end) => [1, ...priced.gammas.map((_, length) =>
      fits(drafter, budget, length) ? option(batch, context, drafter, budget, length, end).speedup : null)];
    const x = [0, ...priced.gammas], colour = (drafter) => COLOURS[drafter % COLOURS.length], traces = [];
    if (state.acceptance !== "rate") {
      const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      traces.push({ ...edge, y: along(main.drafter, main.budget, "low") });
      const filled = { fill: "tonexty", fillcolor: colour(main.drafter) + "22" };
      traces.push({ ...edge, ...filled, y: along(main.drafter, main.budget, "high") });
    }
    priced.drafters.forEach((one, drafter) => {
      const mine = drafter === main.drafter, best = mine ? main : bestOf(drafter, batch, context);
      if (best === null) return;
      const kept = budgetOf(best);
      traces.push({
        x, y: along(drafter, best.budget), name: safe(one.label) + (kept ? `, KV ${kept}` : ""),
        mode: "lines+markers", marker: { size: mine ? 7 : 5, color: colour(drafter), symbol: drafter % 8 },
        line: { width: mine ? 2.5 : 1.3, color: colour(drafter), dash: DASHES[drafter % DASHES.length] },
        hovertemplate: "length %{x}: %{y:.2f}×",
      });
    });
    const axis = { gridcolor: LINE, zeroline: false, fixedrange: true };
    const step = priced.gammas.length > 8 ? 2 : 1;
    draw("lengths", traces, {
      height: 370, hovermode: "x",
      legend: { orientation: "h", x: 0, y: 1.03, yanchor: "bottom", traceorder: "normal" },
      shapes: [{ type: "line", x0: 0, x1: 1, xref: "paper", y0: 1, y1: 1, line: { color: INK, width: 1 } }],
      xaxis: { ...axis, title: { text: "speculation length [tokens]", standoff: 6 }, dtick: step },
      yaxis: { ...axis, title: { text: "speedup [1]" } },
    });
    const plain = ["0", "1.00", ms(at(priced.plain_s, batch, context, 0, 0)), "1.00×"];
    const rows = priced.gammas.map((gamma, length) => {
      if (!fits(main.drafter, main.budget, length)) return [gamma, "does not fit", "", ""];
      const one = option(batch, context, main.drafter, main.budget, length);
      return [gamma, one.tokens.toFixed(2), ms(one.tpot), times(one.speedup)];
    });
    const caption = named(main) + (budgetOf(main) ? `, draft KV budget ${budgetOf(main)}` : "");
    const titles = ["length", "tokens per round", "ms per token", "speedup"];
    table("lengths-table", caption, titles, [plain, ...rows], found.drafter < 0 ? 0 : found.length + 1);
  }

  // Acceptance needed and known of each drafter in one cell, the interval of what is believed as a bar.
  function needed(batch, context) {
    const rows = priced.needed
      .map((one) => [one.label, ...["needed", "known", "low", "high"].map((name) => at(one[name], batch, context, 0, 0))])
      .filter(([, rate]) => !Number.isNaN(rate));
    if (!rows.length) return nothing("needed", "Nothing can draft here");
    const names = rows.map(([name]) => safe(name)), column = (place) => rows.map((row) => row[place]);
    draw("needed", [
      {
        type: "scatter", mode: "markers", name: "known, with 80\u00a0% of what is believed", y: names, x: column(2),
        marker: { color: COLOURS[0], size: 10 },
        error_x: {
          type: "data", symmetric: false, color: COLOURS[0], thickness: 3, width: 0,
          array: rows.map(([, , known, , high]) => high - known),
          arrayminus: rows.map(([, , known, low]) => known - low),
        },
        hovertemplate: "%{y}<br>known %{x:.2f}<extra></extra>",
      },
      {
        type: "scatter", mode: "markers", name: "needed to pay", y: names, x: column(1),
        marker: { color: COLOURS[1], size: 10, symbol: "diamond" },
        hovertemplate: "%{y}<br>needed %{x:.2f}<extra></extra>",
      },
    ], {
      height: 130 + 34 * rows.length, margin: { l: 145, r: 15, t: 10, b: 45 },
      legend: { orientation: "h", x: -0.3, y: 1.03, yanchor: "bottom" },
      xaxis: { title: { text: "rate of every drafted token [1]", standoff: 6 }, gridcolor: LINE, zeroline: false,
        range: [-0.02, 1.02], fixedrange: true },
      yaxis: { autorange: "reversed", ticks: "", fixedrange: true, gridcolor: LINE, type: "category" },
    });
    const body = rows.map(([name, rate, known, low, high]) =>
      [name, rate.toFixed(2), known.toFixed(2), `${low.toFixed(2)}–${high.toFixed(2)}`, known > rate ? "yes" : "no"]);
    const pays = rows.filter(([, rate, known]) => known > rate).length;
    const said = `Drafting pays where known is above needed: ${pays} of ${rows.length} drafters here.`;
    table("needed-table", said, ["drafter", "needed", "known", "80\u00a0%", "pays"], body, -1);
  }

  // Throughput of a GPU against time per token at one context: plain decoding, and what is chosen at each batch.
  function latency(context, chosen) {
    const each = (batch, tpot) => [tpot * 1e3, priced.batch_sizes[batch] / tpot / priced.gpus];
    const batches = priced.batch_sizes.map((_, batch) => batch);
    const plain = batches.filter((batch) => at(priced.plain_fits, batch, context, 0, 0))
      .map((batch) => [batch, ...each(batch, at(priced.plain_s, batch, context, 0, 0))]);
    const best = batches.map((batch) => [batch, choose(batch, context)]).filter(([, found]) => found !== null)
      .map(([batch, found]) => [batch, ...each(batch, found.tpot), found]);
    if (!best.length && !plain.length) return nothing("latency", "Nothing fits at this context");
    const size = ([batch]) => String(priced.batch_sizes[batch]);
    const line = (name, rows, more) => ({
      name, x: rows.map((row) => row[1]), y: rows.map((row) => row[2]), mode: "lines+markers+text",
      text: rows.map(size), textposition: "top left", textfont: { size: 11 },
      hovertemplate: "batch %{text}: %{y:.3s} tokens/s per GPU at %{x:.3g} ms", ...more,
    });
    const axis = { gridcolor: LINE, zeroline: false, fixedrange: true, rangemode: "tozero" };
    const marks = best.map(([batch]) => (batch === chosen ? 14 : 8));
    draw("latency", [
      line("plain decoding", plain, {
        mode: "lines+markers", line: { dash: "dot", color: "#7b8794", width: 1.6 }, marker: { symbol: "x", size: 7 },
      }),
      line("what the map shows", best, { line: { color: COLOURS[0], width: 2.5 }, marker: { size: marks } }),
    ], {
      height: 340, legend: { orientation: "h", x: 0, y: 1.03, yanchor: "bottom" },
      xaxis: { ...axis, title: { text: "time per output token [ms]", standoff: 6 } },
      yaxis: { ...axis, title: { text: "throughput of one GPU [tokens/s]" } },
    });
    const without = new Map(plain.map(([batch, , rate]) => [batch, rate]));
    const rows = best.map(([batch, time, rate, found]) => [
      size([batch]), words(time), words(rate), without.has(batch) ? words(without.get(batch)) : "does not fit",
      named(found),
    ]);
    const said = `Context ${entries(priced.context_lens[context])}; tokens per second and GPU, chosen and plain`;
    const titles = ["batch", "ms per token", "chosen", "plain", "what is chosen"];
    table("latency-table", said, titles, rows, best.findIndex(([batch]) => batch === chosen));
  }

  // The figures that could change the decision, the first of them above: speedup from end to end.
  function doubts() {
    const { figures, middle, of, batch, context } = priced.doubts, most = figures.slice(0, 10);
    if (!most.length) return nothing("doubts", "");
    byId("doubts-name").textContent =
      `Speedup of ${of} at the ends of each doubtful figure, batch ${batch}, context ${entries(context)}`;
    const names = most.map(({ name }) => safe(name.split(" (")[0]));
    const start = most.map((one) => middle ?? Math.min(one.speedup_low ?? 1, one.speedup_high ?? 1));
    const bar = (end, word, colour, shape) => ({
      type: "bar", orientation: "h", name: word, y: names, base: start,
      x: most.map((one, place) => (one[`speedup_${end}`] ?? start[place]) - start[place]),
      marker: { color: colour, pattern: { shape, fillmode: "overlay", fgcolor: "white", size: 7, solidity: 0.25 } },
      customdata: most.map((one) => [safe(one[end]), one[`speedup_${end}`]]),
      hovertemplate: "%{y}<br>%{customdata[0]}: %{customdata[1]:.2f}×<extra></extra>",
    });
    draw("doubts", [
      bar("low", "at its low end", COLOURS[1], "/"), bar("high", "at its high end", COLOURS[0], ""),
    ], {
      barmode: "overlay", bargap: 0.4, height: 110 + 30 * most.length, margin: { l: widthOf("doubts") > 620 ? 330 : 150, r: 10, t: 10, b: 45 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: { title: { text: `speedup of ${of} [1]`, standoff: 6 }, gridcolor: LINE, zeroline: false, fixedrange: true },
      yaxis: { autorange: "reversed", ticks: "", fixedrange: true, type: "category" },
      shapes: middle === null ? [] : [
        { type: "line", x0: middle, x1: middle, y0: 0, y1: 1, yref: "paper", line: { color: INK, width: 1 } },
      ],
    });
    const speedup = (value) => (value === null ? "not allowed" : times(value));
    const rows = figures.map((one) => [
      one.name, one.kind, `${one.low} to ${one.high}`, `${speedup(one.speedup_low)} to ${speedup(one.speedup_high)}`,
      one.instead, one.command,
    ]);
    const titles = ["figure", "kind", "range", "speedup", "chosen instead", "what settles it"];
    table("doubts-table", "Each figure alone, all others kept", titles, rows, -1);
    byId("doubts-table").className = "";
  }

  function nothing(id, caption) {
    Plotly.purge(id);
    table(id + "-table", caption, [], []);
  }

  const onPaper = (width) => { paper = width; };
  const inWords = { ms, times, entries, short, safe, letter, named, brief, budgetOf, range };
  return { map, causes, lengths, needed, latency, doubts, nothing, onPaper, ...inWords };
})();
