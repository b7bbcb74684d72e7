// The camera's frames to the studio, and back as the other creature: never more than two under way, always the newest.

import { Background } from "./background.js";
import { Requests } from "./connection.js";
import { Figures } from "./figures.js";
import { Looks } from "./looks.js";
import { bitmap, complain, drawKeypoints, element, lay, offerDirections, show, snapshot } from "./pictures.js";

export class Live {
  constructor(connection) {
    this.connection = connection;
    this.requests = new Requests(connection, "live");
    this.figures = new Figures(element("live-figures"));
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true });
    this.stream = null;
    this.background = new Background();
    this.looks = new Looks(connection, "live");
    this.model = null;
    this.sent = new Map(); // by sequence number, what was sent
    this.isFresh = this.isEncoding = false;
    this.skipped = 0;
    this.shown = -1;
    element("live-start").onclick = () => (this.stream ? this.stop() : this.start());
    element("live-snapshot").onclick = () => snapshot(element("live-output"), "jokr-camera.png");
    element("live-direction").onchange = () => this.nameViews();
    element("live-mirror").onchange = () => this.background.renew(this.isOn);
    element("live-background").onchange = () => this.background.renew(this.isOn);
    element("live-with-heatmaps").onchange = () => lay(element("live-heatmaps"), null);
    connection.on("hello", (header) => this.greet(header));
    connection.on("live", (header, parts) => this.answered(header, parts));
    connection.on("dropped", (header) => header.of === "live" && this.sent.delete(header.seq) && this.pump());
    connection.on("error", (header) => header.about === "live" && this.failed(header));
    connection.on("closed", () => this.sent.clear());
  }

  greet(header) {
    this.model = header;
    this.shown = -1;
    offerDirections(element("live-direction"), header.domains);
    element("live-start").disabled = false;
    this.nameViews();
    this.background.renew(this.isOn); // the studio has none for this connection
    this.pump();
  }

  get isOn() {
    return this.stream !== null;
  }

  nameViews() {
    const target = element("live-direction").value === "a2b" ? "b" : "a";
    element("live-to").textContent = this.model.domains[target];
    this.looks.tell();
  }

  async start() {
    complain(element("live-error"), "");
    if (!navigator.mediaDevices) {
      const port = location.port || "80";
      complain(element("live-error"), "Browsers give a page the camera only over https or from this machine. From another machine, " +
        `run ssh -L ${port}:localhost:${port} ${location.hostname} there and open http://localhost:${port}/ (and start jokr studio without --host).`);
      return;
    }
    try {
      const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      complain(element("live-error"), explain(error));
      return;
    }
    this.stream.getVideoTracks()[0].onended = () => this.stop("The camera was taken away; press Start camera to go on.");
    this.video.srcObject = this.stream;
    await this.video.play();
    element("live-empty").hidden = true;
    element("live-start").textContent = "Stop camera";
    element("live-snapshot").disabled = false;
    this.background.renew(true);
    this.watch();
  }

  stop(words = "") {
    for (const track of this.stream?.getTracks() || []) track.stop();
    this.stream = this.video.srcObject = null;
    element("live-start").textContent = "Start camera";
    this.background.renew(false);
    complain(element("live-error"), words);
  }

  // Called for every frame that the camera gives.
  watch() {
    if (!this.stream) return;
    if (this.isFresh) this.figures.tell("skipped", (this.skipped += 1));
    this.isFresh = true;
    this.pump();
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(() => this.watch());
    else setTimeout(() => this.watch(), 33);
  }

  pump() {
    if (!this.stream || !this.isFresh || this.isEncoding || this.requests.isFull || !this.connection.isOpen) return;
    this.isFresh = false;
    this.isEncoding = true;
    const frame = this.grab();
    frame.toBlob(async (blob) => {
      const jpeg = await blob.arrayBuffer();
      this.isEncoding = false;
      const seq = this.requests.sequence;
      const smooth = Number(element("live-smooth").value) || null;
      const heatmaps = element("live-with-heatmaps").checked;
      const background = this.background.wanted;
      this.requests.send({ direction: element("live-direction").value, smooth, background, heatmaps }, jpeg);
      this.sent.set(seq, frame);
      this.pump();
    }, "image/jpeg", 0.9);
  }

  // The camera's picture as the model takes it: whole, in a square.
  grab() {
    const canvas = document.createElement("canvas");
    const size = (canvas.width = canvas.height = this.model.size);
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = size / Math.max(width, height);
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, size, size);
    if (element("live-mirror").checked) context.setTransform(-1, 0, 0, 1, size, 0);
    context.drawImage(this.video, (size - scale * width) / 2, (size - scale * height) / 2, scale * width, scale * height);
    return canvas;
  }

  async answered(header, parts) {
    const request = this.requests.settle(header.seq);
    const frame = this.sent.get(header.seq);
    this.sent.delete(header.seq);
    this.pump();
    if (!request || !frame) return;
    this.figures.tell("dropped", this.requests.dropped);
    this.figures.tell("mask", header.mask);
    if (header.doubt !== undefined) this.figures.tell("creature", header.doubt || "as the model knows it");
    this.figures.add(request.ms, header.ms);
    const pictures = Object.fromEntries(await Promise.all(parts.map(async (part, index) => [header.names[index], await bitmap(part)])));
    if (header.seq < this.shown || !this.stream) return;
    this.shown = header.seq;
    const source = element("live-source");
    source.getContext("2d").drawImage(pictures.seen || frame, 0, 0, source.width, source.height);
    element("live-from").textContent = pictures.seen ? "what the model sees" : "camera";
    this.background.answered(request.header.background, header.mask);
    lay(element("live-heatmaps"), pictures.heatmaps);
    if (!pictures.output) return; // a background is being learnt
    if (element("live-points").checked) drawKeypoints(source, header.keypoints, this.model.colours, header.confidence);
    show(element("live-output"), pictures.output);
  }

  failed(header) {
    this.sent.delete(header.seq);
    complain(element("live-error"), header.message);
    this.pump();
  }
}

function explain(error) {
  if (error.name === "NotAllowedError") return "The browser did not allow the camera: allow it for this page, then press Start camera again.";
  if (error.name === "NotFoundError") return "There is no camera on this machine. A clip works without one: see the tab Clip.";
  return `The camera cannot be used (${error.message || error.name}). Does another program have it?`;
}
