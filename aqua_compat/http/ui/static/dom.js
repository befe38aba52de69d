// Makes elements. All that comes from the network goes into the page here, and only ever as text.

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 2000; // characters of a text that are shown
// Controls, and marks that turn the direction of what follows or can't be seen: a text could pass for another by them.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text as it is shown, whatever it holds. */
export function shown(value) {
  const text = String(value ?? "");
  return (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text).replace(UNSEEN, "\ufffd");
}

/** An element with attributes and children; children that are no elements are text. */
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : shown(value));
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) {
      element.append(child instanceof Node ? child : shown(child));
    }
  }
  return element;
}

/** The element with an id. */
export function at(id) {
  return document.getElementById(id);
}

/** Sets an element's text, if it is another one: a screen reader would say it again. */
export function tell(element, text) {
  const now = shown(text);
  if (element.textContent !== now) {
    element.textContent = now;
  }
}

/** Replaces what an element holds, if it is anything else. */
export function put(element, ...children) {
  const next = children.flat();
  const isSame =
    next.length === element.childNodes.length && next.every((child, i) => child.isEqualNode(element.childNodes[i]));
  if (!isSame) {
    element.replaceChildren(...next);
  }
}

/** The terms and descriptions of a list. */
export function pairs(entries) {
  return entries.map(([term, description]) =>
    make("div", {}, make("dt", {}, term), make("dd", {}, ...[description].flat())));
}

/** A peer's id by its end, where there is no room for all of it. */
export function brief(peerId) {
  const text = shown(peerId);
  return text.length > 14 ? `…${text.slice(-8)}` : text;
}

/** An id in full, which may be broken anywhere. */
export function id(text) {
  return make("code", { class: "id" }, text);
}

/** A moment, given in seconds since 1970. */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  if (!seconds || Number.isNaN(date.getTime())) {
    return make("span", {}, "unknown");
  }
  return make("time", { datetime: date.toISOString() }, date.toLocaleString());
}

/** Seconds in words. */
export function lasting(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) {
      return `${Math.floor(seconds / size)} ${unit}`;
    }
  }
  return `${Math.max(Math.floor(seconds), 0)} s`;
}

/** Brings up to date for how long what is shown has been so. */
export function age() {
  for (const element of document.querySelectorAll("[data-since]")) {
    tell(element, `for ${lasting(Date.now() / 1000 - element.dataset.since)}`);
  }
}

/** Bytes in words. */
export function size(bytes) {
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (bytes >= unit) {
      return `${(bytes / unit).toFixed(1)} ${name}`;
    }
  }
  return `${bytes} B`;
}

/** A number and what is counted, in its plural where that is due. */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
