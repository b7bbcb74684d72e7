// The camera's background: learnt while nobody is in the picture, and then black for the model.

import { element } from "./pictures.js";

const WARNING = 3; // seconds to step out of the picture

export class Background {
  constructor() {
    this.wanted = null; // the number that frames are sent with: the studio learns another one anew
    this.number = 0;
    this.timer = null; // while there is time to step out
    element("live-learn").onclick = () => this.learn(WARNING);
  }

  // What was learnt is none any more: another camera, connection or choice.
  renew(isOn) {
    clearTimeout(this.timer);
    this.timer = this.wanted = null;
    const isChosen = element("live-background").value === "learnt";
    element("live-learn").hidden = !isChosen;
    element("live-learn").disabled = !isOn;
    this.say(isChosen && !isOn ? "It is learnt when the camera starts." : "");
    if (isChosen && isOn) this.learn(WARNING);
  }

  learn(seconds) {
    clearTimeout(this.timer);
    if (seconds > 0) {
      this.say(`Step out of the picture: ${seconds}`);
      this.timer = setTimeout(() => this.learn(seconds - 1), 1000);
    } else {
      this.timer = null;
      this.wanted = this.number += 1;
    }
  }

  // A frame that was sent with that number.
  answered(number, mask) {
    if (this.timer !== null || number === null || number !== this.wanted) return;
    const isLearning = mask === "learning";
    this.say(isLearning ? "Learning the background: stay out of the picture ..." : "The background is learnt. Learn it again when the camera has moved.");
  }

  say(words) {
    const place = element("live-learning");
    if (place.textContent !== words) place.textContent = words;
  }
}
