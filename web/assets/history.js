// Undo and redo: states that can be returned to. All changes of one gesture, such as the drag of a slider, are one step.

const MAX_STEPS = 100;

export class History {
  constructor() {
    this.past = [];
    this.future = [];
    this.gesture = "";
  }

  // ``before``: the state that a change replaces; ``gesture``: of what it is a part, "" for a change of its own.
  record(before, gesture) {
    if (gesture && gesture === this.gesture) return;
    this.gesture = gesture;
    this.past.push(before);
    if (this.past.length > MAX_STEPS) this.past.shift();
    this.future = [];
  }

  endGesture() {
    this.gesture = "";
  }

  // Return the state before ``present``, or undefined.
  undo(present) {
    return this.move(this.past, this.future, present);
  }

  redo(present) {
    return this.move(this.future, this.past, present);
  }

  move(from, to, present) {
    if (!from.length) return undefined;
    this.endGesture();
    to.push(present);
    return from.pop();
  }
}
