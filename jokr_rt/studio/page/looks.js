// What is drawn looks as the model has it, or as in a picture of the visitor's: for each direction by itself.

import { refusal } from "./connection.js";
import { complain, element, isPicture } from "./pictures.js";

export class Looks {
  // tab: "live" or "edit". changed: called when something else is drawn from now on.
  constructor(connection, tab, changed = () => {}) {
    Object.assign(this, { connection, tab, changed, model: null, chosen: {}, doing: "" });
    this.root = element(`${tab}-looks`);
    this.root.append(element("looks").content.cloneNode(true));
    const file = this.part("input");
    this.part(".choose").onclick = () => file.click();
    file.onchange = () => {
      const [picture] = file.files;
      file.value = "";
      if (picture) this.send("PUT", picture);
    };
    this.part(".own").onclick = () => this.send("DELETE");
    document.addEventListener("drop", (event) => {
      const [dropped] = event.dataTransfer.files;
      if (dropped && isPicture(dropped) && this.root.offsetParent) this.send("PUT", dropped);
    });
    connection.on("hello", (header) => (this.model = header));
    connection.on("looks", (header, parts) => this.take(header.names, parts));
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  get direction() {
    return element(`${this.tab}-direction`).value || "a2b";
  }

  take(names, parts) {
    for (const { url } of Object.values(this.chosen)) URL.revokeObjectURL(url);
    const picture = (index) => URL.createObjectURL(new Blob([parts[index]], { type: "image/jpeg" }));
    const chosen = Object.entries(names).map(([direction, name], index) => [direction, { name, url: picture(index) }]);
    this.chosen = Object.fromEntries(chosen);
    this.tell();
    this.changed();
  }

  tell() {
    const { direction, doing, model } = this;
    const chosen = this.chosen[direction];
    const creature = model.domains[direction.split("2")[1]];
    const preview = this.part("img");
    preview.hidden = this.part(".own").hidden = !chosen;
    if (chosen) preview.src = chosen.url;
    this.part("[role=status]").textContent = doing || `${creature} looks as ${chosen ? `in ${chosen.name}` : "the model has it"}.`;
    this.part("progress").hidden = !doing;
    for (const button of this.root.querySelectorAll("button")) button.disabled = doing !== "";
  }

  send(method, file = null) {
    const bytes = this.model.limits.looks_bytes;
    if (file && file.size > bytes) {
      this.done(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB; ${bytes / 2 ** 20} are allowed. Make it smaller.`);
      return;
    }
    const query = new URLSearchParams({ direction: this.direction, name: file ? file.name : "" });
    const request = new XMLHttpRequest();
    request.open(method, `visitors/${this.connection.visitor}/looks?${query}`);
    request.upload.onload = () => this.begin("Reading the picture ...");
    request.onload = () => this.done(refusal(request));
    request.onerror = () => this.done("The studio was not reached; try again.");
    this.begin(file ? "Sending the picture ..." : "Going back ...");
    request.send(file);
  }

  begin(words) {
    this.doing = words;
    complain(this.part("[role=alert]"), "");
    this.tell();
  }

  done(complaint) {
    this.doing = "";
    complain(this.part("[role=alert]"), complaint);
    this.tell();
  }
}
