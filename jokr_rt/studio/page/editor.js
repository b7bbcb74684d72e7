// A clip, its edits and the frame that is shown. What is drawn comes from the studio; the page only keeps the document.

import { Requests } from "./connection.js";
import { Controls } from "./controls.js";
import { Curves } from "./curves.js";
import { History, keyAt, keysOf, nothing, withKey, withoutKey } from "./document.js";
import { Figures } from "./figures.js";
import { Frame } from "./frame.js";
import { Looks } from "./looks.js";
import { bitmap, complain, element, lay, offerDirections, show } from "./pictures.js";
import { Player } from "./player.js";
import { Results } from "./results.js";

const LIVE_TRACK = 40000; // poses times keypoints: a shorter track is fetched anew while something is dragged

export class Editor {
  constructor(connection) {
    this.connection = connection;
    this.requests = new Requests(connection, "draw");
    this.figures = new Figures(element("edit-figures"));
    this.clip = this.model = this.track = this.drawn = null;
    this.history = new History(nothing());
    this.draft = null; // edits that are not a step yet: something is being dragged
    this.chosen = this.index = 0;
    this.trackOf = null; // the edits that `track` belongs to
    this.lastShown = -1;
    this.isShown = false;
    this.decoding = 0; // answers whose pictures are being decoded
    this.curves = new Curves(element("curves"), (index) => this.player.seek(index));
    this.frame = new Frame(element("edit-frame"), this);
    this.player = new Player(this);
    this.controls = new Controls(this);
    this.results = new Results(this);
    this.looks = new Looks(connection, "edit", () => this.request());
    connection.on("hello", (header) => this.greet(header));
    connection.on("clip", (header, parts) => this.open(header, parts));
    connection.on("drawn", (header, parts) => this.answered(header, parts));
    connection.on("error", (header) => header.about === "draw" && this.refused(header.message));
    addEventListener("pagehide", () => this.clip && this.history.keep(this.lastClip));
  }

  get edits() {
    return this.draft || this.history.present;
  }

  get direction() {
    return element("edit-direction").value || "a2b";
  }

  // Of the shown frame, on the clock of the clip as it was found.
  get time() {
    return this.clip.seconds[this.drawn ? this.drawn.source : 0];
  }

  greet(header) {
    this.model = header;
    this.lastShown = -1;
    this.curves.colours = header.colours;
    offerDirections(element("edit-direction"), header.domains);
    if (!header.clip && this.clip) this.close();
    this.controls.offerKeypoints(header.colours.length);
    this.nameViews();
  }

  nameViews() {
    const [from, to] = this.direction.split("2");
    element("edit-from").textContent = this.clip ? this.clip.name : this.model.domains[from];
    element("edit-to").textContent = this.model.domains[to];
    this.looks.tell();
  }

  open(header, parts) {
    const [seconds, found, confidence] = parts.map(doubles);
    const isSame = this.lastClip === `${header.name} ${header.frames}`;
    this.lastClip = `${header.name} ${header.frames}`;
    this.figures.tell("mask", header.mask);
    this.clip = { ...header, seconds, found, confidence };
    this.trackOf = this.drawn = null;
    if (!isSame) {
      this.history = History.of(this.lastClip, header.edits);
      this.index = 0;
    }
    this.draft = null;
    element("edit-direction").value = header.direction;
    for (const id of ["edit-empty", "edit-loading"]) element(id).hidden = true;
    element("edit-work").hidden = false;
    complain(element("edit-error"), "");
    this.nameViews();
    this.controls.show();
    this.request();
  }

  // The studio has forgotten us, for we were away for long. The edits wait for the same clip.
  close() {
    this.player.stop();
    this.clip = this.drawn = null;
    element("edit-work").hidden = true;
    element("edit-empty").hidden = false;
    complain(element("edit-error"), "The studio has closed the clip in the meantime: open it again. Its edits are still here.");
  }

  shown() {
    this.isShown = true;
    if (this.clip) this.request();
  }

  hidden() {
    this.isShown = false;
    this.player.stop();
  }

