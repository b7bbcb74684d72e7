// Form fields of the edits, and back.

import { STYLE, keysOf, nothing, trackOf, withStyle } from "./document.js";
import { element, lay } from "./pictures.js";

const SPEEDS = [0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 4];
const CUTOFFS = [0, 12, 8, 6, 4, 3, 2, 1.5, 1, 0.7, 0.5]; // Hz; 0 is none

export class Controls {
  constructor(editor) {
    this.editor = editor;
    this.style = { ...STYLE }; // of the next keypoint that gets keys
    this.slide("exaggerate", (value) => value);
    this.slide("smooth", (value) => CUTOFFS[value]);
    this.slide("speed", (value) => SPEEDS[value]);
    Object.assign(element("smooth"), { max: CUTOFFS.length - 1 });
    Object.assign(element("speed"), { min: 0, max: SPEEDS.length - 1, step: 1 });
    element("mirror").onchange = (event) => editor.change({ ...editor.edits, mirror: event.target.checked });
    element("keypoint").onchange = (event) => editor.choose(Number(event.target.value));
    for (const id of ["x", "y"]) element(id).onchange = () => this.typedPlace();
    element("interpolation").onchange = (event) => this.restyle({ interpolation: event.target.value });
    element("fade").onchange = (event) => event.target.validity.valid && this.restyle({ fade: Number(event.target.value) });
    element("key-delete").onclick = () => editor.deleteKey();
    element("key-before").onclick = () => editor.seekKey(-1);
    element("key-after").onclick = () => editor.seekKey(1);
    element("undo").onclick = () => editor.undo();
    element("redo").onclick = () => editor.redo();
    element("reset").onclick = () => editor.change(nothing());
    element("edit-direction").onchange = () => {
      editor.nameViews();
      editor.request();
    };
    for (const id of ["edit-points", "edit-found"]) element(id).onchange = () => editor.frame.draw();
    element("edit-with-heatmaps").onchange = () => {
      lay(element("edit-heatmaps"), null);
      editor.request();
    };
  }

  slide(name, meaning) {
    const { editor } = this;
    const field = element(name);
    field.oninput = () => editor.change({ ...editor.edits, [name]: meaning(Number(field.value)) }, false);
    field.onchange = () => editor.change({ ...editor.edits, [name]: meaning(Number(field.value)) });
  }

  restyle(style) {
    Object.assign(this.style, style);
    this.editor.change(withStyle(this.editor.edits, this.editor.chosen, style));
  }

  typedPlace() {
    if (["x", "y"].every((id) => element(id).value !== "" && element(id).validity.valid)) this.editor.move(this.place, true);
  }

  offerKeypoints(count) {
    const options = Array.from({ length: count }, (_, index) => new Option(String(index), String(index)));
    element("keypoint").replaceChildren(...options);
  }

  // The chosen keypoint's place in the shown frame.
  get place() {
    return [Number(element("x").value), Number(element("y").value)];
  }

  show() {
    const { edits, history, chosen } = this.editor;
    element("keypoint").value = String(chosen);
    element("swatch").style.background = `rgb(${this.editor.model.colours[chosen].join(",")})`;
    const { interpolation, fade } = { ...STYLE, ...(trackOf(edits, chosen) || this.style) };
    element("interpolation").value = interpolation;
    element("fade").value = fade;
    set("exaggerate", edits.exaggerate, ...times(edits.exaggerate));
    set("smooth", nearest(CUTOFFS, edits.smooth), ...(edits.smooth ? [`${edits.smooth} Hz`, `${edits.smooth} hertz`] : ["none", "none"]));
    set("speed", nearest(SPEEDS, edits.speed), ...times(edits.speed));
    element("mirror").checked = edits.mirror;
    element("undo").disabled = !history.past.length;
    element("redo").disabled = !history.future.length;
    this.showPose();
  }

  showPose() {
    const { drawn, chosen, clip, model, edits } = this.editor;
    const isKeyed = this.editor.key !== undefined;
    element("key-delete").disabled = !isKeyed;
    for (const id of ["key-before", "key-after"]) element(id).disabled = !keysOf(edits, chosen).length;
    if (!drawn) return;
    const key = this.editor.key;
    const [x, y] = key ? [key.x, key.y] : drawn.keypoints[chosen];
    for (const [id, value] of [["x", x], ["y", y]]) if (document.activeElement !== element(id)) element(id).value = value.toFixed(3);
    const sure = Math.round(100 * clip.confidence[model.colours.length * drawn.source + chosen]);
    const doubt = clip.doubt ? `. This clip ${clip.doubt}` : "";
    element("confidence").textContent = `${isKeyed ? "key pose here" : "no key pose here"}, confidence ${sure} %${doubt}`;
  }
}

const times = (factor) => [`${factor} \u00d7`, `${factor} times`];

// spoken: what a reader of the screen says, in place of the field's own number.
function set(id, value, words, spoken) {
  const field = element(id);
  if (document.activeElement !== field || Number(field.value) !== value) field.value = value;
  field.setAttribute("aria-valuetext", spoken);
  field.parentElement.querySelector("output").textContent = words;
}

function nearest(values, wanted) {
  const distances = values.map((value) => Math.abs(value - wanted));
  return distances.indexOf(Math.min(...distances));
}
