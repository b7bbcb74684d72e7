// The keypoints' paths over time: x above, y below.

export class Curves {
  constructor(canvas, seek) {
    this.canvas = canvas;
    this.seek = seek;
    this.track = null; // { seconds, points (Float64Array, N x K x 2), count, keypoints }
    this.marks = { index: 0, chosen: 0, keys: [] };
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pick(event);
    };
    canvas.onpointermove = (event) => event.buttons && this.pick(event);
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  pick(event) {
    if (!this.track) return;
    const { left, width } = this.canvas.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    this.seek(this.nearest(this.start + share * this.duration));
  }

  get start() {
    return this.track.seconds[0];
  }

  get duration() {
    return this.track.seconds.at(-1) - this.start || 1;
  }

  nearest(second) {
    let best = 0;
    this.track.seconds.forEach((time, index) => {
      if (Math.abs(time - second) < Math.abs(this.track.seconds[best] - second)) best = index;
    });
    return best;
  }

  // keys: [seconds, place] of the chosen keypoint, on the clock of the track.
  mark(marks) {
    Object.assign(this.marks, marks);
    this.draw();
  }

  draw() {
    const { canvas, track } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, canvas.clientWidth * ratio);
    canvas.height = Math.max(1, canvas.clientHeight * ratio);
    if (!track) return;
    this.measure();
    const context = canvas.getContext("2d");
    const ink = getComputedStyle(canvas).color;
    const band = canvas.height / 2;
    [0, 1].forEach((axis) => {
      for (let keypoint = 0; keypoint < track.keypoints; keypoint++) {
        if (keypoint !== this.marks.chosen) this.line(context, keypoint, axis, band, 0.6, ratio);
      }
      this.line(context, this.marks.chosen, axis, band, 1, 2.5 * ratio);
    });
    context.fillStyle = ink;
    this.name(context, band, ratio);
    context.globalAlpha = 0.3;
    context.fillRect(0, band, canvas.width, ratio);
    context.globalAlpha = 1;
    for (const [second, place] of this.marks.keys) this.diamond(context, second, place, band, ink, ratio);
    const seconds = track.seconds[Math.min(this.marks.index, track.count - 1)];
    context.fillRect(this.across(seconds) - ratio / 2, 0, 1.5 * ratio, canvas.height);
  }

  // The bands, readable before the lines.
  name(context, band, ratio) {
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.strokeStyle = getComputedStyle(this.canvas).backgroundColor;
    context.lineWidth = 4 * ratio;
    ["x (right)", "y (down)"].forEach((words, axis) => {
      const place = [5 * ratio, axis * band + 14 * ratio];
      context.strokeText(words, ...place);
      context.fillText(words, ...place);
    });
  }

  across(second) {
    return ((second - this.start) / this.duration) * this.canvas.width;
  }

  // Right is up in the upper band, down is down in the lower one; each shows as much as the paths need.
  down(value, axis, band) {
    const [low, high] = this.range[axis];
    const share = (value - low) / (high - low);
    return axis * band + (0.08 + 0.84 * (axis ? share : 1 - share)) * band;
  }

  measure() {
    const { points } = this.track;
    this.range = [0, 1].map((axis) => {
      let [low, high] = [Infinity, -Infinity];
      for (let index = axis; index < points.length; index += 2) {
        low = Math.min(low, points[index]);
        high = Math.max(high, points[index]);
      }
      return high - low < 0.1 ? [low - 0.05, high + 0.05] : [low, high];
    });
  }

  line(context, keypoint, axis, band, alpha, width) {
    const { seconds, points, count, keypoints } = this.track;
    context.globalAlpha = alpha;
    context.strokeStyle = `rgb(${this.colours[keypoint].join(",")})`;
    context.lineWidth = width;
    context.beginPath();
    for (let index = 0; index < count; index++) {
      context.lineTo(this.across(seconds[index]), this.down(points[2 * (index * keypoints + keypoint) + axis], axis, band));
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  diamond(context, second, place, band, ink, ratio) {
    const reach = 5 * ratio;
    place.forEach((value, axis) => {
      const [x, y] = [this.across(second), this.down(value, axis, band)];
      context.fillStyle = ink;
      context.beginPath();
      for (const [dx, dy] of [[-reach, 0], [0, -reach], [reach, 0], [0, reach]]) context.lineTo(x + dx, y + dy);
      context.fill();
    });
  }
}
