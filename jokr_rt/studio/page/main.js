// The page: what both tabs share.

import { Connection } from "./connection.js";
import { Live } from "./live.js";
import { Editor } from "./editor.js";
import { complain, element } from "./pictures.js";

const TABS = ["live", "edit"];

const connection = new Connection();
const live = new Live(connection);
const editor = new Editor(connection);

function choose(name) {
  for (const tab of TABS) {
    const button = element(`tab-${tab}`);
    button.setAttribute("aria-selected", String(tab === name));
    button.tabIndex = tab === name ? 0 : -1;
    element(tab).hidden = tab !== name;
  }
  if (name === "edit") {
    if (live.stream) live.stop();
    editor.shown();
  } else {
    editor.hidden();
  }
}

for (const name of TABS) {
  const button = element(`tab-${name}`);
  button.onclick = () => choose(name);
  button.onkeydown = (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = TABS.find((tab) => tab !== name);
    choose(other);
    element(`tab-${other}`).focus();
  };
}

connection.on("hello", (header) => {
  complain(element("trouble"), "");
  const { a, b } = header.domains;
  element("facts").textContent = `${a} and ${b}, ${header.size} \u00d7 ${header.size}, ${header.engine} ${header.precision}`;
  if (header.clip) choose("edit");
});
connection.on("closed", (header) => complain(element("trouble"), header.reason));
connection.on("error", (header) => header.about === "" && complain(element("trouble"), header.message));

connection.open();
