"""How soon the page has drawn the answer after a control changed: python tests/explore/measure_changes.py"""

from __future__ import annotations

import os
import shutil
import sys
from itertools import cycle, islice
from statistics import median, quantiles

from explored import running
from playwright.sync_api import sync_playwright

CHANGES = 100
MEDIAN_MS, P95_MS = 100.0, 250.0
VALUES = {
    "batch_size": [str(size) for size in (1, 2, 4, 8, 16, 32, 64, 96, 128, 24, 48)],
    "context": ["1k", "2k", "4k", "8k", "16k", "32k", "64k", "12k", "24k", "48k", "6k"],
    "acceptance_rate": [f"{0.5 + step / 40:.3f}" for step in range(16)],
    "draft_budget": ["128", "256", "512", "1024", "2048", ""],
    "strategy": ["snapkv", "streaming_llm", ""],
    "tp": ["4", "2", "8"],
    "weight_dtype": ["fp8", "int4", ""],
    "kv_cache_dtype": ["fp8", "int8", ""],
    "output_tokens": ["128", "256", "1024", "2048", "512"],
    "objective": ["quantile:0.2", "worst", ""],
}
"""What each control is changed to, in turns: no question is asked twice but where two values come back."""
CHANGE = """([name, value]) => new Promise((done) => {
  const control = document.getElementById(name), root = document.documentElement;
  const before = Number(root.dataset.answered);
  const begun = performance.now();
  new MutationObserver((_, watching) => {
    if (Number(root.dataset.answered) === before) return;
    watching.disconnect();
    requestAnimationFrame(() => done(performance.now() - begun));
  }).observe(root, { attributes: true });
  control.value = value;
  control.dispatchEvent(new Event("change", { bubbles: true }));
})"""


def main() -> int:
    """Change controls, print the times, and return 0 where they are within the limits."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    turns = {name: cycle(values) for name, values in VALUES.items()}
    took: list[tuple[float, str]] = []
    with running() as (_, address), sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, bypass_csp=True)
        page.goto(address)
        page.wait_for_selector("html[data-answered]")
        for name in islice(cycle(VALUES), CHANGES):
            took.append((page.evaluate(CHANGE, [name, next(turns[name])]), name))
        wrong = page.locator(".fault:not(:empty)").all_inner_texts()
        scrape = page.request.get(address + "metrics").text()
        browser.close()
    times = [each for each, _ in took]
    p50, p95 = median(times), quantiles(times, n=20)[18]
    for name in VALUES:
        print(f"{name:16} median {median(each for each, control in took if control == name):6.1f} ms")
    remembered = [line for line in scrape.splitlines() if line.startswith("draftplan_answers")]
    print(f"{CHANGES} changes: median {p50:.1f} ms, 95th percentile {p95:.1f} ms, most {max(times):.1f} ms")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {'; '.join(remembered)}; {wrong}")
    return int(p50 >= MEDIAN_MS or p95 >= P95_MS)


if __name__ == "__main__":
    sys.exit(main())
