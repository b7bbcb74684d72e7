// Clips in; edits in and out; videos and pictures out.

import { refusal } from "./connection.js";
import { History, format, parse } from "./document.js";
import { complain, element, download, isPicture, snapshot } from "./pictures.js";

export class Results {
  constructor(editor) {
    this.editor = editor;
    this.loaded = null; // edits of a file that the studio has not accepted yet, and the history before them
    const { connection } = editor;
    element("edit-choose").onclick = element("edit-other").onclick = () => element("edit-file").click();
    element("edit-file").onchange = (event) => this.chosen(event.target, (file) => this.upload(file));
    element("save").onclick = () => download(new Blob([format(editor.edits)], { type: "application/json" }), `${this.stem}-edits.json`);
    element("load").onclick = () => element("edits-file").click();
    element("edits-file").onchange = (event) => this.chosen(event.target, (file) => this.load(file));
    element("edit-snapshot").onclick = () => snapshot(element("edit-output"), `${this.stem}-${editor.index}.png`);
    element("export").onclick = () => connection.send("export", { edits: editor.edits, direction: editor.direction });
    element("cancel").onclick = () => connection.send("cancel");
    connection.on("hello", (header) => this.greet(header));
    connection.on("loading", (header) => this.reading(header));
    connection.on("clip", () => element("export-state").replaceChildren());
    connection.on("export", (header) => this.exported(header));
    connection.on("error", (header) => this.failed(header));
    this.takeDrops();
  }

  get stem() {
    return this.editor.clip.name.replace(/\.[^.]*$/, "") || "clip";
  }

  greet(header) {
    element("edit-choose").disabled = false;
    const { bytes, seconds } = header.limits;
    element("edit-limits").textContent = `Up to ${bytes / 2 ** 20} MB and ${seconds} seconds. It goes to the studio's machine, and is deleted when you leave.`;
  }

  chosen(field, use) {
    const [file] = field.files;
    field.value = "";
    if (file) use(file);
  }

  takeDrops() {
    const over = (event, isOver) => {
      event.preventDefault();
      document.body.classList.toggle("over", isOver);
    };
    document.addEventListener("dragover", (event) => over(event, true));
    document.addEventListener("dragleave", (event) => over(event, false));
    document.addEventListener("drop", (event) => {
      over(event, false);
      const [file] = event.dataTransfer.files;
      if (!file) return;
      if (isPicture(file)) {
        this.dropped(file);
        return;
      }
      element("tab-edit").click();
      if (file.name.endsWith(".json") && this.editor.clip) this.load(file);
      else this.upload(file);
    });
  }

  // A picture gives the looks, where there are any to be seen.
  dropped(picture) {
    const { isShown, clip } = this.editor;
    if (isShown && !clip) complain(element("edit-error"), `${picture.name} is a picture, and there is no clip: open one first.`);
  }

  upload(file) {
    complain(element("edit-error"), "");
    const { bytes } = this.editor.model.limits;
    if (file.size > bytes) {
      complain(element("edit-error"), `${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB; ${bytes / 2 ** 20} are allowed. Cut it, or make it smaller.`);
      return;
    }
    this.editor.player.stop();
    const request = new XMLHttpRequest();
    const name = encodeURIComponent(file.name);
    request.open("PUT", `visitors/${this.editor.connection.visitor}/clip?name=${name}`);
    request.upload.onprogress = (event) => this.progress("Sending the clip", event.loaded, event.total);
    request.onload = () => request.status !== 200 && this.failed({ about: "clip", message: refusal(request) });
    request.onerror = () => this.failed({ about: "clip", message: "The clip did not get through; try again." });
    request.send(file);
    this.progress("Sending the clip", 0, file.size);
  }

  reading(header) {
    this.progress("Reading the clip", header.done, header.total);
  }

  progress(what, done, total) {
    const place = element("edit-loading");
    place.hidden = false;
    element("edit-empty").hidden = true;
    place.querySelector("span").textContent = what;
    const bar = place.querySelector("progress");
    if (total) Object.assign(bar, { max: Math.max(total, done), value: done });
    else bar.removeAttribute("value");
  }

  async load(file) {
    complain(element("edits-error"), "");
    try {
      const edits = parse(await file.text());
      const { history } = this.editor;
      this.loaded = { edits, before: [history.present, [...history.past], [...history.future]] };
      this.editor.change(edits);
    } catch (error) {
      complain(element("edits-error"), `${file.name}: ${error.message}`);
    }
  }

  accepted(edits) {
    if (this.loaded && this.loaded.edits === edits) this.loaded = null;
    complain(element("edit-error"), "");
  }

  // Whether it was a loaded file that the studio refused; then the edits of before are back.
  rejected() {
    if (!this.loaded) return false;
    const [present, past, future] = this.loaded.before;
    this.loaded = null;
    this.editor.history = Object.assign(new History(present), { past, future });
    return true;
  }

  exported(header) {
    const isRunning = header.state === "running";
    element("cancel").hidden = element("export-progress").hidden = !isRunning;
    element("export").disabled = isRunning;
    const place = element("export-state");
    place.classList.toggle("error", header.state === "failed");
    if (isRunning) {
      place.textContent = `${Math.round((100 * header.done) / header.total)} %`;
      Object.assign(element("export-progress"), { max: header.total, value: header.done });
    } else if (header.state === "done") {
      const link = document.createElement("a");
      link.href = `visitors/${this.editor.connection.visitor}/export`;
      link.download = link.textContent = header.name;
      place.replaceChildren("Ready: ", link, header.message ? ` (${header.message})` : "");
    } else {
      place.textContent = header.state === "cancelled" ? "Cancelled." : header.message;
    }
  }

  failed(header) {
    if (header.about === "clip") {
      element("edit-loading").hidden = true;
      element("edit-empty").hidden = this.editor.clip !== null;
      complain(element("edit-error"), header.message);
    } else if (header.about === "export" || header.about === "cancel") {
      element("export-state").textContent = header.message;
    }
  }
}
