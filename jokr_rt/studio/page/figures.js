// What it takes: medians of the last answers, and what else is to be told.

const KEPT = 90;

export class Figures {
  constructor(list) {
    this.list = list;
    this.stages = new Map();
    this.facts = new Map();
    this.shown = 0;
    this.times = [];
  }

  add(roundTrip, stages) {
    for (const [name, ms] of Object.entries({ "round trip": roundTrip, ...stages })) {
      const kept = this.stages.get(name) || [];
      kept.push(ms);
      this.stages.set(name, kept.slice(-KEPT));
    }
    this.times.push(performance.now());
    this.times = this.times.slice(-KEPT);
    this.show();
  }

  tell(name, value) {
    this.facts.set(name, value);
  }

  median(name) {
    const sorted = [...(this.stages.get(name) || [])].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  get rate() {
    const now = performance.now();
    const recent = this.times.filter((time) => now - time < 2000);
    return recent.length > 1 ? (1000 * (recent.length - 1)) / (recent.at(-1) - recent[0]) : 0;
  }

  show() {
    const now = performance.now();
    if (now - this.shown < 250) return;
    this.shown = now;
    const rows = [["frames a second", this.rate.toFixed(0)]];
    for (const name of this.stages.keys()) rows.push([name, `${this.median(name).toFixed(1)} ms`]);
    for (const [name, value] of this.facts) rows.push([name, String(value)]);
    this.list.replaceChildren(...rows.map(([name, words]) => entry(name, words)));
  }
}

function entry(name, words) {
  const [group, term, value] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
  term.textContent = name;
  value.textContent = words;
  value.dataset.figure = name;
  group.append(term, value);
  return group;
}
