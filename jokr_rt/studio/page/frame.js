// The frame of the clip with the keypoints on it, which can be dragged.

import { drawKeypoints, drawTraces, element } from "./pictures.js";

// How near a keypoint one must press: a share of the frame's width, and as many pixels as a finger needs at least.
const REACH = 1 / 14;
const FINGER = 12;

export class Frame {
  constructor(canvas, editor) {
    this.canvas = canvas;
    this.editor = editor;
    this.drag = null;
    canvas.onpointerdown = (event) => this.press(event);
    canvas.onpointermove = (event) => this.drag && this.pull(event, false);
    canvas.onpointerup = (event) => this.drag && this.release(event);
    canvas.onpointercancel = () => this.cancel();
    canvas.onkeydown = (event) => this.typed(event);
  }

  // [-1, 1] of where the pointer is.
  place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(2 * (event.clientX - left)) / width - 1, (2 * (event.clientY - top)) / height - 1];
  }

  press(event) {
    const { drawn, player } = this.editor;
    if (!drawn) return;
    player.stop();
    const at = this.place(event);
    const distances = drawn.keypoints.map(([x, y]) => Math.hypot(x - at[0], y - at[1]));
    const nearest = distances.indexOf(Math.min(...distances));
    const reach = Math.max(REACH, FINGER / this.canvas.clientWidth);
    if (distances[nearest] > 2 * reach) return;
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    this.editor.choose(nearest);
    player.toSource();
    const [x, y] = drawn.keypoints[nearest];
    this.drag = { offset: [x - at[0], y - at[1]], moved: null };
  }

  pull(event, isStep) {
    const [x, y] = this.place(event);
    this.drag.moved = [x + this.drag.offset[0], y + this.drag.offset[1]];
    this.editor.move(this.drag.moved, isStep);
    this.draw();
  }

  release(event) {
    if (this.drag.moved) this.pull(event, true);
    this.drag = null;
  }

  cancel() {
    this.drag = null;
    this.editor.draft = null;
    this.editor.changed();
  }

  typed(event) {
    const { editor } = this;
    const count = editor.model.colours.length;
    const step = (event.shiftKey ? 10 : 1) * 0.01;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "[") editor.choose((editor.chosen + count - 1) % count);
    else if (event.key === "]") editor.choose((editor.chosen + 1) % count);
    else if (steps[event.key] && editor.drawn && !event.ctrlKey) {
      const [x, y] = editor.controls.place;
      editor.move([x + steps[event.key][0], y + steps[event.key][1]], true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    const { canvas, editor } = this;
    const { drawn, model, clip, chosen } = editor;
    if (!drawn) return;
    canvas.getContext("2d").drawImage(drawn.picture, 0, 0, canvas.width, canvas.height);
    const count = model.colours.length;
    if (element("edit-found").checked) {
      const start = 2 * count * drawn.source;
      const found = model.colours.map((_, index) => [clip.found[start + 2 * index], clip.found[start + 2 * index + 1]]);
      drawTraces(canvas, found, model.colours);
    }
    if (!element("edit-points").checked) return;
    const keypoints = [...drawn.keypoints];
    if (this.drag && this.drag.moved) keypoints[chosen] = this.drag.moved;
    const confidence = clip.confidence.subarray(count * drawn.source, count * (drawn.source + 1));
    drawKeypoints(canvas, keypoints, model.colours, confidence, chosen);
  }
}
