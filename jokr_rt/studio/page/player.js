// Where in the edited clip we are: play, step, loop.

import { element } from "./pictures.js";

export class Player {
  constructor(editor) {
    this.editor = editor;
    this.begun = null; // when playing: [clock, second of the clip]
    element("play").onclick = () => (this.begun ? this.stop() : this.play());
    element("back").onclick = () => this.step(-1);
    element("forth").onclick = () => this.step(1);
    element("position").oninput = (event) => this.seek(Number(event.target.value));
    document.addEventListener("keydown", (event) => this.typed(event));
  }

  typed(event) {
    const isField = event.target.closest("input, select, button, textarea, [role=tab]");
    if (!this.editor.isShown || !this.editor.clip) return;
    const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const isText = event.target.closest("input[type=number]");
    if (isUndo && !isText) event.shiftKey ? this.editor.redo() : this.editor.undo();
    else if (isField || event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === " ") element("play").click();
    else if (event.key === "ArrowLeft") this.step(-1);
    else if (event.key === "ArrowRight") this.step(1);
    else if (event.key === "Delete") this.editor.deleteKey();
    else return;
    event.preventDefault();
  }

  get count() {
    return this.editor.track ? this.editor.track.count : this.editor.clip.frames;
  }

  // After a change of the number of frames.
  fit() {
    element("position").max = this.count - 1;
    if (this.editor.index >= this.count) this.seek(this.count - 1);
    this.tell();
  }

  tell() {
    const { track, index } = this.editor;
    element("position").value = index;
    if (!track) return;
    const second = track.seconds[Math.min(index, track.count - 1)];
    const words = `${second.toFixed(2)} of ${track.seconds.at(-1).toFixed(2)} s, frame ${index + 1} of ${track.count}`;
    element("time").textContent = words;
    element("position").setAttribute("aria-valuetext", words);
  }

  seek(index) {
    this.stop();
    this.to(index);
  }

  to(index) {
    const { editor } = this;
    editor.index = Math.min(this.count - 1, Math.max(0, index));
    this.tell();
    editor.mark();
    editor.request();
  }

  step(by) {
    this.seek(this.editor.index + by);
  }

  // To a frame of the edited clip that the clip itself has too, where a key pose is met exactly.
  toSource() {
    const { editor } = this;
    if (editor.edits.speed === 1 || !editor.track) return;
    this.to(editor.curves.nearest(editor.toShown(editor.time)));
  }

  play() {
    if (!this.editor.track) return;
    const { seconds } = this.editor.track;
    const isAtEnd = this.editor.index >= this.count - 1;
    this.begun = [performance.now(), seconds[isAtEnd ? 0 : this.editor.index]];
    element("play").textContent = "Pause";
    this.tick();
  }

  stop() {
    this.begun = null;
    element("play").textContent = "Play";
  }

  tick() {
    if (!this.begun) return;
    const { track, index } = this.editor;
    const last = track.seconds.at(-1);
    const frame = (last - track.seconds[0]) / Math.max(1, track.count - 1) || 0.04;
    let second = this.begun[1] + (performance.now() - this.begun[0]) / 1000;
    if (second > last + frame && !element("loop").checked) {
      this.seek(this.count - 1);
      return;
    }
    if (second > last + frame) {
      this.begun = [performance.now(), track.seconds[0]];
      second = track.seconds[0];
    }
    let next = second < track.seconds[Math.min(index, track.count - 1)] ? 0 : index;
    while (next + 1 < track.count && track.seconds[next + 1] <= second) next += 1;
    if (next !== index) this.to(next);
    requestAnimationFrame(() => this.tick());
  }
}
