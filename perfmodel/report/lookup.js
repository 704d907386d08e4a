"use strict";
// What was priced, looked up: it divides and compares, and prices nothing.
const lookup = (function () {
  // Arrays are 32-bit floats in base 64, low byte first, and masks texts of 0 and 1.
  function unpacked(array) {
    if (array.bits) return { shape: array.shape, values: [...array.bits].map(Number) };
    const bytes = Uint8Array.from(atob(array.floats), (one) => one.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
    return { shape: array.shape, values };
  }

  const isArray = (found) => found && (found.floats !== undefined || found.bits !== undefined);
  const text = document.getElementById("priced").textContent;
  const priced = JSON.parse(text, (_, found) => (isArray(found) ? unpacked(found) : found));
  const PLAIN = { drafter: -1, budget: 0, length: -1, gamma: 0, tokens: 1 };

  // What the reader asks for.
  const state = {
    strategy: "best", budget: "best", gamma: "best", acceptance: "expected",
    rate: priced.rates.indexOf(0.8), batch: 0, context: 0,
  };

  // Arrays keep the axes (batch, context, budget, gamma) that they depend on; an axis of one is everywhere the same.
  function at(array, ...place) {
    const index = array.shape.reduce((sum, size, axis) => sum * size + (size === 1 ? 0 : place[axis]), 0);
    return array.values[index];
  }

  function tokens(drafter, batch, context, budget, length, acceptance) {
    const chosen = acceptance || state.acceptance;
    if (chosen === "rate") return priced.tokens_by_rate[state.rate][length];
    return at(priced.drafters[drafter].tokens[chosen], batch, context, budget, length);
  }

  // One configuration in one cell; budget and length are places on their axes.
  function option(batch, context, drafter, budget, length, acceptance) {
    const yielded = tokens(drafter, batch, context, budget, length, acceptance);
    const round = at(priced.drafters[drafter].round_s, batch, context, budget, length);
    const plain = at(priced.plain_s, batch, context, 0, 0);
    return {
      drafter, budget, length, gamma: priced.gammas[length], tokens: yielded,
      tpot: round / yielded, speedup: (plain * yielded) / round,
    };
  }

  function plainly(batch, context) {
    if (!at(priced.plain_fits, batch, context, 0, 0)) return null;
    return { ...PLAIN, tpot: at(priced.plain_s, batch, context, 0, 0), speedup: 1 };
  }

  const faster = (one, other) => (one === null || (other !== null && other.tpot < one.tpot) ? other : one);
  const places = (values, wanted) =>
    values.map((_, place) => place).filter((place) => wanted === "best" || String(values[place]) === wanted);

  // A drafter's best budget and length, by the planner's own rule: of lengths nearly as good, the shortest.
  function bestOf(drafter, batch, context) {
    const one = priced.drafters[drafter];
    const budgets = one.kv_budgets[0] === null ? [0] : places(one.kv_budgets, state.budget);
    const fits = (budget, length) => at(one.fits, batch, context, budget, length);
    const fastest = places(priced.gammas, state.gamma)
      .map((length) =>
        budgets
          .filter((budget) => fits(budget, length))
          .map((budget) => option(batch, context, drafter, budget, length))
          .reduce(faster, null))
      .filter((found) => found !== null);
    const least = Math.min(...fastest.map((found) => found.tpot));
    return fastest.find((found) => found.tpot <= least * (1 + priced.near_tie)) || null;
  }

  function isRecommendation() {
    const { strategy, budget, gamma, acceptance } = state;
    return strategy === "best" && budget === "best" && gamma === "best" && acceptance === "expected";
  }

  function recommended(batch, context) {
    const cell = priced.cells.find((one) => one.batch === batch && one.context === context);
    if (!cell) return null;
    const place = { drafter: cell.drafter, budget: cell.kv_budget, length: priced.gammas.indexOf(cell.gamma) };
    const { gamma, tokens: yielded, tpot_s: tpot, speedup } = cell;
    return { ...place, gamma, tokens: yielded, tpot, speedup, cell };
  }

  // What the reader asked for in one cell; null where nothing of it fits.
  function choose(batch, context) {
    if (isRecommendation()) return recommended(batch, context);
    const drafting = places(Object.keys(priced.drafters), state.strategy)
      .map((drafter) => bestOf(drafter, batch, context));
    const found = state.gamma === "best" ? [plainly(batch, context), ...drafting] : drafting;
    return found.reduce(faster, null);
  }

  return { priced, state, at, option, bestOf, choose, isRecommendation };
})();
