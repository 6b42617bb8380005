#!/usr/bin/env bash
# report_page.sh [REPORT.html]: what a reader waits for a report in a browser: until it is drawn, and for each frame while moving through it.
#
# Without a report: one of 20,000 steps of LipsFormer-Swin-T, made up. Needs chromium, and build/test_train for that report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
browser=
clean() {
  [ -z "$browser" ] || kill "$browser" 2>/dev/null || true
  sleep 0.5
  rm -rf "$scratch"
}
trap clean EXIT

report=${1:-}
if [ -z "$report" ]; then
  LIPSGRAD_KEEP_REPORTS=$scratch build/test_train --no-skip --test-case='report: a long run*' >"$scratch/made.log" ||
    { cat "$scratch/made.log" >&2; exit 1; }
  report=$scratch/long.html
fi

# The page with a stopwatch: real time since the navigation began; then 60 moves over a quarter of the steps in each of four places.
cat "$report" - >"$scratch/timed.html" <<'EOF'
<script>
const frame = () => new Promise(done => requestAnimationFrame(done));
addEventListener("load", async () => {
  console.log(`report_page: loaded after ${(performance.now() / 1000).toFixed(2)} s`);
  while (![...charts].some(chart => chart.graph)) await frame();
  await frame();
  console.log(`report_page: drawn after ${(performance.now() / 1000).toFixed(2)} s`);
  const [from, to] = view.data, wide = (to - from) / 4;
  for (const place of ["training", "factors", "bounds", "entropy"]) {
    document.getElementById(place)?.scrollIntoView();
    view.set([from, from + wide]);
    for (let i = 0; i < 4; i++) await frame();
    const frames = [], drawing = [];
    for (let i = 0; i < 60; i++) {
      const begin = performance.now(), at = from + (to - from - wide) * i / 59;
      view.set([at, at + wide]);
      drawing.push(performance.now() - begin);
      await frame();
      frames.push(performance.now() - begin);
    }
    const middle = times => [...times].sort((a, b) => a - b)[30].toFixed(1);
    console.log(`report_page: ${place}: ${middle(frames)} ms a frame, ${middle(drawing)} of them drawing; worst ${Math.max(...frames).toFixed(0)}`);
  }
  console.log("report_page: done");
});
</script>
EOF
echo "report.html: $(($(stat -c %s "$report") / 1000)) kB"
chromium --headless --no-sandbox --disable-gpu --window-size=1400,1000 --user-data-dir="$scratch/profile" \
  --enable-logging=stderr --v=0 "file://$scratch/timed.html" >"$scratch/browser.log" 2>&1 &
browser=$!
for _ in $(seq 600); do
  ! grep -q 'report_page: done' "$scratch/browser.log" || break
  sleep 0.2
done
grep -o 'report_page: [^"]*' "$scratch/browser.log" | grep -v 'report_page: done' | sed 's/^report_page: //' || {
  echo "report_page.sh: the browser said nothing" >&2
  tail -n 5 "$scratch/browser.log" >&2
  exit 1
}