  request() {
    if (!this.clip) return;
    const isDragging = this.draft !== null && this.clip.found.length / 2 > LIVE_TRACK;
    const track = this.trackOf !== this.edits && !isDragging;
    const heatmaps = element("edit-with-heatmaps").checked;
    this.requests.send({ edits: this.edits, direction: this.direction, index: this.index, track, heatmaps });
    this.showBusy();
  }

  // Until what is shown is what was asked for.
  showBusy() {
    element("edit-output").setAttribute("aria-busy", String(this.requests.sent.size > 0 || this.decoding > 0));
  }

  async answered(header, parts) {
    const request = this.requests.settle(header.seq);
    if (!request || !this.clip) return;
    this.results.accepted(request.header.edits);
    this.figures.tell("dropped", this.requests.dropped);
    this.figures.add(request.ms, header.ms);
    const named = Object.fromEntries(header.names.map((name, index) => [name, parts[index]]));
    if (named.track) this.takeTrack(named, request.header.edits);
    const pictures = {};
    this.decoding += 1;
    for (const name of ["output", "source", "heatmaps"]) if (named[name]) pictures[name] = await bitmap(named[name]);
    this.decoding -= 1;
    if (header.seq > this.lastShown) this.showAnswer(header, pictures);
    this.showBusy();
  }

  showAnswer(header, pictures) {
    this.lastShown = header.seq;
    this.drawn = { index: header.index, source: header.source, keypoints: header.keypoints, picture: pictures.source };
    show(element("edit-output"), pictures.output);
    element("edit-output").dataset.index = header.index;
    lay(element("edit-heatmaps"), pictures.heatmaps);
    this.frame.draw();
    this.controls.showPose();
  }

  takeTrack(named, edits) {
    const [seconds, points, sources] = [named.seconds, named.track, named.sources].map(doubles);
    const keypoints = this.model.colours.length;
    this.track = { seconds, points, sources, count: seconds.length, keypoints };
    this.trackOf = edits;
    this.curves.track = this.track;
    this.player.fit();
    this.mark();
  }

  // On the clock of the edited clip, which may be slower.
  toShown(time) {
    const start = this.clip.seconds[0];
    return start + (time - start) / this.edits.speed;
  }

  mark() {
    const keys = keysOf(this.edits, this.chosen).map((key) => [this.toShown(key.time), [key.x, key.y]]);
    this.curves.mark({ index: this.index, chosen: this.chosen, keys });
  }

  choose(keypoint) {
    this.chosen = keypoint;
    this.controls.show();
    this.frame.draw();
    this.mark();
  }

  // Other edits. isStep: one that can be undone; else it goes on, as while something is dragged.
  change(edits, isStep = true) {
    this.draft = isStep ? null : edits;
    if (isStep) this.history.do(edits);
    this.changed();
  }

  changed() {
    this.controls.show();
    this.mark();
    this.request();
  }

  // The chosen keypoint to a place of the shown frame.
  move([x, y], isStep) {
    const within = (value) => Math.round(1e4 * Math.min(1, Math.max(-1, value))) / 1e4;
    const key = { time: this.time, x: within(x), y: within(y) };
    this.change(withKey(this.edits, this.chosen, key, this.controls.style), isStep);
  }

  get key() {
    return this.drawn ? keyAt(this.edits, this.chosen, this.time) : undefined;
  }

  deleteKey() {
    if (this.key) this.change(withoutKey(this.edits, this.chosen, this.time));
  }

  // To the next key pose of the chosen keypoint in a direction, 1 or -1.
  seekKey(step) {
    const later = keysOf(this.edits, this.chosen).filter((key) => step * (key.time - this.time) > 1e-6);
    const key = step > 0 ? later[0] : later.at(-1);
    if (key && this.track) this.player.seek(this.curves.nearest(this.toShown(key.time)));
  }

  undo() {
    this.draft = null;
    this.history.undo();
    this.changed();
  }

  redo() {
    this.draft = null;
    this.history.redo();
    this.changed();
  }

  refused(words) {
    complain(element(this.results.rejected() ? "edits-error" : "edit-error"), words);
    this.changed();
  }
}

function doubles(part) {
  return new Float64Array(part.slice().buffer);
}
